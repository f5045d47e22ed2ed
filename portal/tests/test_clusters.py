"""Reading, labelling and listing clusters and operations."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.models import Cluster, ClusterEvent, OperationState, Phase, Principal

CLUSTERS = "/api/v1/tenants/acme/clusters"
ORDERS = f"{CLUSTERS}/orders"


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


def names(answer: Any) -> list[str]:
    return [item["name"] for item in answer.json()["items"]]


def test_a_cluster_is_shown_with_its_etag(alice: APIClient) -> None:
    answer = alice.get(ORDERS)
    assert answer["ETag"] == '"1"'
    shown = answer.json()
    assert (shown["tenant"], shown["name"], shown["phase"], shown["operation"]) == ("acme", "orders", "ready", None)


def test_the_change_under_way_is_shown_with_the_cluster(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, kind="update", state=OperationState.RUNNING)
    assert alice.get(ORDERS).json()["operation"]["id"] == running.id
    assert alice.get(CLUSTERS).json()["items"][0]["operation"]["id"] == running.id


def test_the_answer_of_an_order_is_what_reading_shows(alice: APIClient) -> None:
    order = {"engine": "redis", "name": "fresh", "labels": {"team": "a"}, "description": "mine"}
    answered = alice.post(CLUSTERS, order, format="json", headers={"Idempotency-Key": "fresh"})
    assert answered.status_code == 202, answered.data
    assert answered.json()["cluster"] == alice.get(f"{CLUSTERS}/fresh").json()
    assert answered.json()["operation"] == alice.get(answered.headers["Location"]).json()


def test_deleted_clusters_are_gone_unless_asked_for(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "former", phase=Phase.DELETED)
    assert names(alice.get(CLUSTERS)) == ["orders"]
    assert names(alice.get(f"{CLUSTERS}?phase=deleted")) == ["former"]
    assert alice.get(f"{CLUSTERS}/former").status_code == 404


def test_lists_filter_by_engine_phase_and_beginning_of_the_name(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "keeper", engine="zookeeper", phase=Phase.PENDING)
    make_cluster(world.acme, world.target, "ordeal")
    assert names(alice.get(f"{CLUSTERS}?engine=zookeeper")) == ["keeper"]
    assert names(alice.get(f"{CLUSTERS}?phase=pending")) == ["keeper"]
    assert names(alice.get(f"{CLUSTERS}?q=ord&order=name")) == ["ordeal", "orders"]
    assert names(alice.get(f"{CLUSTERS}?q=%25")) == []


@pytest.mark.parametrize("order", ["created", "-created", "name", "-name"])
def test_pages_join_to_the_whole_list_even_when_rows_come_and_go(alice: APIClient, world: World, order: str) -> None:
    for number in range(7):
        make_cluster(world.acme, world.target, f"c{number * 7 % 5}-{number}")
    whole = names(alice.get(f"{CLUSTERS}?order={order}"))
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        answer = alice.get(CLUSTERS, {"order": order, "limit": "3", "cursor": cursor})
        found += names(answer)
        cursor = answer.json()["next"]
        Cluster.objects.filter(name=found[-1]).update(phase=Phase.DELETED)
    assert found == whole


def test_a_cursor_of_another_ordering_is_refused(alice: APIClient, world: World) -> None:
    make_cluster(world.acme, world.target, "second")
    cursor = alice.get(f"{CLUSTERS}?limit=1&order=name").json()["next"]
    answer = alice.get(CLUSTERS, {"order": "-name", "cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?cursor")


LISTS = [
    "/api/v1/tokens",
    "/api/v1/tenants",
    "/api/v1/plans",
    "/api/v1/targets",
    CLUSTERS,
    f"{ORDERS}/events",
    f"{ORDERS}/operations",
    f"{ORDERS}/credentials",
    "/api/v1/tenants/acme/operations",
]


@pytest.mark.parametrize("path", LISTS)
def test_a_long_list_takes_as_many_queries_as_a_short_one(alice: APIClient, world: World, path: str) -> None:
    alice.get(path)  # last_used is written now, not while we count
    with CaptureQueriesContext(connection) as short:
        assert alice.get(path).status_code == 200
    for number in range(50):
        more = make_cluster(world.acme, world.target, f"more-{number}", created_by=world.alice)
        make_operation(more, state=OperationState.RUNNING, actor=world.bob)
        make_operation(world.orders, actor=world.bob)
        ClusterEvent.objects.create(cluster=world.orders, reason="Again", message="and again")
        Principal.objects.create(cluster=world.orders, name=f"p{number}", secret_name="s")
    with CaptureQueriesContext(connection) as long:
        assert alice.get(path).status_code == 200
    assert len(long) == len(short), [query["sql"][:200] for query in long]


def test_an_operation_shows_its_steps_and_proof(alice: APIClient, world: World) -> None:
    shown = alice.get(f"/api/v1/operations/{world.operation.id}").json()
    assert shown["steps"][0] == {
        "key": "apply", "title": "Apply", "state": "done", "started": "2026-01-01T00:00:00Z", "ended": None,
        "reason": "", "object": "",
    }  # fmt: skip
    assert shown["proof"]["summary"] == "wrote and read"
    assert (shown["actor"], shown["cluster"]["name"], shown["error"]) == ("alice", "orders", None)


def test_waiting_for_an_operation_that_has_ended_answers_at_once(alice: APIClient, world: World) -> None:
    answer = alice.get(f"/api/v1/operations/{world.operation.id}?wait=60&revision=99")
    assert answer.json()["state"] == "succeeded"


def test_waiting_with_an_old_revision_answers_at_once(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING, revision=5)
    answer = alice.get(f"/api/v1/operations/{running.id}?wait=60&revision=4")
    assert answer.json()["revision"] == 5


def test_operations_are_listed_newest_first_and_by_state(alice: APIClient, world: World) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING)
    path = "/api/v1/tenants/acme/operations"
    assert [item["id"] for item in alice.get(path).json()["items"]] == [running.id, world.operation.id]
    assert [item["id"] for item in alice.get(f"{path}?open=true").json()["items"]] == [running.id]
    assert [item["id"] for item in alice.get(f"{path}?open=false").json()["items"]] == [world.operation.id]


def test_the_target_counts_nodes_that_take_pods(alice: APIClient, world: World) -> None:
    world.target.nodes[0]["schedulable"] = False
    world.target.save(update_fields=["nodes"])
    (shown,) = alice.get("/api/v1/targets").json()["items"]
    assert (shown["nodes"], shown["zones"], shown["storage_classes"][0]["name"]) == (2, 2, "standard")


def test_plans_filter_by_engine_in_the_administrators_order(alice: APIClient) -> None:
    assert names(alice.get("/api/v1/plans")) == ["plan-small", "plan-keeper"]
    assert names(alice.get("/api/v1/plans?engine=zookeeper")) == ["plan-keeper"]


def test_the_catalogue_describes_every_field_of_the_form(alice: APIClient) -> None:
    engines = alice.get("/api/v1/engines").json()["items"]
    fields = [field for engine in engines for field in engine["fields"]]
    assert fields
    assert all(field["key"] and field["title"] and field["effect"] for field in fields)


# --- changing ---------------------------------------------------------------------------------------------------------


def test_labels_are_merged_and_null_removes(alice: APIClient) -> None:
    answer = alice.patch(ORDERS, {"labels": {"team": None, "tier": "gold"}, "description": "Shop"}, format="json")
    assert answer.status_code == 200, answer.content
    assert (answer.json()["labels"], answer.json()["description"]) == ({"tier": "gold"}, "Shop")
    assert answer["ETag"] == '"2"'


def test_a_merge_patch_has_its_own_media_type(alice: APIClient) -> None:
    answer = alice.patch(ORDERS, '{"description": null}', content_type="application/merge-patch+json")
    assert (answer.status_code, answer.json()["description"]) == (200, "")


@pytest.mark.parametrize("field", ["name", "engine", "target", "plan", "version", "spec"])
def test_what_cannot_be_changed_is_named_with_the_way_out(alice: APIClient, field: str) -> None:
    answer = alice.patch(ORDERS, {field: {}}, format="json")
    error = answer.json()["errors"][0]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, f"/{field}", "not_changeable")


@pytest.mark.parametrize("tag", ['"1"', "*", '"7", "1"'])
def test_if_match_with_the_present_etag_lets_the_change_through(alice: APIClient, tag: str) -> None:
    assert alice.patch(ORDERS, {"description": "x"}, format="json", headers={"If-Match": tag}).status_code == 200


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', "1", ""])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_if_match_with_another_etag_is_412_with_the_present_one(alice: APIClient, tag: str, method: str) -> None:
    answer = alice.generic(method, ORDERS, "{}", "application/json", headers={"If-Match": tag})
    assert (answer.status_code, answer.json()["code"], answer["ETag"]) == (412, "stale_revision", '"1"')
    assert Cluster.objects.get(name="orders").phase == Phase.READY
