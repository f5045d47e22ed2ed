"""The Secret of a cluster's users, against a real API server."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.clusters.accounts import users_of
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.services import create_cluster
from provisioning.clusters.users import add_user
from provisioning.clusters.views import client_for, cluster_view
from provisioning.engines.base import Access, ClusterView, User
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, Operation, OperationState, Target
from tenants.models import Tenant
from tenants.models import User as Person

pytestmark = [pytest.mark.control_plane]
READ = Access(("*",), (), ("read",))


@pytest.fixture
def cluster(live: Target, acme: Tenant, alice: Person) -> Cluster:
    """One whose objects were applied; no pod of it runs."""
    made, _ = create_cluster(tenant=acme, by=alice, name=f"c-{secrets.token_hex(4)}", engine="redis")
    reconcile(made.pk)
    return Cluster.objects.select_related("tenant", "target").get(pk=made.pk)


def view(cluster: Cluster, *users: User) -> ClusterView:
    return cluster_view(cluster, users=(User("default", (1,)), *users))


def stored(cluster: Cluster) -> dict[str, str]:
    return door.read_secret(client_for(cluster.target), cluster_view(cluster).namespace, f"{cluster.name}-auth")


def settle(cluster: Cluster, wish: ClusterView) -> None:
    door.settle_secrets(client_for(cluster.target), wish, ENGINES["redis"].secrets(wish))


def test_a_new_cluster_has_its_users_before_its_first_pod(cluster: Cluster) -> None:
    secret = stored(cluster)
    assert set(secret) == {"password", "user.default.1", "system", "acl.conf"}
    assert secret["password"] == secret["user.default.1"] != secret["system"]
    assert [line.split()[1] for line in secret["acl.conf"].splitlines()] == ["berth", "default"]


def test_adding_a_user_writes_its_password_and_keeps_the_others(cluster: Cluster, alice: Person) -> None:
    before = stored(cluster)
    Operation.objects.update(state=OperationState.SUCCEEDED)
    add_user(cluster=cluster, by=alice, name="app", access=READ)
    reconcile(cluster.pk)
    after = stored(cluster)
    assert set(after) - set(before) == {"user.app", "user.app.2"}
    assert {key: value for key, value in before.items() if key != "acl.conf"}.items() <= after.items()
    assert f"{after['user.app']}" not in after["acl.conf"]
    operation = cluster.operations.latest("id")
    assert operation.steps[0]["state"] == "done"


def test_a_worker_that_knows_an_older_wish_takes_no_password_away(cluster: Cluster) -> None:
    late = view(cluster)
    cluster.generation += 1
    wish = view(cluster, User("app", (2,), READ))
    settle(cluster, wish)
    password = stored(cluster)["user.app"]
    settle(cluster, late)
    assert stored(cluster)["user.app"] == password
    settle(cluster, wish)
    assert stored(cluster)["user.app"] == password
    settle(cluster, replace(wish, users=(User("default", (1,)),)))
    assert "user.app" not in stored(cluster)


def test_two_writers_at_once_do_not_undo_each_other(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    real = KubeClient.get
    wish = view(cluster, User("app", (2,), READ))

    def get(self: KubeClient, path: str, **query: str) -> object:
        found = real(self, path, **query)
        monkeypatch.setattr(KubeClient, "get", real)
        settle(cluster, wish)
        return found

    monkeypatch.setattr(KubeClient, "get", get)
    with pytest.raises(errors.Throttled):
        settle(cluster, view(cluster, User("other", (2,), READ)))
    assert "user.app" in stored(cluster)


def test_a_secret_made_by_an_older_berth_is_completed_and_its_password_stays(cluster: Cluster) -> None:
    client, wish = client_for(cluster.target), view(cluster)
    path = door.path_of("Secret", wish.namespace, f"{cluster.name}-auth")
    found = client.get(path)
    metadata = {key: value for key, value in found["metadata"].items() if key != "annotations"}
    client.request("PUT", path, {**found, "metadata": metadata, "data": {"password": found["data"]["password"]}})
    before = stored(cluster)
    assert set(before) == {"password"}
    settle(cluster, wish)
    after = stored(cluster)
    assert after["password"] == after["user.default.1"] == before["password"]
    assert set(after) == {"password", "user.default.1", "system", "acl.conf"}


def test_principals_are_users_only_where_the_engine_has_some(cluster: Cluster) -> None:
    principals = list(cluster.principals.all())
    assert [user.name for user in users_of("redis", principals) or ()] == ["default"]
    assert users_of("zookeeper", principals) is None
