"""Operations of all tenants; canceling and retrying over the API."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.clusters.services import check_draft
from provisioning.clusters.views import overridden_gates
from provisioning.models import Cluster, ClusterEvent, Operation, OperationState, Phase, Target
from tenants.models import AuditEvent, User

ALL = "/api/v1/operations"


@pytest.fixture
def admin(world: World, client_of: Client) -> APIClient:
    return client_of(User.objects.create(username="root", is_superuser=True))


def complete() -> dict[str, Any]:
    """A spec as an order leaves it."""
    return check_draft(engine="redis", plan=None, version=None, target="berlin", spec={}).spec


def ids(answer: Any) -> list[str]:
    return [item["id"] for item in answer.json()["items"]]


def test_an_administrator_sees_the_operations_of_every_tenant_and_others_their_own(
    world: World, client_of: Client, admin: APIClient
) -> None:
    theirs = Operation.objects.get(cluster=world.theirs)
    assert ids(admin.get(ALL)) == [theirs.pk, world.operation.pk]
    assert ids(client_of(world.vera).get(ALL)) == [world.operation.pk]
    assert ids(client_of(world.charlie).get(ALL)) == [theirs.pk]


def test_a_token_of_one_tenant_lists_that_tenants_only(world: World, client_of: Client) -> None:
    world.theirs.tenant.memberships.create(user=world.alice, role="owner")
    client = client_of(world.alice, tenant=world.theirs.tenant)
    assert ids(client.get(ALL)) == [Operation.objects.get(cluster=world.theirs).pk]


def test_operations_are_found_by_state_kind_tenant_target_and_engine(world: World, admin: APIClient) -> None:
    paris = Target.objects.create(name="paris", title="Paris")
    keeper = make_cluster(world.acme, paris, "keeper", engine="zookeeper")
    failed = make_operation(keeper, kind="update", state=OperationState.FAILED)
    running = make_operation(keeper, kind="delete", state=OperationState.RUNNING)
    theirs = Operation.objects.get(cluster=world.theirs)
    for query, found in {
        "state=failed": [failed],
        "kind=delete": [running],
        "tenant=other": [theirs],
        "target=paris": [running, failed],
        "engine=zookeeper&open=false": [failed],
        "open=true": [running],
        "tenant=nowhere": [],
    }.items():
        assert ids(admin.get(f"{ALL}?{query}")) == [one.pk for one in found], query


def test_a_tenants_and_a_clusters_operations_are_found_by_state_and_kind(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    failed = make_operation(world.orders, kind="update", state=OperationState.FAILED)
    for path in ("/api/v1/tenants/acme/operations", "/api/v1/tenants/acme/clusters/orders/operations"):
        assert ids(alice.get(f"{path}?state=failed")) == [failed.pk]
        assert ids(alice.get(f"{path}?kind=create&open=false")) == [world.operation.pk]
        assert alice.get(f"{path}?target=berlin").status_code == 422


def test_a_wrong_state_is_refused_by_name(admin: APIClient) -> None:
    answer = admin.get(f"{ALL}?state=stuck")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?state")


def test_an_administrator_cancels_with_a_reason_and_retries_and_both_are_in_the_audit(
    world: World, admin: APIClient
) -> None:
    pending = make_cluster(world.acme, world.target, "stuck", phase=Phase.PROVISIONING, spec=complete())
    running = make_operation(pending, state=OperationState.RUNNING)
    assert admin.get(f"{ALL}/{running.pk}").json()["cancelable"] is True
    answer = admin.post(f"{ALL}/{running.pk}/cancel", {"reason": "node pool is gone"}, format="json")
    assert answer.status_code == 200, answer.content
    assert (answer.json()["state"], answer.json()["reason"]) == ("canceled", "Canceled by root: node pool is gone")
    assert answer.json()["cancelable"] is False
    retried = admin.post(f"{ALL}/{running.pk}/retry")
    assert retried.status_code == 202, retried.content
    assert retried["Location"] == f"{ALL}/{retried.json()['operation']['id']}"
    assert retried.json()["cluster"]["phase"] == "pending"
    rows = list(AuditEvent.objects.order_by("id").values_list("action", "object", "tenant", "detail"))
    assert rows == [
        ("cancelOperation", f"operations/{running.pk}", "acme", {"cluster": "stuck", "reason": "node pool is gone"}),
        ("retryOperation", f"operations/{running.pk}", "acme", {"cluster": "stuck"}),
    ]


def test_a_developer_cancels_in_the_own_tenant_and_a_viewer_does_not(world: World, client_of: Client) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING)
    refused = client_of(world.vera).post(f"{ALL}/{running.pk}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    assert client_of(world.bob).post(f"{ALL}/{running.pk}/cancel").status_code == 200


def test_a_repeat_with_the_same_key_retries_once(world: World, client_of: Client) -> None:
    Operation.objects.filter(pk=world.operation.pk).update(state=OperationState.FAILED)
    Cluster.objects.filter(pk=world.orders.pk).update(spec=complete())
    bob, headers = client_of(world.bob), {"Idempotency-Key": "once"}
    first = bob.post(f"{ALL}/{world.operation.pk}/retry", headers=headers)
    second = bob.post(f"{ALL}/{world.operation.pk}/retry", headers=headers)
    assert first.json() == second.json()
    assert second["Idempotency-Replayed"] == "true"
    assert Operation.objects.filter(cluster=world.orders).count() == 2


def test_a_refusal_names_the_reason_and_changes_nothing(world: World, client_of: Client) -> None:
    answer = client_of(world.bob).post(f"{ALL}/{world.operation.pk}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_retryable")
    assert answer.json()["suggestion"]
    assert Cluster.objects.get(pk=world.orders.pk).phase == Phase.READY


GATE = {
    "key": "ready/orders-s0-1", "message": "orders-s0-1 is not there", "risk": "one copy less", "refusal": "",
    "since": "2026-11-26T08:00:00Z",
}  # fmt: skip


@pytest.fixture
def gated(world: World) -> Operation:
    operation = make_operation(world.orders, kind="restart", state=OperationState.RUNNING)
    Operation.objects.filter(pk=operation.pk).update(gate=GATE)
    return operation


def override(client: APIClient, operation: Operation, **body: str) -> Any:
    sent = {"gate": GATE["key"], "reason": "the node is being repaired", **body}
    return client.post(f"{ALL}/{operation.pk}/override", sent, format="json")


def test_an_administrator_lets_an_operation_pass_the_gate_it_shows_and_says_why(
    gated: Operation, admin: APIClient
) -> None:
    assert admin.get(f"{ALL}/{gated.pk}").json()["gate"] == GATE
    answer = override(admin, gated)
    assert (answer.status_code, answer.json()["gate"]) == (200, None), answer.content
    gated.refresh_from_db()
    assert overridden_gates(gated) == {GATE["key"]}
    event = ClusterEvent.objects.get(operation=gated)
    assert (event.reason, event.warning) == ("GateOverridden", True)
    assert "root" in event.message
    assert "the node is being repaired" in event.message
    row = AuditEvent.objects.get()
    assert (row.action, row.detail["reason"]) == ("overrideGate", "the node is being repaired")
    assert override(admin, gated).json()["code"] == "gate_not_waited_at"


def test_a_gate_that_guards_data_is_passed_by_nobody(gated: Operation, admin: APIClient) -> None:
    Operation.objects.filter(pk=gated.pk).update(gate={**GATE, "refusal": "Nobody serves the slots of shard 0."})
    answer = override(admin, gated)
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_guards_data")
    assert "shard 0" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"gate": "ready/orders-s1-0"}, 409, "gate_not_waited_at"),
        ({"reason": ""}, 422, "invalid"),
        ({"gate": ""}, 422, "invalid"),
    ],
)
def test_another_gate_or_no_reason_is_refused(
    gated: Operation, admin: APIClient, body: dict[str, str], status: int, code: str
) -> None:
    answer = override(admin, gated, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    gated.refresh_from_db()
    assert (gated.gate, gated.params.get("overridden")) == (GATE, None)


def test_not_even_an_owner_overrides_a_gate(gated: Operation, world: World, client_of: Client) -> None:
    answer = override(client_of(world.alice), gated)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_required")


def test_an_operation_that_has_ended_passes_nothing(gated: Operation, admin: APIClient) -> None:
    Operation.objects.filter(pk=gated.pk).update(state=OperationState.FAILED)
    assert override(admin, gated).json()["code"] == "operation_ended"
