"""Strangers see nothing, viewers change nothing: over every route, found by walking the router."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient
from rest_framework.views import APIView

from portal.tests.conftest import Client, World
from tenants.models import ApiToken
from tenants.tokens import create_token

METHODS = ("get", "post", "put", "patch", "delete")

# Routes that hold something of a tenant or a user: name -> address with alice's things in it.
OWNED = {
    "token": "/api/v1/tokens/{token}",
    "tenant": "/api/v1/tenants/acme",
    "clusters": "/api/v1/tenants/acme/clusters",
    "cluster": "/api/v1/tenants/acme/clusters/orders",
    "cluster-events": "/api/v1/tenants/acme/clusters/orders/events",
    "cluster-operations": "/api/v1/tenants/acme/clusters/orders/operations",
    "credentials": "/api/v1/tenants/acme/clusters/orders/credentials",
    "reveal": "/api/v1/tenants/acme/clusters/orders/credentials/default/reveal",
    "snippets": "/api/v1/tenants/acme/clusters/orders/snippets",
    "tenant-operations": "/api/v1/tenants/acme/operations",
    "operation": "/api/v1/operations/{operation}",
    "quota": "/api/v1/tenants/acme/quota",
    "quota-entries": "/api/v1/tenants/acme/quota/entries",
    "kept-volumes": "/api/v1/tenants/acme/quota/kept-volumes/{cluster}",
    "quota-forecast": "/api/v1/tenants/acme/quota/forecast",
    "quota-limits": "/api/v1/tenants/acme/quota/limits",
    "tenant-audit": "/api/v1/tenants/acme/audit",
    "tenant-audit-export": "/api/v1/tenants/acme/audit/export",
}
# For platform administrators: to everybody else these addresses do not exist.
ADMIN = {
    "audit": "/api/v1/audit",
    "audit-export": "/api/v1/audit/export",
}
# Lists of what is the caller's own, and the catalogue: other people's things must not be in them.
COMMON = {
    "tokens": "/api/v1/tokens",
    "tenants": "/api/v1/tenants",
    "engines": "/api/v1/engines",
    "engine": "/api/v1/engines/redis",
    "plans": "/api/v1/plans",
    "targets": "/api/v1/targets",
    "quota-findings": "/api/v1/quota-findings",
}
# Open to everybody, signed in or not, and the same for all.
OPEN = {"openapi", "problems", "problem", "session", "reference", "application"}


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
    if name in NAMED and hasattr(vars(NAMED[name].callback)["cls"], method) and name not in {"token"}
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
    assert "developer" in answer.json()["detail"]


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


@pytest.mark.parametrize("path", sorted(COMMON.values()))
def test_lists_hold_nothing_of_other_people(world: World, client_of: Client, path: str) -> None:
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
