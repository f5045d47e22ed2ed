"""What capabilities say is what the actions do: each is tried, by everybody, in and out of suspension."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from django.db import transaction
from rest_framework.test import APIClient

from portal.api.capabilities import ACTIONS
from portal.api.schema import document
from portal.tests.conftest import Client, World, make_operation
from provisioning.clusters.grants import share
from provisioning.clusters.services import Credential
from provisioning.models import OperationState

CLUSTER = "/api/v1/tenants/{tenant}/clusters/{name}"
HERE = "/api/v1/tenants/acme/clusters/orders"
# operationId -> method and path, from the API's own description.
PATHS = {
    operation["operationId"]: (method.upper(), path)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if path.startswith(CLUSTER) and operation["operationId"] != "getCapabilities"
}
BODIES: dict[str, Any] = {"editCluster": {"description": "x"}, "shareCluster": {"username": "charlie", "right": "read"}}
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


def tried(client: APIClient, action: str) -> str:
    """The code of the refusal for who asks, empty when it went on. What it did is undone."""
    method, path = PATHS[action]
    address = path.format(tenant="acme", name="orders", principal="default", user="default", username="charlie")
    found = Credential("default", "not-a-secret")
    with transaction.atomic(), patch("portal.api.credentials.reveal_credential", return_value=found):
        answer = client.generic(method, address, json.dumps(BODIES.get(action, {})), "application/json")
        transaction.set_rollback(True)
    return answer.json()["code"] if answer.status_code in (403, 404) else ""


def test_every_action_below_a_cluster_is_told_about() -> None:
    assert set(ACTIONS) == set(PATHS)
    assert {action: method for action, (_, method) in ACTIONS.items()} == {
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
    assert told(client) == {action: tried(client, action) for action in ACTIONS}


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
