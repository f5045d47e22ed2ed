"""Idempotency-Key under parallel repeats, reuse and expiry; a real database decides who is first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client as DjangoClient
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api.schema import document
from portal.idempotency import KEPT_FOR
from portal.models import IdempotencyKey
from portal.tasks import forget_idempotency_keys
from portal.tests.conftest import Client, World
from provisioning.models import Cluster, Operation
from tenants.models import AuditEvent, LedgerEntry, Role
from tenants.people import invite
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


# --- every POST -------------------------------------------------------------------------------------------------------

EXEMPT = {
    "signIn": "a repeat signs in again, which is what is wanted",
    "revealCredential": "makes nothing; its answer holds a password, which is kept nowhere",
    "changePassword": "a repeat is refused, since the password is another one by then",
    "forecastQuota": "changes nothing",
    "checkTarget": "looks at a target, as often as it is asked",
    "registerTarget": "asks a cluster, so outside of transactions; a repeat is refused, since the name is taken",
}


def test_every_post_takes_an_idempotency_key_or_is_listed_with_the_reason() -> None:
    posts = {
        methods["post"]["operationId"]: {one["name"] for one in methods["post"].get("parameters", ())}
        for methods in document()["paths"].values()
        if "post" in methods
    }
    assert {name for name, taken in posts.items() if "Idempotency-Key" not in taken} == set(EXEMPT)


TENANT = {"slug": "fresh", "name": "Fresh"}
PLAN = {"name": "plan-fresh", "engine": "redis", "title": "Fresh"}
REPEATED: dict[str, tuple[str, dict[str, Any]]] = {
    "createTenant": ("/api/v1/tenants", TENANT),
    "createPlan": ("/api/v1/plans", PLAN),
    "addMember": ("/api/v1/tenants/acme/members", {"username": "charlie", "role": "viewer"}),
    "shareCluster": (f"{CLUSTERS}/orders/grants", {"username": "charlie", "right": "read"}),
    "suspendTenant": ("/api/v1/tenants/acme/suspend", {}),
    "unsuspendTenant": ("/api/v1/tenants/acme/unsuspend", {}),
}


@pytest.mark.parametrize("action", REPEATED)
def test_a_repeat_gets_the_first_answer_and_does_nothing_twice(world: World, client_of: Client, action: str) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    alice = client_of(world.alice)
    address, body = REPEATED[action]
    answers = [alice.post(address, body, format="json", headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [answers[0].status_code] * 2
    assert answers[0].status_code in (200, 201)
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers.get("ETag") == answers[1].headers.get("ETag")
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]
    other = alice.post(address, {**body, "name": "other"}, format="json", headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_joining_twice_with_one_key_is_joining_once(world: World, client: DjangoClient) -> None:
    _, secret = invite(tenant=world.acme, by=world.alice, role=Role.VIEWER)
    client.force_login(world.charlie)
    body, headers = {"secret": secret}, {"Idempotency-Key": "join"}
    answers = [
        client.post("/api/v1/invitations/accept", body, content_type="application/json", headers=headers)
        for _ in range(2)
    ]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, answers[0].json())] * 2
    assert secret not in str(list(IdempotencyKey.objects.values()))


SECRETIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "createToken": ("/api/v1/tokens", {"name": "ci"}),
    "createServiceToken": ("/api/v1/tenants/acme/service-tokens", {"name": "ci", "role": "viewer"}),
    "invite": ("/api/v1/tenants/acme/invitations", {"role": "viewer"}),
}


@pytest.mark.parametrize("action", SECRETIVE)
def test_a_repeat_of_what_makes_a_secret_makes_no_second_one_and_keeps_none(
    world: World, client: DjangoClient, action: str
) -> None:
    address, body = SECRETIVE[action]
    client.force_login(world.alice)

    def make() -> Any:
        return client.post(address, body, content_type="application/json", headers={"Idempotency-Key": "once"})

    first, again = make(), make()
    assert (first.status_code, again.status_code, again.json()["code"]) == (201, 409, "already_made")
    assert first.json()["id"] in again.json()["detail"]
    assert [one["id"] for one in client.get(address).json()["items"]] == [first.json()["id"]]
    assert first.json()["secret"] not in str(list(IdempotencyKey.objects.values()))
