"""How long a change is going to take, told from those that took the same steps before."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from provisioning.models import Cluster, Operation, OperationState

# Of the newest so many changes on the target, the newest so many that took the same steps count.
LOOKED_AT = 200
COUNTED = 20
KINDS = ("update", "upgrade", "restart")
# This step is done to one pod after another: its operations are compared per pod.
PER_POD = "restart"


def estimate(cluster: Cluster, steps: Sequence[str], pods: int) -> dict[str, Any] | None:
    """`seconds` a change of these steps to a cluster of so many pods is going to take: the median of the like ones that
    succeeded with this engine on this target, and how many they were (`based_on`). None when there was none.

    Whose they were does not matter, and is not told: a target and an engine are as fast for everybody.
    """
    rows = Operation.objects.filter(
        cluster__engine=cluster.engine, cluster__target=cluster.target_id, kind__in=KINDS,
        state=OperationState.SUCCEEDED, started__isnull=False, ended__isnull=False,
    ).order_by("-id").values_list("started", "ended", "steps", "params")[:LOOKED_AT]  # fmt: skip
    took = []
    for started, ended, past, params in rows:
        of = params.get("pods")
        if started and ended and of and [step["key"] for step in past] == list(steps):
            took.append((ended - started).total_seconds() / (of if PER_POD in steps else 1))
    if not took:
        return None
    seconds = median(took[:COUNTED]) * (pods if PER_POD in steps else 1)
    return {"seconds": round(seconds, 1), "based_on": len(took[:COUNTED])}
