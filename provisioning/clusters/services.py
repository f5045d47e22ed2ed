"""What callers may do to clusters. Every function checks all of it first, then writes in one transaction, then hints.

No network in here but for `reveal_credential` and `certificates_of`, which have nothing to write before it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Literal

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from provisioning import tasks
from provisioning.apply import door, errors
from provisioning.catalog.specs import complete_spec, target_view
from provisioning.catalog.versions import upgrade_refused
from provisioning.clusters import losses, obstacles, quota, rebalance
from provisioning.clusters.views import client_for, cluster_view
from provisioning.credentials.certificates import Certificates, described
from provisioning.engines.base import Change, Effect, Engine, as_shown
from provisioning.engines.registry import ENGINES, completed
from provisioning.models import (
    CLUSTER_NAME_RULE,
    OBJECT_NAME,
    Cluster,
    ClusterEvent,
    Operation,
    OperationState,
    Phase,
    Plan,
    Principal,
    Target,
)
from provisioning.operations import steps
from provisioning.operations.estimates import estimate
from tenants.access import hold_active, require_active
from tenants.models import Tenant, User
from tenants.prepared import Prepared, insert
from tenants.refusals import Conflict, FieldError, Invalid, Missing, Stale, Unavailable

__all__ = [
    "Credential",
    "accept_loss",
    "certificates_of",
    "change_cluster",
    "cluster_view",
    "create_cluster",
    "delete_cluster",
    "delete_kept_volumes",
    "edit_cluster",
    "plan_spec",
    "plan_version",
    "rebalance_cluster",
    "restart_cluster",
    "reveal_credential",
]

log = logging.getLogger(__name__)
# How much longer than settings.OPERATION_DEADLINE_SECONDS a change may take: for each pod that restarts (a large
# dataset is read back, or copied by its replica), and when data moves between nodes, whose amount nobody knows here.
RESTART_SECONDS_PER_POD = 120
MOVE_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Credential:
    """A revealed credential. Its repr keeps the password out of logs and tracebacks."""

    name: str
    password: str

    def __repr__(self) -> str:
        return f"Credential(name={self.name!r})"


# A merge patch of labels: None removes a key, None for the whole removes all. KEEP: nothing was sent.
LabelsPatch = Mapping[str, str | None] | None
KEEP: LabelsPatch = MappingProxyType({})


def invalid_field(pointer: str, code: str, message: str) -> Invalid:
    """The refusal for one wrong field; `pointer` is an RFC 6901 JSON pointer into the request's body."""
    return Invalid("invalid", message, suggestion="Change the fields named in errors.",
                   errors=[FieldError(pointer, code, message)])  # fmt: skip


def hint(cluster_id: str) -> None:
    """After the commit, tell a worker. Without a broker the request still succeeds: beat finds what is due."""

    def send() -> None:
        try:
            tasks.reconcile_cluster.delay(cluster_id)
        except tasks.BROKER_ERRORS as error:
            log.warning("no hint could be sent, beat will find it", extra={"cluster_id": cluster_id, "why": str(error)})

    transaction.on_commit(send)


# What every order asks, and every forecast.
PLAN = Prepared(lambda name, engine: Plan.objects.filter(name=name, engine=engine))
TARGETS = Prepared(lambda: Target.objects.order_by("name"))
TARGETS_FOR_PLAN = Prepared(
    lambda plan: Target.objects.order_by("name").annotate(
        is_picked=Exists(Plan.targets.through.objects.filter(plan=plan, target=OuterRef("pk")))
    )
)
KEPT_VOLUMES = Prepared(
    lambda tenant, target, name: Cluster.objects.filter(
        tenant=tenant, target=target, name=name, phase=Phase.DELETED, volumes_kept=True
    ).values_list("pk")[:1]
)


def _choose_target(name: str | None, plan: Plan | None) -> Target:
    known = TARGETS_FOR_PLAN.all(plan=plan.pk) if plan else TARGETS.all()
    # A plan that picks none may run on any.
    there = [target for target in known if getattr(target, "is_picked", False)] or known
    offered = [target for target in there if target.enabled]
    names = ", ".join(target.name for target in offered)
    if name is None:
        if len(offered) != 1:
            text = (
                f"Choose a target: {names}." if offered else "There is no target to choose; an administrator adds one."
            )
            raise invalid_field("/target", "required", text)
        return offered[0]
    for target in there:
        if target.name == name and not target.enabled:
            message = f"The target {name} takes no new orders." + (f" Others do: {names}." if names else "")
            raise invalid_field("/target", "target_disabled", message)
        if target.name == name:
            return target
    raise invalid_field(
        "/target", "unknown_target", f"There is no target {name[:60]!r} to choose here. There are: {names}."
    )


