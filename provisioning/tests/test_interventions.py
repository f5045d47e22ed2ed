"""Canceling and retrying operations: what is refused, what stays, and that a worker at it stops."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.clusters.interventions import cancel_operation, is_cancelable, retry_operation
from provisioning.clusters.reconcile import Lost, _note_left, claim, look, reconcile
from provisioning.clusters.services import create_cluster, delete_cluster
from provisioning.engines.base import Advance, Member, Spread, StepTitle
from provisioning.models import Cluster, ClusterEvent, Operation, OperationState, Phase, Target
from provisioning.operations.steps import fresh
from sandbox import Sandbox
from tenants import quota
from tenants.models import Tenant, User
from tenants.refusals import Conflict, Forbidden

MEMBER = Member("orders-s0-0", "master", "n1", "")


@pytest.fixture
def ordered(acme: Tenant, alice: User, target: Target) -> tuple[Cluster, Operation]:
    return create_cluster(tenant=acme, by=alice, name="orders", engine="redis", plan="redis-dev")


def sets(control_plane: Sandbox, cluster: Cluster) -> list[str]:
    selector = f"berth.io/cluster-id={cluster.pk}"
    found = control_plane.kubectl("-n", f"berth-{cluster.tenant.slug}", "get", "sts", "-l", selector, "-o", "name")
    return found.stdout.split()


def test_canceling_ends_the_operation_says_who_and_why_and_gives_nothing_back(
    ordered: tuple[Cluster, Operation], alice: User
) -> None:
    cluster, operation = ordered
    held = quota.held_by(cluster.pk)
    cancel_operation(operation=operation, by=alice, reason="wrong plan")
    cluster.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, operation.reason) == (OperationState.CANCELED, "Canceled by alice: wrong plan")
    assert operation.ended is not None
    assert (cluster.phase, cluster.reason) == (Phase.FAILED, "Canceled by alice: wrong plan")
    assert quota.held_by(cluster.pk) == held
    assert {one.reserved for one in quota.standings(cluster.tenant_id)} == {0}
    assert ClusterEvent.objects.get(cluster=cluster).reason == "Canceled"


def test_a_worker_that_is_at_it_stops(ordered: tuple[Cluster, Operation], alice: User) -> None:
    cluster, operation = ordered
    worker = claim(cluster.pk)
    assert worker is not None
    cancel_operation(operation=operation, by=alice)
    with pytest.raises(Lost):
        worker.write(phase=Phase.READY)
    operation.state = OperationState.SUCCEEDED
    with pytest.raises(Lost):
        worker.save(operation)


@pytest.mark.control_plane
def test_nothing_more_is_made_of_a_canceled_creation_until_it_is_retried(
    live: Target, ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    cancel_operation(operation=operation, by=alice)
    reconcile(cluster.pk)
    assert sets(control_plane, cluster) == []
    again = retry_operation(operation=operation, by=alice, request_id="abc")
    reconcile(cluster.pk)
    assert len(sets(control_plane, cluster)) == 3
    again.refresh_from_db()
    assert (again.kind, again.state, again.steps[0]["state"]) == ("create", OperationState.RUNNING, "done")
    assert [step["key"] for step in again.steps] == [step["key"] for step in operation.steps]
    assert (again.actor, again.request_id) == (alice, "abc")


@pytest.mark.control_plane
def test_a_canceled_creation_keeps_what_was_made_and_heals_nothing_of_it(
    live: Target, ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    operation.refresh_from_db()
    cancel_operation(operation=operation, by=alice)
    operation.refresh_from_db()
    assert "running" not in {step["state"] for step in operation.steps}
    first, *others = sets(control_plane, cluster)
    control_plane.kubectl("-n", f"berth-{cluster.tenant.slug}", "delete", first, "--cascade=orphan")
    reconcile(cluster.pk)
    assert sets(control_plane, cluster) == others
    # A retry applies all of it again, although it had been applied before.
    retry_operation(operation=operation, by=alice)
    reconcile(cluster.pk)
    assert sets(control_plane, cluster) == [first, *others]


@pytest.mark.control_plane
def test_a_canceled_creation_can_be_deleted(
    live: Target, ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    cancel_operation(operation=operation, by=alice)
    deletion = delete_cluster(cluster=cluster, by=alice, volumes="delete", confirm="orders")
    while Cluster.objects.get(pk=cluster.pk).phase != Phase.DELETED:
        reconcile(cluster.pk)
    deletion.refresh_from_db()
    assert deletion.state == OperationState.SUCCEEDED
    assert quota.held_by(cluster.pk) == {}


def test_a_failed_operation_is_retried_with_a_deadline_of_its_own(
    ordered: tuple[Cluster, Operation], alice: User, targets: object
) -> None:
    cluster, operation = ordered
    Operation.objects.update(
        deadline=timezone.now() - timedelta(seconds=1), created=timezone.now() - timedelta(seconds=601)
    )
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert operation.state == OperationState.FAILED
    held = quota.held_by(cluster.pk)
    again = retry_operation(operation=operation, by=alice)
    cluster.refresh_from_db()
    assert (again.state, cluster.phase, cluster.reason) == (OperationState.QUEUED, Phase.PENDING, "")
    assert timedelta(seconds=595) < again.deadline - timezone.now() <= timedelta(seconds=600)
    assert quota.held_by(cluster.pk) == held


def test_gates_that_were_overridden_are_waited_at_again_when_somebody_retries(
    ordered: tuple[Cluster, Operation], alice: User
) -> None:
    _, operation = ordered
    gate = {"gate": "members-ready", "by": "root", "reason": "x", "at": "2026-01-01T00:00:00Z"}
    params = {**operation.params, "overridden": [gate]}
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.FAILED, params=params)
    operation.refresh_from_db()
    again = retry_operation(operation=operation, by=alice)
    assert "overridden" not in again.params
    assert again.params.items() <= params.items()


def test_a_failed_deletion_is_retried_as_what_it_was(ordered: tuple[Cluster, Operation], alice: User) -> None:
    cluster, _ = ordered
    deletion = delete_cluster(cluster=cluster, by=alice, volumes="delete", confirm="orders")
    Operation.objects.filter(pk=deletion.pk).update(state=OperationState.FAILED)
    again = retry_operation(operation=deletion, by=alice)
    cluster.refresh_from_db()
    assert (again.kind, again.params["volumes"], cluster.phase) == ("delete", "delete", Phase.DELETING)


@pytest.mark.parametrize(
    ("state", "kind", "code"),
    [
        (OperationState.SUCCEEDED, "create", "operation_ended"),
        (OperationState.FAILED, "create", "operation_ended"),
        (OperationState.CANCELED, "create", "operation_ended"),
        (OperationState.RUNNING, "delete", "not_cancelable"),
    ],
)
def test_what_cannot_be_canceled_is_refused_with_the_reason(
    ordered: tuple[Cluster, Operation], alice: User, state: str, kind: str, code: str
) -> None:
    _, operation = ordered
    Operation.objects.update(state=state, kind=kind)
    operation.refresh_from_db()
    assert not is_cancelable(operation)
    with pytest.raises(Conflict) as refused:
        cancel_operation(operation=operation, by=alice)
    assert refused.value.code == code


@pytest.mark.parametrize("state", [OperationState.QUEUED, OperationState.RUNNING, OperationState.SUCCEEDED])
def test_what_has_not_ended_or_succeeded_is_not_retried(
    ordered: tuple[Cluster, Operation], alice: User, state: str
) -> None:
    _, operation = ordered
    Operation.objects.update(state=state)
    with pytest.raises(Conflict) as refused:
        retry_operation(operation=operation, by=alice)
    assert refused.value.code == "not_retryable"


def test_only_the_last_operation_is_retried_and_only_once(ordered: tuple[Cluster, Operation], alice: User) -> None:
    _, operation = ordered
    cancel_operation(operation=operation, by=alice)
    again = retry_operation(operation=operation, by=alice)
    with pytest.raises(Conflict, match="came after it"):
        retry_operation(operation=operation, by=alice)
    cancel_operation(operation=again, by=alice)
    with pytest.raises(Conflict, match="came after it"):
        retry_operation(operation=operation, by=alice)


def test_in_a_suspended_tenant_only_an_administrator_cancels_and_retries(
    ordered: tuple[Cluster, Operation], acme: Tenant, alice: User
) -> None:
    _, operation = ordered
    acme.suspended = True
    acme.save()
    with pytest.raises(Forbidden):
        cancel_operation(operation=operation, by=alice)
    root = User.objects.create_superuser("root")
    cancel_operation(operation=operation, by=root)
    with pytest.raises(Forbidden):
        retry_operation(operation=operation, by=alice)
    assert retry_operation(operation=operation, by=root).state == OperationState.QUEUED


def test_a_canceled_change_leaves_the_cluster_looked_after(
    ordered: tuple[Cluster, Operation], alice: User, targets: object
) -> None:
    cluster, operation = ordered
    Operation.objects.update(kind="update")
    cancel_operation(operation=operation, by=alice)
    claimed = claim(cluster.pk)
    assert claimed is not None
    # It goes to the target, which is not there; of a canceled creation it would not.
    look(claimed)
    cluster.refresh_from_db()
    assert [one["type"] for one in cluster.conditions] == ["TargetReachable"]


@pytest.mark.parametrize(
    ("kind", "step", "advance", "left"),
    [
        ("update", "move", Advance(True, left={"move": "7 slots are still to be moved"}),
         "7 slots are still to be moved"),
        # Uneven before, and no matter of this change.
        ("update", "config", Advance(True, left={"move": "7 slots are still to be moved"}), "nothing"),
        ("restart", "restart", Advance(True, members=(MEMBER, MEMBER), outdated=("orders-s0-0",)),
         "1 of 2 pods run an older template"),
        ("rebalance-masters", "rebalance", Advance(True, spread=Spread((), (), 2), outdated=("orders-s0-0",)),
         "hand-overs still to be made: 2"),
        ("rebalance-masters", "rebalance", Advance(True, spread=Spread((), (), 0)), "nothing"),
    ],
)  # fmt: skip
def test_a_canceled_change_says_what_it_has_left_undone(
    ordered: tuple[Cluster, Operation], alice: User, kind: str, step: str, advance: Advance, left: str
) -> None:
    _, operation = ordered
    operation.kind, operation.steps = kind, fresh([StepTitle(step, "what it was at")])
    operation.save(update_fields=["kind", "steps"])
    canceled = cancel_operation(operation=operation, by=alice, reason="wrong day")
    _note_left(canceled, advance)
    operation.refresh_from_db()
    assert operation.reason == f"Canceled by alice: wrong day. Left undone: {left}."
    assert operation.revision == canceled.revision + 1, "who follows it is told"


@pytest.mark.parametrize("state", [OperationState.FAILED, OperationState.SUCCEEDED])
def test_what_was_not_canceled_says_nothing_of_that(ordered: tuple[Cluster, Operation], state: OperationState) -> None:
    _, operation = ordered
    operation.kind, operation.state, operation.reason = "restart", state, "as it was"
    operation.save(update_fields=["kind", "state", "reason"])
    _note_left(operation, Advance(True, outdated=("orders-s0-0",)))
    operation.refresh_from_db()
    assert operation.reason == "as it was"
