"""Pausing and resuming the reconcile of one cluster: what is held, what is refused, and that it is still watched."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.apply import door
from provisioning.clusters import reconcile as reconciling
from provisioning.clusters.interventions import cancel_operation, retry_operation
from provisioning.clusters.pauses import pause_cluster, resume_cluster
from provisioning.clusters.reconcile import Lost, claim, look, reconcile
from provisioning.clusters.services import (
    change_cluster,
    create_cluster,
    delete_cluster,
    edit_cluster,
    rebalance_cluster,
    restart_cluster,
)
from provisioning.engines.base import Advance, Cause, Invariant, NodeShare, Spread, World
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, ClusterEvent, Operation, OperationState, Phase, Target
from sandbox import Sandbox
from tenants.models import Tenant, User
from tenants.refusals import Conflict, Forbidden, Stale

UNEVEN = Spread((Invariant("even", False, "Masters: 2 on n1, 0 on n2."),), (NodeShare("n1", "", 2, 2),), 1, 0.0)


@pytest.fixture
def ordered(acme: Tenant, alice: User, target: Target) -> tuple[Cluster, Operation]:
    return create_cluster(tenant=acme, by=alice, name=f"c-{secrets.token_hex(4)}", engine="redis", plan="redis-dev")


@pytest.fixture
def cluster(ordered: tuple[Cluster, Operation]) -> Cluster:
    """One that was delivered an hour ago."""
    made, operation = ordered
    ago = timezone.now() - timedelta(hours=1)
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED, ended=ago)
    Cluster.objects.filter(pk=made.pk).update(phase=Phase.READY, ready_at=ago)
    return made


def test_who_since_when_and_why_are_kept_and_told_and_a_worker_at_it_stops(cluster: Cluster, alice: User) -> None:
    worker = claim(cluster.pk)
    assert worker is not None
    paused = pause_cluster(cluster=cluster, by=alice, reason="disks are moved by hand")
    assert paused.paused is not None
    assert (paused.paused["by"], paused.paused["reason"]) == ("alice", "disks are moved by hand")
    assert paused.revision == cluster.revision + 1
    with pytest.raises(Lost):
        worker.write(phase=Phase.DEGRADED)
    event = ClusterEvent.objects.get(cluster=cluster, reason="Paused")
    assert event.warning
    assert "alice" in event.message
    assert event.message.endswith("disks are moved by hand")
    resume_cluster(cluster=cluster, by=alice)
    cluster.refresh_from_db()
    assert cluster.paused is None
    assert cluster.next_look <= timezone.now()
    assert ClusterEvent.objects.filter(cluster=cluster, reason="Resumed").count() == 1


def test_changes_of_a_paused_cluster_are_refused_with_who_and_why(cluster: Cluster, alice: User) -> None:
    pause_cluster(cluster=cluster, by=alice, reason="incident 7")
    asked: list[Callable[[], object]] = [
        lambda: change_cluster(cluster=cluster, by=alice, spec={"shards": 4}),
        lambda: restart_cluster(cluster=cluster, by=alice),
        lambda: rebalance_cluster(cluster=cluster, by=alice),
        lambda: pause_cluster(cluster=cluster, by=alice, reason="again"),
    ]
    for ask in asked:
        with pytest.raises(Conflict) as refused:
            ask()
        assert refused.value.code == "cluster_paused"
        assert "alice" in refused.value.detail
        assert "incident 7" in refused.value.detail
    # What touches nothing that runs is no change.
    edit_cluster(cluster=cluster, by=alice, labels={"team": "a"})


def test_deleting_a_paused_cluster_is_possible(cluster: Cluster, alice: User) -> None:
    pause_cluster(cluster=cluster, by=alice, reason="no longer wanted")
    assert delete_cluster(cluster=cluster, by=alice).kind == "delete"
    with pytest.raises(Conflict, match="to be deleted"):
        pause_cluster(cluster=cluster, by=alice, reason="wait")


def test_what_failed_is_retried_after_resuming_only(ordered: tuple[Cluster, Operation], alice: User) -> None:
    cluster, operation = ordered
    pause_cluster(cluster=cluster, by=alice, reason="wait")
    cancel_operation(operation=operation, by=alice)
    with pytest.raises(Conflict) as refused:
        retry_operation(operation=operation, by=alice)
    assert refused.value.code == "cluster_paused"
    resume_cluster(cluster=cluster, by=alice)
    assert retry_operation(operation=operation, by=alice).state == OperationState.QUEUED


def test_a_pause_is_of_one_revision_and_ends_once(cluster: Cluster, alice: User) -> None:
    with pytest.raises(Stale):
        pause_cluster(cluster=cluster, by=alice, reason="x", expected_revision=99)
    with pytest.raises(Conflict) as refused:
        resume_cluster(cluster=cluster, by=alice)
    assert refused.value.code == "not_paused"


def test_nothing_is_paused_in_a_suspended_tenant(cluster: Cluster, alice: User) -> None:
    Tenant.objects.filter(pk=cluster.tenant_id).update(suspended=True)
    with pytest.raises(Forbidden):
        pause_cluster(cluster=cluster, by=alice, reason="x")


def test_a_held_operation_says_so_outlives_its_deadline_and_gets_the_time_back(
    ordered: tuple[Cluster, Operation], alice: User
) -> None:
    cluster, operation = ordered
    pause_cluster(cluster=cluster, by=alice, reason="wait for the network")
    ago = timezone.now() - timedelta(hours=2)
    Cluster.objects.filter(pk=cluster.pk).update(
        paused={"by": "alice", "reason": "wait for the network", "since": ago.isoformat()}
    )
    Operation.objects.filter(pk=operation.pk).update(created=ago, deadline=ago + timedelta(minutes=10))
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert operation.state == OperationState.QUEUED
    resume_cluster(cluster=cluster, by=alice)
    operation.refresh_from_db()
    left = operation.deadline - timezone.now()
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)


def watched(cluster: Cluster, seen: Advance, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One look at a cluster with a target on which nothing may be done, as reconcile writes it down."""

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a paused cluster was acted upon")

    with monkeypatch.context() as patch:
        patch.setattr(reconciling, "client_for", lambda target: None)
        patch.setattr(door, "observe", lambda client, view: World(timezone.now(), (), (), (), ()))
        for name in ("apply_all", "prune", "grow_volumes", "ensure_namespace", "delete"):
            patch.setattr(door, name, never)
        patch.setattr(ENGINES[cluster.engine], "advance", never, raising=False)
        patch.setattr(ENGINES[cluster.engine], "observe", lambda *_: seen, raising=False)
        claimed = claim(cluster.pk)
        assert claimed is not None
        look(claimed)
    Cluster.objects.filter(pk=cluster.pk).update(claimed_until=None)
    cluster.refresh_from_db()
    return cluster


