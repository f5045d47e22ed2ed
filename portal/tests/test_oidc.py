"""Signing in with OpenID Connect, against a provider that runs as a process of its own (oidc_provider.py)."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from portal import env, oidc
from portal.tests.conftest import World
from provisioning.clusters.grants import share
from tenants.identities import person_of
from tenants.models import AuditEvent, Identity, Membership, Role, User

CLIENT_ID, CLIENT_SECRET = "berth", "client-secret-nobody-should-read"
SESSION = "/api/v1/session"


@dataclass(frozen=True)
class Running:
    """The provider's process."""

    issuer: str
    process: subprocess.Popen[str]

    def behave(self, **how: Any) -> None:
        answer = requests.post(self.issuer.removesuffix("/realm") + "/behave", json=how, timeout=5)
        assert answer.status_code == 200


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    command = [sys.executable, str(Path(__file__).with_name("oidc_provider.py")), CLIENT_ID, CLIENT_SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Running(process.stdout.readline().strip(), process)
        finally:
            process.kill()


@pytest.fixture
def provider(running: Running, settings: Settings) -> Running:
    """The provider, honest, and Berth set up for it."""
    running.behave()
    oidc._clients.clear()
    settings.OIDC = env.OidcProvider(
        issuer=running.issuer, name="Example ID", client_id=CLIENT_ID, client_secret=CLIENT_SECRET,
        scopes=("openid", "profile"), groups_claim="groups",
        groups=(("devs", "acme", "developer"), ("leads", "acme", "owner"), ("guests", "other", "viewer")),
    )  # fmt: skip
    return running


def at_provider(client: Client, next: str = "/t/acme/clusters") -> str:
    """Begin, let the provider do its part, and return the address it sends the browser back to."""
    begun = client.get("/auth/oidc/login", {"next": next})
    assert begun.status_code == 302
    sent_back = requests.get(begun["Location"], allow_redirects=False, timeout=5)
    assert sent_back.status_code == 302, sent_back.text
    assert sent_back.headers["Location"].startswith("http://testserver/auth/oidc/callback?")
    return sent_back.headers["Location"].removeprefix("http://testserver")


def sign_in(client: Client) -> str:
    """The whole way; returns where it ends."""
    answer = client.get(at_provider(client))
    assert answer.status_code == 302
    return str(answer["Location"])


def who(client: Client) -> str | None:
    user = client.get(SESSION).json()["user"]
    return user and str(user["username"])


def roles(username: str = "dana") -> dict[str, str]:
    return dict(Membership.objects.filter(user__username=username).values_list("tenant__slug", "role"))


def test_the_whole_sign_in_over_http(
    transactional_db: None,
    live_server: LiveServer,
    provider: Running,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    browser = requests.Session()
    begun = browser.get(f"{live_server.url}/auth/oidc/login?next=/t/acme", allow_redirects=False, timeout=10)
    asked = parse_qs(urlsplit(begun.headers["Location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert all(len(asked[name][0]) >= 20 for name in ("state", "nonce", "code_challenge"))
    sent_back = browser.get(begun.headers["Location"], allow_redirects=False, timeout=10)
    anonymous = browser.cookies["sessionid"]
    ended = browser.get(sent_back.headers["Location"], allow_redirects=False, timeout=10)
    assert (ended.status_code, ended.headers["Location"]) == (302, "/t/acme")
    session = browser.get(f"{live_server.url}{SESSION}", timeout=10).json()
    assert (session["user"]["username"], session["user"]["name"]) == ("dana", "Dana Example")
    assert session["oidc"] == "Example ID"
    # Somebody who knew the session from before must not be in it now.
    assert browser.cookies["sessionid"] != anonymous
    code = parse_qs(urlsplit(sent_back.headers["Location"]).query)["code"][0]
    kept = caplog.text + str(list(AuditEvent.objects.values())) + repr(settings.OIDC)
    assert CLIENT_SECRET not in kept
    assert code not in kept


def test_the_verifier_of_pkce_is_not_logged_even_at_debug(
    db: None, provider: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sign_in(client)
    assert "berth.access" in caplog.text
    assert "verifier" not in caplog.text


def test_a_sign_in_is_noted_in_the_audit(db: None, provider: Running, client: Client) -> None:
    assert sign_in(client) == "/t/acme/clusters"
    row = AuditEvent.objects.get()
    assert (row.action, row.actor, row.result, row.address) == ("signIn", "dana", "success", "127.0.0.1")
    assert row.detail == {"issuer": provider.issuer}


def test_the_same_subject_is_the_same_person_under_another_name(db: None, provider: Running, client: Client) -> None:
    sign_in(client)
    provider.behave(claims={"preferred_username": "dana.married", "family_name": "Other"})
    sign_in(Client())
    user = User.objects.get()
    assert (user.username, user.last_name) == ("dana", "Other")
    assert not user.has_usable_password()


def test_a_name_that_is_taken_here_does_not_open_that_account(world: World, provider: Running, client: Client) -> None:
    provider.behave(claims={"preferred_username": "Alice", "email": "alice@example.com", "email_verified": True})
    sign_in(client)
    assert who(client) == "Alice-2"
    assert client.get("/api/v1/tenants").json()["items"] == []
    assert not Identity.objects.filter(user=world.alice).exists()


def first_sign_ins(subjects: list[str]) -> list[int]:
    """People who sign in for the first time at the same moment, all called dana: their users' keys."""
    together = Barrier(len(subjects))

    def one(subject: str) -> int:
        together.wait(timeout=10)
        try:
            return person_of(issuer="https://id", subject=subject, username="dana", first_name="", last_name="").pk
        finally:
            connection.close()

    with ThreadPoolExecutor(len(subjects)) as pool:
        return list(pool.map(one, subjects))


def test_two_first_sign_ins_at_once_make_one_person(transactional_db: None) -> None:
    assert len(set(first_sign_ins(["same"] * 4))) == 1
    assert User.objects.get().username == "dana"


def test_people_of_one_name_at_once_are_different_people(transactional_db: None) -> None:
    assert len(set(first_sign_ins(["a", "b", "c", "d"]))) == 4
    assert sorted(User.objects.values_list("username", flat=True)) == ["dana", "dana-2", "dana-3", "dana-4"]


def now() -> int:
    return int(time.time())


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(lambda: {"claims": {"nonce": "another"}}, id="nonce"),
        pytest.param(lambda: {"claims": {"nonce": None}}, id="no nonce"),
        pytest.param(lambda: {"claims": {"nonce": None, "nonce_supported": False}}, id="nonce waived by the token"),
        pytest.param(lambda: {"strange_key": True}, id="signature"),
        pytest.param(lambda: {"algorithm": "HS256"}, id="public key as a secret"),
        pytest.param(lambda: {"algorithm": "none"}, id="no signature"),
        pytest.param(lambda: {"unsigned": True}, id="no ID token"),
        pytest.param(lambda: {"claims": {"exp": now() - 60, "iat": now() - 600}}, id="expired"),
        pytest.param(lambda: {"claims": {"exp": None}}, id="never expires"),
        pytest.param(lambda: {"claims": {"aud": "another"}}, id="audience"),
        pytest.param(lambda: {"claims": {"aud": "another", "azp": CLIENT_ID}}, id="audience, ours as a party"),
        pytest.param(lambda: {"claims": {"iss": "https://evil.example"}}, id="issuer"),
        pytest.param(lambda: {"claims": {"sub": None}}, id="no subject"),
        pytest.param(lambda: {"claims": {"sub": "a\0b"}}, id="subject"),
    ],
)
def test_a_token_with_something_wrong_signs_nobody_in(
    db: None, provider: Running, client: Client, how: Callable[[], dict[str, Any]]
) -> None:
    provider.behave(**how())
    assert sign_in(client) == "/t/acme/clusters?sign_in_error=oidc_refused"
    assert who(client) is None
    assert not User.objects.exists()
    row = AuditEvent.objects.get()
    assert (row.action, row.result, row.code, row.actor) == ("signIn", "refused", "oidc_refused", "")


def test_an_answer_counts_once(db: None, provider: Running, client: Client) -> None:
    address = at_provider(client)
    assert client.get(address)["Location"] == "/t/acme/clusters"
    client.logout()
    assert client.get(address)["Location"] == "/?sign_in_error=oidc_state"
    assert who(client) is None


def test_an_answer_counts_once_even_if_it_failed(db: None, provider: Running, client: Client) -> None:
    provider.behave(deny=True)
    address = at_provider(client)
    assert "oidc_denied" in client.get(address)["Location"]
    assert client.get(address)["Location"] == "/?sign_in_error=oidc_state"


def test_an_answer_meant_for_another_browser_signs_nobody_in(db: None, provider: Running, client: Client) -> None:
    address = at_provider(Client())
    at_provider(client)
    assert client.get(address)["Location"] == "/?sign_in_error=oidc_state"
    assert who(client) is None
    # Nobody began this here: no row, or anybody could fill the table.
    assert not AuditEvent.objects.exists()


def test_a_code_of_another_sign_in_is_refused(db: None, provider: Running, client: Client) -> None:
    stolen = parse_qs(urlsplit(at_provider(Client())).query)["code"][0]
    state = parse_qs(urlsplit(at_provider(client)).query)["state"][0]
    answer = client.get("/auth/oidc/callback", {"code": stolen, "state": state})
    # The provider compares the code with PKCE's verifier, which is that of the other browser.
    assert answer["Location"] == "/t/acme/clusters?sign_in_error=oidc_refused"


def test_a_sign_in_that_took_too_long_has_to_begin_again(
    db: None, provider: Running, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = at_provider(client)
    monkeypatch.setattr(oidc, "LONGEST_SIGN_IN", -1)
    assert client.get(address)["Location"] == "/t/acme/clusters?sign_in_error=oidc_state"


def test_who_is_refused_by_the_provider_is_told(db: None, provider: Running, client: Client) -> None:
    provider.behave(deny=True)
    assert sign_in(client) == "/t/acme/clusters?sign_in_error=oidc_denied"
    assert AuditEvent.objects.get().code == "oidc_denied"


def test_a_provider_that_is_away_is_told(db: None, provider: Running, client: Client, settings: Settings) -> None:
    provider.behave(broken_token_endpoint=True)
    assert sign_in(client) == "/t/acme/clusters?sign_in_error=oidc_away"
    # Port 1 is reserved, and nobody listens there.
    settings.OIDC = replace(settings.OIDC, issuer="http://127.0.0.1:1")
    assert client.get("/auth/oidc/login?next=/x?a=b")["Location"] == "/x?a=b&sign_in_error=oidc_away"


def test_a_provider_that_names_another_issuer_is_not_used(db: None, provider: Running, client: Client) -> None:
    provider.behave(issuer="https://evil.example")
    assert client.get("/auth/oidc/login")["Location"] == "/?sign_in_error=oidc_away"


def test_somebody_switched_off_does_not_come_in(db: None, provider: Running, client: Client) -> None:
    sign_in(client)
    User.objects.update(is_active=False)
    fresh = Client()
    assert sign_in(fresh) == "/t/acme/clusters?sign_in_error=oidc_switched_off"
    assert who(fresh) is None


def test_groups_give_and_take_memberships(world: World, provider: Running, client: Client) -> None:
    provider.behave(claims={"groups": ["devs", "guests", "unmapped"]})
    sign_in(client)
    assert roles() == {"acme": "developer", "other": "viewer"}
    provider.behave(claims={"groups": ["leads", "devs"]})
    sign_in(client)
    assert roles() == {"acme": "owner"}
    provider.behave(claims={})
    sign_in(client)
    assert roles() == {}
    rows = AuditEvent.objects.filter(action="followGroups", tenant="acme").order_by("id")
    assert [(row.object, row.detail["before"], row.detail["role"]) for row in rows] == [
        ("members/dana", "", "developer"), ("members/dana", "developer", "owner"), ("members/dana", "owner", ""),
    ]  # fmt: skip


def test_a_guest_whose_group_came_and_went_sees_nothing(world: World, provider: Running, client: Client) -> None:
    provider.behave(claims={})
    sign_in(client)
    share(cluster=world.orders, username="dana", right="use")
    orders = "/api/v1/tenants/acme/clusters/orders"
    assert client.get(orders).status_code == 200
    provider.behave(claims={"groups": ["devs"]})
    sign_in(client)
    assert client.get(orders).status_code == 200
    provider.behave(claims={})
    sign_in(client)
    assert roles() == {}
    assert client.get(orders).status_code == 404


def test_memberships_made_by_hand_are_left_alone(world: World, provider: Running, client: Client) -> None:
    sign_in(client)
    dana = User.objects.get(username="dana")
    Membership.objects.create(tenant=world.acme, user=dana, role=Role.VIEWER)
    provider.behave(claims={"groups": ["leads"]})
    sign_in(client)
    assert roles() == {"acme": "viewer"}
    provider.behave(claims={"groups": []})
    sign_in(client)
    assert roles() == {"acme": "viewer"}


def test_the_last_owner_stays_without_the_group(world: World, provider: Running, client: Client) -> None:
    provider.behave(claims={"groups": ["leads"]})
    sign_in(client)
    Membership.objects.filter(user=world.alice).delete()
    provider.behave(claims={"groups": []})
    sign_in(client)
    assert roles() == {"acme": "owner"}
    assert AuditEvent.objects.filter(action="followGroups", result="refused", code="last_owner", actor="dana").exists()
    # Tried again once there is another.
    Membership.objects.create(tenant=world.acme, user=world.alice, role=Role.OWNER)
    sign_in(client)
    assert roles() == {}


def test_groups_let_nobody_into_a_suspended_tenant(world: World, provider: Running, client: Client) -> None:
    world.acme.suspended = True
    world.acme.save(update_fields=["suspended"])
    provider.behave(claims={"groups": "devs"})
    sign_in(client)
    assert roles() == {}
    assert AuditEvent.objects.filter(action="followGroups", code="tenant_suspended").exists()


@pytest.mark.parametrize(
    "next",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/auth/oidc/login",
     "/api/v1/session", "\t//evil.example", "/" + "a" * 3000],
)  # fmt: skip
def test_signing_in_never_leads_elsewhere(db: None, provider: Running, client: Client, next: str) -> None:
    assert client.get(at_provider(client, next))["Location"] == "/"


def test_without_a_provider_the_page_does_not_offer_one(db: None, client: Client) -> None:
    assert client.get(SESSION).json()["oidc"] is None
    assert client.get("/auth/oidc/login")["Location"] == "/?sign_in_error=oidc_off"
    assert client.get("/auth/oidc/callback")["Location"] == "/?sign_in_error=oidc_off"


def test_behind_https_the_provider_sends_people_back_to_https(
    db: None, provider: Running, client: Client, settings: Settings
) -> None:
    settings.SECURE_COOKIES = True
    asked = parse_qs(urlsplit(client.get("/auth/oidc/login")["Location"]).query)
    assert asked["redirect_uri"] == ["https://testserver/auth/oidc/callback"]


GOOD = {
    "BERTH_OIDC_ISSUER": "https://id.example.com/realm",
    "BERTH_OIDC_CLIENT_ID": "berth",
    "BERTH_OIDC_CLIENT_SECRET": CLIENT_SECRET,
}


def test_the_provider_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.oidc_provider() is None
    groups = "devs=acme:developer; cn=ops,dc=example=acme:owner;"
    for name, value in {**GOOD, "BERTH_OIDC_GROUPS": groups}.items():
        monkeypatch.setenv(name, value)
    found = env.oidc_provider()
    assert found is not None
    assert (found.name, found.groups_claim, found.scopes) == ("id.example.com", "groups", ("openid", "profile"))
    assert found.groups == (("devs", "acme", "developer"), ("cn=ops,dc=example", "acme", "owner"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BERTH_OIDC_ISSUER", "http://id.example.com"),
        ("BERTH_OIDC_ISSUER", "id.example.com"),
        ("BERTH_OIDC_ISSUER", ""),
        ("BERTH_OIDC_CLIENT_ID", " "),
        ("BERTH_OIDC_CLIENT_SECRET", ""),
        ("BERTH_OIDC_SCOPES", "profile"),
        ("BERTH_OIDC_GROUPS", "devs"),
        ("BERTH_OIDC_GROUPS", "devs=acme:admin"),
        ("BERTH_OIDC_GROUPS", "devs=Acme:owner"),
        ("BERTH_OIDC_GROUPS", "=acme:owner"),
    ],
)
def test_a_wrong_value_stops_the_start_with_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for key, text in {**GOOD, name: value}.items():
        monkeypatch.setenv(key, text)
    with pytest.raises(ImproperlyConfigured, match=name) as error:
        env.oidc_provider()
    assert CLIENT_SECRET not in str(error.value)
