"""Evening out masters without being asked: when it is due, and when not. No Kubernetes."""

from __future__ import annotations

import secrets
from datetime import timedelta

import pytest
from django.utils import timezone

from provisioning.clusters.interventions import cancel_operation
from provisioning.clusters.rebalance import KIND, due_at
from provisioning.clusters.reconcile import _keep, _show, claim
from provisioning.clusters.services import create_cluster, rebalance_cluster
from provisioning.clusters.views import cluster_view
from provisioning.engines.base import Advance, Invariant, NodeShare, Spread, World
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from tenants.models import Tenant, User

MINUTE = timedelta(minutes=1)
NODES = (NodeShare("n1", "", 2, 2), NodeShare("n2", "", 0, 2))
UNEVEN = Spread((Invariant("even", False, "Masters: 2 on n1, 0 on n2."),), NODES, 1, 600)


@pytest.fixture
def cluster(acme: Tenant, alice: User, target: Target) -> Cluster:
    """One that was delivered an hour ago."""
    made, operation = create_cluster(tenant=acme, by=alice, name=f"c-{secrets.token_hex(4)}", engine="redis")
    ago = timezone.now() - 60 * MINUTE
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED, ended=ago)
    Cluster.objects.filter(pk=made.pk).update(phase=Phase.READY, ready_at=ago)
    return made


def look(cluster: Cluster, spread: Spread | None, *, well_for: timedelta) -> Cluster:
    """One look at a cluster that has been well for so long, as reconcile writes it down."""
    claimed = claim(cluster.pk)
    assert claimed is not None
    advance = Advance(healthy=True, spread=spread)
    world = World(timezone.now(), (), (), (), ())
    _show(claimed, advance, "", world)
    since = (timezone.now() - well_for).isoformat()
    claimed.write(conditions=[{**one, "since": since} for one in claimed.cluster.conditions])
    # A healthy cluster is not spoken to: no link is needed.
    _keep(claimed, cluster_view(claimed.cluster), world, None, advance, "")  # type: ignore[arg-type]
    cluster.refresh_from_db()
    Cluster.objects.filter(pk=cluster.pk).update(claimed_until=None)
    return cluster


def opened(cluster: Cluster) -> list[Operation]:
    return list(cluster.operations.filter(kind=KIND))


def test_every_look_writes_the_rules_and_counts_down_as_seen(cluster: Cluster) -> None:
    look(cluster, UNEVEN, well_for=MINUTE)
    assert cluster.spread == {
        "invariants": [{"key": "even", "holds": False, "message": "Masters: 2 on n1, 0 on n2."}],
        "nodes": [{"node": "n1", "zone": "", "masters": 2, "members": 2},
                  {"node": "n2", "zone": "", "masters": 0, "members": 2}],
        "hand_overs": 1,
    }  # fmt: skip
    (condition,) = [one for one in cluster.conditions if one["type"] == "SpreadEven"]
    assert (condition["status"], condition["reason"]) == ("False", "Broken")
    unknown = Spread((Invariant("even", None, "1 of 3 shards have no master now."),), NODES)
    look(cluster, unknown, well_for=MINUTE)
    assert [one["status"] for one in cluster.conditions if one["type"] == "SpreadEven"] == ["Unknown"]


def test_after_its_minutes_of_health_a_cluster_is_evened_out_without_being_asked(cluster: Cluster) -> None:
    look(cluster, UNEVEN, well_for=9 * MINUTE)
    assert opened(cluster) == []
    look(cluster, UNEVEN, well_for=11 * MINUTE)
    (operation,) = opened(cluster)
    assert (operation.state, operation.actor, operation.generation) == (OperationState.QUEUED, None, 1)
    assert cluster.events.filter(reason="RebalanceDue", operation=operation).exists()


@pytest.mark.parametrize(
    "spread",
    [None, Spread((), NODES, 1), Spread((Invariant("even", True, "."),), NODES)],
    ids=["none", "manual", "even"],
)  # fmt: skip
def test_nothing_is_evened_out_that_needs_it_not_or_is_to_be_asked_for(cluster: Cluster, spread: Spread | None) -> None:
    look(cluster, spread, well_for=60 * MINUTE)
    assert opened(cluster) == []


def test_what_was_canceled_is_not_begun_again_at_once(cluster: Cluster, alice: User) -> None:
    cancel_operation(operation=rebalance_cluster(cluster=cluster, by=alice), by=alice)
    Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY)
    look(cluster, UNEVEN, well_for=60 * MINUTE)
    assert [one.state for one in opened(cluster)] == [OperationState.CANCELED]
    due = due_at(cluster, UNEVEN)
    assert due is not None
    assert due > timezone.now() + 9 * MINUTE
