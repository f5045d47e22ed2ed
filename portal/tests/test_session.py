"""Signing in and out from a browser."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from rest_framework.test import APIClient

from portal.tests.conftest import World
from tenants.models import AuditEvent, SignInCounter
from tenants.throttle import LIMITS, WINDOW, count_attempt

PASSWORD = "correct horse battery staple"
SESSION = "/api/v1/session"


@pytest.fixture
def browser(world: World) -> APIClient:
    """A client that checks CSRF as a browser's requests are, with the cookie already there."""
    world.alice.set_password(PASSWORD)
    world.alice.save()
    client = APIClient(enforce_csrf_checks=True)
    client.get(SESSION)
    return client


def csrf(client: APIClient) -> dict[str, str]:
    return {"X-CSRFToken": client.cookies["csrftoken"].value}


def sign_in(client: APIClient, **sent: str) -> None:
    body = {"username": "alice", "password": PASSWORD, **sent}
    answer = client.post(SESSION, body, format="json", headers=csrf(client))
    assert answer.status_code == 200, answer.content


def test_nobody_is_signed_in_at_first_and_gets_the_csrf_cookie(db: None) -> None:
    answer = APIClient().get(SESSION)
    assert answer.json() == {"user": None, "memberships": [], "oidc": None}
    assert answer.cookies["csrftoken"].value


def test_signing_in_tells_who_one_is_and_where_one_belongs(browser: APIClient) -> None:
    sign_in(browser)
    session = browser.get(SESSION).json()
    assert session["user"]["username"] == "alice"
    assert session["memberships"] == [{"tenant": "acme", "name": "Acme", "role": "owner", "suspended": False}]


def test_session_cookie_is_hidden_from_scripts(browser: APIClient) -> None:
    sign_in(browser)
    assert browser.cookies["sessionid"]["httponly"]
    assert browser.cookies["sessionid"]["samesite"] == "Lax"


def test_signing_in_needs_the_csrf_token(browser: APIClient) -> None:
    answer = browser.post(SESSION, {"username": "alice", "password": PASSWORD}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
    assert "X-CSRFToken" in answer.json()["suggestion"]


@pytest.mark.parametrize(
    ("username", "password"),
    [("alice", "wrong"), ("nobody", PASSWORD), ("alice", "")],
    ids=["password", "name", "empty"],
)
def test_wrong_name_and_wrong_password_look_the_same(browser: APIClient, username: str, password: str) -> None:
    body = {"username": username, "password": password or " "}
    answer = browser.post(SESSION, body, format="json", headers=csrf(browser))
    assert (answer.status_code, answer.json()["code"]) == (401, "sign_in_failed")


def test_too_many_wrong_passwords_make_one_wait(browser: APIClient) -> None:
    body = {"username": "alice", "password": "wrong"}
    answers = [browser.post(SESSION, body, format="json", headers=csrf(browser)) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1]["Retry-After"]) > 0


def test_changes_by_session_need_the_csrf_token(browser: APIClient) -> None:
    sign_in(browser)
    path = "/api/v1/tenants/acme/clusters/orders"
    without = browser.patch(path, {"description": "x"}, format="json")
    assert (without.status_code, without.json()["code"]) == (403, "csrf_failed")


def test_signing_out_ends_the_session(browser: APIClient) -> None:
    sign_in(browser)
    assert browser.delete(SESSION, headers=csrf(browser)).status_code == 204
    assert browser.get(SESSION).json()["user"] is None
    assert browser.get("/api/v1/tenants").status_code == 401


def test_a_user_who_was_switched_off_is_out_at_once(browser: APIClient, world: World) -> None:
    sign_in(browser)
    world.alice.is_active = False
    world.alice.save(update_fields=["is_active"])
    assert browser.get("/api/v1/tenants").status_code == 401


def test_failures_are_counted_per_account_over_many_addresses(browser: APIClient, world: World) -> None:
    body = {"username": "alice", "password": "wrong"}
    for number in range(LIMITS["account"]):
        assert count_attempt(username="alice", address=f"10.0.0.{number}") == 0
    answer = browser.post(SESSION, body, format="json", headers=csrf(browser))
    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= WINDOW.total_seconds()


def test_failures_are_counted_per_address_over_many_accounts(browser: APIClient) -> None:
    for number in range(LIMITS["address"]):
        assert count_attempt(username=f"u{number}", address="127.0.0.1") == 0
    body = {"username": "alice", "password": PASSWORD}
    assert browser.post(SESSION, body, format="json", headers=csrf(browser)).status_code == 429


def test_waiting_as_long_as_told_helps(browser: APIClient) -> None:
    body = {"username": "alice", "password": "wrong"}
    for _ in range(LIMITS["account-and-address"]):
        browser.post(SESSION, body, format="json", headers=csrf(browser))
    refused = browser.post(SESSION, {**body, "password": PASSWORD}, format="json", headers=csrf(browser))
    assert refused.status_code == 429
    SignInCounter.objects.update(ends=F("ends") - timedelta(seconds=int(refused["Retry-After"])))
    sign_in(browser)


def test_success_takes_the_attempt_back(browser: APIClient) -> None:
    for _ in range(LIMITS["account-and-address"] + 2):
        sign_in(browser)
        browser.delete(SESSION, headers=csrf(browser))
    assert set(SignInCounter.objects.values_list("attempts", flat=True)) == {0}


def test_unknown_names_are_throttled_like_known_ones(browser: APIClient) -> None:
    def answers(username: str) -> list[int]:
        body = {"username": username, "password": "wrong"}
        return [browser.post(SESSION, body, format="json", headers=csrf(browser)).status_code for _ in range(12)]

    assert answers("alice") == answers("nobody")


def test_signing_in_and_failing_to_is_audited_without_what_was_typed(browser: APIClient) -> None:
    body = {"username": "my-password-by-mistake", "password": "hunter2-secret"}
    browser.post(SESSION, body, format="json", headers=csrf(browser))
    sign_in(browser)
    rows = list(AuditEvent.objects.order_by("id").values())
    assert [(row["action"], row["actor"], row["result"]) for row in rows] == [
        ("signIn", "", "refused"), ("signIn", "alice", "success"),
    ]  # fmt: skip
    assert "my-password" not in str(rows)
    assert "hunter2" not in str(rows)