def conditions(cluster: Cluster) -> dict[str, str]:
    return {one["type"]: one["status"] for one in cluster.conditions}


def test_a_paused_cluster_is_watched_and_told_about_but_nothing_is_done_to_it(
    cluster: Cluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_cluster(cluster=cluster, by=alice, reason="incident 7")
    broken = Advance(healthy=False, reason="x", causes=(Cause("master-down", "m is down.", "See m.", "pod/m"),))
    watched(cluster, broken, monkeypatch)
    assert (cluster.phase, cluster.reason) == (Phase.DEGRADED, "m is down. See m.")
    assert conditions(cluster) == {
        "Paused": "True", "Scheduled": "True", "TopologyHealthy": "False", "UpToDate": "True",
        "TargetReachable": "True",
    }  # fmt: skip
    # Uneven masters that would be evened at once are left as they are, too.
    watched(cluster, Advance(healthy=True, spread=UNEVEN), monkeypatch)
    assert (cluster.phase, cluster.causes) == (Phase.READY, [])
    assert not cluster.operations.open().exists()


def test_settings_that_differ_while_a_cluster_is_paused_are_a_condition_of_it(
    cluster: Cluster, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_cluster(cluster=cluster, by=alice, reason="tuning by hand")
    watched(cluster, Advance(healthy=True, drift="orders-s0-0: hz is 20, wished is 10"), monkeypatch)
    told = next(one for one in cluster.conditions if one["type"] == "SettingsInForce")
    assert (told["status"], told["reason"]) == ("False", "Drifted")
    assert "hz is 20, wished is 10" in told["message"]
    # A member that does not answer says nothing new.
    watched(cluster, Advance(healthy=False, reason="x"), monkeypatch)
    assert conditions(cluster)["SettingsInForce"] == "False"
    watched(cluster, Advance(healthy=True, drift=""), monkeypatch)
    assert conditions(cluster)["SettingsInForce"] == "True"


@pytest.mark.control_plane
def test_what_is_paused_is_not_applied_before_it_is_resumed(
    live: Target, ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox
) -> None:
    cluster, operation = ordered

    def sets() -> list[str]:
        selector = f"berth.io/cluster-id={cluster.pk}"
        space = f"berth-{cluster.tenant.slug}"
        return control_plane.kubectl("-n", space, "get", "sts", "-l", selector, "-o", "name").stdout.split()

    pause_cluster(cluster=cluster, by=alice, reason="wait")
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert (operation.state, sets()) == (OperationState.QUEUED, [])
    assert operation.reason.startswith("Paused by alice since ")
    resume_cluster(cluster=cluster, by=alice)
    reconcile(cluster.pk)
    cluster.refresh_from_db()
    assert len(sets()) == 3
    assert conditions(cluster)["Paused"] == "False"
    # Now somebody removes a workload while it is paused: it stays away until it is resumed.
    pause_cluster(cluster=cluster, by=alice, reason="wait")
    control_plane.kubectl("-n", f"berth-{cluster.tenant.slug}", "delete", *sets()[:1])
    reconcile(cluster.pk)
    assert len(sets()) == 2
    resume_cluster(cluster=cluster, by=alice)
    reconcile(cluster.pk)
    assert len(sets()) == 3
