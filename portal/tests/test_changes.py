"""The stream of changes: who hears what, how it begins, and when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from django.http import StreamingHttpResponse
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api import changes
from portal.tests.conftest import Client, World, make_operation
from provisioning.models import Cluster, OperationState, Phase
from tenants.models import ApiToken, Membership

CHANGES = "/api/v1/changes"
BEAT: tuple[str, dict[str, Any]] = ("heartbeat", {})

# Notifications are sent by commits.
pytestmark = pytest.mark.django_db(transaction=True)


class Stream:
    """What one caller hears. `heard` is every event so far, as (kind, body)."""

    def __init__(self, client: APIClient, path: str = CHANGES) -> None:
        answer = client.get(path, headers={"Accept": "text/event-stream"})
        assert isinstance(answer, StreamingHttpResponse), answer.content
        assert answer["Content-Type"] == "text/event-stream"
        self.answer: StreamingHttpResponse = answer
        self.lines: Iterator[bytes] = cast(Iterator[bytes], iter(answer))
        assert next(self.lines).startswith(b"retry: ")
        assert self.next() == ("resync", {})

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next event, a heartbeat included."""
        text = next(self.lines).decode()
        kind, data = text.strip().split("\n")
        return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def until(self, kind: str) -> dict[str, Any]:
        """The body of the next event of this kind."""
        while True:
            heard, body = self.next()
            if heard == kind:
                return body


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stream]]:
    monkeypatch.setattr(changes, "HEARTBEAT_SECONDS", 0.2)
    opened: list[Stream] = []

    def begin(*arguments: Any) -> Stream:
        opened.append(Stream(*arguments))
        return opened[-1]

    yield begin
    for stream in opened:
        stream.answer.close()


def test_changes_of_clusters_and_operations_are_told(
    world: World, client_of: Client, listen: Callable[..., Stream]
) -> None:
    stream = listen(client_of(world.vera))
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DEGRADED)
    told = stream.until("cluster")
    assert (told["id"], told["tenant"], told["name"], told["phase"]) == (world.orders.pk, "acme", "orders", "degraded")
    running = make_operation(world.orders, kind="delete", state=OperationState.RUNNING, percent=40)
    told = stream.until("operation")
    assert (told["id"], told["cluster"], told["state"], told["percent"]) == (running.pk, "orders", "running", 40)


def test_a_stream_with_nothing_to_tell_beats(world: World, client_of: Client, listen: Callable[..., Stream]) -> None:
    assert listen(client_of(world.vera)).next() == BEAT


def test_a_stranger_hears_nothing_and_a_stream_of_one_tenant_only_that(
    world: World, client_of: Client, listen: Callable[..., Stream]
) -> None:
    Membership.objects.create(tenant=world.acme, user=world.charlie, role="viewer")
    both = listen(client_of(world.charlie))
    one = listen(client_of(world.charlie), f"{CHANGES}?tenant=other")
    stranger = listen(client_of(world.vera))
    Cluster.objects.filter(pk__in=[world.orders.pk, world.theirs.pk]).update(phase=Phase.DEGRADED)
    assert {both.until("cluster")["id"], both.until("cluster")["id"]} == {world.orders.pk, world.theirs.pk}
    assert one.until("cluster")["id"] == world.theirs.pk
    assert stranger.until("cluster")["id"] == world.orders.pk
    assert (one.next(), stranger.next()) == (BEAT, BEAT)


def test_a_member_who_was_removed_hears_no_more(world: World, client_of: Client, listen: Callable[..., Stream]) -> None:
    stream = listen(client_of(world.bob))
    Membership.objects.filter(user=world.bob).delete()
    Cluster.objects.filter(pk=world.orders.pk).update(phase=Phase.DEGRADED)
    assert stream.next() == BEAT


def test_a_stream_ends_with_its_token(world: World, client_of: Client, listen: Callable[..., Stream]) -> None:
    stream = listen(client_of(world.bob))
    ApiToken.objects.filter(user=world.bob).update(expires=timezone.now() - timedelta(seconds=1))
    with pytest.raises(StopIteration):
        stream.next()


def test_a_stream_ends_when_the_browser_signs_out(world: World, listen: Callable[..., Stream]) -> None:
    browser = APIClient()
    browser.force_login(world.bob)
    stream = listen(browser)
    browser.logout()
    with pytest.raises(StopIteration):
        stream.next()


def test_streams_are_bounded_and_their_places_given_back(
    world: World, client_of: Client, listen: Callable[..., Stream]
) -> None:
    bob = client_of(world.bob)
    streams = [listen(bob) for _ in range(changes.STREAMS_PER_USER)]
    refused = bob.get(CHANGES, headers={"Accept": "text/event-stream"})
    assert (refused.status_code, refused["Content-Type"]) == (503, "application/problem+json")
    assert json.loads(refused.content)["code"] == "too_many_streams"
    assert listen(client_of(world.vera))
    streams[0].answer.close()
    assert listen(bob)


def test_a_tenant_that_is_not_there_is_404(world: World, client_of: Client) -> None:
    assert client_of(world.charlie).get(f"{CHANGES}?tenant=acme").status_code == 404
