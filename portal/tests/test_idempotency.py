"""Idempotency-Key under parallel repeats, reuse and expiry; a real database decides who is first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from portal.idempotency import KEPT_FOR
from portal.models import IdempotencyKey
from portal.tasks import forget_idempotency_keys
from portal.tests.conftest import Client, World
from provisioning.models import Cluster, Operation
from tenants.models import AuditEvent, LedgerEntry
from tenants.tests.locks import await_a_waiter
from tenants.tokens import create_token

CLUSTERS = "/api/v1/tenants/acme/clusters"
REPEATS = 50

pytestmark = pytest.mark.django_db(transaction=True)


def post(client: APIClient, name: str, key: str) -> tuple[int, str, dict[str, Any]]:
    """Status, Location and body of an order; the thread's database connection is given back."""
    try:
        answer = client.post(
            CLUSTERS, {"engine": "redis", "name": name}, format="json", headers={"Idempotency-Key": key}
        )
        return answer.status_code, answer.headers.get("Location", ""), answer.json()
    finally:
        connection.close()


def test_fifty_parallel_repeats_make_one_operation(world: World) -> None:
    _, secret = create_token(user=world.alice, name="test", scopes=["write"])
    clients = [APIClient(headers={"Authorization": f"Bearer {secret}"}) for _ in range(REPEATS)]
    with ThreadPoolExecutor(REPEATS) as pool:
        answers = list(pool.map(lambda client: post(client, "fresh", "once"), clients))
    cluster = Cluster.objects.get(name="fresh")
    operation = Operation.objects.get(cluster=cluster)
    assert {(status, location) for status, location, _ in answers} == {(202, f"/api/v1/operations/{operation.id}")}
    assert [body for _, _, body in answers] == [answers[0][2]] * REPEATS
    assert AuditEvent.objects.filter(action="createCluster", object="clusters/fresh").count() == 1
    assert LedgerEntry.objects.filter(holder=cluster.id, resource="clusters").count() == 1


def test_the_same_key_with_another_body_is_refused_and_changes_nothing(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    assert post(alice, "fresh", "once")[0] == 202
    status, _, body = post(alice, "other", "once")
    assert (status, body["code"]) == (422, "idempotency_key_reused")
    assert not Cluster.objects.filter(name="other").exists()


def test_a_refused_order_may_be_repeated_with_its_key(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    assert post(alice, "orders", "again")[0] == 409
    Cluster.objects.filter(name="orders").update(name="moved")
    assert post(alice, "orders", "again")[0] == 202


def grow_old() -> None:
    IdempotencyKey.objects.update(created=timezone.now() - KEPT_FOR - timedelta(seconds=1))


def test_answers_are_forgotten_after_a_day_and_not_before(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    post(alice, "first", "old")
    grow_old()
    post(alice, "second", "young")
    forget_idempotency_keys()
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]


def test_a_key_that_is_forgotten_in_the_moment_of_its_repeat_is_free(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    post(alice, "first", "key")
    grow_old()
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            forget_idempotency_keys()
            repeat = pool.submit(post, alice, "second", "key")
            await_a_waiter()
        assert repeat.result()[0] == 202
