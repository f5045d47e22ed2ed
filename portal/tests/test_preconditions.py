"""If-Match: nobody overwrites what somebody else changed since it was read, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from portal.api.schema import document
from portal.tests.conftest import Client, World
from provisioning.models import Plan, Target
from tenants.models import Membership, QuotaLimit, Tenant, User
from tenants.tokens import create_token

# What is never changed, only made and ended: there is nothing a tag could be out of date about.
NEVER_CHANGED = {
    "signOut", "revokeToken", "revokePersonsToken", "revokeServiceToken", "withdrawInvitation",
    "unshareCluster", "deleteKeptVolumes",
}  # fmt: skip

Change = Callable[[APIClient, dict[str, str]], Any]


def _patch(address: str, body: dict[str, Any]) -> Change:
    return lambda client, headers: client.patch(address, body, format="json", headers=headers)


LIMITS = "/api/v1/tenants/acme/quota/limits"
# Address to read, a change, and what it would have left behind.
OBJECTS: dict[str, tuple[str, Change, Callable[[], Any]]] = {
    "tenant": (
        "/api/v1/tenants/acme", _patch("/api/v1/tenants/acme", {"name": "Changed"}),
        lambda: Tenant.objects.get(slug="acme").name,
    ),
    "plan": (
        "/api/v1/plans/plan-small", _patch("/api/v1/plans/plan-small", {"title": "Changed"}),
        lambda: Plan.objects.get(name="plan-small").title,
    ),
    "member": (
        "/api/v1/tenants/acme/members/bob", _patch("/api/v1/tenants/acme/members/bob", {"role": "viewer"}),
        lambda: Membership.objects.get(user__username="bob").role,
    ),
    "target": (
        "/api/v1/targets/berlin", _patch("/api/v1/targets/berlin", {"title": "Changed"}),
        lambda: Target.objects.get(name="berlin").title,
    ),
    "person": (
        "/api/v1/people/bob", _patch("/api/v1/people/bob", {"administrator": True}),
        lambda: User.objects.get(username="bob").is_superuser,
    ),
    "limits": (
        LIMITS,
        lambda client, headers: client.put(
            LIMITS, {"limits": [{"resource": "pods", "limit": 9}]}, format="json", headers=headers
        ),
        lambda: list(QuotaLimit.objects.values_list("resource", "limit")),
    ),
}  # fmt: skip


def test_every_change_of_something_that_can_change_takes_if_match() -> None:
    without = {
        operation["operationId"]
        for methods in document()["paths"].values()
        for method, operation in methods.items()
        if method in ("patch", "put", "delete")
        and not (
            {"If-Match"} <= {one["name"] for one in operation.get("parameters", ())} and "412" in operation["responses"]
        )
    }
    assert without == NEVER_CHANGED


def test_what_is_read_for_a_change_has_a_tag(world: World) -> None:
    paths = document()["paths"]
    told = {
        path
        for path, methods in paths.items()
        if "get" in methods and "ETag" in methods["get"]["responses"]["200"].get("headers", {})
    }
    assert {path for path, methods in paths.items() if {"patch", "put"} & set(methods)} == told


@pytest.fixture
def admin(world: World, client_of: Client) -> APIClient:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    return client_of(world.alice)


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_change_of_what_was_read_goes_through_and_one_that_came_too_late_changes_nothing(
    admin: APIClient, kind: str
) -> None:
    address, change, left = OBJECTS[kind]
    read, before = admin.get(address)["ETag"], left()
    assert change(admin, {"If-Match": '"something-older"'}).status_code == 412
    assert change(admin, {"If-Match": f"W/{read}"}).status_code == 412  # a weak tag never matches
    assert left() == before
    changed = change(admin, {"If-Match": f'"something-older", {read}'})
    assert (changed.status_code, left() == before) == (200, False)
    late = change(admin, {"If-Match": read})
    assert (late.status_code, late.json()["code"]) == (412, "stale_revision")
    assert late["ETag"] == changed["ETag"] == admin.get(address)["ETag"] != read
    assert change(admin, {"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize("kind", ["tenant", "plan", "member", "target"])
def test_nothing_is_deleted_that_was_changed_since_it_was_read(admin: APIClient, kind: str) -> None:
    address, change, _ = OBJECTS[kind]
    read = admin.get(address)["ETag"]
    assert change(admin, {}).status_code == 200
    assert admin.delete(address, headers={"If-Match": read}).status_code == 412
    assert admin.get(address).status_code == 200


@pytest.mark.parametrize("verb", ["suspend", "unsuspend"])
def test_nothing_is_suspended_by_what_was_read_before_somebody_else_did(admin: APIClient, verb: str) -> None:
    read = admin.get("/api/v1/tenants/acme")["ETag"]
    Tenant.objects.filter(slug="acme").update(name="Changed")
    assert admin.post(f"/api/v1/tenants/acme/{verb}", headers={"If-Match": read}).status_code == 412
    assert not Tenant.objects.get(slug="acme").suspended


def test_what_berth_finds_out_by_itself_about_a_target_leaves_its_tag_alone(admin: APIClient) -> None:
    read = admin.get("/api/v1/targets/berlin")["ETag"]
    Target.objects.filter(name="berlin").update(reachable=False, reason="away", nodes=[])
    assert admin.get("/api/v1/targets/berlin")["ETag"] == read


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", OBJECTS)
def test_of_two_changes_at_once_with_the_same_tag_one_is_refused(world: World, kind: str) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    _, secret = create_token(user=world.alice, name="race", scopes=["admin"])
    clients = [APIClient(headers={"Authorization": f"Bearer {secret}"}) for _ in range(2)]
    address, change, _ = OBJECTS[kind]
    read, start = clients[0].get(address)["ETag"], Barrier(2)

    def race(client: APIClient) -> int:
        try:
            start.wait()
            status: int = change(client, {"If-Match": read}).status_code
            return status
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(race, clients)) == [200, 412]
