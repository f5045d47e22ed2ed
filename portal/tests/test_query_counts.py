"""Every list takes the same number of queries for one row as for a thousand: a reviewed snapshot.

A list endpoint that is not in the table fails the walk; a number that changes is looked at, and then written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api.remembered import CLUSTERS
from portal.api.schema import document
from portal.tests.conftest import Client, World
from provisioning.apply.reservations import Standing
from provisioning.clusters.grants import share
from provisioning.models import (
    Cluster,
    ClusterEvent,
    ClusterGrant,
    Operation,
    OperationState,
    Phase,
    Plan,
    Principal,
    Target,
)
from tenants.models import (
    ApiToken,
    AuditEvent,
    AuditResult,
    EntryKind,
    Invitation,
    LedgerEntry,
    Membership,
    QuotaFinding,
    QuotaHold,
    Role,
    Tenant,
    User,
)

ROWS = (1, 10, 1000)
SOON = timezone.now() + timedelta(days=1)


def people(prefix: str, numbers: range) -> list[User]:
    return User.objects.bulk_create(User(username=f"{prefix}-{number}") for number in numbers)


def clusters(world: World, numbers: range) -> None:
    made = Cluster.objects.bulk_create(
        Cluster(
            tenant=world.acme, target=world.target, name=f"c-{number}", engine="redis", version="7.0.15", spec={},
            phase=Phase.READY, created_by=world.bob,
        )
        for number in numbers
    )  # fmt: skip
    Operation.objects.bulk_create(
        Operation(
            cluster=one, kind="create", state=OperationState.RUNNING, generation=1, actor=world.bob, deadline=SOON
        )
        for one in made
    )
    QuotaHold.objects.bulk_create(
        QuotaHold(tenant=world.acme, place=world.target.name, holder=one.pk, resource="pods", used=3, used_by="op_1")
        for one in made
    )


def operations(world: World, numbers: range) -> None:
    Operation.objects.bulk_create(
        Operation(
            cluster=world.orders, kind="create", state=OperationState.SUCCEEDED, generation=1, actor=world.bob,
            deadline=SOON,
        )
        for _ in numbers
    )  # fmt: skip


def events(world: World, numbers: range) -> None:
    ClusterEvent.objects.bulk_create(
        ClusterEvent(cluster=world.orders, operation=world.operation, reason="Again", message=str(number))
        for number in numbers
    )


def principals(world: World, numbers: range) -> None:
    Principal.objects.bulk_create(
        Principal(cluster=world.orders, name=f"p-{number}", secret_name="s") for number in numbers
    )


def tokens(world: World, numbers: range) -> None:
    ApiToken.objects.bulk_create(
        ApiToken(user=world.alice, name="t", prefix="brt_", sha256=f"{number:064}", scopes=["read"], expires=SOON)
        for number in numbers
    )


def tenants(world: World, numbers: range) -> None:
    made = Tenant.objects.bulk_create(Tenant(slug=f"t-{number}", name="T") for number in numbers)
    Membership.objects.bulk_create(Membership(tenant=one, user=world.alice, role=Role.VIEWER) for one in made)


def members(world: World, numbers: range) -> None:
    Membership.objects.bulk_create(
        Membership(tenant=world.acme, user=one, role=Role.VIEWER) for one in people("member", numbers)
    )


def invitations(world: World, numbers: range) -> None:
    Invitation.objects.bulk_create(
        Invitation(
            tenant=world.acme, role=Role.VIEWER, invited_by=world.alice, sha256=f"{number:064}", expires=SOON
        )
        for number in numbers
    )  # fmt: skip


def services(world: World, numbers: range) -> None:
    made = User.objects.bulk_create(
        User(username=f"service:acme/{number}", service_of=world.acme) for number in numbers
    )
    Membership.objects.bulk_create(Membership(tenant=world.acme, user=one, role=Role.DEVELOPER) for one in made)
    ApiToken.objects.bulk_create(
        ApiToken(
            user=one, tenant=world.acme, name="s", prefix="brt_", sha256=f"s{one.pk:063}", scopes=["read"],
            expires=SOON, created_by=world.alice,
        )
        for one in made
    )  # fmt: skip


def grants(world: World, numbers: range) -> None:
    first = share(cluster=world.orders, username="charlie", right="read")
    ClusterGrant.objects.bulk_create(
        ClusterGrant(content_object=world.orders, user=one, permission=first.permission)
        for one in people("guest", numbers)
    )


def shared(world: World, numbers: range) -> None:
    first = share(cluster=world.theirs, username="alice", right="read")
    made = Cluster.objects.bulk_create(
        Cluster(
            tenant=world.theirs.tenant, target=world.target, name=f"s-{number}", engine="redis", version="7.0.15",
            spec={},
        )
        for number in numbers
    )  # fmt: skip
    ClusterGrant.objects.bulk_create(
        ClusterGrant(content_object=one, user=world.alice, permission=first.permission) for one in made
    )


def plans(world: World, numbers: range) -> None:
    made = Plan.objects.bulk_create(Plan(name=f"plan-{number}", engine="redis", title="P") for number in numbers)
    for plan in made[:50]:
        plan.targets.add(world.target)


def targets(world: World, numbers: range) -> None:
    Target.objects.bulk_create(Target(name=f"target-{number}", title="T") for number in numbers)


def entries(world: World, numbers: range) -> None:
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            tenant=world.acme, kind=EntryKind.COMMIT, place=world.target.name, holder=world.orders.pk,
            cause=world.operation.pk, resource="pods", used_change=1,
        )
        for _ in numbers
    )  # fmt: skip


def findings(world: World, numbers: range) -> None:
    QuotaFinding.objects.bulk_create(
        QuotaFinding(
            tenant=world.acme, place=world.target.name, holder=f"clu_{number}", resource="pods", ledger=1, observed=2,
            last_seen=timezone.now(),
        )
        for number in numbers
    )  # fmt: skip


def audit(world: World, numbers: range) -> None:
    AuditEvent.objects.bulk_create(
        AuditEvent(
            tenant_id=world.acme.pk, tenant="acme", action="editCluster", object="clusters/orders",
            result=AuditResult.SUCCESS, status=200,
        )
        for _ in numbers
    )  # fmt: skip


def directory(world: World, numbers: range) -> None:
    made = people("person", numbers)
    Membership.objects.bulk_create(Membership(tenant=world.acme, user=one, role=Role.VIEWER) for one in made)
    ApiToken.objects.bulk_create(
        ApiToken(user=one, name="t", prefix="brt_", sha256=f"p{one.pk:063}", scopes=["read"], expires=SOON)
        for one in made
    )


def nothing(world: World, numbers: range) -> None:
    """What the list holds is in the program, not in the database, and comes whole."""


T, C = "/api/v1/tenants/{tenant}", "/api/v1/tenants/{tenant}/clusters/{name}"
FILL: dict[str, Callable[[World, range], None]] = {
    f"{T}/clusters": clusters,
    f"{C}/events": events,
    f"{C}/operations": operations,
    f"{C}/credentials": principals,
    f"{C}/users": principals,
    f"{C}/snippets": nothing,
    f"{C}/alerts": nothing,
    f"{C}/grants": grants,
    f"{T}/operations": operations,
    f"{T}/members": members,
    f"{T}/invitations": invitations,
    f"{T}/service-tokens": services,
    f"{T}/quota": clusters,
    f"{T}/quota/entries": entries,
    f"{T}/audit": audit,
    f"{T}/ip-reservations": clusters,
    "/api/v1/audit": audit,
    "/api/v1/drift": clusters,
    "/api/v1/engines": nothing,
    "/api/v1/operations": operations,
    "/api/v1/people": directory,
    "/api/v1/plans": plans,
    "/api/v1/quota-findings": findings,
    "/api/v1/shared-clusters": shared,
    "/api/v1/targets": targets,
    "/api/v1/tenants": tenants,
    "/api/v1/tokens": tokens,
}


# Path of the list -> queries of one page of it, signing in included.
SNAPSHOT = {
    f"{T}/clusters": 5,
    f"{C}/events": 4,
    f"{C}/operations": 4,
    f"{C}/credentials": 4,
    f"{C}/users": 4,
    f"{C}/snippets": 3,
    f"{C}/alerts": 3,
    f"{C}/grants": 4,
    f"{T}/operations": 3,
    f"{T}/members": 3,
    f"{T}/invitations": 3,
    f"{T}/service-tokens": 3,
    f"{T}/quota": 8,
    f"{T}/quota/entries": 3,
    f"{T}/audit": 3,
    f"{T}/ip-reservations": 4,
    "/api/v1/audit": 2,
    "/api/v1/drift": 2,
    "/api/v1/engines": 1,
    "/api/v1/operations": 2,
    "/api/v1/people": 2,
    "/api/v1/plans": 3,
    "/api/v1/quota-findings": 2,
    "/api/v1/shared-clusters": 3,
    "/api/v1/targets": 2,
    "/api/v1/tenants": 2,
    "/api/v1/tokens": 2,
}


# Lists for platform administrators, and lists that give fewer rows at a time than others.
ADMIN = {"/api/v1/audit", "/api/v1/drift", "/api/v1/people"}
LONGEST_PAGE = {"/api/v1/drift": 20}


@pytest.fixture(autouse=True)
def _target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target where nothing rests: what Kubernetes is asked is no query, and no target can be reached here."""
    asked = "provisioning.clusters.reservations"
    monkeypatch.setattr(f"{asked}.client_for", lambda target: None)
    monkeypatch.setattr(f"{asked}.standing", lambda client: Standing(installed=True, armed=True))
    monkeypatch.setattr(f"{asked}.holds_of_tenant", lambda client, **named: [])