@dataclass(frozen=True)
class Draft:
    """An order whose engine, plan, version, target and spec were found and checked."""

    engine: Engine
    plan: Plan | None
    version: str
    target: Target
    spec: dict[str, Any]


def check_draft(
    *, engine: str, plan: str | None, version: str | None, target: str | None, spec: Mapping[str, Any]
) -> Draft:
    """Find and check all an order says but its name. Raises Invalid."""
    if engine not in ENGINES:
        raise invalid_field(
            "/engine", "unknown_engine", f"There is no engine {engine[:60]!r}. There are: {', '.join(ENGINES)}."
        )
    chosen = ENGINES[engine]
    row = None
    if plan is not None:
        row = PLAN.first(name=plan, engine=engine)
        if row is None or not row.offered:
            offered = Plan.objects.filter(engine=engine, offered=True).values_list("name", flat=True)
            code, why = (
                ("plan_not_offered", f"The plan {row.name} is no longer offered.") if row
                else ("unknown_plan", f"There is no plan {plan[:60]!r} for {engine}.")
            )  # fmt: skip
            raise invalid_field("/plan", code, f"{why} There are: {', '.join(offered)}.")
    if version is not None and version not in chosen.versions:
        there = ", ".join(chosen.versions)
        raise invalid_field(
            "/version", "unknown_version", f"{chosen.title} is offered in {there}, not in {version[:40]!r}."
        )
    place = _choose_target(target, row)
    return Draft(chosen, row, version or chosen.versions[0], place, complete_spec(chosen, row, spec, place))


def create_cluster(
    *, tenant: Tenant, by: User, name: str, engine: str, plan: str | None = None, version: str | None = None,
    target: str | None = None, spec: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None,
    description: str = "", confirm: str | None = None, request_id: str = "",
) -> tuple[Cluster, Operation]:  # fmt: skip
    """Order a cluster; returns it and the operation that will deliver it.

    `confirm`: the name again, for values that can lose data and that the plan does not say.
    Raises Invalid for anything wrong in the request, Conflict for a name in use or kept volumes, QuotaExceeded (a
    Conflict) when it does not fit the tenant's limits, Forbidden in a suspended tenant.
    """
    require_active(tenant=tenant, user=by)
    try:
        CLUSTER_NAME_RULE(name)
    except ValidationError as error:
        raise invalid_field("/name", "bad_name", f"Name: {error.messages[0]}") from error
    if (ending := OBJECT_NAME.search(name)) is not None:
        owner = name[: ending.start()]
        raise invalid_field(
            "/name", "bad_name",
            f"Name: {name} is what an object of a cluster {owner} is called. Choose a name that does not end with "
            f"-s and a number, -nodes, -auth, -config, -tls, -tls-authority or -berth.",
        )  # fmt: skip
    draft = check_draft(engine=engine, plan=plan, version=version, target=target, spec=spec or {})
    chosen, place = draft.engine, draft.target
    risks = chosen.plan_order(draft.spec)
    # What a plan says was chosen openly by who made the plan.
    said = draft.plan.values if draft.plan else {}
    _require_confirmed([one for one in risks if said.get(one.pointer[1:]) != one.after], name, confirm)
    if KEPT_VOLUMES.first(tenant=tenant.pk, target=place.pk, name=name):
        raise Conflict(
            "volumes_kept",
            f"A deleted cluster {name} left its volumes behind, and a new one would start on their data.",
            suggestion="Choose another name, or delete the old volumes first: the quota lists them.",
        )
    try:
        with transaction.atomic():
            cluster = Cluster(
                tenant=tenant, target=place, plan=draft.plan, engine=engine, name=name, version=draft.version,
                spec=draft.spec, labels=dict(labels or {}), description=description, created_by=by,
            )  # fmt: skip
            view = cluster_view(cluster)
            cluster.endpoints = [
                {"name": one.name, "host": one.host, "port": one.port, "scope": one.scope}
                for one in chosen.endpoints(view)
            ]
            titles = [*steps.DELIVER_BEFORE, *chosen.steps(view), *steps.DELIVER_AFTER]
            operation = _new_operation(
                cluster, "create", steps.fresh(titles), by, request_id, changes=[as_shown(one) for one in risks]
            )
            principals = [
                Principal(cluster=cluster, name=one.principal, secret_name=one.name, secret_key=one.password_key)
                for one in chosen.secrets(view)
                if one.principal
            ]
            insert(cluster, operation, *principals)
            # Last, since it takes the tenant's lock: orders of one tenant wait for each other from here to the commit.
            quota.reserve(cluster, operation, by)
    except IntegrityError as error:
        raise Conflict(
            "name_taken",
            f"{tenant.slug} already has a cluster {name}.",
            suggestion="Choose another name, or use the cluster that is there.",
            errors=[FieldError("/name", "name_taken", f"The name {name} is in use in {tenant.slug}.")],
        ) from error
    hint(cluster.id)
    return cluster, operation


