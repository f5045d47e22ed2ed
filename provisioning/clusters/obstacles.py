"""What the state of a cluster or an operation stands in the way of: the refusals of services, which raise them, and of
GET …/capabilities, which tells them before.

Each function answers with the refusal, or None when nothing is in the way. What depends on the values of a request, on
one of several users, or on the target, is judged by the service alone.
"""

from __future__ import annotations

from provisioning.clusters.views import cluster_view, pause_told
from provisioning.engines.base import Effect
from provisioning.engines.registry import ENGINES
from provisioning.models import TERMINAL_STATES, Cluster, Operation, OperationState, Phase
from tenants.models import User
from tenants.refusals import Conflict, Forbidden, Refusal


def raise_any(obstacle: Refusal | None) -> None:
    """Raise the refusal, if there is one."""
    if obstacle is not None:
        raise obstacle


def to_change(cluster: Cluster, running: Operation | None) -> Conflict | None:
    """Any change that takes an operation. `running`: the one that has not ended."""
    if paused := while_paused(cluster):
        return paused
    if running is not None:
        return Conflict(
            "operation_in_progress",
            f"{cluster.name} is being changed: the operation {running.id} ({running.kind}) has not ended.",
            suggestion=f"Follow GET /api/v1/operations/{running.id}?wait=30 and repeat this when it has ended.",
        )
    if cluster.phase == Phase.DELETING:
        return Conflict("being_deleted", f"{cluster.name} is to be deleted.", suggestion="Order a new cluster.")
    return None


def while_paused(cluster: Cluster) -> Conflict | None:
    """What a paused cluster would not be given."""
    if cluster.paused is None:
        return None
    return Conflict(
        "cluster_paused", f"{cluster.name} takes no change while it is paused. {pause_told(cluster)}",
        suggestion="Resume it first (POST …/resume), or ask who paused it. Deleting it is possible.",
    )  # fmt: skip


def to_rebalance(cluster: Cluster) -> Conflict | None:
    """Making its leading members even over the nodes, whatever else is under way."""
    plan = ENGINES[cluster.engine].plan_rebalance(cluster_view(cluster).spec)
    if plan.effect != Effect.FIXED:
        return None
    return Conflict("cannot_rebalance", plan.message, suggestion="See `spread` of the cluster for how it stands.")


def to_accept_loss(cluster: Cluster) -> Conflict | None:
    """Accepting that its data is gone, whatever else is under way."""
    if cluster.loss is not None:
        return None
    return Conflict(
        "nothing_lost", f"As far as is known now, {cluster.name} has lost nothing for good.",
        suggestion="A pod that is away may bring its data back: see `causes` of the cluster.",
    )  # fmt: skip


def to_pause(cluster: Cluster) -> Conflict | None:
    """Pausing its reconcile."""
    if cluster.phase == Phase.DELETING:
        return Conflict("being_deleted", f"{cluster.name} is to be deleted.", suggestion="Let its deletion end.")
    if cluster.paused is not None:
        return Conflict(
            "cluster_paused", f"{cluster.name} is paused already. {pause_told(cluster)}",
            suggestion="Resume it when what it was paused for is done.",
        )  # fmt: skip
    return None


def to_resume(cluster: Cluster) -> Conflict | None:
    """Resuming its reconcile."""
    if cluster.paused is not None:
        return None
    return Conflict("not_paused", f"{cluster.name} is not paused.", suggestion="There is nothing to resume.")


def to_users(cluster: Cluster) -> Conflict | None:
    """Users besides the one it was made with."""
    if ENGINES[cluster.engine].user_rules is not None:
        return None
    return Conflict(
        "no_users", f"{ENGINES[cluster.engine].title} has the one user it was made with.",
        suggestion="See its credentials; order a cluster for each who needs one.",
    )  # fmt: skip


def to_certificate(cluster: Cluster) -> Conflict | None:
    """Showing its certificate."""
    view = cluster_view(cluster)
    if ENGINES[view.engine].certificates(view):
        return None
    return Conflict(
        "not_encrypted", f"{cluster.name} does not encrypt its traffic, so it has no certificate.",
        suggestion="Order a cluster with tls on.",
    )  # fmt: skip


# --- operations -------------------------------------------------------------------------------------------------------


def to_cancel(operation: Operation) -> Conflict | None:
    """Canceling it."""
    if operation.state in TERMINAL_STATES:
        return _ended(operation, "cancel")
    if operation.kind == "delete":
        return Conflict(
            "not_cancelable", "A deletion cannot be canceled: some of it is gone already.",
            suggestion="Let it end. Volumes that it keeps stay in the quota until they are deleted.",
        )  # fmt: skip
    return None


def to_retry(cluster: Cluster, operation: Operation, last: str | None) -> Conflict | None:
    """Trying it again. `last`: id of the cluster's newest operation."""
    if operation.state not in TERMINAL_STATES:
        return Conflict(
            "not_retryable", "The operation has not ended: Berth is still trying.",
            suggestion="Wait for it, or cancel it first.",
        )  # fmt: skip
    if operation.state == OperationState.SUCCEEDED:
        return Conflict(
            "not_retryable", "The operation succeeded: there is nothing to retry.",
            suggestion="If the cluster is not well, see its reason and events.",
        )  # fmt: skip
    if last != operation.pk:
        return Conflict(
            "not_retryable", "Another operation of the cluster came after it.",
            suggestion=f"Retry the last one: GET /api/v1/tenants/{cluster.tenant.slug}/operations lists them.",
        )  # fmt: skip
    if operation.generation != cluster.generation:
        return Conflict(
            "not_retryable", "The operation's change was taken back: the cluster is as before it.",
            suggestion="Do what its error says, and change the cluster again.",
        )  # fmt: skip
    return None if operation.kind == "delete" else while_paused(cluster)


def to_override(operation: Operation, gate: str | None, by: User) -> Refusal | None:
    """Letting it pass the health gate `gate`; None: the one it waits at."""
    if refusal := for_administrators(by):
        return refusal
    if operation.state in TERMINAL_STATES:
        return _ended(operation, "pass")
    found = operation.gate
    if found is None or (gate is not None and found["key"] != gate):
        waits = f"at {found['key']}: {found['message']}" if found else "at none now"
        asked = f"does not wait at the gate {gate}; it " if gate is not None else ""
        return Conflict(
            "gate_not_waited_at", f"The operation {asked}waits {waits}.",
            suggestion="Read the operation again, and override the gate it shows, if that is still wanted.",
        )  # fmt: skip
    if found["refusal"]:
        return Conflict("gate_guards_data", found["refusal"], suggestion="Mend that first; the operation waits.")
    return None


def for_administrators(by: User) -> Forbidden | None:
    """Letting any operation pass a gate."""
    if by.is_superuser:
        return None
    return Forbidden(
        "role_required", "Only platform administrators, not a tenant's owner, let an operation pass a health gate.",
        suggestion="Mend what the operation waits for, or ask a platform administrator.",
    )  # fmt: skip


def _ended(operation: Operation, what: str) -> Conflict:
    how = {OperationState.CANCELED: "was canceled"}.get(OperationState(operation.state), operation.state)
    return Conflict(
        "operation_ended", f"The operation has ended already: it {how}.", suggestion=f"Nothing is left to {what}."
    )
