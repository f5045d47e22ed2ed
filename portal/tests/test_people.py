"""Tenants, members, invitations, service tokens, grants."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World
from provisioning.clusters.grants import share
from tenants.groups import follow_groups
from tenants.models import ApiToken, AuditEvent, Invitation, Membership, Role, Tenant, User
from tenants.people import accept, add_member, change_role, invite, remove_member
from tenants.refusals import Conflict

ACME = "/api/v1/tenants/acme"
ORDERS = f"{ACME}/clusters/orders"


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


@pytest.fixture
def admin(world: World, client_of: Client) -> APIClient:
    return client_of(User.objects.create(username="root", is_superuser=True))


def browser_of(user: User) -> APIClient:
    client = APIClient()
    client.force_login(user)
    return client


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_an_administrator_makes_renames_suspends_and_deletes_a_tenant(admin: APIClient) -> None:
    made = admin.post("/api/v1/tenants", {"slug": "shop", "name": "Shop", "owner": "charlie"}, format="json")
    assert (made.status_code, made.json()["slug"]) == (201, "shop")
    assert Membership.objects.get(tenant__slug="shop").role == Role.OWNER
    assert admin.patch("/api/v1/tenants/shop", {"name": "Store"}, format="json").json()["name"] == "Store"
    assert admin.post("/api/v1/tenants/shop/suspend").json()["suspended"] is True
    assert admin.post("/api/v1/tenants/shop/unsuspend").json()["suspended"] is False
    assert admin.delete("/api/v1/tenants/shop").status_code == 204
    assert admin.get("/api/v1/tenants/shop").status_code == 404
    actions = list(AuditEvent.objects.filter(tenant="shop").order_by("id").values_list("action", flat=True))
    assert actions == ["createTenant", "renameTenant", "suspendTenant", "unsuspendTenant", "deleteTenant"]


def test_a_tenant_with_a_cluster_is_not_deleted(admin: APIClient) -> None:
    assert code(admin.delete(ACME)) == (409, "tenant_not_empty")
    assert Tenant.objects.filter(slug="acme").exists()


def test_a_slug_in_use_and_a_wrong_one_are_refused(admin: APIClient) -> None:
    assert code(admin.post("/api/v1/tenants", {"slug": "acme", "name": "A"}, format="json")) == (409, "slug_taken")
    answer = admin.post("/api/v1/tenants", {"slug": "No Slug", "name": "A"}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/slug")


def test_owners_cannot_do_what_administrators_do(alice: APIClient) -> None:
    assert code(alice.post("/api/v1/tenants", {"slug": "mine", "name": "M"}, format="json")) == (403, "role_required")
    assert code(alice.post(f"{ACME}/suspend")) == (403, "role_required")
    assert code(alice.delete(ACME)) == (403, "role_required")


def test_an_administrators_token_without_the_scope_admin_administers_nothing(world: World, client_of: Client) -> None:
    root = User.objects.create(username="root", is_superuser=True)
    client = client_of(root, scopes=["write"])
    assert code(client.post("/api/v1/tenants", {"slug": "x", "name": "X"}, format="json")) == (403, "scope_required")
    assert code(client.post(f"{ACME}/suspend")) == (403, "scope_required")


# --- members ----------------------------------------------------------------------------------------------------------


def test_an_owner_adds_promotes_and_removes_a_member(alice: APIClient, world: World, client_of: Client) -> None:
    body = {"username": "charlie", "role": "viewer"}
    assert alice.post(f"{ACME}/members", body, format="json").status_code == 201
    charlie = client_of(world.charlie)
    assert charlie.get(ORDERS).status_code == 200
    assert code(charlie.patch(ORDERS, {"description": "x"}, format="json")) == (403, "role_required")
    assert alice.patch(f"{ACME}/members/charlie", {"role": "developer"}, format="json").json()["role"] == "developer"
    assert charlie.patch(ORDERS, {"description": "x"}, format="json").status_code == 200
    assert alice.delete(f"{ACME}/members/charlie").status_code == 204
    assert charlie.get(ORDERS).status_code == 404
    row = AuditEvent.objects.get(action="changeMember")
    assert (row.object, row.detail) == ("members/charlie", {"role": "developer", "before": "viewer"})


def test_members_are_listed_to_members(world: World, client_of: Client) -> None:
    items = client_of(world.vera).get(f"{ACME}/members").json()["items"]
    assert [(item["username"], item["role"]) for item in items] == [
        ("alice", "owner"), ("bob", "developer"), ("vera", "viewer"),
    ]  # fmt: skip


@pytest.mark.parametrize("username", ["nobody", "ALICE", ""])
def test_an_unknown_person_cannot_be_added(alice: APIClient, username: str) -> None:
    answer = alice.post(f"{ACME}/members", {"username": username, "role": "viewer"}, format="json")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/username")


def test_a_member_is_not_added_twice(alice: APIClient) -> None:
    answer = alice.post(f"{ACME}/members", {"username": "bob", "role": "owner"}, format="json")
    assert code(answer) == (409, "already_member")
    assert Membership.objects.get(tenant__slug="acme", user__username="bob").role == Role.DEVELOPER


def test_the_last_owner_stays(alice: APIClient, admin: APIClient) -> None:
    for client in (alice, admin):
        assert code(client.delete(f"{ACME}/members/alice")) == (409, "last_owner")
        assert code(client.patch(f"{ACME}/members/alice", {"role": "viewer"}, format="json")) == (409, "last_owner")


def test_an_owner_who_was_switched_off_and_a_service_do_not_count_as_owners(alice: APIClient, world: World) -> None:
    body = {"name": "ci", "role": "owner"}
    assert browser_of(world.alice).post(f"{ACME}/service-tokens", body, format="json").status_code == 201
    world.bob.is_active = False
    world.bob.save(update_fields=["is_active"])
    Membership.objects.filter(user=world.bob).update(role=Role.OWNER)
    assert code(alice.delete(f"{ACME}/members/alice")) == (409, "last_owner")


def test_a_token_needs_the_scope_admin_to_manage_people(world: World, client_of: Client) -> None:
    client = client_of(world.alice, scopes=["write"])
    answer = client.post(f"{ACME}/members", {"username": "charlie", "role": "viewer"}, format="json")
    assert code(answer) == (403, "scope_required")
    assert "admin" in answer.json()["detail"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", range(5))
def test_two_owners_who_remove_each_other_at_once_leave_one(attempt: int) -> None:
    tenant = Tenant.objects.create(slug="both", name="Both")
    for name in ("ann", "ben"):
        Membership.objects.create(tenant=tenant, user=User.objects.create(username=name), role=Role.OWNER)
    start, refused = threading.Barrier(2), list[str]()

    def remove(name: str) -> None:
        try:
            start.wait()
            remove_member(tenant=tenant, username=name)
        except Conflict as error:
            refused.append(error.code)
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=(name,)) for name in ("ann", "ben")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tenant.memberships.filter(role=Role.OWNER).count() == 1
    assert refused == ["last_owner"]


# --- invitations ------------------------------------------------------------------------------------------------------


def test_an_invitation_lets_one_person_in_once(alice: APIClient, world: World) -> None:
    made = alice.post(f"{ACME}/invitations", {"role": "developer", "note": "Charlie"}, format="json").json()
    charlie = browser_of(world.charlie)
    answer = charlie.post("/api/v1/invitations/accept", {"secret": made["secret"]}, format="json")
    assert answer.json() == {"tenant": "acme", "role": "developer"}
    assert charlie.get(ORDERS).status_code == 200
    dora = browser_of(User.objects.create(username="dora"))
    again = dora.post("/api/v1/invitations/accept", {"secret": made["secret"]}, format="json")
    assert code(again) == (404, "invitation_unusable")
    (listed,) = alice.get(f"{ACME}/invitations").json()["items"]
    assert (listed["accepted_by"], listed["invited_by"]) == ("charlie", "alice")
    assert made["secret"] not in str([*Invitation.objects.values(), *AuditEvent.objects.values(), listed])


def _expire(invitation: Invitation, world: World) -> None:
    Invitation.objects.filter(pk=invitation.pk).update(expires=timezone.now() - timedelta(seconds=1))


def _withdraw(invitation: Invitation, world: World) -> None:
    assert browser_of(world.alice).delete(f"{ACME}/invitations/{invitation.pk}").status_code == 204


def _demote(invitation: Invitation, world: World) -> None:
    Membership.objects.filter(user=world.bob).update(role=Role.OWNER)
    change_role(tenant=world.acme, username="alice", role=Role.VIEWER)


@pytest.mark.parametrize("spoil", [_expire, _withdraw, _demote])
def test_an_invitation_that_ended_looks_like_one_that_never_was(world: World, spoil: Any) -> None:
    invitation, secret = invite(tenant=world.acme, by=world.alice, role=Role.OWNER)
    spoil(invitation, world)
    charlie = browser_of(world.charlie)
    ended = charlie.post("/api/v1/invitations/accept", {"secret": secret}, format="json").json()
    never = charlie.post("/api/v1/invitations/accept", {"secret": "bri_x"}, format="json").json()
    assert {**ended, "request_id": ""} == {**never, "request_id": ""}
    assert ended["code"] == "invitation_unusable"


def test_an_invitation_is_not_used_up_by_a_member(world: World) -> None:
    invitation, secret = invite(tenant=world.acme, by=world.alice, role=Role.OWNER)
    answer = browser_of(world.bob).post("/api/v1/invitations/accept", {"secret": secret}, format="json")
    assert code(answer) == (409, "already_member")
    assert Membership.objects.get(user=world.bob).role == Role.DEVELOPER
    assert Invitation.objects.get(pk=invitation.pk).accepted is None


def test_a_token_cannot_accept_an_invitation(world: World, client_of: Client) -> None:
    _, secret = invite(tenant=world.acme, by=world.alice, role=Role.VIEWER)
    answer = client_of(world.charlie).post("/api/v1/invitations/accept", {"secret": secret}, format="json")
    assert code(answer) == (403, "session_required")


@pytest.mark.parametrize("name", ["bob", "vera"])
@pytest.mark.parametrize("path", ["invitations", "service-tokens"])
def test_only_owners_see_invitations_and_service_tokens(world: World, client_of: Client, name: str, path: str) -> None:
    assert code(client_of(getattr(world, name)).get(f"{ACME}/{path}")) == (403, "role_required")


# --- service tokens ---------------------------------------------------------------------------------------------------


def service(world: World, **body: Any) -> tuple[dict[str, Any], APIClient]:
    answer = browser_of(world.alice).post(f"{ACME}/service-tokens", {"name": "ci", **body}, format="json")
    assert answer.status_code == 201, answer.content
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {answer.json()['secret']}")
    return answer.json(), client


def test_a_service_token_acts_with_its_role_in_its_tenant_only(world: World) -> None:
    made, client = service(world, role="developer", scopes=["write"])
    assert client.patch(ORDERS, {"description": "by ci"}, format="json").status_code == 200
    assert client.get("/api/v1/tenants/other").status_code == 404
    row = AuditEvent.objects.get(action="editCluster")
    assert (row.actor, row.token_prefix) == (made["username"], made["prefix"])
    _, viewer = service(world, role="viewer", scopes=["write"])
    assert code(viewer.patch(ORDERS, {"description": "x"}, format="json")) == (403, "role_required")


def test_a_service_token_outlives_the_person_who_made_it(world: World) -> None:
    _, client = service(world, role="viewer")
    world.alice.delete()
    assert client.get(ORDERS).status_code == 200


def test_a_revoked_service_token_is_refused_at_once(world: World, alice: APIClient) -> None:
    made, client = service(world, role="viewer")
    assert client.get(ORDERS).status_code == 200
    assert alice.delete(f"{ACME}/service-tokens/{made['id']}").status_code == 204
    assert client.get(ORDERS).status_code == 401
    (listed,) = alice.get(f"{ACME}/service-tokens").json()["items"]
    assert listed["revoked"] is not None
    assert (listed["role"], listed["created_by"]) == ("viewer", "alice")


def test_a_service_is_no_member_people_see_and_cannot_be_made_by_a_token(world: World, alice: APIClient) -> None:
    made, _ = service(world, role="viewer")
    assert made["username"] not in alice.get(f"{ACME}/members").content.decode()
    assert code(alice.post(f"{ACME}/service-tokens", {"name": "x", "role": "viewer"}, format="json")) == (
        403, "session_required",
    )  # fmt: skip
    personal = ApiToken.objects.get(user=world.alice)
    assert code(alice.delete(f"{ACME}/service-tokens/{personal.pk}")) == (404, "not_found")


# --- grants -----------------------------------------------------------------------------------------------------------


def test_a_cluster_is_shared_and_no_more(alice: APIClient, world: World, client_of: Client) -> None:
    charlie = client_of(world.charlie)
    assert charlie.get(ORDERS).status_code == 404
    body = {"username": "charlie", "right": "read"}
    assert alice.post(f"{ORDERS}/grants", body, format="json").json() == body
    assert charlie.get(ORDERS).json()["name"] == "orders"
    assert [item["name"] for item in charlie.get("/api/v1/shared-clusters").json()["items"]] == ["orders"]
    assert code(charlie.get(f"{ORDERS}/snippets")) == (403, "grant_required")
    assert alice.post(f"{ORDERS}/grants", {**body, "right": "use"}, format="json").status_code == 201
    assert charlie.get(f"{ORDERS}/snippets").status_code == 200
    assert [item["right"] for item in alice.get(f"{ORDERS}/grants").json()["items"]] == ["use"]
    assert alice.delete(f"{ORDERS}/grants/charlie").status_code == 204
    assert charlie.get(ORDERS).status_code == 404
    assert charlie.get("/api/v1/shared-clusters").json()["items"] == []


def test_a_guest_who_became_a_member_and_was_removed_sees_nothing(
    alice: APIClient, world: World, client_of: Client
) -> None:
    alice.post(f"{ORDERS}/grants", {"username": "charlie", "right": "use"}, format="json")
    members = "/api/v1/tenants/acme/members"
    assert alice.post(members, {"username": "charlie", "role": "viewer"}, format="json").status_code == 201
    assert alice.delete(f"{members}/charlie").status_code == 204
    assert client_of(world.charlie).get(ORDERS).status_code == 404


def _added(world: World) -> None:
    add_member(tenant=world.acme, username="charlie", role=Role.VIEWER)


def _invited(world: World) -> None:
    _, secret = invite(tenant=world.acme, by=world.alice, role=Role.VIEWER)
    accept(secret=secret, by=world.charlie)


def _in_a_group(world: World) -> None:
    with transaction.atomic():
        follow_groups(user=world.charlie, wanted={"acme": Role.VIEWER})


@pytest.mark.parametrize("join", [_added, _invited, _in_a_group])
def test_whoever_joins_is_no_guest_any_more(alice: APIClient, world: World, join: Any) -> None:
    for name in ("charlie", "dora"):
        User.objects.get_or_create(username=name)
        assert alice.post(f"{ORDERS}/grants", {"username": name, "right": "use"}, format="json").status_code == 201
    join(world)
    assert [item["username"] for item in alice.get(f"{ORDERS}/grants").json()["items"]] == ["dora"]


def test_a_grant_that_is_left_beside_a_membership_ends_with_it(world: World) -> None:
    share(cluster=world.orders, username="charlie", right="read")
    # As when sharing and joining cross, or from a version that left it.
    Membership.objects.bulk_create([Membership(tenant=world.acme, user=world.charlie, role=Role.VIEWER)])
    assert world.orders.grants.exists()
    remove_member(tenant=world.acme, username="charlie")
    assert not world.orders.grants.exists()


def test_a_changed_role_and_another_tenants_membership_leave_grants_alone(world: World) -> None:
    share(cluster=world.orders, username="charlie", right="read")
    Membership.objects.create(tenant=world.theirs.tenant, user=world.bob, role=Role.OWNER)
    change_role(tenant=world.theirs.tenant, username="charlie", role=Role.VIEWER)
    remove_member(tenant=world.theirs.tenant, username="charlie")
    assert world.orders.grants.exists()


def test_only_owners_share(world: World, client_of: Client) -> None:
    body = {"username": "charlie", "right": "use"}
    assert code(client_of(world.bob).post(f"{ORDERS}/grants", body, format="json")) == (403, "role_required")


def test_a_member_needs_no_grant(alice: APIClient) -> None:
    answer = alice.post(f"{ORDERS}/grants", {"username": "vera", "right": "use"}, format="json")
    assert code(answer) == (409, "already_member")
