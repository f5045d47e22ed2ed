"""Strangers see nothing, viewers change nothing: over every route, found by walking the router."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework.views import APIView

from portal.api.tenants import AdminView
from portal.auth import only_asks
from portal.tests.conftest import Client, World
from provisioning.clusters.grants import share
from tenants.models import ApiToken, QuotaFinding, Role, User
from tenants.people import invite
from tenants.tokens import create_token

METHODS = ("get", "post", "put", "patch", "delete")

# Routes that hold something of a tenant or a user: name -> address with alice's things in it.
OWNED = {
    "token": "/api/v1/tokens/{token}",
    "tenant": "/api/v1/tenants/acme",
    "clusters": "/api/v1/tenants/acme/clusters",
    "cluster": "/api/v1/tenants/acme/clusters/orders",
    "cluster-status": "/api/v1/tenants/acme/cluster-status",
    "tenant-capabilities": "/api/v1/tenants/acme/capabilities",
    "capabilities": "/api/v1/tenants/acme/clusters/orders/capabilities",
    "cluster-drift": "/api/v1/tenants/acme/clusters/orders/drift",
    "cluster-monitoring": "/api/v1/tenants/acme/clusters/orders/monitoring",
    "cluster-alerts": "/api/v1/tenants/acme/clusters/orders/alerts",
    "restart": "/api/v1/tenants/acme/clusters/orders/restart",
    "rebalance-masters": "/api/v1/tenants/acme/clusters/orders/rebalance-masters",
    "accept-loss": "/api/v1/tenants/acme/clusters/orders/accept-loss",
    "cluster-order": "/api/v1/tenants/acme/clusters/orders/order",
    "pause": "/api/v1/tenants/acme/clusters/orders/pause",
    "resume": "/api/v1/tenants/acme/clusters/orders/resume",
    "cluster-events": "/api/v1/tenants/acme/clusters/orders/events",
    "cluster-operations": "/api/v1/tenants/acme/clusters/orders/operations",
    "credentials": "/api/v1/tenants/acme/clusters/orders/credentials",
    "reveal": "/api/v1/tenants/acme/clusters/orders/credentials/default/reveal",
    "users": "/api/v1/tenants/acme/clusters/orders/users",
    "user": "/api/v1/tenants/acme/clusters/orders/users/default",
    "rotate-password": "/api/v1/tenants/acme/clusters/orders/users/default/rotate",
    "revoke-old-password": "/api/v1/tenants/acme/clusters/orders/users/default/revoke-old",
    "certificate": "/api/v1/tenants/acme/clusters/orders/certificate",
    "snippets": "/api/v1/tenants/acme/clusters/orders/snippets",
    "tenant-operations": "/api/v1/tenants/acme/operations",
    "operation": "/api/v1/operations/{operation}",
    "cancel-operation": "/api/v1/operations/{operation}/cancel",
    "override-gate": "/api/v1/operations/{operation}/override",
    "retry-operation": "/api/v1/operations/{operation}/retry",
    "quota": "/api/v1/tenants/acme/quota",
    "quota-entries": "/api/v1/tenants/acme/quota/entries",
    "kept-volumes": "/api/v1/tenants/acme/quota/kept-volumes/{cluster}",
    "quota-forecast": "/api/v1/tenants/acme/quota/forecast",
    "quota-limits": "/api/v1/tenants/acme/quota/limits",
    "suspend": "/api/v1/tenants/acme/suspend",
    "unsuspend": "/api/v1/tenants/acme/unsuspend",
    "members": "/api/v1/tenants/acme/members",
    "member": "/api/v1/tenants/acme/members/bob",
    "invitations": "/api/v1/tenants/acme/invitations",
    "invitation": "/api/v1/tenants/acme/invitations/inv_1",
    "service-tokens": "/api/v1/tenants/acme/service-tokens",
    "service-token": "/api/v1/tenants/acme/service-tokens/tok_1",
    "grants": "/api/v1/tenants/acme/clusters/orders/grants",
    "grant": "/api/v1/tenants/acme/clusters/orders/grants/bob",
    "ip-reservations": "/api/v1/tenants/acme/ip-reservations",
    "tenant-audit": "/api/v1/tenants/acme/audit",
    "tenant-audit-export": "/api/v1/tenants/acme/audit/export",
}
# For platform administrators: to everybody else these addresses do not exist.
ADMIN = {
    "audit": "/api/v1/audit",
    "drift": "/api/v1/drift",
    "audit-export": "/api/v1/audit/export",
    "people": "/api/v1/people",
    "person": "/api/v1/people/bob",
    "person-token": "/api/v1/people/alice/tokens/{token}",
    "reset-password": "/api/v1/people/bob/reset-password",
}
# Of these, what not even an administrator reaches with a token that is limited to a tenant.
UNLIMITED = ("people", "person", "person-token", "reset-password")
# Lists of what is the caller's own, and the catalogue: other people's things must not be in them.
COMMON = {
    "tokens": "/api/v1/tokens",
    "tenants": "/api/v1/tenants",
    "engines": "/api/v1/engines",
    "engine": "/api/v1/engines/redis",
    "plans": "/api/v1/plans",
    "plan": "/api/v1/plans/plan-small",
    "targets": "/api/v1/targets",
    "target": "/api/v1/targets/berlin",
    "check-target": "/api/v1/targets/berlin/check",
    "operations": "/api/v1/operations",
    "quota-findings": "/api/v1/quota-findings",
    "shared-clusters": "/api/v1/shared-clusters",
    "accept-invitation": "/api/v1/invitations/accept",
    "own-password": "/api/v1/session/password",
    "changes": "/api/v1/changes",
    "metrics-targets": "/api/v1/metrics-targets",
}
# What a grant opens to a person of another tenant; everything else stays shut.
GUEST_READ = {
    "cluster",
    "cluster-order",
    "capabilities",
    "cluster-events",
    "cluster-operations",
    "operation",
    "cluster-monitoring",
    "cluster-alerts",
}
GUEST_USE = GUEST_READ | {"certificate", "credentials", "snippets", "users", "user"}
# Open to everybody, signed in or not, and the same for all.
OPEN = {"openapi", "problems", "problem", "session", "reference", "application", "oidc-login", "oidc-callback"}


def routes(patterns: list[URLPattern | URLResolver]) -> Iterator[URLPattern]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns)
        else:
            yield pattern


NAMED = {route.name: route for route in routes(get_resolver().url_patterns) if route.name}
CHANGES = [
    (name, method)
    for name in OWNED
    for method in METHODS[1:]
    if name in NAMED and name != "token" and not only_asks(vars(NAMED[name].callback)["cls"], method.upper())
    if hasattr(vars(NAMED[name].callback)["cls"], method)
]

# What platform administrators change outside of any tenant.
PORTAL_CHANGES = [
    (name, method)
    for name in COMMON
    for method in METHODS[1:]
    if issubclass(vars(NAMED[name].callback)["cls"], AdminView) and hasattr(vars(NAMED[name].callback)["cls"], method)
]


def address(name: str, world: World) -> str:
    token = ApiToken.objects.filter(user=world.alice).first() or create_token(user=world.alice, name="a", scopes=[])[0]
    return {**OWNED, **ADMIN, **COMMON}[name].format(
        token=token.pk, operation=world.operation.pk, cluster=world.orders.pk
    )


def test_every_route_has_an_isolation_case() -> None:
    assert set(NAMED) == set(OWNED) | set(ADMIN) | set(COMMON) | OPEN


def test_every_view_without_a_name_is_only_a_404() -> None:
    unnamed = {route.callback.__name__ for route in routes(get_resolver().url_patterns) if not route.name}
    assert unnamed == {"not_found"}


@pytest.mark.parametrize("name", sorted(OWNED | ADMIN))
@pytest.mark.parametrize("method", METHODS)
def test_stranger_gets_404_never_403(world: World, client_of: Client, name: str, method: str) -> None:
    answer = client_of(world.charlie).generic(method.upper(), address(name, world), "{}", "application/json")
    assert answer.status_code in {404, 405}
    assert answer.json()["code"] in {"not_found", "method_not_allowed"}


@pytest.mark.parametrize("name", sorted(OWNED | ADMIN))
def test_stranger_gets_404_from_at_least_one_method(world: World, client_of: Client, name: str) -> None:
    client = client_of(world.charlie)
    answers = [client.generic(method.upper(), address(name, world)).status_code for method in METHODS]
    assert 404 in answers


@pytest.mark.parametrize("name", sorted(OWNED | ADMIN | COMMON))
@pytest.mark.parametrize("method", METHODS)
def test_nobody_gets_401_with_a_challenge(world: World, name: str, method: str) -> None:
    answer = APIClient().generic(method.upper(), address(name, world), "{}", "application/json")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize(("name", "method"), CHANGES)
def test_viewer_gets_403_that_names_the_role(world: World, client_of: Client, name: str, method: str) -> None:
    answer = client_of(world.vera).generic(method.upper(), address(name, world), "{}", "application/json")
    assert answer.status_code == 403
    assert answer.json()["code"] == "role_required"
    assert "owner" in answer.json()["detail"]


@pytest.mark.parametrize(("name", "method"), CHANGES)
def test_nothing_can_be_changed_in_a_suspended_tenant(world: World, client_of: Client, name: str, method: str) -> None:
    world.acme.suspended = True
    world.acme.save(update_fields=["suspended"])
    answer = client_of(world.alice).generic(method.upper(), address(name, world), "{}", "application/json")
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")


@pytest.mark.parametrize("name", sorted(OWNED))
def test_a_token_limited_to_another_tenant_sees_nothing(world: World, client_of: Client, name: str) -> None:
    mine = address(name, world)
    world.theirs.tenant.memberships.create(user=world.alice, role="owner")
    client = client_of(world.alice, tenant=world.theirs.tenant)
    answers = [client.generic(method.upper(), mine, "{}", "application/json") for method in METHODS]
    assert {answer.status_code for answer in answers} <= {404, 405}


@pytest.mark.parametrize(("name", "method"), PORTAL_CHANGES)
def test_a_token_limited_to_a_tenant_changes_nothing_outside_it(
    world: World, client_of: Client, name: str, method: str
) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    client = client_of(world.alice, tenant=world.acme)
    answer = client.generic(method.upper(), address(name, world), "{}", "application/json")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_required")


@pytest.mark.parametrize("name", UNLIMITED)
@pytest.mark.parametrize("method", METHODS)
def test_a_token_limited_to_a_tenant_does_not_find_who_may_sign_in(
    world: World, client_of: Client, name: str, method: str
) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    client = client_of(world.alice, tenant=world.acme)
    answer = client.generic(method.upper(), address(name, world), '{"active": false}', "application/json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert not ApiToken.objects.exclude(revoked=None).exists()


def test_what_administrators_change_outside_tenants_is_known() -> None:
    assert {name for name, _ in PORTAL_CHANGES} == {"tenants", "plans", "plan", "targets", "target", "check-target"}


# A stream has no end to read to: test_changes.py listens to it.
@pytest.mark.parametrize("path", sorted({*COMMON.values()} - {COMMON["changes"]}))
def test_lists_hold_nothing_of_other_people(world: World, client_of: Client, path: str) -> None:
    create_token(user=world.alice, name="for acme", scopes=["read"], tenant=world.acme)
    share(cluster=world.orders, username=User.objects.create(username="dora").username, right="read")
    QuotaFinding.objects.create(
        tenant=world.acme, place="berlin", holder=world.orders.pk, resource="pods", ledger=1, observed=2,
        last_seen=timezone.now(),
    )  # fmt: skip
    invite(tenant=world.acme, by=world.alice, role=Role.VIEWER, note="to acme")
    text = client_of(world.charlie).get(path).content.decode()
    assert "acme" not in text
    assert "orders" not in text


def test_a_token_that_may_only_read_changes_nothing(world: World, client_of: Client) -> None:
    client = client_of(world.alice, scopes=["read"])
    assert client.get("/api/v1/tenants/acme/clusters").status_code == 200
    answer = client.patch("/api/v1/tenants/acme/clusters/orders", {"description": "x"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_required")


def test_every_view_below_api_stands_on_the_common_base() -> None:
    views = [route.callback.cls for route in NAMED.values() if hasattr(route.callback, "cls")]
    assert views
    assert all(issubclass(view, APIView) and view.__mro__.index(APIView) > 1 for view in views)


def _told(answer: Any) -> Any:
    """An answer without what differs by chance, and with the ids of the two worlds made equal."""
    text = answer.content.decode().replace(answer["X-Request-Id"], "request")
    for ours, absent in ABSENT.items():
        text = text.replace(ours, "x").replace(absent, "x")
    return answer.status_code, re.sub(r"(tok|op|inv|clu)_[a-z0-9]+", "x", text), answer.get("Allow")


# What stands for alice's things in an address that leads nowhere.
ABSENT = {"acme": "nowhere", "orders": "nothing"}


@pytest.mark.parametrize("name", sorted(OWNED))
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_yours_answers_exactly_like_what_does_not_exist(
    world: World, client_of: Client, name: str, method: str
) -> None:
    client = client_of(world.charlie)
    client.get("/api/v1/session")
    there = address(name, world)
    nowhere = re.sub(r"(tok|op|inv|clu)_\w+", r"\1_0000", there)
    for ours, absent in ABSENT.items():
        nowhere = nowhere.replace(ours, absent)
    client.get("/api/v1/tenants")  # last_used is written now, not while we count
    with CaptureQueriesContext(connection) as foreign_queries:
        foreign = client.generic(method.upper(), there, "{}", "application/json")
    with CaptureQueriesContext(connection) as absent_queries:
        missing = client.generic(method.upper(), nowhere, "{}", "application/json")
    assert _told(foreign) == _told(missing)
    # The same work, so the time tells nothing either.
    assert len(foreign_queries) == len(absent_queries)


@pytest.mark.parametrize("name", sorted(OWNED | ADMIN | COMMON))
@pytest.mark.parametrize("method", METHODS)
def test_an_expired_token_gets_401(world: World, client_of: Client, name: str, method: str) -> None:
    client = client_of(world.alice)
    ApiToken.objects.update(expires=timezone.now() - timedelta(seconds=1))
    answer = client.generic(method.upper(), address(name, world), "{}", "application/json")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("name", sorted(OWNED | ADMIN | COMMON))
@pytest.mark.parametrize("method", METHODS)
def test_a_member_who_was_switched_off_gets_401(world: World, client_of: Client, name: str, method: str) -> None:
    client = client_of(world.alice)
    world.alice.is_active = False
    world.alice.save(update_fields=["is_active"])
    assert client.generic(method.upper(), address(name, world), "{}", "application/json").status_code == 401


@pytest.mark.parametrize("name", sorted(OWNED))
def test_a_suspended_tenant_can_still_be_read(world: World, client_of: Client, name: str) -> None:
    client = client_of(world.alice)
    before = client.get(address(name, world)).status_code
    world.acme.suspended = True
    world.acme.save(update_fields=["suspended"])
    assert client.get(address(name, world)).status_code == before


@pytest.mark.parametrize(("right", "open_to_guests"), [("read", GUEST_READ), ("use", GUEST_USE)])
def test_a_grant_opens_what_it_names_and_nothing_else(
    world: World, client_of: Client, right: str, open_to_guests: set[str]
) -> None:
    share(cluster=world.orders, username="charlie", right=right)
    client = client_of(world.charlie)
    answers = {name: client.get(address(name, world)).status_code for name in OWNED}
    # 409: it is seen, and this cluster does not encrypt.
    assert {name for name, status in answers.items() if status in (200, 409)} == open_to_guests
    changes = [(method.upper(), address(name, world)) for name, method in CHANGES if name != "reveal"]
    statuses = {client.generic(method, path, "{}", "application/json").status_code for method, path in changes}
    assert statuses <= {403, 404}


def test_a_grant_to_read_does_not_reveal(world: World, client_of: Client) -> None:
    share(cluster=world.orders, username="charlie", right="read")
    answer = client_of(world.charlie).post(address("reveal", world))
    assert (answer.status_code, answer.json()["code"]) == (403, "grant_required")


def test_a_grant_does_not_reach_through_a_token_limited_to_another_tenant(world: World, client_of: Client) -> None:
    share(cluster=world.orders, username="charlie", right="use")
    client = client_of(world.charlie, tenant=world.theirs.tenant)
    assert client.get(address("cluster", world)).status_code == 404
    assert client.get("/api/v1/shared-clusters").json()["items"] == []


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in sorted(OWNED | ADMIN | COMMON)
        for method in METHODS
        if hasattr(vars(NAMED[name].callback)["cls"], method)
    ],
)
def test_no_route_ignores_a_parameter_it_does_not_know(world: World, client_of: Client, name: str, method: str) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    path = f"{address(name, world)}?no_such_parameter=true"
    answer = client_of(world.alice).generic(method.upper(), path, "{}", "application/json")
    assert answer.status_code == 422, answer.content
    assert "?no_such_parameter" in [error["pointer"] for error in answer.json()["errors"]]
