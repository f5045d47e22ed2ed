"""Ordering, editing, deleting: what is refused, and that races end with one winner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from provisioning.clusters.quota import amounts_of, reserve, settle_as_wished, take_stock
from provisioning.clusters.services import check_draft, create_cluster, delete_cluster, edit_cluster
from provisioning.engines.base import VolumeView
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from tenants import quota
from tenants.models import Tenant, User
from tenants.people import set_suspended
from tenants.quota import QuotaExceeded
from tenants.refusals import Conflict, Forbidden, Invalid, Stale
from tenants.tests.locks import await_a_waiter


def order(tenant: Tenant, by: User, **changes: Any) -> tuple[Cluster, Operation]:
    return create_cluster(**{"tenant": tenant, "by": by, "name": "orders", "engine": "redis", **changes})


def test_an_order_is_complete_and_pending_with_every_step_to_come(acme: Tenant, alice: User, target: Target) -> None:
    cluster, operation = order(acme, alice, plan="redis-dev", spec={"shards": 4})
    assert (cluster.spec["shards"], cluster.spec["memoryGiB"], cluster.spec["persistence"]) == (4, 0.125, "aof")
    assert [step["key"] for step in operation.steps] == [
        "apply", "schedule", "start", "meet", "slots", "replicas", "proof",
    ]  # fmt: skip
    assert (operation.state, cluster.phase) == (OperationState.QUEUED, Phase.PENDING)


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"engine": "redis2"}, "/engine", "There are: redis"),
        ({"plan": "huge"}, "/plan", "redis-dev"),
        ({"version": "1.0"}, "/version", "7.0.15"),
        ({"target": "moon"}, "/target", "There are: main"),
        ({"name": "Orders"}, "/name", "lower-case"),
        ({"name": "x" * 31}, "/name", "1 to 30"),
        ({"name": "orders\n"}, "/name", "lower-case"),
        ({"spec": {"shard": 3}}, "/spec/shard", "Did you mean shards?"),
        ({"spec": {"shards": 2}}, "/spec/shards", "3 to 32"),
        ({"spec": {"shards": 3.5}}, "/spec/shards", "whole number"),
        ({"spec": {"shards": True}}, "/spec/shards", "whole number"),
        ({"spec": {"memoryGiB": "2"}}, "/spec/memoryGiB", "number"),
        ({"spec": {"persistence": "disk"}}, "/spec/persistence", "aof"),
        ({"spec": {"persistence": "none"}}, "/spec/persistence", "Choose aof"),
    ],
)
def test_what_is_wrong_is_named_with_its_rule(
    acme: Tenant, alice: User, target: Target, changes: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        order(acme, alice, **changes)
    assert [error.pointer for error in refused.value.errors] == [pointer]
    assert words in refused.value.errors[0].message
    assert not Cluster.objects.exists()


def test_everything_wrong_is_told_at_once(acme: Tenant, alice: User, target: Target) -> None:
    with pytest.raises(Invalid) as refused:
        order(acme, alice, spec={"shards": 1, "cpu": 100, "colour": "red"})
    assert {error.pointer for error in refused.value.errors} == {"/spec/shards", "/spec/cpu", "/spec/colour"}


def test_more_replicas_than_the_target_has_nodes_is_refused(acme: Tenant, alice: User, target: Target) -> None:
    one_node = [{"name": "n1", "zone": "", "schedulable": True}]
    Target.objects.filter(pk=target.pk).update(nodes=one_node, checked=timezone.now())
    with pytest.raises(Invalid, match="2 members of a shard need 2 nodes"):
        order(acme, alice)


def test_a_name_in_use_is_a_conflict(acme: Tenant, alice: User, target: Target) -> None:
    order(acme, alice)
    with pytest.raises(Conflict) as refused:
        order(acme, alice)
    assert refused.value.code == "name_taken"


def test_only_an_administrator_changes_anything_in_a_suspended_tenant(
    acme: Tenant, alice: User, target: Target
) -> None:
    cluster, _ = order(acme, alice)
    acme.suspended = True
    acme.save()
    for change in (
        lambda by: order(acme, by, name="other"),
        lambda by: edit_cluster(cluster=cluster, by=by, description="new"),
        lambda by: delete_cluster(cluster=cluster, by=by),
    ):
        with pytest.raises(Forbidden) as refused:
            change(alice)
        assert refused.value.code == "tenant_suspended"
    admin = User.objects.create_superuser("root")
    assert delete_cluster(cluster=cluster, by=admin).kind == "delete"


@pytest.mark.django_db(transaction=True)
def test_an_order_in_the_instant_of_a_suspension_is_refused(acme: Tenant, alice: User, target: Target) -> None:
    def late() -> str:
        try:
            order(acme, alice)
        except Forbidden as refused:
            return refused.code
        finally:
            connection.close()
        return "ordered"

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            set_suspended(tenant=Tenant.objects.get(pk=acme.pk), suspended=True)
            # It has read the tenant as active by now: the suspension is not committed.
            answer = pool.submit(late)
            await_a_waiter()
        assert answer.result() == "tenant_suspended"
    assert not Cluster.objects.exists()


def test_an_edit_on_an_old_revision_is_refused(acme: Tenant, alice: User, target: Target) -> None:
    cluster, _ = order(acme, alice)
    edit_cluster(cluster=cluster, by=alice, description="first", expected_revision=1)
    with pytest.raises(Stale) as refused:
        edit_cluster(cluster=cluster, by=alice, description="second", expected_revision=1)
    assert refused.value.current == 2


def test_deleting_volumes_wants_the_name_typed(acme: Tenant, alice: User, target: Target) -> None:
    cluster, operation = order(acme, alice)
    with pytest.raises(Invalid):
        delete_cluster(cluster=cluster, by=alice, volumes="delete", confirm="order")
    operation.refresh_from_db()
    assert operation.state == OperationState.QUEUED


def test_deleting_cancels_a_create_and_asked_twice_is_one_operation(acme: Tenant, alice: User, target: Target) -> None:
    cluster, operation = order(acme, alice)
    first = delete_cluster(cluster=cluster, by=alice)
    assert delete_cluster(cluster=cluster, by=alice).pk == first.pk
    operation.refresh_from_db()
    assert operation.state == OperationState.CANCELED


@pytest.mark.django_db(transaction=True)
def test_fifty_orders_of_one_name_at_once_make_one_cluster(acme: Tenant, alice: User, target: Target) -> None:
    def attempt(_: int) -> str:
        try:
            return order(acme, alice)[0].pk
        except Conflict as refused:
            return refused.code
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(attempt, range(50)))
    assert answers.count("name_taken") == 49
    assert Cluster.objects.count() == 1
    assert Operation.objects.count() == 1


def test_an_order_over_quota_leaves_neither_cluster_nor_operation(acme: Tenant, alice: User, target: Target) -> None:
    quota.replace_limits(tenant_id=acme.pk, limits={("", "pods"): 5})
    with pytest.raises(QuotaExceeded):
        order(acme, alice, plan="redis-dev")
    assert not Cluster.objects.exists()
    assert not Operation.objects.exists()
    assert quota.standings(acme.pk)[0].reserved == 0


def test_a_change_reserves_its_growth_when_accepted_and_gives_shrinkage_back_when_proven(
    acme: Tenant, alice: User, target: Target
) -> None:
    cluster, created = order(acme, alice, plan="redis-dev")
    Operation.objects.filter(pk=created.pk).update(state=OperationState.SUCCEEDED)
    settle_as_wished(cluster, [], created)
    cluster.spec = {**cluster.spec, "shards": 4, "memoryGiB": 0.125, "storageGiB": 1, "exporter": False}
    change = Operation.objects.create(cluster=cluster, kind="update", generation=2, deadline=timezone.now())
    reserve(cluster, change)
    assert (quota.held_by(cluster.pk)["pods"], quota.held_by(cluster.pk)["cpu"]) == (8, 800)
    assert quota.held_by(cluster.pk)["memory"] == 6 * (128 + 48)
    # Two volumes of a shape it had before are still there: storage is what the volumes say.
    left = [VolumeView(f"data-{n}", "Bound", "standard", 1024, 1024, {}) for n in range(8)]
    settle_as_wished(cluster, left, change)
    assert quota.held_by(cluster.pk)["memory"] == 8 * 128
    assert quota.held_by(cluster.pk)["storage:standard"] == 8 * 1024


def test_clusters_from_before_the_ledger_are_entered_once_whatever_the_limits(
    acme: Tenant, alice: User, target: Target
) -> None:
    quota.replace_limits(tenant_id=acme.pk, limits={("", "pods"): 5})
    known = Cluster(tenant=acme, target=target, engine="redis", name="old", version="7.0.15")
    known.spec = check_draft(engine="redis", plan="redis-dev", version=None, target=None, spec={}).spec
    known.save()
    assert (take_stock(), take_stock()) == (1, 0)
    assert quota.held_by(known.pk) == amounts_of("redis", known.spec)
    assert quota.unexplained(acme.pk) == []
