"""How long an operation is going to take, told from those that took the same steps before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import QuerySet

from provisioning.models import Cluster, Operation, OperationState
from tenants.prepared import Prepared

# The newest so many like it count. Changes of different steps come in any order: so many are looked at for those.
COUNTED = 20
LOOKED_AT = 200
# These may take the same steps.
CHANGES = ("update", "upgrade", "restart")
# A step that is done to one thing after another, and the count of these in `params`: compared for each.
REPEATED = {"restart": "pods", "rebalance": "hand_overs"}

Row = tuple[datetime | None, datetime | None, list[dict[str, Any]], dict[str, Any]]


def _past(kinds: Sequence[str], limit: int) -> Prepared[Operation, Row]:
    def make(engine: str, target: str) -> QuerySet[Operation, Any]:
        return Operation.objects.filter(
            cluster__engine=engine, cluster__target=target, kind__in=kinds,
            state=OperationState.SUCCEEDED, started__isnull=False, ended__isnull=False,
        ).order_by("-id").values_list("started", "ended", "steps", "params")[:limit]  # fmt: skip

    return Prepared(make)


_PAST = {kind: _past([kind], COUNTED) for kind in ("create", "delete", "rebalance-masters", "change-users")}
_PAST |= dict.fromkeys(CHANGES, _past(CHANGES, LOOKED_AT))


def estimate(cluster: Cluster, kind: str, steps: Sequence[str], counts: Mapping[str, int]) -> dict[str, Any] | None:
    """`seconds` an operation of these steps is going to take: the median of the like ones that succeeded with this
    engine on this target, and how many they were (`based_on`). None when there was none.

    `counts` as in `params`, see REPEATED. Whose they were does not matter, and is not told: a target and an engine are
    as fast for everybody.
    """
    repeated = next((REPEATED[key] for key in steps if key in REPEATED), None)
    took = []
    for started, ended, past, params in _PAST[kind].all(engine=cluster.engine, target=cluster.target_id):
        times = params.get(repeated) if repeated else 1
        if started and ended and times and [step["key"] for step in past] == list(steps):
            took.append((ended - started).total_seconds() / times)
    if not took:
        return None
    seconds = median(took[:COUNTED]) * (counts[repeated] if repeated else 1)
    return {"seconds": round(seconds, 1), "based_on": len(took[:COUNTED])}