def open_operation(
    cluster: Cluster, kind: str, fresh: list[dict[str, Any]], by: User, request_id: str, *, longer: int = 0,
    **params: Any,
) -> Operation:  # fmt: skip
    """`longer`: seconds beyond the usual deadline."""
    operation = _new_operation(cluster, kind, fresh, by, request_id, longer=longer, **params)
    operation.save(force_insert=True)
    return operation


def _new_operation(
    cluster: Cluster, kind: str, fresh: list[dict[str, Any]], by: User, request_id: str, *, longer: int = 0,
    **params: Any,
) -> Operation:  # fmt: skip
    """Not written yet."""
    deadline = timezone.now() + timedelta(seconds=settings.OPERATION_DEADLINE_SECONDS + longer)
    pods = ENGINES[cluster.engine].demand(completed(cluster.engine, cluster.spec)).pods
    told = estimate(cluster, kind, [step["key"] for step in fresh], {"pods": pods})
    return Operation(
        cluster=cluster, kind=kind, generation=cluster.generation, params={"pods": pods, "estimate": told, **params},
        steps=fresh, actor=by, request_id=request_id, deadline=deadline,
    )  # fmt: skip


def _patched(labels: Mapping[str, str], patch: LabelsPatch) -> dict[str, str]:
    merged = {**labels, **patch} if patch is not None else {}
    return {key: value for key, value in merged.items() if value is not None}


def edit_cluster(
    *, cluster: Cluster, by: User, labels: LabelsPatch = KEEP, description: str | None = None,
    expected_revision: int | None = None,
) -> Cluster:  # fmt: skip
    """Change what does not touch the running cluster. Raises Stale when somebody else was faster.

    `labels` is merged under the lock, key by key: None removes a key, None for the whole removes all.
    """
    with transaction.atomic():
        locked = Cluster.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=cluster.pk)
        hold_active(tenant_id=locked.tenant_id, user=by)
        if expected_revision is not None and locked.revision != expected_revision:
            raise Stale(locked.revision)
        changed = ["revision"]
        if labels is not KEEP:
            locked.labels = _patched(locked.labels, labels)
            changed.append("labels")
        if description is not None:
            locked.description = description
            changed.append("description")
        locked.revision += 1
        locked.save(update_fields=changed)
    return locked


def plan_spec(*, cluster: Cluster, sent: Mapping[str, Any]) -> tuple[dict[str, Any], list[Change]]:
    """The complete spec after a merge patch (RFC 7396) of a cluster's spec, and what the change does, field by field.

    null takes a value back: the plan's, or the engine's default, holds again. Wants `plan` and `target` loaded. Raises
    Invalid for a spec that could not be ordered either; what the plan or the target no longer allows a cluster keeps.
    """
    engine = ENGINES[cluster.engine]
    known = completed(cluster.engine, cluster.spec)
    before = {field.key: known[field.key] for field in engine.fields}
    merged = {**before, **sent}
    for field in engine.fields:
        if field.kind == "map" and isinstance(sent.get(field.key), Mapping):
            entries = {**before[field.key], **sent[field.key]}
            merged[field.key] = {key: value for key, value in entries.items() if value is not None}
    wished = {key: value for key, value in merged.items() if value is not None}
    after = complete_spec(engine, cluster.plan, wished, cluster.target, before)
    return after, list(engine.plan_change(before, after, target_view(cluster.target)))


