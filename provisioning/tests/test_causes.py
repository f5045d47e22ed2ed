"""What reconcile writes down of the causes it is told. No Kubernetes."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.apply import door
from provisioning.clusters import diagnosis
from provisioning.clusters.reconcile import Claimed, _keep, _show, claim
from provisioning.clusters.services import create_cluster
from provisioning.clusters.views import cluster_view
from provisioning.engines.base import Advance, Cause, PodView, World
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from tenants.models import Tenant, User

DOWN = Cause("master-down", "orders-s0-0, the master of shard 0, is down.", "Nothing to do.", "pod/orders-s0-0")
LOST = Cause("node-lost", "The node n1 is not ready.", "Bring n1 back.", "node/n1")


@pytest.fixture
def claimed(acme: Tenant, alice: User, target: Target) -> Claimed:
    """A cluster that was delivered an hour ago, in a worker's hands."""
    made, operation = create_cluster(tenant=acme, by=alice, name=f"c-{secrets.token_hex(4)}", engine="redis")
    ago = timezone.now() - timedelta(hours=1)
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED, ended=ago)
    Cluster.objects.filter(pk=made.pk).update(phase=Phase.READY, ready_at=ago)
    found = claim(made.pk)
    assert found is not None
    return found


def look(claimed: Claimed, *causes: Cause, healthy: bool = False, pods: tuple[PodView, ...] = ()) -> Cluster:
    """One look, as reconcile writes it down."""
    advance = Advance(healthy, "" if healthy else "orders-s0-0 is not there", causes=causes)
    world = World(timezone.now(), pods, (), (), ())
    _show(claimed, advance, "", world)
    # A cluster that was ready is not spoken to: no link is needed.
    _keep(claimed, cluster_view(claimed.cluster), world, None, advance, "")  # type: ignore[arg-type]
    claimed.cluster.refresh_from_db()
    return claimed.cluster


def condition(cluster: Cluster) -> tuple[str, str, str]:
    (found,) = [one for one in cluster.conditions if one["type"] == "TopologyHealthy"]
    return found["status"], found["reason"], found["message"]


def events(cluster: Cluster) -> list[tuple[str, str]]:
    return list(cluster.events.filter(warning=True).order_by("id").values_list("reason", "object"))


def test_the_first_cause_is_the_reason_the_condition_and_an_event(claimed: Claimed) -> None:
    cluster = look(claimed, LOST, DOWN)
    assert (cluster.phase, cluster.reason) == (Phase.DEGRADED, "The node n1 is not ready. Bring n1 back.")
    assert condition(cluster) == ("False", "NodeLost", LOST.message)
    assert [one["code"] for one in cluster.causes] == ["node-lost", "master-down"]
    assert events(cluster) == [("NodeLost", "node/n1"), ("Degraded", "")]


def test_an_event_for_each_new_first_cause_and_nothing_left_when_all_is_well(claimed: Claimed) -> None:
    look(claimed, DOWN)
    look(claimed, DOWN)
    look(claimed, LOST, DOWN)
    cluster = look(claimed, healthy=True)
    assert [reason for reason, _ in events(cluster)] == ["MasterDown", "Degraded", "NodeLost"]
    assert (cluster.phase, cluster.reason, cluster.causes) == (Phase.READY, "", [])
    assert condition(cluster) == ("True", "AsWished", "")


def test_what_was_mended_at_once_is_told_and_degrades_nothing(claimed: Claimed) -> None:
    cluster = look(claimed, Cause("disk-lost", "orders-s2-1 came back empty.", "", "pod/orders-s2-1"), healthy=True)
    assert (cluster.phase, cluster.causes) == (Phase.READY, [])
    assert events(cluster) == [("DiskLost", "pod/orders-s2-1")]


def test_why_a_pod_is_not_placed_is_a_cause_too(claimed: Claimed) -> None:
    pod = PodView("orders-s0-0", "u", {}, "", "", "", "Pending", False, False, 0, False, timezone.now(),
                  "not placed: 0/3 nodes are available: 3 Insufficient memory.")  # fmt: skip
    cluster = look(claimed, DOWN, pods=(pod,))
    assert [one["code"] for one in cluster.causes] == ["master-down", "pod-not-placed"]
    assert "no node has enough memory" in cluster.causes[1]["message"]


def test_a_cluster_that_was_never_ready_is_being_made_and_not_broken(claimed: Claimed) -> None:
    claimed.write(ready_at=None)
    cluster = look(claimed, DOWN)
    assert cluster.causes == []
    assert condition(cluster) == ("False", "NotYet", "orders-s0-0 is not there")


@pytest.mark.parametrize(
    ("redis", "exporter", "started", "told"),
    [
        ("running", "running", True, []),
        ("running", "waiting", True, []),
        ("waiting", "running", False, ["container-fails"]),
    ],
)
def test_a_pod_runs_when_its_engine_does_whatever_stands_beside_it(
    redis: str, exporter: str, started: bool, told: list[str]
) -> None:
    states = {"running": {"running": {}}, "waiting": {"waiting": {"reason": "CrashLoopBackOff"}}}
    item = {
        "metadata": {"name": "orders-s0-0", "uid": "u"},
        "spec": {"nodeName": "n1", "containers": [{"name": "redis"}, {"name": "exporter"}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            # Kubernetes sorts them by name.
            "containerStatuses": [
                {"name": "exporter", "state": states[exporter]}, {"name": "redis", "state": states[redis]}
            ],
        },
    }  # fmt: skip
    pod = door.pod_view(item, {})
    assert pod.started is started
    assert ("CrashLoopBackOff" in pod.problem) == ("waiting" in (redis, exporter))
    found = diagnosis.causes(World(timezone.now(), (pod,), (), (), ()))
    assert [cause.code for cause in found if cause.code] == told
