"""Two things at once, over HTTP: each is carried out or refused with a reason, and nothing is half-done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from portal.tests.conftest import World
from provisioning.catalog.plans import delete_plan
from provisioning.models import Cluster, Plan, Target
from tenants.accounts import change_person
from tenants.models import Membership, Tenant, User
from tenants.people import delete_tenant
from tenants.quota import replace_limits
from tenants.tests.locks import await_a_waiter
from tenants.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)
CLUSTERS = "/api/v1/tenants/acme/clusters"
EMPTY = "/api/v1/tenants/empty"


@pytest.fixture
def admin(world: World) -> APIClient:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    _, secret = create_token(user=world.alice, name="race", scopes=["admin"])
    return APIClient(headers={"Authorization": f"Bearer {secret}"})


def while_it_is_done(done: Callable[[], object], asked: Callable[[], Any]) -> Any:
    """The answer to what is `asked` after `done` was done and before it was committed."""

    def ask() -> Any:
        try:
            return asked()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            done()
            answer = pool.submit(ask)
            await_a_waiter()
        return answer.result()


def order(client: APIClient, **more: Any) -> Any:
    body = {"engine": "redis", "name": "fresh", "target": "berlin", **more}
    return client.post(CLUSTERS, body, format="json", headers={"Idempotency-Key": "race"})


def test_an_order_by_a_plan_that_is_deleted_meanwhile_is_refused_with_the_reason(admin: APIClient) -> None:
    answer = while_it_is_done(lambda: delete_plan(name="plan-small"), lambda: order(admin, plan="plan-small"))
    assert (answer.status_code, answer.json()["code"]) == (409, "removed_meanwhile")
    assert not Cluster.objects.filter(name="fresh").exists()


def test_an_order_on_a_target_that_is_removed_meanwhile_is_refused_with_the_reason(admin: APIClient) -> None:
    Target.objects.create(name="paris", title="Paris", reachable=True, nodes=Target.objects.get(name="berlin").nodes,
                          storage_classes=Target.objects.get(name="berlin").storage_classes)  # fmt: skip
    answer = while_it_is_done(lambda: Target.objects.get(name="paris").delete(), lambda: order(admin, target="paris"))
    assert (answer.status_code, answer.json()["code"]) == (409, "removed_meanwhile")


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda admin: admin.delete(EMPTY), 404),
        (lambda admin: admin.patch(EMPTY, {"name": "x"}, format="json"), 404),
        (lambda admin: admin.post(f"{EMPTY}/suspend"), 404),
        (lambda admin: admin.post(f"{EMPTY}/members", {"username": "bob", "role": "viewer"}, format="json"), 404),
        (lambda admin: admin.put(f"{EMPTY}/quota/limits", {"limits": []}, format="json"), 404),
        (
            lambda admin: admin.post(
                f"{EMPTY}/clusters", {"engine": "redis", "name": "fresh"}, format="json",
                headers={"Idempotency-Key": "k"},
            ),
            404,
        ),
    ],
    ids=["delete", "rename", "suspend", "add-member", "set-limits", "order"],
)  # fmt: skip
def test_a_tenant_that_is_deleted_meanwhile_is_not_there(
    admin: APIClient, ask: Callable[[APIClient], Any], status: int
) -> None:
    tenant = Tenant.objects.create(slug="empty", name="Empty")
    answer = while_it_is_done(lambda: delete_tenant(tenant=tenant), lambda: ask(admin))
    assert answer.status_code == status, answer.content
    assert answer.json()["code"] in {"not_found", "removed_meanwhile"}


def test_limits_are_the_last_ones_set_and_never_a_mixture(admin: APIClient, world: World) -> None:
    def ours() -> Any:
        body = {"limits": [{"resource": "pods", "limit": 5}]}
        return admin.put("/api/v1/tenants/acme/quota/limits", body, format="json")

    answer = while_it_is_done(lambda: replace_limits(tenant_id=world.acme.pk, limits={("*", "cpu"): 1}), ours)
    assert [(one["resource"], one["limit"]) for one in answer.json()["limits"]] == [("pods", 5)]


def test_labels_that_are_added_at_once_are_all_there(admin: APIClient, world: World) -> None:
    def add() -> Any:
        return admin.patch(f"{CLUSTERS}/orders", {"labels": {"b": "2", "team": None}}, format="json")

    def others() -> None:
        cluster = Cluster.objects.select_for_update().get(pk=world.orders.pk)
        cluster.labels = {**cluster.labels, "a": "1"}
        cluster.save(update_fields=["labels"])

    assert while_it_is_done(others, add).json()["labels"] == {"a": "1", "b": "2"}


def test_who_is_switched_off_while_signing_in_does_not_get_in(world: World, admin: APIClient) -> None:
    world.bob.set_password("a long enough password")
    world.bob.save()
    browser = APIClient()

    def sign_in() -> Any:
        body = {"username": "bob", "password": "a long enough password"}
        return browser.post("/api/v1/session", body, format="json")

    answer = while_it_is_done(lambda: change_person(username="bob", by=world.alice, active=False), sign_in)
    assert (answer.status_code, answer.json()["code"]) == (401, "sign_in_failed")
    change_person(username="bob", by=world.alice, active=True)
    assert browser.get("/api/v1/tenants").status_code == 401


def test_a_session_that_was_opened_just_before_somebody_is_switched_off_ends_with_it(world: World) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    browser = APIClient()
    browser.force_login(world.bob)

    def locked() -> None:
        User.objects.select_for_update(no_key=True).get(pk=world.bob.pk)

    while_it_is_done(locked, lambda: change_person(username="bob", by=world.alice, active=False))
    change_person(username="bob", by=world.alice, active=True)
    assert browser.get("/api/v1/tenants").status_code == 401


def test_the_tag_of_a_plan_stays_while_its_targets_are_looked_at(admin: APIClient) -> None:
    plan = Plan.objects.get(name="plan-small")
    plan.targets.set([Target.objects.create(name=name, title=name) for name in ("zurich", "athens", "madrid")])
    tags = set()
    for name in ("zurich", "athens", "madrid", "zurich"):
        # Rows that are written anew move to the end of the table.
        Target.objects.filter(name=name).update(reason="looked at")
        tags.add(admin.get("/api/v1/plans/plan-small")["ETag"])
    assert len(tags) == 1


def test_a_member_who_is_removed_meanwhile_is_not_there_to_be_changed(admin: APIClient, world: World) -> None:
    def removed() -> None:
        Tenant.objects.select_for_update().get(pk=world.acme.pk)
        Membership.objects.filter(user=world.bob).delete()

    answer = while_it_is_done(
        removed, lambda: admin.patch("/api/v1/tenants/acme/members/bob", {"role": "viewer"}, format="json")
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
