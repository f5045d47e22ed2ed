"""Plans: those that come with Berth, and what administrators make of them.

A plan is a template for orders. Clusters keep the values they were ordered with, whatever becomes of their plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from provisioning.catalog.specs import plan_problems
from provisioning.engines.registry import ENGINES
from provisioning.models import CLUSTER_NAME_RULE, Cluster, Plan, Target
from tenants.refusals import Conflict, FieldError, Invalid, Missing

# engine, name, title, description, values
BUILT_IN: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    (
        "redis",
        "redis-dev",
        "Development",
        "Small and quick; fits a laptop. Three shards with a replica each.",
        {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1, "nodeTimeoutMs": 5000},
    ),
    (
        "redis",
        "redis-standard",
        "Standard",
        "Three shards of 2 GiB with a replica each, append-only file on every node.",
        {"shards": 3, "replicasPerShard": 1, "memoryGiB": 2, "cpu": 1, "storageGiB": 5},
    ),
    (
        "redis",
        "redis-large",
        "Large",
        "Six shards of 8 GiB with a replica each, on fast storage.",
        {"shards": 6, "replicasPerShard": 1, "memoryGiB": 8, "cpu": 2, "storageGiB": 17, "storageClass": "fast-ssd"},
    ),
    (
        "zookeeper",
        "zookeeper-dev",
        "Development",
        "Three small servers; fits a laptop.",
        {"servers": "3", "memoryMiB": 256, "cpu": 0.1, "storageGiB": 1},
    ),
    (
        "zookeeper",
        "zookeeper-standard",
        "Standard",
        "Three servers of 1 GiB.",
        {"servers": "3", "memoryMiB": 1024, "cpu": 0.5, "storageGiB": 10},
    ),
)


def ensure_plans() -> list[str]:
    """Make the built-in plans of the engines on offer that do not exist yet; returns the names of those made."""
    made = []
    for position, (engine, name, title, description, values) in enumerate(BUILT_IN):
        if engine in ENGINES:
            _, created = Plan.objects.get_or_create(
                name=name,
                defaults={
                    "engine": engine, "title": title, "description": description, "values": values,
                    "position": position,
                },
            )  # fmt: skip
            if created:
                made.append(name)
    return made


def create_plan(
    *, name: str, engine: str, title: str, description: str = "", values: Mapping[str, Any] | None = None,
    storage_classes: Sequence[str] = (), targets: Sequence[str] = (), position: int = 0, offered: bool = True,
) -> Plan:  # fmt: skip
    """Make a plan. Raises Invalid naming every wrong field, Conflict when the name is in use."""
    errors = []
    try:
        CLUSTER_NAME_RULE(name)
    except ValidationError as error:
        errors.append(FieldError("/name", "bad_name", f"Name: {error.messages[0]}"))
    plan = Plan(
        name=name, engine=engine, title=title, description=description, values=dict(values or {}),
        storage_classes=list(storage_classes), position=position, offered=offered,
    )  # fmt: skip
    rows = _checked(plan, targets, errors)
    try:
        with transaction.atomic():
            plan.save(force_insert=True)
            plan.targets.set(rows)
    except IntegrityError as error:
        raise Conflict("plan_exists", f"There is a plan {name} already.") from error
    return plan


def edit_plan(
    *, name: str, values: Mapping[str, Any] | None = None, targets: Sequence[str] | None = None, **changes: Any
) -> Plan:
    """Set what is named: title, description, storage_classes, targets, position, offered. `values` is a merge patch:
    None takes a value out.

    Raises Missing, Invalid naming every wrong field.
    """
    with transaction.atomic():
        plan = lock_plan(name)
        for field, value in changes.items():
            setattr(plan, field, value)
        merged = {**plan.values, **(values or {})}
        plan.values = {key: value for key, value in merged.items() if value is not None}
        kept = list(plan.targets.values_list("name", flat=True)) if targets is None else targets
        rows = _checked(plan, kept, [])
        plan.save()
        plan.targets.set(rows)
    return plan


def delete_plan(*, name: str) -> None:
    """Remove a plan. Raises Missing; Conflict for one that comes with Berth, or that a cluster was ordered by."""
    with transaction.atomic():
        plan = lock_plan(name)
        remedy = "Set `offered` to false: nobody can order by it any more."
        if name in {built_in[1] for built_in in BUILT_IN}:
            text = f"The plan {name} comes with Berth, and would be back with the next start."
            raise Conflict("plan_built_in", text, suggestion=remedy)
        used = Cluster.objects.present().filter(plan=plan).count()
        if used:
            clusters = "1 cluster was" if used == 1 else f"{used} clusters were"
            raise Conflict("plan_in_use", f"{clusters} ordered by the plan {name}.", suggestion=remedy)
        plan.delete()


def lock_plan(name: str) -> Plan:
    """The plan, its row locked until the transaction ends. Raises Missing."""
    plan = Plan.objects.select_for_update().filter(name=name).first()
    if plan is None:
        raise Missing("not_found", f"There is no plan {name[:60]}.")
    return plan


def _checked(plan: Plan, targets: Sequence[str], errors: list[FieldError]) -> list[Target]:
    """The rows of `targets`. Raises Invalid with `errors` and all else that is wrong."""
    engine = ENGINES.get(plan.engine)
    if engine is None:
        text = f"There is no engine {plan.engine[:60]!r}. There are: {', '.join(ENGINES)}."
        errors.append(FieldError("/engine", "unknown_engine", text))
    else:
        for one in plan_problems(engine, plan.values, plan.storage_classes):
            errors.append(FieldError(f"/values{one.pointer}", one.code, one.message))
    known = {target.name: target for target in Target.objects.order_by("name")}
    for number, target in enumerate(targets):
        if target not in known:
            text = f"There is no target {target[:60]!r}. There are: {', '.join(known)}."
            errors.append(FieldError(f"/targets/{number}", "unknown_target", text))
    if errors:
        detail = errors[0].message if len(errors) == 1 else f"{len(errors)} values of the plan are wrong."
        raise Invalid("invalid", detail, suggestion="Change the fields named in errors.", errors=errors)
    return [known[target] for target in dict.fromkeys(targets)]
