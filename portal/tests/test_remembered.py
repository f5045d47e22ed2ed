"""What was written once is shown again for as long as nothing of it has changed, and never longer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api import remembered
from portal.api.clusters import ClusterOut, complete
from portal.api.remembered import Memory
from portal.api.renderers import FastJsonRenderer
from portal.tests.conftest import Client, World, make_cluster, make_operation
from provisioning.models import Cluster, Operation, OperationState, Phase, Plan
from tenants.models import Role, User

CLUSTERS = "/api/v1/tenants/acme/clusters"


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    remembered.CLUSTERS.clear()
    yield
    remembered.CLUSTERS.clear()


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    client = client_of(world.alice)
    world.orders.created_by, world.orders.plan_id = world.bob, "plan-small"
    world.orders.save()
    make_operation(world.orders, kind="update", state=OperationState.RUNNING, actor=world.vera)
    client.get(CLUSTERS)  # last_used is written now
    return client


def plain() -> list[Any]:
    """Acme's clusters as REST framework itself writes them, newest first."""
    rows = complete(Cluster.objects.filter(tenant__slug="acme").present()).order_by("-pk")
    return list(json.loads(FastJsonRenderer().render([ClusterOut().to_representation(one) for one in rows])))


def listed(client: APIClient, query: str = "") -> tuple[list[Any], int]:
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(f"{CLUSTERS}{query}")
    assert answer.status_code == 200
    return answer.json()["items"], len(queries)


def rename(world: World) -> None:
    User.objects.filter(pk=world.bob.pk).update(username="robert")


def rename_actor(world: World) -> None:
    User.objects.filter(pk=world.vera.pk).update(username="verena")


def status(world: World) -> None:
    # As reconcile writes it: the revision stays.
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DEGRADED, reason="a pod is gone")


def step(world: World) -> None:
    Operation.objects.filter(cluster=world.orders, state=OperationState.RUNNING).update(percent=70)


def end(world: World) -> None:
    Operation.objects.filter(cluster=world.orders).update(state=OperationState.SUCCEEDED, ended=timezone.now())


def begin(world: World) -> None:
    end(world)
    make_operation(world.orders, kind="restart", state=OperationState.QUEUED, actor=world.bob)


def forget_the_plan(world: World) -> None:
    Plan.objects.filter(name="plan-small").delete()


def forget_the_person(world: World) -> None:
    world.bob.delete()


def another(world: World) -> None:
    make_cluster(world.acme, world.target, "new")


def delete(world: World) -> None:
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DELETED)


def twice(world: World) -> None:
    for reason in ("first", "second"):
        Cluster.objects.filter(pk=world.orders.pk).update(reason=reason)


CHANGES = [rename, rename_actor, status, step, end, begin, forget_the_plan, forget_the_person, another, delete, twice]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_shown_at_once(alice: APIClient, world: World, change: Callable[[World], None]) -> None:
    before, _ = listed(alice)
    assert before == plain()
    change(world)
    after, _ = listed(alice)
    assert after == plain() != before


def test_what_a_rolled_back_change_would_have_shown_is_not_remembered(alice: APIClient, world: World) -> None:
    before, _ = listed(alice)
    with transaction.atomic():
        status(world)
        assert listed(alice)[0] != before
        transaction.set_rollback(True)
    assert listed(alice)[0] == before == plain()


def test_a_list_that_did_not_change_is_not_read_again(alice: APIClient, world: World) -> None:
    for number in range(20):
        make_cluster(world.acme, world.target, f"c-{number}")
    first, cold = listed(alice)
    again, warm = listed(alice)
    assert (again, cold, warm) == (first, 5, 3)
    Cluster.objects.filter(name="c-3").update(reason="waits")
    third, some = listed(alice)
    assert (third, some) == (plain(), 5)


