"""How long a change takes, told from past ones of the same steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from provisioning.clusters.rehearsal import rehearse_create, rehearse_delete, rehearse_edit
from provisioning.clusters.services import (
    change_cluster,
    create_cluster,
    delete_cluster,
    rebalance_cluster,
    restart_cluster,
)
from provisioning.clusters.users import add_user, rotate_password
from provisioning.engines.base import Access
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from tenants.models import Tenant, User


@pytest.fixture
def cluster(acme: Tenant, alice: User, target: Target) -> Cluster:
    """Six pods, delivered."""
    made, operation = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", plan="redis-dev")
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED)
    Cluster.objects.filter(pk=made.pk).update(phase=Phase.READY)
    return made


def ended(operation: Operation | None, seconds: float, state: str = OperationState.SUCCEEDED) -> Operation:
    """The operation, as if it had taken so long."""
    assert operation is not None
    now = timezone.now()
    operation.started, operation.ended, operation.state = now - timedelta(seconds=seconds), now, state
    operation.save(update_fields=["started", "ended", "state"])
    return operation


def test_the_first_of_its_kind_has_nothing_to_tell_from(cluster: Cluster, alice: User) -> None:
    assert restart_cluster(cluster=cluster, by=alice).params["estimate"] is None


def test_restarts_tell_by_the_pod_what_an_upgrade_takes_which_takes_the_same_steps(
    cluster: Cluster, alice: User
) -> None:
    for seconds in (60, 66, 600):
        ended(restart_cluster(cluster=cluster, by=alice), seconds)
    ended(restart_cluster(cluster=cluster, by=alice), 6, OperationState.FAILED)
    found = rehearse_edit(cluster=cluster, by=alice, version="8.0.2").operation
    assert found is not None
    # The median of 10, 11 and 100 s a pod, for 6 pods.
    assert found.params["estimate"] == {"seconds": 66.0, "based_on": 3}
    Cluster.objects.filter(pk=cluster.pk).update(spec={**cluster.spec, "shards": 4})
    assert restart_cluster(cluster=cluster, by=alice).params["estimate"] == {"seconds": 88.0, "based_on": 3}


def test_changes_of_other_steps_and_on_other_targets_tell_nothing(cluster: Cluster, alice: User) -> None:
    ended(restart_cluster(cluster=cluster, by=alice), 60)
    live = change_cluster(cluster=cluster, by=alice, spec={"evictionPolicy": "allkeys-lru"})
    assert ended(live, 2).params["estimate"] is None
    again = change_cluster(cluster=cluster, by=alice, spec={"evictionPolicy": "allkeys-lfu"})
    assert ended(again, 2).params["estimate"] == {"seconds": 2.0, "based_on": 1}
    elsewhere = Cluster.objects.create(
        tenant=cluster.tenant, target=Target.objects.create(name="other", title="Other"), engine="redis", name="else",
        version="7.0.15", spec=cluster.spec, phase=Phase.READY,
    )  # fmt: skip
    assert restart_cluster(cluster=elsewhere, by=alice).params["estimate"] is None


def test_an_order_and_a_deletion_are_told_by_past_ones_too(cluster: Cluster, acme: Tenant, alice: User) -> None:
    ended(cluster.operations.get(), 40)
    order: dict[str, Any] = {"tenant": acme, "by": alice, "engine": "redis", "plan": "redis-dev"}
    rehearsed = rehearse_create(name="second", **order).operation
    second, operation = create_cluster(name="second", **order)
    assert rehearsed is not None
    assert rehearsed.params["estimate"] == operation.params["estimate"] == {"seconds": 40.0, "based_on": 1}
    ended(operation, 50)
    assert rehearse_delete(cluster=cluster, by=alice).operation.params["estimate"] is None  # type: ignore[union-attr]
    ended(delete_cluster(cluster=second, by=alice), 6)
    assert delete_cluster(cluster=cluster, by=alice).params["estimate"] == {"seconds": 6.0, "based_on": 1}


def test_evening_out_is_told_by_the_hand_over(cluster: Cluster, alice: User) -> None:
    for hand_overs, seconds in ((2, 8), (1, 5)):
        Cluster.objects.filter(pk=cluster.pk).update(spread={"hand_overs": hand_overs})
        ended(rebalance_cluster(cluster=cluster, by=alice), seconds)
    Cluster.objects.filter(pk=cluster.pk).update(spread={"hand_overs": 3})
    operation = rebalance_cluster(cluster=cluster, by=alice)
    # The median of 4 and 5 s, three times.
    assert operation.params["estimate"] == {"seconds": 13.5, "based_on": 2}
    assert "3 hand-overs make masters even" in operation.params["changes"][0]["message"]


def test_changes_of_users_are_told_by_past_ones(cluster: Cluster, alice: User) -> None:
    _, operation = add_user(cluster=cluster, by=alice, name="app", access=Access(("orders:",), (), ("read",)))
    assert operation.params["estimate"] is None
    ended(operation, 3)
    operation = rotate_password(cluster=cluster, by=alice, name="app", overlap=timedelta(hours=1))
    assert operation.params["estimate"] == {"seconds": 3.0, "based_on": 1}
