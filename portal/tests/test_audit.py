"""The audit: no change without its row, no row for what did not happen, nobody can rewrite it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.http import StreamingHttpResponse
from django.utils import timezone
from rest_framework.test import APIClient

from portal.api import credentials
from portal.api.audited import CHANGING, rehearses
from portal.api.schema import document
from portal.tests.conftest import Client, World
from portal.tests.test_isolation import NAMED
from provisioning.clusters.services import Credential
from provisioning.models import Cluster
from tenants import audit
from tenants.audit import record
from tenants.models import AuditEvent, AuditResult, Tenant, User

ORDERS = "/api/v1/tenants/acme/clusters/orders"
AUDIT = "/api/v1/tenants/acme/audit"
PASSWORD = "s3cret-of-the-cluster"


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


@pytest.fixture
def admin(db: None, client_of: Client) -> APIClient:
    return client_of(User.objects.create(username="root", is_superuser=True))


def only() -> AuditEvent:
    """The one row there is."""
    return AuditEvent.objects.get()


def lines(answer: Any) -> list[dict[str, Any]]:
    assert isinstance(answer, StreamingHttpResponse)
    assert isinstance(answer.streaming_content, Iterator)
    return [json.loads(line) for line in b"".join(answer.streaming_content).decode().splitlines()]


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_change_says_who_what_from_where_and_with_which_token(alice: APIClient, world: World) -> None:
    headers = {"X-Request-Id": "abc-1"}
    assert alice.patch(ORDERS, {"description": "x"}, format="json", headers=headers).status_code == 200
    row, token = only(), world.alice.tokens.get()
    assert (row.actor, row.actor_id, row.token_id, row.token_prefix) == (
        "alice",
        world.alice.pk,
        token.pk,
        token.prefix,
    )
    assert (row.tenant, row.tenant_id, row.action, row.object) == (
        "acme", world.acme.pk, "editCluster", "clusters/orders",
    )  # fmt: skip
    assert (row.result, row.status, row.address, row.request_id) == ("success", 200, "127.0.0.1", "abc-1")


def test_an_order_names_the_new_cluster_and_its_operation(alice: APIClient) -> None:
    body = {"name": "fresh", "engine": "redis", "plan": "plan-small"}
    answer = alice.post("/api/v1/tenants/acme/clusters", body, format="json", headers={"Idempotency-Key": "k"})
    assert answer.status_code == 202, answer.content
    row = only()
    assert (row.action, row.object, row.operation_id) == (
        "createCluster", "clusters/fresh", answer.json()["operation"]["id"],
    )  # fmt: skip


def test_a_repeated_order_is_told_from_the_first(alice: APIClient) -> None:
    body = {"name": "fresh", "engine": "redis", "plan": "plan-small"}
    for _ in range(2):
        answer = alice.post("/api/v1/tenants/acme/clusters", body, format="json", headers={"Idempotency-Key": "k"})
        assert answer.status_code == 202
    details = list(AuditEvent.objects.order_by("id").values_list("detail", flat=True))
    assert details == [{}, {"replayed": True}]


def test_reading_leaves_no_row(alice: APIClient) -> None:
    assert alice.get(ORDERS).status_code == 200
    assert not AuditEvent.objects.exists()


def test_a_refusal_is_noted_with_its_code(world: World, client_of: Client) -> None:
    assert client_of(world.vera).patch(ORDERS, {"description": "x"}, format="json").status_code == 403
    row = only()
    assert (row.actor, row.action, row.result, row.status, row.code, row.tenant) == (
        "vera", "editCluster", "refused", 403, "role_required", "acme",
    )  # fmt: skip


def test_a_strangers_attempt_is_noted_for_platform_administrators_only(world: World, client_of: Client) -> None:
    assert client_of(world.charlie).delete(ORDERS).status_code == 404
    row = only()
    assert (row.actor, row.result, row.object, row.tenant) == ("charlie", "refused", "clusters/orders", "")


def test_nobodys_requests_leave_no_rows(world: World) -> None:
    assert APIClient().delete(ORDERS).status_code == 401
    assert not AuditEvent.objects.exists()


def test_an_error_of_ours_is_noted_as_failed_and_changes_nothing(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with patch("portal.api.clusters.show_cluster", side_effect=RuntimeError("after the change")):
        assert alice.patch(ORDERS, {"description": "changed"}, format="json").status_code == 500
    assert (only().result, only().code) == ("failed", "internal_error")
    assert Cluster.objects.get(name="orders").description == ""


def test_without_its_row_there_is_no_change(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with patch("portal.api.audited.record", side_effect=DatabaseError("disk full")):
        assert alice.patch(ORDERS, {"description": "changed"}, format="json").status_code == 500
    assert Cluster.objects.get(name="orders").description == ""
    assert not AuditEvent.objects.exists()


def test_revealing_is_noted_and_the_password_is_not(alice: APIClient) -> None:
    with patch.object(credentials, "reveal_credential", return_value=Credential("default", PASSWORD)):
        answer = alice.post(f"{ORDERS}/credentials/default/reveal")
    assert answer.json()["password"] == PASSWORD
    row = only()
    assert (row.action, row.object) == ("revealCredential", "clusters/orders/credentials/default/reveal")
    assert PASSWORD not in str(AuditEvent.objects.values().get())


def test_without_its_row_no_password_leaves(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with (
        patch.object(credentials, "reveal_credential", return_value=Credential("default", PASSWORD)),
        patch("portal.api.audited.record", side_effect=DatabaseError("disk full")),
    ):
        answer = alice.post(f"{ORDERS}/credentials/default/reveal")
    assert answer.status_code == 500
    assert PASSWORD not in answer.content.decode()


def test_making_a_token_is_noted_without_its_secret(world: World) -> None:
    browser = APIClient()
    browser.force_login(world.alice)
    secret = browser.post("/api/v1/tokens", {"name": "ci"}, format="json").json()["secret"]
    assert only().action == "createToken"
    assert secret not in str(AuditEvent.objects.values().get())


def test_every_handler_that_changes_something_has_a_name_for_the_audit() -> None:
    views = [route.callback.cls for route in NAMED.values() if hasattr(route.callback, "cls")]
    handlers = [getattr(view, method) for view in views for method in CHANGING if hasattr(view, method)]
    assert handlers
    assert [handler for handler in handlers if not getattr(handler, "action", "")] == []


@pytest.mark.parametrize("query", ["dry_run=true", "dry_run=1"])
def test_asking_for_a_dry_run_where_there_is_none_is_refused_and_noted(alice: APIClient, query: str) -> None:
    with patch.object(credentials, "reveal_credential", return_value=Credential("default", PASSWORD)) as revealed:
        assert alice.post(f"{ORDERS}/credentials/default/reveal?{query}").status_code == 422
    assert not revealed.called
    assert (only().action, only().result) == ("revealCredential", "refused")


@pytest.mark.parametrize("spelling", ["true", "True", "1", "on"])
def test_a_dry_run_changes_nothing_and_leaves_no_row(alice: APIClient, spelling: str) -> None:
    answer = alice.patch(f"{ORDERS}?dry_run={spelling}", {"description": "tried"}, format="json")
    assert (answer.status_code, answer.json()["dry_run"]) == (200, True)
    assert Cluster.objects.get(name="orders").description == ""
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize("spelling", ["maybe", "", "true "])
def test_what_is_no_clear_yes_or_no_to_a_dry_run_is_refused_and_noted(alice: APIClient, spelling: str) -> None:
    answer = alice.delete(f"{ORDERS}?dry_run={spelling}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "?dry_run")
    assert (only().action, only().result) == ("deleteCluster", "refused")


def test_dry_run_false_is_the_real_thing(alice: APIClient) -> None:
    assert alice.patch(f"{ORDERS}?dry_run=false", {"description": "done"}, format="json").status_code == 200
    assert Cluster.objects.get(name="orders").description == "done"
    assert only().result == "success"


def test_who_takes_the_parameter_dry_run_acts_on_it() -> None:
    operations = [one for methods in document()["paths"].values() for one in methods.values()]
    told = {
        one["operationId"]
        for one in operations
        if "dry_run" in [parameter["name"] for parameter in one.get("parameters", [])]
    }
    views = [route.callback.cls for route in NAMED.values() if hasattr(route.callback, "cls")]
    handlers = [getattr(view, method) for view in views for method in CHANGING if hasattr(view, method)]
    assert told == {handler.action for handler in handlers if rehearses(handler)}
    assert told == {
        "createCluster", "editCluster", "deleteCluster", "restartCluster", "rebalanceMasters", "acceptLoss", "addUser",
        "editUser", "removeUser", "rotatePassword", "revokeOldPassword",
    }  # fmt: skip


# --- nobody can rewrite it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tenants_auditevent SET actor = 'nobody'",
        "UPDATE tenants_auditevent SET actor = 'nobody' WHERE false",
        "UPDATE tenants_auditevent SET created = now() - interval '2 years'",
        "DELETE FROM tenants_auditevent",
        "TRUNCATE tenants_auditevent",
        "SET LOCAL session_replication_role = replica; DELETE FROM tenants_auditevent",
    ],
)
def test_the_database_refuses_every_change_of_a_row(db: None, statement: str) -> None:
    record(action="test", object="x", result=AuditResult.SUCCESS, status=200)
    with connection.cursor() as cursor:
        # Off in tests otherwise, see the root conftest.py.
        cursor.execute("ALTER TABLE tenants_auditevent ENABLE ALWAYS TRIGGER tenants_audit_keep_table")
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(statement)
    assert only().actor == ""


def aged(days: int) -> AuditEvent:
    """A row that was written so long ago, by its time and by its id."""
    then = timezone.now() - timedelta(days=days)
    clock = SimpleNamespace(time_ns=lambda: int(then.timestamp() * 1_000_000_000))
    with patch("tenants.ids.time", clock), patch("django.utils.timezone.now", return_value=then):
        return record(action="test", object=str(days), result=AuditResult.SUCCESS, status=200)


@pytest.mark.parametrize("keep_days", [365, 1000])
def test_rows_older_than_wished_go_and_a_row_says_so(db: None, keep_days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH", 2)
    for days in (2000, 1500, 1100, 900, 364, 1):
        aged(days)
    gone = [days for days in (2000, 1500, 1100, 900) if days > keep_days]
    assert audit.forget_old(keep_days=keep_days) == len(gone)
    rows = AuditEvent.objects.order_by("id")
    assert [row.object for row in rows.filter(action="test")] == [
        str(days) for days in (2000, 1500, 1100, 900, 364, 1) if days not in gone
    ]
    assert sum(row.detail["rows"] for row in rows.filter(action="forgetAudit")) == len(gone)
    assert audit.forget_old(keep_days=keep_days) == 0


def test_all_rows_stay_unless_an_administrator_wishes_otherwise(db: None) -> None:
    aged(4000)
    assert audit.forget_old(keep_days=settings.AUDIT_KEEP_DAYS) == 0
    assert AuditEvent.objects.count() == 1


def test_rows_younger_than_a_year_stay_whatever_is_asked(db: None) -> None:
    aged(400)
    aged(364)
    with pytest.raises(DatabaseError, match="younger than 365 days"), transaction.atomic():
        audit.forget_old(keep_days=300)
    assert AuditEvent.objects.count() == 2


def test_rows_outlive_the_person_and_the_token(alice: APIClient, world: World) -> None:
    assert alice.patch(ORDERS, {"description": "x"}, format="json").status_code == 200
    world.alice.delete()
    assert only().actor == "alice"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_owners_read_what_happened_in_their_tenant(alice: APIClient, world: World, client_of: Client) -> None:
    alice.patch(ORDERS, {"description": "x"}, format="json")
    client_of(world.charlie).patch("/api/v1/tenants/other/clusters/secret-plans", {"description": "x"}, format="json")
    items = alice.get(AUDIT).json()["items"]
    assert [(item["actor"], item["object"]) for item in items] == [("alice", "clusters/orders")]


@pytest.mark.parametrize("name", ["bob", "vera"])
@pytest.mark.parametrize("path", [AUDIT, f"{AUDIT}/export"])
def test_only_owners_read_the_audit(world: World, client_of: Client, name: str, path: str) -> None:
    answer = client_of(getattr(world, name)).get(path)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
    assert "owner" in answer.json()["detail"]


def test_a_later_tenant_of_the_same_name_does_not_show_the_earlier_ones_rows(admin: APIClient) -> None:
    first = Tenant.objects.create(slug="again", name="First")
    record(action="old", object="x", result=AuditResult.SUCCESS, status=200, tenant=first)
    first.delete()
    Tenant.objects.create(slug="again", name="Second")
    assert admin.get("/api/v1/tenants/again/audit").json()["items"] == []
    assert [item["action"] for item in admin.get("/api/v1/audit?tenant=again").json()["items"]] == ["old"]


def test_platform_administrators_read_all_and_nobody_else_finds_the_address(admin: APIClient, alice: APIClient) -> None:
    alice.patch(ORDERS, {"description": "x"}, format="json")
    assert [item["actor"] for item in admin.get("/api/v1/audit").json()["items"]] == ["alice"]
    assert alice.get("/api/v1/audit").status_code == 404
    assert alice.get("/api/v1/audit/export").status_code == 404


@pytest.fixture
def several(world: World) -> None:
    for number, (actor, action, target) in enumerate(
        [
            (world.alice, "editCluster", "clusters/orders"),
            (world.bob, "revealCredential", "clusters/orders/credentials/default/reveal"),
            (world.bob, "editCluster", "clusters/orders-2"),
        ]
    ):
        result = AuditResult.SUCCESS if number else AuditResult.REFUSED
        record(action=action, object=target, result=result, status=200, by=actor, tenant=world.acme)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 3),
        ("actor=bob", 2),
        ("action=editCluster", 2),
        ("object=clusters/orders", 2),
        ("object=clusters/orders-2", 1),
        ("result=refused", 1),
        ("since=2026-01-01T00:00:00Z", 3),
        ("until=2026-01-01T00:00:00Z", 0),
        ("actor=bob&action=editCluster", 1),
    ],
)
def test_the_audit_is_filtered_alike_as_pages_and_as_lines(
    alice: APIClient, several: None, query: str, found: int
) -> None:
    assert len(alice.get(f"{AUDIT}?{query}").json()["items"]) == found
    assert len(lines(alice.get(f"{AUDIT}/export?{query}"))) == found


TRACES = ("token", "address", "request_id", "code", "operation")


@pytest.fixture
def traces(world: World, alice: APIClient) -> dict[str, str]:
    """One row with a trace of each kind, and its likes without; what to ask for, by parameter."""
    alice.patch(ORDERS, {"description": "x"}, format="json", headers={"X-Request-Id": "req-1"})
    token = only().token_id
    traced: list[dict[str, Any]] = [
        {"address": "2001:db8::1"}, {"code": "role_required"}, {"operation_id": world.operation.pk},
    ]  # fmt: skip
    for trace in traced:
        record(action="editCluster", object="x", result=AuditResult.REFUSED, status=403, tenant=world.acme, **trace)
    return {
        "token": token, "address": "2001:0db8:0::1", "request_id": "req-1", "code": "role_required",
        "operation": world.operation.pk,
    }  # fmt: skip


@pytest.mark.parametrize("parameter", TRACES)
def test_a_trace_is_followed_on_every_way_to_the_audit(
    alice: APIClient, admin: APIClient, traces: dict[str, str], parameter: str
) -> None:
    for client, path in ((alice, AUDIT), (admin, "/api/v1/audit")):
        (row,) = client.get(path, {parameter: traces[parameter]}).json()["items"]
        assert lines(client.get(f"{path}/export", {parameter: traces[parameter]})) == [row]
        assert row[parameter] == traces[parameter].replace("0db8:0::", "db8::")
        nothing = "10.0.0.1" if parameter == "address" else "nothing"
        assert client.get(path, {parameter: nothing}).json()["items"] == []


def test_the_export_is_streamed_json_lines_oldest_first(alice: APIClient, several: None) -> None:
    answer = alice.get(f"{AUDIT}/export")
    assert answer["Content-Type"] == "application/jsonl"
    exported = lines(answer)
    pages = alice.get(AUDIT).json()["items"]
    assert exported == list(reversed(pages))


@pytest.mark.parametrize(
    "query",
    ["result=maybe", "since=yesterday", "since=2026-01-02T00:00Z&until=2026-01-01T00:00Z", "address=10.0.0", "token="],
)
def test_a_wrong_filter_is_named(alice: APIClient, query: str) -> None:
    assert alice.get(f"{AUDIT}?{query}").status_code == 422
    assert alice.get(f"{AUDIT}/export?{query}").status_code == 422


# --- where from -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "10.9.9.9", "127.0.0.1"),
        (1, "6.6.6.6, 10.1.2.3", "10.1.2.3"),
        (2, "6.6.6.6, 10.1.2.3, 10.0.0.1", "10.1.2.3"),
        (1, "", None),
        (1, "nonsense", None),
    ],
)
def test_x_forwarded_for_is_believed_as_far_as_our_proxies_wrote_it(
    alice: APIClient, settings: Any, proxies: int, forwarded: str, address: str | None
) -> None:
    settings.TRUSTED_PROXIES = proxies
    alice.patch(ORDERS, {"description": "x"}, format="json", headers={"X-Forwarded-For": forwarded})
    assert only().address == address