def test_one_cluster_is_shown_as_in_the_list_with_the_etag_of_its_revision(alice: APIClient, world: World) -> None:
    for _ in range(2):
        Cluster.objects.filter(pk=world.orders.pk).update(revision=7 + world.orders.revision, description="changed")
        for _ in range(2):  # written anew, and remembered
            answer = alice.get(f"{CLUSTERS}/orders")
            assert answer.json() == plain()[0]
            assert answer["ETag"] == f'"{answer.json()["revision"]}"'
        world.orders.refresh_from_db()


def test_one_cluster_takes_one_read(alice: APIClient) -> None:
    alice.get(f"{CLUSTERS}/orders")
    with CaptureQueriesContext(connection) as queries:
        assert alice.get(f"{CLUSTERS}/orders").status_code == 200
    assert len(queries) == 3, [query["sql"][:100] for query in queries]


def test_who_may_see_it_is_asked_every_time(alice: APIClient, world: World, client_of: Client) -> None:
    vera, charlie = client_of(world.vera), client_of(world.charlie)
    assert vera.get(f"{CLUSTERS}/orders").json() == alice.get(f"{CLUSTERS}/orders").json()
    assert charlie.get(f"{CLUSTERS}/orders").status_code == 404
    world.acme.memberships.filter(user=world.vera).delete()
    assert vera.get(f"{CLUSTERS}/orders").status_code == 404
    assert vera.get(CLUSTERS).status_code == 404
    world.acme.memberships.create(user=world.charlie, role=Role.VIEWER)
    assert charlie.get(CLUSTERS).json() == alice.get(CLUSTERS).json()


@pytest.mark.parametrize("order", ["created", "-created", "name", "-name"])
@pytest.mark.parametrize("query", ["", "&engine=redis", "&phase=ready", "&q=c-", "&q=c-&engine=redis"])
def test_pages_follow_each_other_in_every_order(alice: APIClient, world: World, order: str, query: str) -> None:
    for number in range(5):
        make_cluster(world.acme, world.target, f"c-{number}")
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = alice.get(f"{CLUSTERS}?limit=2&order={order}&cursor={cursor}{query}").json()
        found += [one["name"] for one in page["items"]]
        cursor = page["next"]
    rows = sorted(plain(), key=lambda one: one["name" if "name" in order else "id"], reverse=order.startswith("-"))
    assert found == [one["name"] for one in rows if "q=" not in query or one["name"].startswith("c-")]


def test_a_number_beyond_64_bits_is_shown_too(alice: APIClient, world: World) -> None:
    Cluster.objects.filter(pk=world.orders.pk).update(spec={"huge": 2**70})
    for _ in range(2):
        assert alice.get(f"{CLUSTERS}/orders").json()["spec"] == {"huge": 2**70}
        assert listed(alice)[0] == plain()


def test_an_indented_answer_says_the_same(alice: APIClient) -> None:
    answer = alice.get(CLUSTERS, headers={"Accept": "application/json; indent=2"})
    assert answer.json()["items"] == plain()
    assert b'\n  "items"' in answer.content


def test_another_server_begins_with_an_empty_memory(alice: APIClient) -> None:
    remembered.CLUSTERS.clear()
    (_, cold), (_, warm) = listed(alice), listed(alice)
    server = remembered._Server()
    server.look(None, connection)
    assert listed(alice)[1] == cold > warm
    server.look(None, connection)  # the same once more
    assert listed(alice)[1] == warm


def test_memory_is_bounded_and_forgets_what_was_not_asked_for_longest() -> None:
    memory = Memory(most_bytes=10)
    for key in "abc":
        memory.put(key, ("1",), b"four")
    assert [memory.get(key, ("1",)) for key in "abc"] == [None, b"four", b"four"]
    memory.get("b", ("1",))
    memory.put("c", ("2",), b"six666")
    assert [memory.get("c", ("1",)), memory.get("c", ("2",)), memory.get("b", ("1",))] == [None, b"six666", b"four"]
    memory.put("d", ("1",), b"x")
    assert [memory.get(key, version) for key, version in (("c", ("2",)), ("b", ("1",)))] == [None, b"four"]
    memory.clear()
    assert memory.get("b", ("1",)) is None