def change_cluster(
    *, cluster: Cluster, by: User, spec: Mapping[str, Any] | None = None, version: str | None = None,
    labels: LabelsPatch = KEEP, description: str | None = None, confirm: str | None = None,
    expected_revision: int | None = None, request_id: str = "",
) -> Operation | None:  # fmt: skip
    """Change the spec of a running cluster by a merge patch, or its version; labels and description with it, as in
    `edit_cluster`.

    Returns the operation that brings it about, its effects in `params`; None when both stay as they are. Raises
    Invalid for wrong values, refused changes and an unconfirmed loss of data, Stale, Conflict while another operation
    runs, QuotaExceeded when the growth does not fit.
    """
    with transaction.atomic():
        locked = held_for_change(cluster, by, expected_revision)
        after, changes = plan_spec(cluster=locked, sent=spec or {})
        upgrade = plan_version(locked, version, changes)
        refused = [one for one in changes if one.effect == Effect.FIXED]
        if refused:
            found = [FieldError(f"/spec{one.pointer}", "not_changeable", one.message) for one in refused]
            text = found[0].message if len(found) == 1 else f"{len(found)} of the changes are not possible."
            raise Invalid("invalid", text, suggestion="Leave out the fields named in errors.", errors=found)
        edited: list[str] = []
        if labels is not KEEP:
            locked.labels = _patched(locked.labels, labels)
            edited.append("labels")
        if description is not None:
            locked.description = description
            edited.append("description")
        if upgrade is not None:
            locked.version = str(version)
            edited.append("version")
            operation = _begin_change(locked, "upgrade", [upgrade], edited, by, confirm, request_id)
            hint(cluster.id)
            return operation
        if not changes:
            if edited:
                locked.revision += 1
                locked.save(update_fields=["revision", *edited])
            return None
        before, locked.spec = locked.spec, after
        edited.append("spec")
        operation = _begin_change(locked, "update", changes, edited, by, confirm, request_id, before=before)
    hint(cluster.id)
    return operation


def plan_version(cluster: Cluster, version: str | None, others: Sequence[Change]) -> Change | None:
    """What going to `version` does, beside the changes `others`; None when it is to stay. Raises Invalid where the way
    is not open.
    """
    if version is None or version == cluster.version:
        return None
    engine = ENGINES[cluster.engine]
    if version not in engine.versions:
        there = ", ".join(engine.versions)
        text = f"{engine.title} is offered in {there}, not in {version[:40]!r}."
        raise invalid_field("/version", "unknown_version", text)
    why = upgrade_refused(engine.upgrades, cluster.version, version, engine.title)
    if why:
        raise invalid_field("/version", "no_upgrade_path", why)
    if others:
        text = "Not together with changes of the spec: change one, then the other, so that it is known what did what."
        raise invalid_field("/version", "not_together", text)
    return engine.plan_upgrade(completed(cluster.engine, cluster.spec), cluster.version, version)


def restart_cluster(
    *, cluster: Cluster, by: User, confirm: str | None = None, expected_revision: int | None = None,
    request_id: str = "",
) -> Operation:  # fmt: skip
    """Restart every pod of a cluster, as gently as its engine can; raises what `change_cluster` raises.

    Pods that are outdated for another reason are brought up to date by it too.
    """
    with transaction.atomic():
        locked = held_for_change(cluster, by, expected_revision)
        change = ENGINES[locked.engine].plan_restart(cluster_view(locked).spec)
        locked.restarts += 1
        operation = _begin_change(locked, "restart", [change], ["restarts"], by, confirm, request_id)
    hint(cluster.id)
    return operation


def rebalance_cluster(
    *, cluster: Cluster, by: User, expected_revision: int | None = None, request_id: str = ""
) -> Operation:
    """Make a cluster's leading members even over the nodes, one hand-over at a time; the spec stays.

    Raises Stale, Missing, Conflict when the engine cannot or while another operation runs, Forbidden.
    """
    with transaction.atomic():
        locked = held_for_change(cluster, by, expected_revision)
        obstacles.raise_any(obstacles.to_rebalance(locked))
        locked.revision += 1
        locked.next_look = timezone.now()
        locked.save(update_fields=["revision", "next_look"])
        operation = rebalance.open_rebalance(locked, by, request_id)
    hint(cluster.id)
    return operation


