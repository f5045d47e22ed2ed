"""Quota over HTTP: explained, forecast, refused with the numbers, limits set by platform administrators only."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World, make_cluster
from provisioning.clusters.services import create_cluster
from provisioning.models import Cluster, Operation, Phase
from tenants import quota
from tenants.models import LedgerEntry, QuotaFinding, QuotaHold, User

QUOTA = "/api/v1/tenants/acme/quota"
CLUSTERS = "/api/v1/tenants/acme/clusters"
SMALL = {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1}
# Of SMALL: six pods of 100 + 20 millicores and 128 + 48 MiB.
AMOUNTS = {
    "clusters": 1, "clusters:redis": 1, "pods": 6, "cpu": 720, "memory": 1056, "storage": 6144,
    "storage:standard": 6144,
}  # fmt: skip


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


@pytest.fixture
def admin(world: World, client_of: Client) -> APIClient:
    return client_of(User.objects.create_superuser("root"))


def limit(world: World, **limits: int) -> None:
    quota.replace_limits(tenant_id=world.acme.pk, limits={("", name): amount for name, amount in limits.items()})


def order(world: World, name: str, **spec: Any) -> tuple[Cluster, Operation]:
    return create_cluster(tenant=world.acme, by=world.alice, name=name, engine="redis", spec={**SMALL, **spec})


def test_every_unit_is_explained_by_its_cluster_and_operation(alice: APIClient, world: World) -> None:
    limit(world, pods=10)
    cluster, operation = order(world, "carts")
    body = alice.get(QUOTA).json()
    pods = next(one for one in body["resources"] if (one["resource"], one["target"]) == ("pods", None))
    assert pods == {
        "resource": "pods", "target": None, "unit": "", "limit": 10, "used": 0, "reserved": 6, "left": 4, "over": False,
    }  # fmt: skip
    (holder,) = body["items"]
    assert (holder["id"], holder["name"], holder["phase"]) == (cluster.pk, "carts", "pending")
    assert {one["resource"]: one["reserved"] for one in holder["holds"]} == AMOUNTS
    assert {one["reserved_by"]["id"] for one in holder["holds"]} == {operation.pk}
    entries = alice.get(f"{QUOTA}/entries").json()["items"]
    assert {(one["kind"], one["operation"], one["cluster"]) for one in entries} == {
        ("reserve", operation.pk, cluster.pk)
    }


def test_the_ledgers_entries_are_found_by_cluster_operation_resource_and_target(alice: APIClient, world: World) -> None:
    carts, operation = order(world, "carts")
    order(world, "more")
    every = alice.get(f"{QUOTA}/entries?limit=200").json()["items"]
    for query, wanted in {
        f"cluster={carts.pk}": {"cluster": carts.pk},
        f"operation={operation.pk}": {"operation": operation.pk},
        "resource=cpu": {"resource": "cpu"},
        f"target={world.target.name}&resource=pods&cluster={carts.pk}": {"resource": "pods", "cluster": carts.pk},
        "cluster=nobody": {"cluster": "nobody"},
    }.items():
        found = alice.get(f"{QUOTA}/entries?limit=200&{query}").json()["items"]
        assert found == [one for one in every if wanted.items() <= one.items()], query
    assert alice.get(f"{QUOTA}/entries?holder=x").status_code == 422


def test_an_order_over_quota_is_a_409_with_the_numbers_and_leaves_nothing(alice: APIClient, world: World) -> None:
    limit(world, pods=10)
    order(world, "carts")
    answer = alice.post(
        CLUSTERS, {"name": "more", "engine": "redis", "spec": SMALL}, format="json", headers={"Idempotency-Key": "k"}
    )
    body = answer.json()
    assert (answer.status_code, body["code"]) == (409, "quota_exceeded")
    assert body["violations"] == [
        {"resource": "pods", "target": None, "unit": "", "limit": 10, "used": 0, "reserved": 6, "requested": 6,
         "short_by": 2}
    ]  # fmt: skip
    assert "platform administrator" in body["suggestion"]
    assert not Cluster.objects.filter(name="more").exists()
    assert LedgerEntry.objects.values("holder").distinct().count() == 1


def test_a_forecast_says_what_it_would_take_what_is_left_and_what_does_not_fit(alice: APIClient, world: World) -> None:
    limit(world, pods=10, cpu=1000)
    order(world, "carts")
    body = alice.post(f"{QUOTA}/forecast", {"engine": "redis", "spec": SMALL}, format="json").json()
    assert body["target"] == "berlin"
    assert {one["resource"]: one["amount"] for one in body["amounts"]} == AMOUNTS
    overall = {one["resource"]: one for one in body["resources"] if one["target"] is None}
    assert (overall["pods"]["requested"], overall["pods"]["left_after"], overall["pods"]["fits"]) == (6, -2, False)
    assert (overall["memory"]["left_after"], overall["memory"]["fits"]) == (None, True)
    assert [(one["resource"], one["short_by"]) for one in body["violations"]] == [("pods", 2), ("cpu", 440)]
    assert body["fits"] is False
    assert QuotaHold.objects.values("holder").distinct().count() == 1


def test_a_forecast_of_a_change_counts_growth_only(alice: APIClient, world: World) -> None:
    limit(world, pods=8)
    order(world, "carts")
    grown = {"cluster": "carts", "spec": {"shards": 4, "cpu": 0.05}}
    body = alice.post(f"{QUOTA}/forecast", grown, format="json").json()
    overall = {one["resource"]: one for one in body["resources"] if one["target"] is None}
    assert (overall["pods"]["requested"], overall["cpu"]["requested"]) == (2, 0)
    assert body["fits"] is True


@pytest.mark.parametrize(("who", "options"), [("vera", {}), ("bob", {"scopes": ["read"]})])
def test_who_may_only_read_may_ask_for_a_forecast(
    world: World, client_of: Client, who: str, options: dict[str, Any]
) -> None:
    draft = {"engine": "redis", "spec": SMALL}
    answer = client_of(getattr(world, who), **options).post(f"{QUOTA}/forecast", draft, format="json")
    assert (answer.status_code, answer.json()["fits"]) == (200, True)


def test_a_forecast_tells_what_another_version_does(alice: APIClient, world: World) -> None:
    order(world, "carts")
    body = alice.post(f"{QUOTA}/forecast", {"cluster": "carts", "version": "8.0.2"}, format="json").json()
    assert [(one["pointer"], one["effect"]) for one in body["changes"]] == [("", "roll")]
    ordered = alice.post(f"{QUOTA}/forecast", {"engine": "redis", "spec": SMALL, "version": "8.0.2"}, format="json")
    assert ordered.status_code == 200


@pytest.mark.parametrize(
    ("draft", "pointer"),
    [
        ({}, "/engine"),
        ({"engine": "redis2"}, "/engine"),
        ({"engine": "redis", "plan": "huge"}, "/plan"),
        ({"engine": "redis", "target": "moon"}, "/target"),
        ({"engine": "redis", "spec": {"shards": 1}}, "/spec/shards"),
        ({"engine": "redis", "version": "1.0"}, "/version"),
        ({"cluster": "carts", "version": "1.0"}, "/version"),
        ({"cluster": "carts", "version": "8.0.2", "spec": {"shards": 4}}, "/version"),
        ({"cluster": "nothing"}, "/cluster"),
        ({"cluster": "secret-plans"}, "/cluster"),
        ({"cluster": "carts", "engine": "redis"}, "/engine"),
        ({"engine": "redis", "name": "x"}, "/name"),
    ],
)
def test_a_wrong_draft_is_named_by_field(alice: APIClient, world: World, draft: dict[str, Any], pointer: str) -> None:
    order(world, "carts")
    answer = alice.post(f"{QUOTA}/forecast", draft, format="json")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def queries(client: APIClient, path: str, body: dict[str, Any] | None) -> int:
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(path) if body is None else client.post(path, body, format="json")
    assert answer.status_code == 200
    return len(captured)


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        (QUOTA, None, 9),
        (f"{QUOTA}/entries", None, 4),
        (f"{QUOTA}/forecast", {"engine": "redis", "spec": SMALL}, 7),
        (f"{QUOTA}/forecast", {"cluster": "c0", "spec": {"shards": 4}}, 7),
    ],
)
def test_the_number_of_queries_does_not_grow_with_the_clusters(
    alice: APIClient, world: World, path: str, body: dict[str, Any] | None, most: int
) -> None:
    limit(world, pods=1000)
    order(world, "c0")
    queries(alice, path, body)  # the first call notes the token's use
    few = queries(alice, path, body)
    for number in range(1, 20):
        order(world, f"c{number}")
    assert queries(alice, path, body) == few <= most


def test_limits_are_set_as_a_whole_and_shown(admin: APIClient, alice: APIClient, world: World) -> None:
    wished = [
        {"resource": "pods", "target": None, "limit": 10},
        {"resource": "storage:standard", "target": "berlin", "limit": 5},
    ]
    answer = admin.put(f"{QUOTA}/limits", {"limits": wished}, format="json")
    assert answer.status_code == 200, answer.content
    shown = alice.get(f"{QUOTA}/limits").json()["limits"]
    assert [(one["resource"], one["target"], one["unit"], one["limit"]) for one in shown] == [
        ("pods", None, "", 10), ("storage:standard", "berlin", "MiB", 5),
    ]  # fmt: skip
    admin.put(f"{QUOTA}/limits", {"limits": []}, format="json")
    assert alice.get(f"{QUOTA}/limits").json() == {"limits": []}


def test_a_limit_lowered_under_use_is_shown_as_over(admin: APIClient, alice: APIClient, world: World) -> None:
    order(world, "carts")
    admin.put(f"{QUOTA}/limits", {"limits": [{"resource": "pods", "limit": 4}]}, format="json")
    pods = next(one for one in alice.get(QUOTA).json()["resources"] if one["limit"] == 4)
    assert (pods["over"], pods["left"]) == (True, -2)


def test_an_owner_may_not_set_limits_and_is_told_who_may(alice: APIClient) -> None:
    answer = alice.put(f"{QUOTA}/limits", {"limits": []}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
    assert "platform administrator" in answer.json()["suggestion"]


@pytest.mark.parametrize(
    ("items", "pointers"),
    [
        ([{"resource": "cores", "limit": 1}], ["/limits/0/resource"]),
        ([{"resource": "clusters:oracle", "limit": 1}], ["/limits/0/resource"]),
        ([{"resource": "storage:", "limit": 1}], ["/limits/0/resource"]),
        ([{"resource": "pods", "limit": 1}, {"resource": "pods", "limit": 2}], ["/limits/1"]),
        ([{"resource": "pods", "target": "moon", "limit": 1}], ["/limits/0/target"]),
        ([{"resource": "pods", "limit": -1}], ["/limits/0/limit"]),
        ([{"resource": "pods", "limit": "5"}], ["/limits/0/limit"]),
        ([{"resource": "pods", "limit": True}], ["/limits/0/limit"]),
        ([{"resource": "pods", "limit": 2**53}], ["/limits/0/limit"]),
        ([{"resource": "pods"}], ["/limits/0/limit"]),
    ],
)
def test_wrong_limits_are_named_and_nothing_is_set(
    admin: APIClient, world: World, items: list[dict[str, Any]], pointers: list[str]
) -> None:
    limit(world, cpu=7)
    answer = admin.put(f"{QUOTA}/limits", {"limits": items}, format="json")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert [one["limit"] for one in admin.get(f"{QUOTA}/limits").json()["limits"]] == [7]


def test_kept_volumes_of_a_deleted_cluster_are_deleted_when_its_name_is_typed(alice: APIClient, world: World) -> None:
    gone = make_cluster(world.acme, world.target, "former", phase=Phase.DELETED, volumes_kept=True)
    path = f"{QUOTA}/kept-volumes/{gone.pk}"
    assert alice.delete(path).json()["errors"][0]["pointer"] == "?confirm"
    assert alice.delete(f"{path}?confirm=forme").json()["errors"][0]["code"] == "confirm_name"
    answer = alice.delete(f"{path}?confirm=former")
    assert answer.status_code == 202, answer.content
    assert answer["Location"] == f"/api/v1/operations/{answer.json()['operation']['id']}"
    assert answer.json()["cluster"]["phase"] == "deleting"


def test_a_cluster_that_left_no_volumes_or_is_there_has_none_to_delete(alice: APIClient, world: World) -> None:
    gone = make_cluster(world.acme, world.target, "former", phase=Phase.DELETED)
    answer = alice.delete(f"{QUOTA}/kept-volumes/{gone.pk}?confirm=former")
    assert (answer.status_code, answer.json()["code"]) == (409, "volumes_gone")
    assert alice.delete(f"{QUOTA}/kept-volumes/{world.orders.pk}?confirm=orders").status_code == 404


def test_findings_are_shown_to_those_who_may_see_the_tenant_until_they_have_ended(
    alice: APIClient, admin: APIClient, world: World, client_of: Client
) -> None:
    finding = QuotaFinding.objects.create(
        tenant=world.acme, place="berlin", holder=world.orders.pk, resource="pods", ledger=6, observed=7,
        note="One more.", last_seen=timezone.now(),
    )  # fmt: skip
    charlie = client_of(world.charlie)
    shown = alice.get("/api/v1/quota-findings").json()["items"]
    assert [(one["tenant"], one["resource"], one["ledger"], one["observed"]) for one in shown] == [
        ("acme", "pods", 6, 7)
    ]
    assert admin.get("/api/v1/quota-findings").json()["items"] == shown == alice.get(QUOTA).json()["findings"]
    assert charlie.get("/api/v1/quota-findings").json()["items"] == []
    QuotaFinding.objects.filter(pk=finding.pk).update(ended=timezone.now())
    assert alice.get("/api/v1/quota-findings").json()["items"] == []
