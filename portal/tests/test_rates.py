"""Everybody gets a turn: requests are counted per caller, on one Redis for all replicas, and never stand in the way."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import pytest
import redis
from pytest_django import Settings
from rest_framework.test import APIClient

from portal.broker import client_url
from portal.rates import PREFIX, WINDOW_SECONDS, Counter
from portal.tests.conftest import Client, World
from tenants.models import AuditEvent, User

ENGINES = "/api/v1/engines"
CLUSTERS = "/api/v1/tenants/acme/clusters"


@pytest.fixture
def few(settings: Settings) -> None:
    settings.RATE_LIMITS = {"caller": 3, "address": 2, "tenant": 5}


@pytest.fixture
def somewhere() -> dict[str, Any]:
    """An address no other test calls from."""
    return {"REMOTE_ADDR": f"fd00::{secrets.token_hex(2)}:{secrets.token_hex(2)}"}


def fields(answer: Any, name: str) -> dict[str, str]:
    policy, *parameters = answer[name].split(";")
    return {"policy": policy, **dict(one.split("=") for one in parameters)}


def test_every_answer_says_what_is_left(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    answers = [alice.get(ENGINES), alice.get("/api/v1/tenants/nowhere"), alice.post(f"{ENGINES}?x=1")]
    assert [answer.status_code for answer in answers] == [200, 404, 405]
    assert {answer["RateLimit-Policy"] for answer in answers} == {'"caller";q=1200;w=60'}
    assert [fields(answer, "RateLimit")["r"] for answer in answers] == ["1199", "1198", "1197"]
    assert all(0 < int(fields(answer, "RateLimit")["t"]) <= WINDOW_SECONDS for answer in answers)


@pytest.mark.usefixtures("few")
def test_who_sends_too_many_waits_and_others_do_not(world: World, client_of: Client) -> None:
    alice, other = client_of(world.alice), client_of(world.alice)
    assert [alice.get(ENGINES).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = alice.patch("/api/v1/tenants/acme/clusters/orders", {"description": "x"}, format="json")
    assert (refused.status_code, refused["Content-Type"]) == (429, "application/problem+json")
    assert refused.json()["code"] == "rate_limited"
    assert "3 requests in 60 s" in refused.json()["detail"]
    assert refused["Retry-After"] == fields(refused, "RateLimit")["t"]
    assert fields(refused, "RateLimit")["r"] == "0"
    world.orders.refresh_from_db()
    assert world.orders.description == ""
    assert not AuditEvent.objects.exists()
    assert other.get(ENGINES).status_code == 200


@pytest.mark.usefixtures("few")
def test_the_turn_comes_again_when_the_window_has_ended(world: World, client_of: Client) -> None:
    alice = client_of(world.alice)
    assert [alice.get(ENGINES).status_code for _ in range(4)][-1] == 429
    broker = redis.Redis.from_url(client_url())
    (key,) = [key for key in broker.scan_iter(f"{PREFIX}:*") if world.alice.tokens.get().pk.encode() in key]
    assert 0 < broker.ttl(key) <= WINDOW_SECONDS
    broker.expire(key, 0)  # as time does
    assert alice.get(ENGINES).status_code == 200


@pytest.mark.usefixtures("few", "world")
def test_tokens_that_do_not_count_are_counted_for_their_address(somewhere: dict[str, Any]) -> None:
    def guess() -> int:
        header = f"Bearer brt_{secrets.token_urlsafe(32)}"
        return APIClient().get(ENGINES, headers={"Authorization": header}, **somewhere).status_code

    assert [guess() for _ in range(3)] == [401, 401, 429]
    anonymous = APIClient().get("/api/v1/session", **somewhere)
    assert (anonymous.status_code, anonymous["RateLimit-Policy"]) == (429, '"address";q=2;w=60')


@pytest.mark.usefixtures("few")
def test_a_person_with_a_session_is_counted_by_name(world: World, somewhere: dict[str, Any]) -> None:
    answers = []
    for _ in range(4):
        browser = APIClient()
        browser.force_login(world.vera)
        answers.append(browser.get("/api/v1/session", **somewhere))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


@pytest.mark.usefixtures("few")
def test_a_tenants_people_share_its_turns_and_strangers_take_none(world: World, client_of: Client) -> None:
    def ask(user: User, times: int) -> list[int]:
        caller = client_of(user)
        return [caller.get(CLUSTERS).status_code for _ in range(times)]

    assert ask(world.charlie, 3) == [404] * 3
    assert ask(world.alice, 3) == [200] * 3
    assert ask(world.bob, 3) == [200, 200, 429]
    refused = client_of(world.bob).get(CLUSTERS)
    assert refused.json()["code"] == "rate_limited"
    assert "All people and programs of acme together may send 5 requests in 60 s" in refused.json()["detail"]
    assert refused["RateLimit-Policy"] == '"caller";q=3;w=60, "tenant";q=5;w=60'
    caller, tenant = refused["RateLimit"].split(", ")
    assert caller.startswith('"caller";r=2;t=')
    assert tenant == f'"tenant";r=0;t={refused["Retry-After"]}'
    elsewhere = client_of(world.charlie).get(f"/api/v1/tenants/{world.theirs.tenant.slug}/clusters")
    assert elsewhere.status_code == 200
    assert client_of(world.bob).get(ENGINES).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_request_about_an_operation_is_one_about_its_tenant(world: World, client_of: Client, method: str) -> None:
    address = f"/api/v1/operations/{world.operation.pk}" + ("" if method == "get" else "/cancel")
    answer = getattr(client_of(world.bob), method)(address)
    assert [part.split(";")[0] for part in answer["RateLimit"].split(", ")] == ['"caller"', '"tenant"']


@pytest.mark.usefixtures("few")
def test_platform_administrators_can_help_a_tenant_that_has_used_up_its_turns(world: World, client_of: Client) -> None:
    world.bob.is_superuser = True
    world.bob.save()
    callers = [client_of(world.alice) for _ in range(3)]
    assert [caller.get(CLUSTERS).status_code for caller in callers for _ in range(2)] == [200] * 5 + [429]
    answer = client_of(world.bob).get(CLUSTERS)
    assert (answer.status_code, answer["RateLimit-Policy"]) == (200, '"caller";q=3;w=60')


def test_two_replicas_count_together() -> None:
    caller = f"token:{secrets.token_hex(8)}"
    replicas = [Counter(client_url()), Counter(client_url())]
    counts = [replicas[number % 2].count("caller", caller, 3) for number in range(5)]
    assert [count and (count.remaining, count.allowed) for count in counts] == [
        (2, True), (1, True), (0, True), (0, False), (0, False),
    ]  # fmt: skip


def test_a_limit_of_nothing_is_no_limit(world: World, client_of: Client, settings: Settings) -> None:
    settings.RATE_LIMITS = {"caller": 0, "address": 0, "tenant": 0}
    answers = [client_of(world.alice).get(address) for address in (ENGINES, CLUSTERS)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert not any("RateLimit" in answer for answer in answers)


def test_without_redis_requests_go_on_and_the_log_says_so_once(
    world: World, client_of: Client, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CELERY_BROKER_URL = f"redis+socket:///tmp/berth-nowhere-{secrets.token_hex(4)}.sock"
    settings.RATE_LIMITS = {"caller": 1, "address": 1, "tenant": 1}
    alice = client_of(world.alice)
    with caplog.at_level(logging.WARNING, logger="portal.rates"):
        answers = [alice.get(CLUSTERS) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert not any("RateLimit" in answer for answer in answers)
    assert [record.message for record in caplog.records if record.name == "portal.rates"] == [
        "requests go on without rate limits: Redis does not answer"
    ]


def test_counting_begins_again_when_redis_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.rates.PAUSE_SECONDS", 0.0)
    counter = Counter(client_url())
    caller = f"token:{secrets.token_hex(8)}"
    with monkeypatch.context() as away:
        away.setattr("redis.connection.ConnectionPool.get_connection", _refuse)
        assert counter.count("caller", caller, 3) is None
    count = counter.count("caller", caller, 3)
    assert count is not None
    assert (count.remaining, count.allowed) == (2, True)


def _refuse(*args: Any, **named: Any) -> None:
    raise redis.ConnectionError("as when Redis restarts")
