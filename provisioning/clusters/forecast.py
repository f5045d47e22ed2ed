"""What an order or a change would take of the quota. Nothing is written; a constant number of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provisioning.clusters.quota import amounts_of
from provisioning.clusters.services import check_draft, invalid_field, plan_spec, plan_version
from provisioning.engines.base import Change
from provisioning.models import ClusterQuerySet
from tenants import quota
from tenants.models import Tenant
from tenants.quota import OVERALL, Standing, Violation


@dataclass(frozen=True)
class Forecast:
    """`amounts`: all the cluster would count for; `growth`: what it does not hold yet; `standings`: as they are now,
    overall and on the target; `changes`: what a change does to the running cluster."""

    target: str
    amounts: Mapping[str, int]
    growth: Mapping[str, int]
    standings: tuple[Standing, ...]
    changes: tuple[Change, ...]
    violations: tuple[Violation, ...]


def forecast_order(
    *, tenant: Tenant, engine: str | None, plan: str | None, target: str | None, spec: Mapping[str, Any],
    version: str | None = None,
) -> Forecast:  # fmt: skip
    """For a cluster that is not ordered yet. Raises Invalid for what an order would be refused for."""
    if engine is None:
        raise invalid_field("/engine", "required", "Name the engine, or the cluster that would change.")
    draft = check_draft(engine=engine, plan=plan, version=version, target=target, spec=spec)
    return forecast(
        tenant_id=tenant.pk, target=draft.target.name, amounts=amounts_of(draft.engine.name, draft.spec), held={}
    )


def forecast_change(
    *, clusters: ClusterQuerySet, name: str, engine: str | None, plan: str | None, target: str | None,
    spec: Mapping[str, Any], version: str | None = None,
) -> Forecast:  # fmt: skip
    """For a cluster of `clusters` whose spec would get these values, or that would get another version; what it refuses
    is told as an effect too.

    Raises Invalid for a spec that could not be ordered either, and a version there is no way to.
    """
    cluster = clusters.filter(name=name).select_related("target", "plan").first()
    if cluster is None:
        raise invalid_field("/cluster", "unknown_cluster", f"There is no cluster {name[:60]!r} here.")
    given = [pointer for pointer, value in (("/engine", engine), ("/plan", plan), ("/target", target)) if value]
    if given:
        raise invalid_field(given[0], "not_changeable", "With `cluster`, leave it out: it is the cluster's own.")
    wished, changes = plan_spec(cluster=cluster, sent=spec)
    if upgrade := plan_version(cluster, version, changes):
        changes.append(upgrade)
    return forecast(
        tenant_id=cluster.tenant_id, target=cluster.target_id, amounts=amounts_of(cluster.engine, wished),
        held=quota.held_by(cluster.pk), changes=changes,
    )  # fmt: skip


def forecast(
    *, tenant_id: str, target: str, amounts: Mapping[str, int], held: Mapping[str, int], changes: Sequence[Change] = ()
) -> Forecast:  # fmt: skip
    """What becomes of the tenant's standings when a holder that has `held` wants `amounts` on `target`."""
    growth = quota.growth_over(amounts, held)
    found = quota.standings(tenant_id)
    shown = {(one.place, one.resource): one for one in found if one.place in (OVERALL, target)}
    for resource in amounts:
        # Nobody holds any of it yet, and there is no limit: worth a line all the same.
        shown.setdefault((OVERALL, resource), Standing(resource, OVERALL, None, 0, 0))
    return Forecast(
        target,
        amounts,
        growth,
        tuple(shown.values()),
        tuple(changes),
        tuple(quota.violations_of(found, target, growth)),
    )
