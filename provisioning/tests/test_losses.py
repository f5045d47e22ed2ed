"""Accepting that data is gone: what a look writes down, and what an acceptance is for. No Kubernetes."""

from __future__ import annotations

import secrets

import pytest
from django.utils import timezone

from provisioning.clusters.losses import accepted_by
from provisioning.clusters.reconcile import _show, claim
from provisioning.clusters.services import accept_loss, create_cluster, rebalance_cluster
from provisioning.clusters.views import cluster_view
from provisioning.engines.base import Advance, Loss, World
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from tenants.models import Tenant, User
from tenants.refusals import Conflict, Stale

FIRST = Loss("0-5460", "The data of shard 0 is gone.")
MORE = Loss("0-10921", "The data of shard 0, 1 is gone.")


@pytest.fixture
def cluster(acme: Tenant, alice: User, target: Target) -> Cluster:
    """One that was delivered."""
    made, operation = create_cluster(tenant=acme, by=alice, name=f"c-{secrets.token_hex(4)}", engine="redis")
    now = timezone.now()
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED, ended=now)
    Cluster.objects.filter(pk=made.pk).update(phase=Phase.READY, ready_at=now)
    made.refresh_from_db()
    return made


def look(cluster: Cluster, loss: Loss | None) -> None:
    """One look, as reconcile writes it down."""
    claimed = claim(cluster.pk)
    assert claimed is not None
    _show(claimed, Advance(healthy=loss is None, loss=loss), "", World(timezone.now(), (), (), (), ()))
    Cluster.objects.filter(pk=cluster.pk).update(claimed_until=None)
    cluster.refresh_from_db()


def test_a_loss_is_written_down_and_gone_when_the_data_is_back(cluster: Cluster) -> None:
    look(cluster, FIRST)
    assert cluster.loss == {"extent": "0-5460", "message": "The data of shard 0 is gone."}
    look(cluster, None)
    assert cluster.loss is None


def test_who_saw_less_than_is_lost_now_does_not_accept_it(cluster: Cluster, alice: User) -> None:
    look(cluster, FIRST)
    seen = cluster.revision
    look(cluster, FIRST)
    assert cluster.revision == seen, "nothing has changed"
    look(cluster, MORE)
    with pytest.raises(Stale):
        accept_loss(cluster=cluster, by=alice, confirm=cluster.name, expected_revision=seen)
    accepted = accept_loss(cluster=cluster, by=alice, confirm=cluster.name, expected_revision=cluster.revision)
    assert accepted_by(accepted) == "0-10921"


def test_only_the_operation_that_accepts_a_loss_gives_anything_up(cluster: Cluster, alice: User) -> None:
    look(cluster, FIRST)
    other = rebalance_cluster(cluster=cluster, by=alice)
    assert (accepted_by(other), accepted_by(None)) == ("", "")
    with pytest.raises(Conflict):
        accept_loss(cluster=cluster, by=alice, confirm=cluster.name)


def test_what_a_cluster_that_was_never_ready_lacks_is_still_to_be_made(cluster: Cluster) -> None:
    assert cluster_view(cluster).formed
    Cluster.objects.filter(pk=cluster.pk).update(ready_at=None)
    cluster.refresh_from_db()
    assert not cluster_view(cluster).formed
