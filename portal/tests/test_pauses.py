"""Pausing and resuming a cluster over the API."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World
from tenants.models import AuditEvent

ORDERS = "/api/v1/tenants/acme/clusters/orders"


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


def test_a_pause_is_shown_audited_and_ended(alice: APIClient) -> None:
    answer = alice.post(f"{ORDERS}/pause", {"reason": "incident 7"}, format="json", headers={"Idempotency-Key": "p"})
    assert answer.status_code == 200, answer.content
    shown = answer.json()["paused"]
    assert (shown["by"], shown["reason"]) == ("alice", "incident 7")
    assert alice.get(ORDERS).json()["paused"] == shown
    assert alice.get(ORDERS)["ETag"] == answer["ETag"]
    again = alice.post(f"{ORDERS}/pause", {"reason": "incident 7"}, format="json", headers={"Idempotency-Key": "p"})
    assert again.json() == answer.json()
    noted = AuditEvent.objects.filter(action="pauseCluster").earliest("pk")
    assert noted.detail["reason"] == "incident 7"
    refused = alice.patch(ORDERS, {"spec": {"shards": 4}}, format="json")
    assert (refused.status_code, refused.json()["code"]) == (409, "cluster_paused")
    assert "incident 7" in refused.json()["detail"]
    rehearsed = alice.patch(f"{ORDERS}?dry_run=true", {"spec": {"shards": 4}}, format="json")
    assert rehearsed.json()["code"] == "cluster_paused"
    assert alice.post(f"{ORDERS}/resume").json()["paused"] is None
    assert alice.post(f"{ORDERS}/resume").json()["code"] == "not_paused"
    assert AuditEvent.objects.filter(action="resumeCluster").exists()


def test_a_pause_wants_a_reason(alice: APIClient) -> None:
    answer = alice.post(f"{ORDERS}/pause", {}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/reason")


def test_a_pause_asked_for_by_an_old_page_is_refused(alice: APIClient) -> None:
    answer = alice.post(f"{ORDERS}/pause", {"reason": "x"}, format="json", headers={"If-Match": '"99"'})
    assert answer.status_code == 412