def accept_loss(
    *, cluster: Cluster, by: User, confirm: str | None = None, expected_revision: int | None = None,
    request_id: str = "",
) -> Operation:  # fmt: skip
    """Accept that data is gone which the cluster's `loss` names, so that its place is served again, empty.

    Raises Stale, Missing, Invalid until the name was typed, Conflict when nothing is lost for certain or while another
    operation runs, Forbidden.
    """
    with transaction.atomic():
        locked = held_for_change(cluster, by, expected_revision)
        obstacles.raise_any(obstacles.to_accept_loss(locked))
        change = losses.loss_accepted(locked)
        _require_confirmed([change], locked.name, confirm)
        locked.revision += 1
        locked.next_look = timezone.now()
        locked.save(update_fields=["revision", "next_look"])
        operation = losses.open_acceptance(locked, change, by, request_id)
        ClusterEvent.objects.create(
            cluster=locked, operation=operation, warning=True, reason="LossAccepted",
            message=f"{by.get_username()} accepts a loss: {change.message}",
        )  # fmt: skip
    hint(cluster.id)
    return operation


def held_cluster(cluster: Cluster, by: User, expected_revision: int | None, *related: str) -> Cluster:
    """The cluster's row, locked, with its tenant and what else is `related`. Raises Stale, Missing, Forbidden."""
    rows = Cluster.objects.select_for_update(of=("self",)).select_related("tenant", *related)
    locked = rows.get(pk=cluster.pk)
    hold_active(tenant_id=locked.tenant_id, user=by)
    if expected_revision is not None and locked.revision != expected_revision:
        raise Stale(locked.revision)
    if locked.phase == Phase.DELETED:
        raise Missing("not_found", f"There is no cluster {locked.name} in {locked.tenant.slug}.")
    return locked


def held_for_change(cluster: Cluster, by: User, expected_revision: int | None) -> Cluster:
    """The cluster's row, locked, with nothing in the way of a change. Raises Stale, Missing, Conflict, Forbidden."""
    locked = held_cluster(cluster, by, expected_revision, "plan", "target")
    obstacles.raise_any(obstacles.to_change(locked, locked.operations.open().first()))
    return locked


def _require_confirmed(changes: Sequence[Change], name: str, confirm: str | None) -> None:
    """Refuse what can lose data until the cluster's name is typed again. Raises Invalid."""
    losses = [one.message for one in changes if one.effect == Effect.LOSS]
    if losses and confirm != name:
        text = f"{' '.join(losses)} If that is meant, repeat with ?confirm={name}."
        raise invalid_field("?confirm", "confirm_name", text)


def _begin_change(
    cluster: Cluster, kind: str, changes: Sequence[Change], edited: list[str], by: User, confirm: str | None,
    request_id: str, **params: Any,
) -> Operation:  # fmt: skip
    """Write the changed cluster, open its operation and reserve the growth."""
    _require_confirmed(changes, cluster.name, confirm)
    engine = ENGINES[cluster.engine]
    effects = {one.effect for one in changes}
    longer = MOVE_SECONDS if Effect.MOVE in effects else 0
    if effects & {Effect.ROLL, Effect.LOSS}:
        longer += RESTART_SECONDS_PER_POD * engine.demand(completed(cluster.engine, cluster.spec)).pods
    cluster.generation += 1
    cluster.revision += 1
    cluster.next_look = timezone.now()
    cluster.save(update_fields=["generation", "revision", "next_look", *edited])
    titles = [*steps.DELIVER_BEFORE, *engine.change_steps(changes), *steps.DELIVER_AFTER]
    operation = open_operation(
        cluster, kind, steps.fresh(titles), by, request_id, longer=longer,
        changes=[as_shown(one) for one in changes], **params,
    )  # fmt: skip
    # Last, since it takes the tenant's lock.
    quota.reserve(cluster, operation, by)
    return operation


def delete_cluster(
    *, cluster: Cluster, by: User, volumes: Literal["keep", "delete"] = "keep", confirm: str | None = None,
    expected_revision: int | None = None, request_id: str = "",
) -> Operation:  # fmt: skip
    """Delete a cluster; asked twice, the same operation. A create under way is canceled first.

    Raises Invalid when volumes are to go and the name was not typed, Stale, Conflict while another change runs.
    """
    if volumes == "delete" and confirm != cluster.name:
        raise invalid_field(
            "/confirm", "confirm_name", f"Deleting the volumes loses all data: repeat with confirm={cluster.name}."
        )
    with transaction.atomic():
        locked = held_cluster(cluster, by, expected_revision)
        running = locked.operations.open().select_for_update().first()
        if running is not None and running.kind == "delete":
            return running
        if running is not None:
            running.state = OperationState.CANCELED
            running.ended = timezone.now()
            running.reason = "The cluster was deleted."
            running.revision += 1
            running.save(update_fields=["state", "ended", "reason", "revision"])
            quota.commit(locked, running)
        operation = open_operation(locked, "delete", steps.fresh(steps.DELETE), by, request_id, volumes=volumes)
        # Taking the claim away stops a worker that is still delivering: its next write finds a newer fence. What it
        # applies meanwhile is owned by the owner object, and goes with it.
        Cluster.objects.filter(pk=locked.pk).update(
            phase=Phase.DELETING, reason="", next_look=timezone.now(), revision=F("revision") + 1,
            fence=F("fence") + 1, claimed_until=None,
        )  # fmt: skip
    hint(cluster.id)
    return operation


