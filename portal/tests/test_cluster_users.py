"""Users of a cluster over the API: adding, limits, rotation, removal, and who may do what. No Kubernetes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World
from provisioning.apply import door
from provisioning.clusters import services
from provisioning.clusters.accounts import UNUSED_FOR, notes, users_of
from provisioning.engines.base import OldPassword, UsersSeen
from provisioning.models import Cluster, Operation, OperationState, Principal
from tenants.models import AuditEvent

ORDERS = "/api/v1/tenants/acme/clusters/orders"
USERS = f"{ORDERS}/users"
APP = {"name": "app", "key_prefixes": ["orders:"], "commands": ["read", "write"]}


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


def add(client: APIClient, *, key: str = "a", **order: Any) -> Any:
    return client.post(USERS, {**APP, **order}, format="json", headers={"Idempotency-Key": key})


def rotate(client: APIClient, user: str, *, key: str = "r", **order: Any) -> Any:
    return client.post(f"{USERS}/{user}/rotate", order, format="json", headers={"Idempotency-Key": key})


def settle() -> None:
    """What reconcile does once every node knows the users."""
    Operation.objects.update(state=OperationState.SUCCEEDED)
    principals = list(Principal.objects.order_by("pk"))
    for note in notes(principals, users_of("redis", principals) or (), UsersSeen(True)):
        Principal.objects.filter(pk=note.principal.pk).update(**note.fields)


@pytest.fixture
def app(alice: APIClient) -> Principal:
    assert add(alice).status_code == 202
    settle()
    return Principal.objects.get(name="app")


def test_a_user_is_added_by_an_operation_and_without_a_password_in_the_database(alice: APIClient) -> None:
    answer = add(alice)
    operation = answer.json()["operation"]
    assert (answer.status_code, operation["kind"]) == (202, "change-users")
    assert [step["key"] for step in operation["steps"]] == ["apply", "users", "proof"]
    assert answer["Location"] == f"/api/v1/operations/{operation['id']}"
    assert add(alice).json()["operation"]["id"] == operation["id"]
    shown = alice.get(f"{USERS}/app").json()
    assert shown["access"] == {"key_prefixes": ["orders:"], "channel_prefixes": [], "commands": ["read", "write"]}
    assert (shown["in_force"], shown["old_password"], shown["secret_key"]) == (False, None, "user.app")
    # A number no password of an earlier user of this name has had.
    assert shown["version"] == Cluster.objects.get(name="orders").generation == 2
    row = AuditEvent.objects.filter(action="addUser").earliest("id")
    assert (row.object, row.detail["key_prefixes"]) == ("clusters/orders/users/app", ["orders:"])


def test_the_list_shows_default_which_may_do_everything(alice: APIClient, app: Principal) -> None:
    items = alice.get(USERS).json()["items"]
    assert [(one["name"], one["access"] is None) for one in items] == [("app", False), ("default", True)]
    assert [one["name"] for one in alice.get(f"{ORDERS}/credentials").json()["items"]] == ["app", "default"]


@pytest.mark.parametrize(
    ("wrong", "pointer", "code"),
    [
        ({"name": "berth"}, "/name", "reserved"),
        ({"name": "App"}, "/name", "bad_name"),
        ({"name": "a.b"}, "/name", "bad_name"),
        ({"name": "x\n"}, "/name", "bad_name"),
        ({"key_prefixes": ["a b"]}, "/key_prefixes/0", "bad_prefix"),
        ({"key_prefixes": ["ok", "*"]}, "/key_prefixes", "all_and_more"),
        ({"commands": ["read", "admin"]}, "/commands/1", "unknown_group"),
        ({"commands": []}, "/commands", "none"),
        ({"channels": []}, "/channels", "unknown_field"),
    ],
)
def test_what_is_wrong_is_told_with_its_pointer(alice: APIClient, wrong: Any, pointer: str, code: str) -> None:
    answer = add(alice, **wrong)
    assert answer.status_code == 422
    assert (pointer, code) in [(error["pointer"], error["code"]) for error in answer.json()["errors"]]
    assert not Operation.objects.filter(kind="change-users").exists()


def test_a_name_is_used_once_and_there_is_a_most(alice: APIClient, world: World, app: Principal) -> None:
    assert add(alice, key="b").json()["code"] == "name_taken"
    assert add(alice, key="c", name="default").json()["code"] == "name_taken"
    Principal.objects.bulk_create(Principal(cluster=world.orders, name=f"p{n}", secret_name="s") for n in range(48))
    assert add(alice, key="d", name="one-more").json()["code"] == "too_many_users"


def test_rights_change_by_a_merge_patch_with_if_match(alice: APIClient, app: Principal) -> None:
    answer = alice.get(f"{USERS}/app")
    stale = {"If-Match": '"7"'}
    path = f"{USERS}/app"
    assert alice.patch(path, {"commands": ["read"]}, format="json", headers=stale).json()["code"] == "stale_revision"
    headers = {"If-Match": answer["ETag"]}
    changed = alice.patch(path, {"commands": ["read"]}, format="json", headers=headers)
    assert changed.status_code == 202
    settle()
    assert alice.get(path).json()["access"]["key_prefixes"] == ["orders:"]
    assert alice.get(path).json()["access"]["commands"] == ["read"]
    assert alice.patch(path, {"commands": ["read"]}, format="json").status_code == 200
    assert alice.patch(path, {"everything": True}, format="json").json()["errors"][0]["code"] == "only_default"
    assert alice.patch(f"{USERS}/nobody", {}, format="json").status_code == 404


def test_default_is_limited_disabled_and_set_free_but_never_removed(alice: APIClient) -> None:
    path = f"{USERS}/default"
    body = {"key_prefixes": ["*"], "channel_prefixes": ["*"], "commands": ["read"], "enabled": False}
    assert alice.patch(path, body, format="json").status_code == 202
    settle()
    assert alice.get(path).json()["enabled"] is False
    assert alice.patch(path, {"everything": True, "enabled": True}, format="json").status_code == 202
    settle()
    assert (alice.get(path).json()["access"], alice.get(path).json()["enabled"]) == (None, True)
    assert alice.delete(path).json()["code"] == "user_stays"


def test_rotation_keeps_the_old_password_for_a_day_unless_told_otherwise(alice: APIClient, app: Principal) -> None:
    before = timezone.now()
    assert rotate(alice, "app").status_code == 202
    shown = alice.get(f"{USERS}/app").json()
    assert (shown["old_password"]["version"], shown["in_force"]) == (app.version, False)
    row = Principal.objects.get(name="app")
    assert row.old_until is not None
    assert timedelta(hours=23) < row.old_until - before < timedelta(hours=25)
    (user,) = users_of("redis", [row]) or ()
    assert user.versions == (row.version, app.version)
    settle()
    assert rotate(alice, "app", key="s").json()["code"] == "rotation_under_way"
    assert rotate(alice, "app", key="t", overlap_seconds=0).status_code == 202
    row.refresh_from_db()
    assert row.old_version is None


def test_the_old_password_ends_at_its_time_and_is_forgotten_when_no_node_takes_it(
    alice: APIClient, app: Principal
) -> None:
    rotate(alice, "app", overlap_seconds=3600)
    settle()
    Principal.objects.filter(name="app").update(old_until=timezone.now() - timedelta(seconds=1))
    rows = [Principal.objects.get(name="app")]
    users = users_of("redis", rows) or ()
    assert users[0].versions == (rows[0].version,)
    assert list(notes(rows, users, UsersSeen(False, "orders-s0-0 has not been told yet"))) == []
    (note,) = notes(rows, users, UsersSeen(True))
    assert (note.reason, note.fields["old_version"]) == ("OldPasswordEnded", None)
    assert alice.get(f"{USERS}/app").json()["old_password"] is not None


def test_an_old_password_nobody_was_seen_to_use_ends_sooner_where_that_was_asked_for(
    alice: APIClient, app: Principal
) -> None:
    rotate(alice, "app", until_unused=True)
    settle()
    row = Principal.objects.get(name="app")
    (user,) = users_of("redis", [row]) or ()
    assert user.watched
    seen = UsersSeen(True, "", {"app": OldPassword(2, timezone.now())})
    (note,) = notes([row], [user], seen)
    assert (note.fields["old_connections"], note.fields["old_unused_since"]) == (2, None)
    Principal.objects.filter(pk=row.pk).update(**note.fields)
    shown = alice.get(f"{USERS}/app").json()["old_password"]
    assert (shown["connections"], shown["last_active"] is None) == (2, False)
    row.refresh_from_db()
    # Looked at just now.
    assert not (users_of("redis", [row]) or ())[0].watched
    (note,) = notes([row], [user], UsersSeen(True, "", {"app": OldPassword(0, None)}))
    Principal.objects.filter(pk=row.pk).update(**note.fields)
    row.refresh_from_db()
    assert len((users_of("redis", [row]) or ())[0].versions) == 2
    assert row.old_unused_since is not None
    row.old_unused_since -= UNUSED_FOR
    assert len((users_of("redis", [row]) or ())[0].versions) == 1
    row.old_until_unused = False
    assert len((users_of("redis", [row]) or ())[0].versions) == 2


def test_an_old_password_is_ended_before_its_time(alice: APIClient, app: Principal) -> None:
    path = f"{USERS}/app/revoke-old"
    assert alice.post(path).json()["code"] == "no_old_password"
    rotate(alice, "app")
    settle()
    assert alice.post(path).status_code == 202
    assert len((users_of("redis", [Principal.objects.get(name="app")]) or ())[0].versions) == 1


def test_default_is_not_rotated_while_exporters_sign_in_with_it(alice: APIClient, world: World) -> None:
    condition = {"type": "UpToDate", "status": "False", "reason": "RestartNeeded", "message": "", "since": None}
    Cluster.objects.filter(pk=world.orders.pk).update(conditions=[condition])
    assert rotate(alice, "default").json()["code"] == "restart_needed"
    Cluster.objects.filter(pk=world.orders.pk).update(conditions=[{**condition, "status": "True"}])
    assert rotate(alice, "default").status_code == 202


def test_a_removed_users_name_can_be_used_again_for_another_password(alice: APIClient, app: Principal) -> None:
    assert alice.delete(f"{USERS}/app").status_code == 202
    settle()
    assert alice.get(f"{USERS}/app").status_code == 404
    assert add(alice, key="again").status_code == 202
    assert Principal.objects.get(name="app").version > app.version


def test_what_is_revealed_is_the_newest_password_or_nothing(alice: APIClient, app: Principal) -> None:
    rotate(alice, "app")
    stored = {"user.app": "old", f"user.app.{app.version}": "old", "password": "first"}
    with patch.object(door, "read_secret", return_value=stored), patch.object(services, "client_for"):
        path = f"{ORDERS}/credentials/{{}}/reveal"
        assert alice.post(path.format("app")).json()["code"] == "credential_not_ready"
        stored[f"user.app.{Principal.objects.get(name='app').version}"] = "new"
        assert alice.post(path.format("app")).json()["password"] == "new"
        assert alice.post(path.format("default")).json()["password"] == "first"
    assert AuditEvent.objects.filter(action="revealCredential", result="success").count() == 2


def test_an_engine_without_users_says_so(alice: APIClient, world: World) -> None:
    Cluster.objects.filter(pk=world.orders.pk).update(engine="zookeeper", version="3.8.0", spec={})
    assert alice.get(USERS).json()["code"] == "no_users"
    assert add(alice).json()["code"] == "no_users"
    engines = {one["name"]: one["user_rules"] for one in alice.get("/api/v1/engines").json()["items"]}
    assert engines["zookeeper"] is None
    assert "read" in [group["key"] for group in engines["redis"]["commands"]]
