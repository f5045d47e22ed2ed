"""Plans: what administrators make of them, and what that does to orders."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World
from provisioning.catalog.plans import ensure_plans
from provisioning.models import Cluster, Phase, Plan
from tenants.models import AuditEvent, User

PLANS = "/api/v1/plans"
TINY = {
    "name": "redis-tiny", "engine": "redis", "title": "Tiny", "description": "For tries.",
    "values": {"shards": 3, "replicasPerShard": 0, "memoryGiB": 0.125}, "targets": ["main"], "position": 7,
}  # fmt: skip


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


@pytest.fixture
def admin(world: World, client_of: Client) -> APIClient:
    return client_of(User.objects.create(username="root", is_superuser=True))


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def errors(answer: Any) -> set[tuple[str, str]]:
    assert answer.status_code == 422, answer.content
    return {(one["pointer"], one["code"]) for one in answer.json()["errors"]}


def order(client: APIClient, **body: Any) -> Any:
    return client.post(
        "/api/v1/tenants/acme/clusters", {"engine": "redis", "name": "new", **body}, format="json",
        headers={"Idempotency-Key": "k"},
    )  # fmt: skip


def test_an_administrator_makes_changes_and_deletes_a_plan(admin: APIClient, world: World) -> None:
    plan = {**TINY, "targets": [world.target.name]}
    made = admin.post(PLANS, plan, format="json")
    assert (made.status_code, made.json()) == (201, {**plan, "storage_classes": [], "offered": True})
    patch = {"title": "Very small", "values": {"shards": 4, "memoryGiB": None}, "targets": []}
    changed = admin.patch(f"{PLANS}/redis-tiny", patch, format="json").json()
    assert changed == {
        **made.json(), "title": "Very small", "values": {"shards": 4, "replicasPerShard": 0}, "targets": [],
    }  # fmt: skip
    assert admin.get(f"{PLANS}/redis-tiny").json() == changed
    assert admin.delete(f"{PLANS}/redis-tiny").status_code == 204
    assert code(admin.get(f"{PLANS}/redis-tiny")) == (404, "not_found")
    rows = AuditEvent.objects.order_by("id").values_list("action", "object")
    assert list(rows) == [(name, "plans/redis-tiny") for name in ("createPlan", "editPlan", "deletePlan")]


def test_a_plan_gives_an_order_its_values(admin: APIClient, alice: APIClient, world: World) -> None:
    admin.post(PLANS, {**TINY, "targets": [world.target.name]}, format="json")
    assert order(alice, plan="redis-tiny").status_code == 202
    spec = Cluster.objects.get(name="new").spec
    assert (spec["shards"], spec["replicasPerShard"], spec["memoryGiB"]) == (3, 0, 0.125)


def test_everything_wrong_with_a_plan_is_told_at_once(admin: APIClient) -> None:
    wrong = {**TINY, "name": "No Name", "values": {"shards": 1, "shard": 3}, "targets": ["nowhere"]}
    found = errors(admin.post(PLANS, wrong, format="json"))
    assert found == {
        ("/name", "bad_name"), ("/values/shards", "out_of_range"), ("/values/shard", "unknown_field"),
        ("/targets/0", "unknown_target"),
    }  # fmt: skip
    assert errors(admin.post(PLANS, {**TINY, "engine": "nosql", "targets": []}, format="json")) == {
        ("/engine", "unknown_engine")
    }
    assert not Plan.objects.filter(title="Tiny").exists()


def test_values_that_break_a_rule_between_fields_are_refused(admin: APIClient) -> None:
    body = {**TINY, "targets": [], "values": {"persistence": "none", "replicasPerShard": 1}}
    assert errors(admin.post(PLANS, body, format="json")) == {("/values/persistence", "loses_replicas")}


def test_a_plan_sets_a_storage_class_that_it_allows_itself(admin: APIClient) -> None:
    body = {**TINY, "targets": [], "storage_classes": ["fast-ssd"]}
    assert errors(admin.post(PLANS, body, format="json")) == {("/values/storageClass", "not_allowed")}
    body["values"] = {"storageClass": "fast-ssd"}
    assert admin.post(PLANS, body, format="json").status_code == 201


def test_a_change_that_is_wrong_changes_nothing(admin: APIClient, world: World) -> None:
    path = f"{PLANS}/plan-small"
    before = admin.get(path).json()
    patch = {"title": "Other", "values": {"shards": 3000}}
    assert errors(admin.patch(path, patch, format="json")) == {("/values/shards", "out_of_range")}
    assert admin.get(path).json() == before
    assert code(admin.patch(f"{PLANS}/none", {"title": "Other"}, format="json")) == (404, "not_found")


def test_a_name_in_use_is_refused(admin: APIClient) -> None:
    assert code(admin.post(PLANS, {**TINY, "name": "plan-small", "targets": []}, format="json")) == (409, "plan_exists")


def test_a_plan_that_is_not_offered_is_hidden_and_takes_no_order(admin: APIClient, alice: APIClient) -> None:
    assert admin.patch(f"{PLANS}/plan-small", {"offered": False}, format="json").json()["offered"] is False
    assert [one["name"] for one in alice.get(f"{PLANS}?engine=redis").json()["items"]] == []
    assert code(alice.get(f"{PLANS}/plan-small")) == (404, "not_found")
    assert [one["name"] for one in admin.get(f"{PLANS}?engine=redis").json()["items"]] == ["plan-small"]
    assert admin.get(f"{PLANS}?engine=redis&offered=true").json()["items"] == []
    assert errors(order(alice, plan="plan-small")) == {("/plan", "plan_not_offered")}
    assert not Cluster.objects.filter(name="new").exists()


def test_a_plan_that_a_cluster_was_ordered_by_is_not_deleted(admin: APIClient, world: World) -> None:
    Cluster.objects.filter(pk=world.orders.pk).update(plan="plan-small")
    refused = admin.delete(f"{PLANS}/plan-small")
    assert code(refused) == (409, "plan_in_use")
    assert "offered" in refused.json()["suggestion"]
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DELETED)
    assert admin.delete(f"{PLANS}/plan-small").status_code == 204
    assert Cluster.objects.get(pk=world.orders.pk).plan is None


def test_a_plan_that_comes_with_berth_is_not_deleted(admin: APIClient) -> None:
    ensure_plans()
    assert code(admin.delete(f"{PLANS}/redis-dev")) == (409, "plan_built_in")


def test_plans_are_changed_by_administrators_only(alice: APIClient) -> None:
    body = {"title": "Mine"}
    assert code(alice.post(PLANS, TINY, format="json")) == (403, "role_required")
    assert code(alice.patch(f"{PLANS}/plan-small", body, format="json")) == (403, "role_required")
    assert code(alice.delete(f"{PLANS}/plan-small")) == (403, "role_required")
