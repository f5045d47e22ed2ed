"""Operations that make a cluster's leading members even over the nodes: asked for by people, or opened by reconcile."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from provisioning.engines.base import Spread
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, Operation
from provisioning.operations import steps
from tenants.models import User

KIND = "rebalance-masters"


def open_rebalance(cluster: Cluster, by: User | None, request_id: str = "") -> Operation:
    """Open the operation; `by` None: nobody asked, the spec says so. Wants that no other is open."""
    titles = [*ENGINES[cluster.engine].rebalance_steps(), *steps.DELIVER_AFTER]
    deadline = timezone.now() + timedelta(seconds=settings.OPERATION_DEADLINE_SECONDS)
    return Operation.objects.create(
        cluster=cluster, kind=KIND, generation=cluster.generation, steps=steps.fresh(titles), actor=by,
        request_id=request_id, deadline=deadline,
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
