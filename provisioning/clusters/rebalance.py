"""Operations that make a cluster's leading members even over the nodes: asked for by people, or opened by reconcile."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from provisioning.engines.base import Spread, as_shown
from provisioning.engines.registry import ENGINES, completed
from provisioning.models import Cluster, Operation
from provisioning.operations import steps
from provisioning.operations.estimates import estimate
from tenants.models import User

KIND = "rebalance-masters"


def open_rebalance(cluster: Cluster, by: User | None, request_id: str = "") -> Operation:
    """Open the operation; `by` None: nobody asked, the spec says so. Wants that no other is open."""
    engine = ENGINES[cluster.engine]
    titles = [*engine.rebalance_steps(), *steps.DELIVER_AFTER]
    deadline = timezone.now() + timedelta(seconds=settings.OPERATION_DEADLINE_SECONDS)
    # As far as is known now; 0 when masters are even already, or nobody knows yet.
    count = (cluster.spread or {}).get("hand_overs", 0)
    plan = engine.plan_rebalance(completed(cluster.engine, cluster.spec))
    words = {0: "No hand-over is needed as things stand.", 1: "One hand-over makes masters even."}
    plan = replace(plan, message=f"{plan.message} {words.get(count, f'{count} hand-overs make masters even.')}")
    told = estimate(cluster, KIND, [title.key for title in titles], {"hand_overs": count}) if count else None
    return Operation.objects.create(
        cluster=cluster, kind=KIND, generation=cluster.generation, steps=steps.fresh(titles), actor=by,
        request_id=request_id, deadline=deadline,
        params={"hand_overs": count, "estimate": told, "changes": [as_shown(plan)]},
    )  # fmt: skip


def due_at(cluster: Cluster, spread: Spread | None) -> datetime | None:
    """When to do it without being asked; None: not at all, as things stand.

    Counted from when the cluster became well, and from the end of its last operation, whatever that was: one that was
    canceled or failed is not begun again at once.
    """
    if spread is None or spread.repair_after is None:
        return None
    since = next((entry["since"] for entry in cluster.conditions
                  if entry["type"] == "TopologyHealthy" and entry["status"] == "True"), None)  # fmt: skip
    well = parse_datetime(since) if since else None
    if well is None:
        return None
    ended = cluster.operations.order_by("-id").values_list("ended", flat=True).first()
    return max(well, ended or well) + timedelta(seconds=spread.repair_after)