def lists() -> set[str]:
    """Every path of the API whose GET answers a page."""
    schemas = document()["components"]["schemas"]

    def is_page(operation: dict[str, Any]) -> bool:
        answers = {str(status): answer for status, answer in operation["responses"].items()}
        content = answers.get("200", {}).get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        return {"items", "next"} <= set(schemas.get(name, {}).get("properties", {}))

    return {path for path, methods in document()["paths"].items() if "get" in methods and is_page(methods["get"])}


def test_every_list_is_in_the_table() -> None:
    assert lists() == set(FILL), "add how to fill the new list to FILL, and its queries to SNAPSHOT"
    assert set(SNAPSHOT) == set(FILL)


@pytest.mark.parametrize("path", sorted(FILL))
def test_a_page_takes_as_many_queries_whatever_the_list_holds(world: World, client_of: Client, path: str) -> None:
    world.alice.is_superuser = path in ADMIN
    world.alice.save(update_fields=["is_superuser"])
    alice: APIClient = client_of(world.alice)
    address = path.format(tenant="acme", name="orders")
    alice.get(address)  # last_used is written now, not while we count
    query = {} if FILL[path] is nothing else {"limit": LONGEST_PAGE.get(path, 200)}
    counts, filled = {}, 0
    for rows in ROWS:
        FILL[path](world, range(filled, rows))
        filled = rows
        CLUSTERS.clear()  # counted as for rows nobody has listed before
        with connection.cursor() as cursor:
            # As autovacuum does in time: plans made for empty tables take minutes for a thousand rows.
            cursor.execute("ANALYZE")
        with CaptureQueriesContext(connection) as captured:
            assert alice.get(address, query).status_code == 200
        counts[rows] = len(captured)
    assert counts == dict.fromkeys(ROWS, SNAPSHOT.get(path)), [query["sql"][:160] for query in captured]
