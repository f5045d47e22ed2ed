"""What people may do to operations: cancel one that runs, let it pass a health gate, retry one that ended.

The wish is the cluster's, so canceling an operation takes nothing back. What it means depends on what was under way:

- create: whatever was made stays as it is, and nothing more is made or healed (reconcile.look), until it is retried or
  the cluster deleted;
- a change of a running cluster: no further step is taken for it; the cluster goes on being kept healthy, and when it is
  well, reconcile adds what was left undone to the operation's reason;
- delete: refused, since things are gone already.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from provisioning.clusters import obstacles, quota
from provisioning.clusters.services import hint
from provisioning.models import (
    Cluster,
    ClusterEvent,
    Operation,
    OperationState,
    Phase,
)
from provisioning.operations import steps
from tenants.access import hold_active
from tenants.models import User


def is_cancelable(operation: Operation) -> bool:
    """Whether `cancel_operation` would take it, as it was read."""
    return obstacles.to_cancel(operation) is None


def cancel_operation(*, operation: Operation, by: User, reason: str = "") -> Operation:
    """End an operation that has not ended. `reason` is shown to everybody who sees the cluster.

    Raises Conflict when it has ended or is a deletion, Forbidden in a suspended tenant.
    """
    with transaction.atomic():
        cluster, locked = _held(operation, by)
        obstacles.raise_any(obstacles.to_cancel(locked))
        text = f"Canceled by {by.get_username()}" + (f": {reason}" if reason else ".")
        locked.state, locked.ended, locked.reason = OperationState.CANCELED, timezone.now(), text
        steps.stop(locked)
        locked.gate = None
        locked.revision += 1
        locked.save(update_fields=["state", "ended", "reason", "steps", "gate", "revision"])
        quota.commit(cluster, locked)
        # Taking the claim away stops a worker that is still at it: its next write finds a newer fence.
        Cluster.objects.filter(pk=cluster.pk).update(
            phase=Phase.FAILED, reason=text, next_look=timezone.now(), revision=F("revision") + 1,
            fence=F("fence") + 1, claimed_until=None,
        )  # fmt: skip
        ClusterEvent.objects.create(
            cluster=cluster, operation=locked, warning=True, reason="Canceled", message=f"{locked.kind}: {text}"
        )
    hint(cluster.pk)
    return locked


def retry_operation(*, operation: Operation, by: User, request_id: str = "") -> Operation:
    """Do what an operation that failed or was canceled was to do, by a new one; returns that.

    Everything is applied again, so that what was mended or broken by hand counts. Raises Conflict when it has not
    ended, succeeded, or is no longer the cluster's last one; QuotaExceeded; Forbidden in a suspended tenant.
    """
    with transaction.atomic():
        cluster, locked = _held(operation, by)
        last = cluster.operations.order_by("-id").values_list("pk", flat=True).first()
        obstacles.raise_any(obstacles.to_retry(cluster, locked, last))
        now = timezone.now()
        # Gates are passed for the rest of one operation's life, and by whom the caller may not be.
        params = {key: value for key, value in locked.params.items() if key != "overridden"}
        again = Operation.objects.create(
            cluster=cluster, kind=locked.kind, generation=cluster.generation, params=params,
            steps=steps.renewed(locked.steps), actor=by, request_id=request_id,
            deadline=now + (locked.deadline - locked.created),
        )  # fmt: skip
        deletes = locked.kind == "delete"
        phase = {"create": Phase.PENDING, "delete": Phase.DELETING}.get(locked.kind, Phase.UPDATING)
        if not deletes:
            quota.reserve(cluster, again, by)
        # One generation back, so that the first step applies everything: not to nothing, which would say that nothing
        # of a cluster that runs is there.
        Cluster.objects.filter(pk=cluster.pk).update(
            phase=phase, reason="", next_look=now, revision=F("revision") + 1,
            observed_generation=cluster.observed_generation if deletes else cluster.generation - 1,
            fence=F("fence") + 1, claimed_until=None,
        )  # fmt: skip
    hint(cluster.pk)
    return again


def override_gate(*, operation: Operation, by: User, gate: str, reason: str) -> Operation:
    """Let an operation pass the health gate it waits at, for the rest of its life. For platform administrators.

    `gate` is the key of the operation's gate as the caller saw it, `reason` is shown to everybody who sees the cluster.
    Raises Forbidden; Conflict when the operation has ended, waits at no gate or another one, or the gate guards data
    that would be lost.
    """
    with transaction.atomic():
        cluster, locked = _held(operation, by)
        obstacles.raise_any(obstacles.to_override(locked, gate, by))
        found = locked.gate
        assert found is not None
        entry = {"gate": gate, "by": by.get_username(), "reason": reason, "at": timezone.now().isoformat()}
        locked.params = {**locked.params, "overridden": [*locked.params.get("overridden", ()), entry]}
        locked.gate = None
        locked.revision += 1
        locked.save(update_fields=["params", "gate", "revision"])
        # A worker that is at it has read the operation before: its next write finds a newer fence.
        Cluster.objects.filter(pk=cluster.pk).update(
            next_look=timezone.now(), revision=F("revision") + 1, fence=F("fence") + 1, claimed_until=None
        )
        ClusterEvent.objects.create(
            cluster=cluster, operation=locked, warning=True, reason="GateOverridden",
            message=f"{by.get_username()} lets the operation pass {gate} ({found['message']}): {reason}",
        )  # fmt: skip
    hint(cluster.pk)
    return locked


def _held(operation: Operation, by: User) -> tuple[Cluster, Operation]:
    """The cluster and the operation, locked in the order of all services. Raises Forbidden."""
    rows = Cluster.objects.select_for_update(of=("self",)).select_related("tenant")
    cluster = rows.get(pk=operation.cluster_id)
    hold_active(tenant_id=cluster.tenant_id, user=by)
    return cluster, Operation.objects.select_for_update().get(pk=operation.pk)
