"""Where many clusters stand, in one request."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.clusters.grants import share
from provisioning.models import Cluster, OperationState, Phase

STATUS = "/api/v1/tenants/acme/cluster-status"


def test_each_is_told_with_its_change_under_way(world: World, client_of: Client) -> None:
    broken = make_cluster(world.acme, world.target, "broken", phase=Phase.FAILED, reason="No room for pods.")
    operation = make_operation(broken, kind="delete", state=OperationState.RUNNING, percent=40, reason="For a pod.")
    answer = client_of(world.vera).get(STATUS, {"names": "orders,broken"})
    assert answer.status_code == 200
    assert answer.json()["missing"] == []
    first, second = answer.json()["clusters"]
    assert first == {
        "name": "broken", "id": broken.pk, "phase": "failed", "reason": "No room for pods.", "generation": 1,
        "observed_generation": 0, "revision": 1,
        "operation": {
            "id": operation.pk, "kind": "delete", "state": "running", "percent": 40, "reason": "For a pod.",
            "revision": 1,
        },
    }  # fmt: skip
    assert (second["name"], second["phase"], second["operation"]) == ("orders", "ready", None)


def test_what_is_deleted_foreign_or_never_was_is_missing_alike(world: World, client_of: Client) -> None:
    make_cluster(world.acme, world.target, "old", phase=Phase.DELETED)
    names = f"{world.theirs.name},orders,old,Never!"
    body = client_of(world.alice).get(STATUS, {"names": names}).json()
    assert [one["name"] for one in body["clusters"]] == ["orders"]
    assert body["missing"] == [world.theirs.name, "old", "Never!"]


def test_a_guest_of_one_cluster_is_not_told_of_others(world: World, client_of: Client) -> None:
    share(cluster=world.orders, username="charlie", right="read")
    answer = client_of(world.charlie).get(STATUS, {"names": "orders"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, "required"), ({"names": ""}, "blank"), ({"names": "a,,b"}, "empty_name"), ({"names": "a\0"}, None),
        ({"names": ",".join(f"c{number}" for number in range(101))}, "too_many"), ({"names": "a", "x": "1"}, None),
    ],
)  # fmt: skip
def test_a_list_that_is_wrong_is_refused_by_name(
    world: World, client_of: Client, query: dict[str, Any], code: str | None
) -> None:
    answer = client_of(world.alice).get(STATUS, query)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert error["pointer"] in {"?names", "?x"}
    assert code in {error["code"], None}


def test_a_hundred_names_fit_and_take_as_many_queries_as_one(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    made = Cluster.objects.bulk_create(
        Cluster(
            tenant=world.acme, target=world.target, name=f"c{'x' * 26}{number:03}", engine="redis", version="7.0.15",
            spec={},
        )
        for number in range(100)
    )  # fmt: skip
    alice.get(STATUS, {"names": "orders"})  # last_used is written now, not while we count
    counts = []
    for names in (["orders"], [one.name for one in made]):
        address = f"{STATUS}?names={','.join(names)}"
        assert len(f"GET {address} HTTP/1.1\r\n") < 4094
        with CaptureQueriesContext(connection) as captured:
            assert len(alice.get(address).json()["clusters"]) == len(names)
        counts.append(len(captured))
    assert counts == [4, 4]
