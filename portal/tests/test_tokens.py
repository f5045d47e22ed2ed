"""Bearer tokens."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World
from tenants.models import ApiToken
from tenants.tokens import create_token

TOKENS = "/api/v1/tokens"


def with_secret(secret: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


@pytest.fixture
def browser(world: World) -> APIClient:
    """alice's session."""
    client = APIClient()
    client.force_login(world.alice)
    return client


def test_the_secret_is_shown_once_and_stored_nowhere(browser: APIClient) -> None:
    made = browser.post(TOKENS, {"name": "ci", "scopes": ["write"]}, format="json")
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("brt_")
    assert with_secret(secret).get("/api/v1/tenants").status_code == 200
    assert secret not in browser.get(TOKENS).content.decode()
    stored = ApiToken.objects.values().get(pk=made.json()["id"])
    assert secret not in str(stored)
    assert secret.startswith(stored["prefix"])
    assert made["Cache-Control"] == "no-store"


def test_a_token_lives_90_days_unless_told_otherwise_and_reads_only(browser: APIClient) -> None:
    made = browser.post(TOKENS, {"name": "ci"}, format="json").json()
    token = ApiToken.objects.get(pk=made["id"])
    assert (token.expires - token.created).days in {89, 90}
    assert made["scopes"] == ["read"]


@pytest.mark.parametrize("days", [0, 366, -1, "x", 10**30])
def test_a_token_lives_1_to_365_days(browser: APIClient, days: object) -> None:
    answer = browser.post(TOKENS, {"name": "ci", "expires_in_days": days}, format="json")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/expires_in_days"


@pytest.mark.parametrize("change", ["expires", "revoked"])
def test_an_expired_or_revoked_token_is_refused(world: World, change: str) -> None:
    token, secret = create_token(user=world.alice, name="t", scopes=["read"])
    ApiToken.objects.filter(pk=token.pk).update(**{change: timezone.now() - timedelta(seconds=1)})
    answer = with_secret(secret).get("/api/v1/tenants")
    assert answer.status_code == 401
    assert "invalid_token" in answer["WWW-Authenticate"]


@pytest.mark.parametrize("secret", ["", "brt_wrong", "ü", "a b c", "x" * 5000])
def test_a_made_up_token_is_refused(world: World, secret: str) -> None:
    assert with_secret(secret).get("/api/v1/tenants").status_code == 401


def test_a_token_of_a_user_who_was_switched_off_is_refused(world: World, client_of: Client) -> None:
    client = client_of(world.alice)
    world.alice.is_active = False
    world.alice.save(update_fields=["is_active"])
    assert client.get("/api/v1/tenants").status_code == 401


def test_a_token_ends_with_its_users_membership(world: World, client_of: Client) -> None:
    client = client_of(world.bob)
    world.acme.memberships.filter(user=world.bob).delete()
    assert client.get("/api/v1/tenants/acme/clusters").status_code == 404


def test_revoking_works_at_once(browser: APIClient) -> None:
    made = browser.post(TOKENS, {"name": "ci"}, format="json").json()
    client = with_secret(made["secret"])
    assert client.get(TOKENS).status_code == 200
    assert browser.delete(f"{TOKENS}/{made['id']}").status_code == 204
    assert browser.delete(f"{TOKENS}/{made['id']}").status_code == 204
    assert client.get(TOKENS).status_code == 401


def test_a_token_cannot_make_tokens(world: World, client_of: Client) -> None:
    answer = client_of(world.alice).post(TOKENS, {"name": "more"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "session_required")


def test_a_token_can_only_be_limited_to_a_tenant_of_ones_own(browser: APIClient) -> None:
    answer = browser.post(TOKENS, {"name": "ci", "tenant": "other"}, format="json")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/tenant"


def test_a_limited_token_sees_its_tenant_only(world: World, client_of: Client) -> None:
    world.theirs.tenant.memberships.create(user=world.alice, role="owner")
    client = client_of(world.alice, tenant=world.acme)
    assert [tenant["slug"] for tenant in client.get("/api/v1/tenants").json()["items"]] == ["acme"]


def test_last_used_is_written_at_most_once_a_minute(world: World, client_of: Client) -> None:
    client = client_of(world.alice)
    client.get("/api/v1/engines")
    first = ApiToken.objects.get(user=world.alice).last_used
    assert first is not None
    with CaptureQueriesContext(
        connection,
    ) as queries:
        client.get("/api/v1/engines")
    assert not [query for query in queries if "UPDATE" in query["sql"]]
    ApiToken.objects.update(last_used=timezone.now() - timedelta(seconds=61))
    client.get("/api/v1/engines")
    second = ApiToken.objects.get(user=world.alice).last_used
    assert second is not None
    assert second > first
