"""What capabilities say is what the actions do: each is tried, by everybody, in and out of suspension, and in every
state of a cluster that matters.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api.capabilities import ACTIONS, TENANT_ACTIONS
from portal.api.schema import document
from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.clusters.grants import share
from provisioning.clusters.pauses import pause_cluster
from provisioning.clusters.services import Credential
from provisioning.models import Cluster, OperationState, Phase
from tenants.models import Role, Tenant
from tenants.people import invite
from tenants.refusals import Unavailable
from tenants.tokens import create_service_token

CLUSTER = "/api/v1/tenants/{tenant}/clusters/{name}"
OPERATION = "/api/v1/operations/{operation}/"
TENANT = "/api/v1/tenants/{tenant}"
HERE = "/api/v1/tenants/acme/clusters/orders"
# operationId -> method and path, from the API's own description.
PATHS = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if (path.startswith(CLUSTER) and operation["operationId"] != "getCapabilities") or path.startswith(OPERATION)
}
TENANT_PATHS = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if path.startswith(TENANT) and not path.startswith(CLUSTER)
    if operation["operationId"] != "getTenantCapabilities"
}
BODIES: dict[str, Any] = {
    "editCluster": {"description": "x"},
    "shareCluster": {"username": "charlie", "right": "read"},
    "pauseCluster": {"reason": "x"},
    "addUser": {"name": "app", "key_prefixes": ["*"], "commands": ["read"]},
    "editUser": {"enabled": False},
    "overrideGate": {"gate": "members-ready", "reason": "x"},
    "renameTenant": {"name": "x"},
    "addMember": {"username": "charlie", "role": "viewer"},
    "changeMember": {"role": "owner"},
    "invite": {"role": "viewer"},
    "createServiceToken": {"name": "ci", "role": "viewer"},
    "createCluster": {"name": "fresh", "engine": "redis"},
    "forecastQuota": {"engine": "redis"},
    "setQuotaLimits": {"limits": []},
}
# What asks the target, which is away in these tests.
AWAY = {"getCertificate", "listIpReservations"}
QUERIES = {
    "deleteKeptVolumes": "?confirm=gone", "getClusterStatuses": "?names=orders", "acceptLoss": "?confirm=orders",
}  # fmt: skip
# What depends on the user in the address, and not on the cluster.
OF_ONE_USER = {"user_stays", "no_old_password"}
CALLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "owner": ("alice", {}),
    "owner with a token to write": ("alice", {"scopes": ["write"]}),
    "owner with a token to read": ("alice", {"scopes": ["read"]}),
    "developer": ("bob", {}),
    "viewer": ("vera", {}),
    "guest who reads": ("charlie", {}),
    "guest who uses": ("charlie", {}),
    "administrator": ("charlie", {}),
}


def told(client: APIClient) -> dict[str, str]:
    """Action to the code it would be refused with, empty when it is allowed."""
    answer = client.get(f"{HERE}/capabilities")
    assert answer.status_code == 200, answer.content
    return {one["action"]: (one["why_not"] or {"code": ""})["code"] for one in answer.json()["actions"]}


def tried(
    client: APIClient, action: str, operation: str, body: dict[str, Any] | None = None,
    ids: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """The code of the refusal for who asks or how it stands, empty when it went on. What it did is undone."""
    method, path = {**PATHS, **TENANT_PATHS}[action]
    username = "bob" if action.endswith("Member") else "charlie"
    address = path.format(
        tenant="acme", name="orders", principal="default", user="default", username=username, operation=operation,
        **(ids or {}),
    ) + QUERIES.get(action, "")  # fmt: skip
    found = Credential("default", "not-a-secret")
    # Nothing of these tests is on a target: what only the target can tell is not asked there.
    away = Unavailable("target_unreachable", "away")
    with (
        transaction.atomic(),
        patch("portal.api.credentials.reveal_credential", return_value=found),
        patch("provisioning.clusters.services.client_for", side_effect=away),
    ):
        sent = json.dumps(body or BODIES.get(action, {}))
        headers = {"Idempotency-Key": "once"} if method == "POST" else {}
        answer = client.generic(method, address, sent, "application/json", headers=headers)
        transaction.set_rollback(True)
    if answer.status_code not in (403, 404, 409):
        assert answer.status_code in (200, 201, 202, 204) or action in AWAY, (action, answer.content)
        return ""
    code: str = answer.json()["code"]
    return "" if code in OF_ONE_USER else code


@pytest.mark.parametrize("suspended", [False, True], ids=["active", "suspended"])
@pytest.mark.parametrize("caller", ["owner in a browser", *(name for name in CALLERS if "guest" not in name)])
def test_what_is_told_of_a_tenant_is_what_happens(
    world: World, client_of: Client, caller: str, suspended: bool
) -> None:
    name, options = CALLERS[caller.replace("owner in a browser", "owner")]
    gone = make_cluster(world.acme, world.target, "gone", phase=Phase.DELETED, volumes_kept=True)
    invitation, _ = invite(tenant=world.acme, by=world.alice, role=Role.VIEWER)
    token, _ = create_service_token(
        tenant=world.acme, by=world.alice, name="ci", role=Role.VIEWER, scopes=["read"], days=1
    )
    ids = {"holder": gone.pk, "invitation": invitation.pk, "token": token.pk}
    world.charlie.is_superuser = caller == "administrator"
    world.charlie.save(update_fields=["is_superuser"])
    world.acme.suspended = suspended
    world.acme.save(update_fields=["suspended"])
    client = client_of(getattr(world, name), **options)
    if caller == "owner in a browser":
        client = APIClient()
        client.force_login(world.alice)
    answer = client.get("/api/v1/tenants/acme/capabilities")
    assert answer.status_code == 200
    said = {one["action"]: (one["why_not"] or {"code": ""})["code"] for one in answer.json()["actions"]}
    assert said == {action: tried(client, action, "", ids=ids) for action in TENANT_ACTIONS}
    assert said["deleteTenant"] == ("tenant_not_empty" if caller == "administrator" else said["deleteTenant"])


def test_a_tenant_that_never_had_a_cluster_can_be_deleted_and_says_so(world: World, client_of: Client) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    Tenant.objects.create(slug="empty", name="Empty")
    actions = client_of(world.alice).get("/api/v1/tenants/empty/capabilities").json()["actions"]
    assert [one["allowed"] for one in actions if one["action"] == "deleteTenant"] == [True]


def test_every_action_of_a_tenant_is_told_about() -> None:
    assert {name: action.method for name, action in TENANT_ACTIONS.items()} == {
        action: method for action, (method, _) in TENANT_PATHS.items()
    }


def test_every_action_below_a_cluster_is_told_about() -> None:
    assert set(ACTIONS) == set(PATHS)
    assert {name: action.method for name, action in ACTIONS.items()} == {
        action: method for action, (method, _) in PATHS.items()
    }


@pytest.mark.parametrize("suspended", [False, True], ids=["active", "suspended"])
@pytest.mark.parametrize("caller", CALLERS)
def test_what_is_told_is_what_happens(world: World, client_of: Client, caller: str, suspended: bool) -> None:
    name, options = CALLERS[caller]
    right = "read" if caller == "guest who reads" else "use"
    share(cluster=world.orders, username="charlie", right=right)
    world.charlie.is_superuser = caller == "administrator"
    world.charlie.save(update_fields=["is_superuser"])
    world.acme.suspended = suspended
    world.acme.save(update_fields=["suspended"])
    client = client_of(getattr(world, name), **options)
    assert told(client) == {action: tried(client, action, world.operation.pk) for action in ACTIONS}


def _running(world: World) -> str:
    return make_operation(world.orders, kind="update", state=OperationState.RUNNING).pk


def _at_a_gate(world: World) -> str:
    gate = {
        "key": "members-ready",
        "message": "One is away.",
        "risk": "",
        "refusal": "",
        "since": "2026-01-01T00:00:00Z",
    }
    return make_operation(world.orders, kind="update", state=OperationState.RUNNING, gate=gate).pk


def _guarded(world: World) -> str:
    gate = {"key": "members-ready", "message": "x", "risk": "", "refusal": "Lost.", "since": "2026-01-01T00:00:00Z"}
    return make_operation(world.orders, kind="update", state=OperationState.RUNNING, gate=gate).pk


def _failed(world: World) -> str:
    return make_operation(world.orders, kind="update", state=OperationState.FAILED, ended=timezone.now()).pk


def _paused(world: World) -> str:
    pause_cluster(cluster=world.orders, by=world.alice, reason="incident")
    return world.operation.pk


def _paused_after_a_failure(world: World) -> str:
    failed = _failed(world)
    pause_cluster(cluster=world.orders, by=world.alice, reason="incident")
    return failed


def _deleting(world: World) -> str:
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DELETING)
    return make_operation(world.orders, kind="delete", state=OperationState.RUNNING).pk


def _without_replicas(world: World) -> str:
    Cluster.objects.filter(pk=world.orders.pk).update(spec={"shards": 3, "replicasPerShard": 0})
    return world.operation.pk


def _lost(world: World) -> str:
    loss = {"extent": "0-5460", "message": "The data of shard 0 is gone."}
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DEGRADED, loss=loss)
    return world.operation.pk


def _lost_while_paused(world: World) -> str:
    pause_cluster(cluster=world.orders, by=world.alice, reason="incident")
    return _lost(world)


def _encrypted(world: World) -> str:
    Cluster.objects.filter(pk=world.orders.pk).update(spec={"shards": 3, "tls": "on"})
    return world.operation.pk


def _without_users(world: World) -> str:
    Cluster.objects.filter(pk=world.orders.pk).update(engine="zookeeper", version="3.9.5", spec={})
    return world.operation.pk


STATES: dict[str, Callable[[World], str]] = {
    "at rest": lambda world: world.operation.pk, "being changed": _running, "waiting at a gate": _at_a_gate,
    "waiting at a gate that guards data": _guarded, "failed": _failed, "paused": _paused,
    "paused after a failure": _paused_after_a_failure, "being deleted": _deleting,
    "without replicas": _without_replicas, "encrypted": _encrypted, "after a loss": _lost,
    "after a loss, paused": _lost_while_paused, "of an engine without users": _without_users,
}  # fmt: skip
EXPECTED = {
    "being changed": {"restartCluster": "operation_in_progress", "cancelOperation": ""},
    "waiting at a gate": {"overrideGate": ""},
    "waiting at a gate that guards data": {"overrideGate": "gate_guards_data"},
    "failed": {"retryOperation": "", "cancelOperation": "operation_ended", "restartCluster": ""},
    "paused": {"resumeCluster": "", "pauseCluster": "cluster_paused", "addUser": "cluster_paused", "deleteCluster": ""},
    "paused after a failure": {"retryOperation": "cluster_paused"},
    "being deleted": {"cancelOperation": "not_cancelable", "pauseCluster": "being_deleted", "deleteCluster": ""},
    "without replicas": {"rebalanceMasters": "cannot_rebalance", "restartCluster": ""},
    "encrypted": {"getCertificate": ""},
    "after a loss": {"acceptLoss": "", "deleteCluster": ""},
    "after a loss, paused": {"acceptLoss": "cluster_paused"},
    "of an engine without users": {"listUsers": "no_users", "rotatePassword": "no_users"},
    "at rest": {"restartCluster": "", "acceptLoss": "nothing_lost", "resumeCluster": "not_paused",
                "getCertificate": "not_encrypted"},
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_what_is_told_is_what_happens_in_every_state(world: World, client_of: Client, state: str) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    share(cluster=world.orders, username="charlie", right="use")
    newest = STATES[state](world)
    client = client_of(world.alice)
    said = told(client)
    assert said == {action: tried(client, action, newest) for action in ACTIONS}
    assert {action: said[action] for action in EXPECTED[state]} == EXPECTED[state]


@pytest.mark.parametrize("state", ["at rest", "being changed", "paused", "being deleted"])
def test_what_a_change_of_the_spec_would_be_refused_with_is_told_beside_what_can_change(
    world: World, client_of: Client, state: str
) -> None:
    newest = STATES[state](world)
    client = client_of(world.alice)
    shown = client.get(f"{HERE}/capabilities").json()["actions"]
    (edit,) = [one for one in shown if one["action"] == "editCluster"]
    assert edit["allowed"]
    assert tried(client, "editCluster", newest) == ""
    limited = (edit["limited"] or {"code": ""})["code"]
    assert limited == tried(client, "editCluster", newest, {"spec": {"shards": 4}})
    assert bool(limited) == (state != "at rest")


def test_a_refusal_names_role_and_remedy(world: World, client_of: Client) -> None:
    shown = client_of(world.vera).get(f"{HERE}/capabilities").json()
    (why_not,) = [one["why_not"] for one in shown["actions"] if one["action"] == "deleteCluster"]
    assert "owner or developer" in why_not["detail"]
    assert "Ask an owner of acme" in why_not["suggestion"]


def test_the_change_under_way_is_told(world: World, client_of: Client) -> None:
    client = client_of(world.alice)
    assert client.get(f"{HERE}/capabilities").json()["operation"] is None
    running = make_operation(world.orders, kind="update", state=OperationState.RUNNING)
    assert client.get(f"{HERE}/capabilities").json()["operation"]["id"] == running.pk
