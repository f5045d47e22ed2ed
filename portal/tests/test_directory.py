"""People as platform administrators manage them: listed, switched off, promoted, their tokens revoked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import F
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World, make_operation
from portal.tests.test_changes import Stream, listen
from portal.tests.test_people import browser_of, code
from provisioning.models import Operation, OperationState
from provisioning.operations.waiting import LISTENER
from tenants.accounts import change_person
from tenants.models import ApiToken, AuditEvent, Identity, Membership, Role, User
from tenants.refusals import Refusal
from tenants.tokens import create_service_token, create_token

__all__ = ["listen"]

PEOPLE = "/api/v1/people"
BOB = f"{PEOPLE}/bob"


@pytest.fixture
def root(world: World) -> User:
    return User.objects.create(username="root", is_superuser=True)


@pytest.fixture
def admin(root: User, client_of: Client) -> APIClient:
    return client_of(root)


def names(answer: Any) -> list[str]:
    return [item["username"] for item in answer.json()["items"]]


# --- seeing -----------------------------------------------------------------------------------------------------------


def test_everybody_who_can_sign_in_is_listed_and_services_are_not(admin: APIClient, world: World) -> None:
    create_service_token(tenant=world.acme, by=world.alice, name="ci", role=Role.VIEWER, scopes=["read"])
    assert names(admin.get(PEOPLE)) == ["alice", "bob", "charlie", "root", "vera"]
    service = User.objects.get(service_of=world.acme)
    assert admin.get(f"{PEOPLE}/{service.username.partition('/')[0]}").status_code == 404
    assert names(admin.get(f"{PEOPLE}?q=service")) == []


def test_a_person_says_how_and_when_they_sign_in_and_what_they_have(admin: APIClient, world: World) -> None:
    world.bob.set_password("correct horse battery staple")
    world.bob.first_name, world.bob.last_login = "Bob", timezone.now()
    world.bob.save()
    Identity.objects.create(user=world.bob, issuer="https://id.example", subject="1")
    create_token(user=world.bob, name="ci", scopes=["write"], tenant=world.acme)
    ended, _ = create_token(user=world.bob, name="old", scopes=["read"])
    ApiToken.objects.filter(pk=ended.pk).update(expires=timezone.now() - timedelta(seconds=1))
    (listed,) = admin.get(f"{PEOPLE}?username=bob").json()["items"]
    assert listed["last_sign_in"] is not None
    assert {key: listed[key] for key in ("name", "active", "administrator", "signs_in_with")} == {
        "name": "Bob", "active": True, "administrator": False, "signs_in_with": ["password", "oidc"],
    }  # fmt: skip
    assert (listed["membership_count"], listed["token_count"]) == (1, 1)
    shown = admin.get(BOB).json()
    assert {**shown, **listed} == shown
    assert [(one["tenant"], one["role"], one["from_groups"]) for one in shown["memberships"]] == [
        ("acme", "developer", False)
    ]
    assert [(one["name"], one["scopes"], one["tenant"]) for one in shown["tokens"]] == [("ci", ["write"], "acme")]
    assert shown["ownerless_tenants"] == []
    assert admin.get(f"{PEOPLE}/vera").json()["signs_in_with"] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=AR", ["charlie"]),
        ("q=nobody", []),
        ("username=bob", ["bob"]),
        ("username=BOB", []),
        ("active=false", ["vera"]),
        ("active=true", ["alice", "bob", "charlie", "root"]),
        ("administrator=true", ["root"]),
        ("administrator=false&q=a", ["alice", "charlie", "vera"]),
    ],
)
def test_the_list_is_narrowed(admin: APIClient, world: World, query: str, found: list[str]) -> None:
    User.objects.filter(username="vera").update(is_active=False)
    assert names(admin.get(f"{PEOPLE}?{query}")) == found


def test_the_list_has_pages(admin: APIClient) -> None:
    first = admin.get(f"{PEOPLE}?limit=3")
    assert names(first) == ["alice", "bob", "charlie"]
    assert names(admin.get(f"{PEOPLE}?limit=3&cursor={first.json()['next']}")) == ["root", "vera"]


@pytest.mark.parametrize("name", ["alice", "bob", "charlie"])
def test_to_others_there_is_no_such_address(world: World, client_of: Client, name: str) -> None:
    client = client_of(getattr(world, name))
    assert code(client.get(PEOPLE)) == (404, "not_found")
    assert code(client.get(BOB)) == (404, "not_found")
    assert code(client.patch(BOB, {"administrator": True}, format="json")) == (404, "not_found")
    assert not User.objects.filter(is_superuser=True).exists()


def test_changing_needs_a_token_of_the_scope_admin(root: User, world: World, client_of: Client) -> None:
    client = client_of(root, scopes=["write"])
    token, _ = create_token(user=world.bob, name="ci", scopes=["read"])
    assert client.get(BOB).status_code == 200
    assert code(client.patch(BOB, {"active": False}, format="json")) == (403, "scope_required")
    assert code(client.delete(f"{BOB}/tokens/{token.pk}")) == (403, "scope_required")


# --- switching off ----------------------------------------------------------------------------------------------------


def test_whoever_is_switched_off_is_out_at_once_and_sessions_stay_ended(
    admin: APIClient, world: World, client_of: Client
) -> None:
    program, browser, other = client_of(world.bob), browser_of(world.bob), browser_of(world.vera)
    assert {client.get("/api/v1/tenants").status_code for client in (program, browser, other)} == {200}
    answer = admin.patch(BOB, {"active": False}, format="json")
    assert (answer.status_code, answer.json()["active"], answer.json()["ownerless_tenants"]) == (200, False, [])
    assert code(program.get("/api/v1/tenants")) == (401, "unauthenticated")
    assert code(browser.get("/api/v1/tenants")) == (401, "unauthenticated")
    assert other.get("/api/v1/tenants").status_code == 200
    row = AuditEvent.objects.get(action="changePerson")
    assert (row.actor, row.object, row.result) == ("root", "people/bob", "success")
    assert row.detail == {
        "active": False, "before": {"active": True}, "sessions_ended": 1, "ownerless_tenants": [],
    }  # fmt: skip
    # On again: memberships and tokens are as they were, the browser signs in anew.
    assert admin.patch(BOB, {"active": True}, format="json").json()["active"] is True
    assert program.get("/api/v1/tenants").status_code == 200
    assert browser.get("/api/v1/tenants").status_code == 401
    assert Session.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_stream_ends_when_its_person_is_switched_off(
    world: World, client_of: Client, listen: Callable[..., Stream], admin: APIClient
) -> None:
    by_token, by_session = listen(client_of(world.bob)), listen(browser_of(world.bob))
    assert admin.patch(BOB, {"active": False}, format="json").status_code == 200
    for stream in (by_token, by_session):
        with pytest.raises(StopIteration):
            stream.next()


@pytest.mark.django_db(transaction=True)
def test_a_long_poll_is_answered_401_when_its_person_was_switched_off(
    world: World, client_of: Client, admin: APIClient
) -> None:
    running = make_operation(world.orders, state=OperationState.RUNNING)
    bob = client_of(world.bob)

    def ask() -> Any:
        try:
            return bob.get(f"/api/v1/operations/{running.pk}?wait=60")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        while running.pk not in LISTENER._waiting and not asked.done():
            time.sleep(0.01)
        assert admin.patch(BOB, {"active": False}, format="json").status_code == 200
        assert not asked.done()
        # News, which it would have been told.
        Operation.objects.filter(pk=running.pk).update(percent=50, revision=F("revision") + 1)
        assert code(asked.result(timeout=60)) == (401, "unauthenticated")


def test_the_answer_names_the_tenants_that_nobody_owns_now(admin: APIClient, world: World) -> None:
    Membership.objects.create(tenant=world.theirs.tenant, user=world.alice, role=Role.OWNER)
    assert admin.patch(f"{PEOPLE}/alice", {"active": False}, format="json").json()["ownerless_tenants"] == ["acme"]
    assert admin.get(f"{PEOPLE}/alice").json()["ownerless_tenants"] == ["acme"]
    assert AuditEvent.objects.get(action="changePerson").detail["ownerless_tenants"] == ["acme"]
    assert admin.patch("/api/v1/tenants/acme/members/bob", {"role": "owner"}, format="json").status_code == 200
    assert admin.get(f"{PEOPLE}/alice").json()["ownerless_tenants"] == []


def test_a_service_that_owns_a_tenant_is_no_owner_of_it(admin: APIClient, world: World) -> None:
    create_service_token(tenant=world.acme, by=world.alice, name="ci", role=Role.OWNER, scopes=["read"])
    assert admin.patch(f"{PEOPLE}/alice", {"active": False}, format="json").json()["ownerless_tenants"] == ["acme"]


def test_nobody_switches_themselves_off(admin: APIClient, world: World) -> None:
    User.objects.filter(username="alice").update(is_superuser=True)
    answer = admin.patch(f"{PEOPLE}/root", {"active": False}, format="json")
    assert code(answer) == (409, "own_account")
    assert User.objects.get(username="root").is_active


# --- administrators ---------------------------------------------------------------------------------------------------


def test_an_administrator_is_made_and_unmade(admin: APIClient, world: World, client_of: Client) -> None:
    bob = client_of(world.bob)
    assert admin.patch(BOB, {"administrator": True}, format="json").json()["administrator"] is True
    assert bob.get(PEOPLE).status_code == 200
    assert bob.patch(f"{PEOPLE}/root", {"administrator": False}, format="json").status_code == 200
    assert code(admin.get(PEOPLE)) == (404, "not_found")
    details = list(AuditEvent.objects.filter(action="changePerson").order_by("id").values_list("detail", flat=True))
    assert [one["before"] for one in details] == [{"administrator": False}, {"administrator": True}]


def test_the_last_active_administrator_stays(admin: APIClient, world: World) -> None:
    User.objects.filter(username="vera").update(is_superuser=True, is_active=False)
    answer = admin.patch(f"{PEOPLE}/root", {"administrator": False}, format="json")
    assert code(answer) == (409, "last_administrator")
    assert "Make somebody else" in answer.json()["suggestion"]
    assert User.objects.get(username="root").is_superuser
    # Who is switched off administers nothing, and can be demoted.
    assert admin.patch(f"{PEOPLE}/vera", {"administrator": False}, format="json").status_code == 200


@pytest.mark.parametrize("body", [{"active": "maybe"}, {"admin": True}, {"active": None}, []])
def test_a_wrong_change_is_refused(admin: APIClient, body: Any) -> None:
    assert admin.patch(BOB, body, format="json").status_code == 422
    assert User.objects.get(username="bob").is_active


def test_a_person_who_is_not_there_is_404(admin: APIClient) -> None:
    assert code(admin.get(f"{PEOPLE}/nobody")) == (404, "not_found")
    assert code(admin.patch(f"{PEOPLE}/BOB", {"active": False}, format="json")) == (404, "not_found")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize(
    ("pairs", "change", "refusal"),
    [
        ([("ann", "ben"), ("ben", "ann")], {"active": False}, "not_found"),
        ([("ann", "ben"), ("ben", "ann")], {"administrator": False}, "not_found"),
        ([("ann", "ann"), ("ben", "ben")], {"administrator": False}, "last_administrator"),
    ],
)
def test_two_administrators_who_end_each_other_or_themselves_at_once_leave_one(
    pairs: list[tuple[str, str]], change: dict[str, bool], refusal: str, attempt: int
) -> None:
    users = {name: User.objects.create(username=name, is_superuser=True) for name in ("ann", "ben")}
    start, refused = threading.Barrier(2), list[str]()

    def end(by: str, whom: str) -> None:
        try:
            start.wait()
            active, administrator = change.get("active"), change.get("administrator")
            change_person(username=whom, by=users[by], active=active, administrator=administrator)
        except Refusal as error:
            refused.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=end, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1
    assert refused == [refusal]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_somebodys_token_is_revoked_at_once(admin: APIClient, world: World, client_of: Client) -> None:
    bob, other = client_of(world.bob), client_of(world.bob)
    (newest, oldest) = admin.get(BOB).json()["tokens"]
    assert admin.delete(f"{BOB}/tokens/{oldest['id']}").status_code == 204
    assert code(bob.get("/api/v1/tenants")) == (401, "unauthenticated")
    assert other.get("/api/v1/tenants").status_code == 200
    assert [one["id"] for one in admin.get(BOB).json()["tokens"]] == [newest["id"]]
    row = AuditEvent.objects.get(action="revokePersonsToken")
    assert (row.object, row.detail) == (
        f"people/bob/tokens/{oldest['id']}", {"prefix": oldest["prefix"], "name": "test"},
    )  # fmt: skip
    assert admin.delete(f"{BOB}/tokens/{oldest['id']}").status_code == 204


def test_a_token_is_revoked_below_its_own_person_only(admin: APIClient, world: World, client_of: Client) -> None:
    client = client_of(world.vera)
    token = ApiToken.objects.get(user=world.vera)
    assert code(admin.delete(f"{BOB}/tokens/{token.pk}")) == (404, "not_found")
    assert client.get("/api/v1/tenants").status_code == 200


# --- passwords --------------------------------------------------------------------------------------------------------


def signed_in(username: str, password: str) -> APIClient | None:
    """A browser that has signed in, None when it was refused."""
    browser = APIClient()
    answer = browser.post("/api/v1/session", {"username": username, "password": password}, format="json")
    return browser if answer.status_code == 200 else None


def test_a_person_who_was_made_signs_in_with_the_password_that_was_shown_once(admin: APIClient) -> None:
    made = admin.post(PEOPLE, {"username": "dora", "name": "Dora D."}, format="json")
    assert made.status_code == 201
    assert (made.json()["signs_in_with"], made.json()["administrator"]) == (["password"], False)
    password = made.json()["password"]
    assert signed_in("dora", password) is not None
    assert password not in admin.get(f"{PEOPLE}/dora").content.decode()
    row = AuditEvent.objects.get(action="createPerson")
    assert (row.object, row.result) == ("people/dora", "success")
    assert password not in str(row.detail)
    assert admin.get(f"{PEOPLE}/dora").json()["name"] == "Dora D."


@pytest.mark.parametrize(
    ("username", "status", "error"),
    [
        ("bob", 409, "name_taken"), ("BOB", 409, "name_taken"), ("a b", 422, "bad_name"), ("acme/ci", 422, "bad_name"),
        ("", 422, "blank"),
    ],
)  # fmt: skip
def test_a_name_that_is_taken_or_cannot_be_one_is_refused(
    admin: APIClient, world: World, username: str, status: int, error: str
) -> None:
    answer = admin.post(PEOPLE, {"username": username}, format="json")
    assert answer.status_code == status
    assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [("/username", error)]


def test_a_new_password_ends_the_sessions_and_the_old_password_and_no_token(
    admin: APIClient, world: World, client_of: Client
) -> None:
    program = client_of(world.bob)
    world.bob.set_password("the password before")
    world.bob.save()
    browser = signed_in("bob", "the password before")
    assert browser is not None
    answer = admin.post(f"{BOB}/reset-password")
    assert answer.status_code == 200
    assert code(browser.get("/api/v1/tenants")) == (401, "unauthenticated")
    assert signed_in("bob", "the password before") is None
    assert signed_in("bob", answer.json()["password"]) is not None
    assert program.get("/api/v1/tenants").status_code == 200


def test_who_signs_in_with_the_identity_provider_gets_no_password_here(admin: APIClient, world: World) -> None:
    Identity.objects.create(user=world.bob, issuer="https://id.example", subject="1")
    world.bob.set_unusable_password()
    world.bob.save()
    assert code(admin.post(f"{BOB}/reset-password")) == (409, "signs_in_elsewhere")
    answer = browser_of(world.bob).post("/api/v1/session/password", {"current": "x", "new": "y"}, format="json")
    assert code(answer) == (409, "signs_in_elsewhere")


def test_people_change_their_own_password_and_stay_signed_in_here_only(world: World) -> None:
    world.bob.set_password("the password before")
    world.bob.save()
    here, there = signed_in("bob", "the password before"), signed_in("bob", "the password before")
    assert here is not None
    assert there is not None
    sent = {"current": "the password before", "new": "quite another password"}
    assert here.post("/api/v1/session/password", sent, format="json").status_code == 204
    assert here.get("/api/v1/tenants").status_code == 200
    assert code(there.get("/api/v1/tenants")) == (401, "unauthenticated")
    assert signed_in("bob", "the password before") is None
    assert signed_in("bob", "quite another password") is not None
    row = AuditEvent.objects.get(action="changePassword")
    assert (row.actor, row.result, row.detail) == ("bob", "success", {})


@pytest.mark.parametrize(
    ("current", "new", "pointers"),
    [
        ("wrong", "quite another password", ["/current"]),
        ("the password before", "qwert-12", ["/new"]),
        ("the password before", "password1234", ["/new"]),
        ("the password before", "bartholomew-bob", ["/new"]),
    ],
)
def test_a_password_that_is_wrong_or_weak_changes_nothing(
    world: World, current: str, new: str, pointers: list[str]
) -> None:
    world.bob.first_name = "bartholomew-bob"
    world.bob.set_password("the password before")
    world.bob.save()
    browser = signed_in("bob", "the password before")
    assert browser is not None
    answer = browser.post("/api/v1/session/password", {"current": current, "new": new}, format="json")
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == pointers
    assert new not in answer.content.decode()
    assert signed_in("bob", "the password before") is not None


def test_guessing_ones_password_is_slowed_like_signing_in(world: World) -> None:
    world.bob.set_password("the password before")
    world.bob.save()
    browser = signed_in("bob", "the password before")
    assert browser is not None
    sent = {"current": "wrong", "new": "quite another password"}
    statuses = [browser.post("/api/v1/session/password", sent, format="json").status_code for _ in range(11)]
    assert statuses == [422] * 10 + [429]


def test_a_token_changes_no_password(world: World, client_of: Client) -> None:
    sent = {"current": "x", "new": "y"}
    assert code(client_of(world.bob).post("/api/v1/session/password", sent, format="json")) == (403, "session_required")