def delete_kept_volumes(*, cluster: Cluster, by: User, confirm: str, request_id: str = "") -> Operation:
    """Delete the volumes a deleted cluster left behind; they count as storage until that is done.

    Raises Invalid when the name was not typed, Conflict when there are none or the name is in use again.
    """
    if confirm != cluster.name:
        raise invalid_field("?confirm", "confirm_name", f"This loses all data: repeat with confirm={cluster.name}.")
    try:
        with transaction.atomic():
            locked = Cluster.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=cluster.pk)
            hold_active(tenant_id=locked.tenant_id, user=by)
            if locked.phase != Phase.DELETED or not locked.volumes_kept:
                raise Conflict("volumes_gone", f"The deleted cluster {locked.name} has no volumes left.")
            operation = open_operation(locked, "delete", steps.fresh(steps.DELETE), by, request_id, volumes="delete")
            Cluster.objects.filter(pk=locked.pk).update(
                phase=Phase.DELETING, reason="", next_look=timezone.now(), revision=F("revision") + 1
            )
    except IntegrityError as error:
        raise Conflict(
            "name_taken",
            f"Another cluster of {cluster.tenant.slug} is called {cluster.name} now.",
            suggestion="Delete that one first, or have an administrator delete the volumes on the target.",
        ) from error
    hint(cluster.id)
    return operation


def reveal_credential(*, cluster: Cluster, name: str, by: User) -> Credential:
    """Read a password from its Secret; noted in the cluster's events. Raises Missing, Conflict, Unavailable."""
    principal = cluster.principals.filter(name=name).first()
    if principal is None:
        there = ", ".join(cluster.principals.values_list("name", flat=True))
        raise Missing("not_found", f"{cluster.name} has no credential {name[:60]!r}. It has: {there}.")
    view = cluster_view(cluster)
    try:
        found = door.read_secret(client_for(cluster.target), view.namespace, principal.secret_name)
    except errors.Absent as error:
        raise Conflict("credential_not_ready", f"The credentials of {cluster.name} are not made yet.",
                       suggestion="Wait until the first step of its operation is done.") from error  # fmt: skip
    except errors.DoorError as error:
        raise Unavailable("target_unreachable", error.message, suggestion=error.remedy) from error
    # The newest, though nodes may not know it yet. The first of a cluster may be under its plain key only.
    key = ENGINES[cluster.engine].password_key(name, principal.version)
    password = found.get(key) or (found.get(principal.secret_key) if principal.version == 1 else None)
    if not password:
        raise Conflict("credential_not_ready", f"The newest password of {name} is not made yet.",
                       suggestion="Wait until the first step of its operation is done.")  # fmt: skip
    message = f"{by.get_username()} revealed the password of {name}."
    ClusterEvent.objects.create(cluster=cluster, reason="CredentialRevealed", message=message, object=name)
    return Credential(name, password)


def certificates_of(*, cluster: Cluster) -> Certificates:
    """What clients need to verify the cluster's servers, and what these are to serve.

    Raises Conflict for a cluster that does not encrypt, and while there is none yet; Unavailable.
    """
    obstacles.raise_any(obstacles.to_certificate(cluster))
    view = cluster_view(cluster)
    wanted = ENGINES[view.engine].certificates(view)
    try:
        found = described(door.read_secret(client_for(cluster.target), view.namespace, wanted[0].name))
    except (errors.Absent, UnicodeDecodeError):
        found = None
    except errors.DoorError as error:
        raise Unavailable("target_unreachable", error.message, suggestion=error.remedy) from error
    if found is None:
        raise Conflict(
            "certificate_not_ready", f"The certificate of {cluster.name} is not made yet.",
            suggestion="Wait until the first step of its operation is done.",
        )  # fmt: skip
    return found
