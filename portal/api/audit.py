"""/audit and /tenants/{tenant}/audit: who did, or tried to do, what. Nothing here can change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from portal.api.base import AdministratorsView, ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import Query, lookups, read_query, wire, wire_list
from portal.problems import invalid
from tenants.models import AuditEvent, AuditResult, Role
from tenants.refusals import FieldError

JSON_LINES = "application/jsonl"
EXPORT_CHUNK_ROWS = 500


class AuditFilters(Query):
    """What both lists and both exports can be narrowed by."""

    actor = serializers.CharField(required=False, max_length=150, help_text="Only this user name.")
    action = serializers.CharField(required=False, max_length=60, help_text="Only this operationId of the API.")
    object = serializers.CharField(
        required=False, max_length=300,
        help_text="Only this object and what is below it, such as `clusters/orders`.",
    )  # fmt: skip
    result = serializers.ChoiceField(choices=AuditResult.choices, required=False, help_text="Only this result.")
    token = serializers.CharField(
        required=False, max_length=40, help_text="Only what was done with this token (its id)."
    )
    address = serializers.IPAddressField(required=False, help_text="Only from this IP address.")
    request_id = serializers.CharField(
        required=False, max_length=64, help_text="Only this request, as X-Request-Id and every problem name it."
    )
    code = serializers.CharField(required=False, max_length=60, help_text="Only refusals with this code of a problem.")
    operation = serializers.CharField(required=False, max_length=40, help_text="Only what started this operation.")
    since = serializers.DateTimeField(required=False, help_text="Only from this time on.")
    until = serializers.DateTimeField(required=False, help_text="Only before this time.")


class AuditQuery(AuditFilters, PageQuery):
    """Filters and page."""


class AllAuditFilters(AuditFilters):
    tenant = serializers.CharField(required=False, max_length=30, help_text="Only this tenant (its slug at the time).")


class AllAuditQuery(AllAuditFilters, PageQuery):
    """Filters and page."""


class AuditEventOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    created = serializers.DateTimeField()
    tenant = serializers.CharField(help_text="Slug at the time; empty when it is about no tenant.")
    actor = serializers.CharField(help_text="User name at the time; empty when nobody was signed in.")
    token = serializers.CharField(source="token_id", help_text="Id of the token used; empty for a session.")
    token_prefix = serializers.CharField(help_text="What people recognise the token by.")
    action = serializers.CharField(help_text="operationId of the API.")
    object = serializers.CharField(help_text="Address below the tenant, such as `clusters/orders`.")
    detail = serializers.DictField(help_text="Facts about the change; never a secret.")
    address = serializers.CharField(allow_null=True, help_text="IP address it came from; null when not known.")
    result = serializers.ChoiceField(choices=AuditResult.choices)
    status = serializers.IntegerField(help_text="HTTP status of the answer.")
    code = serializers.CharField(help_text="Code of the problem; empty on success.")
    operation = serializers.CharField(source="operation_id", help_text="Id of the operation it started; may be empty.")
    request_id = serializers.CharField(help_text="Also in X-Request-Id and in the log.")


class AuditEventPage(serializers.Serializer[Any]):
    items = AuditEventOut(many=True)
    next = serializers.CharField(allow_null=True)


# Filter to what it compares with.
FILTERS = {
    "tenant": "tenant", "actor": "actor", "action": "action", "result": "result", "token": "token_id",
    "address": "address", "request_id": "request_id", "code": "code", "operation": "operation_id",
    "since": "created__gte", "until": "created__lt",
}  # fmt: skip


def _filtered(rows: QuerySet[AuditEvent], query: dict[str, Any]) -> QuerySet[AuditEvent]:
    if "since" in query and "until" in query and query["since"] >= query["until"]:
        raise invalid([FieldError("?until", "invalid", "`until` must be later than `since`.")])
    rows = rows.filter(**lookups(query, FILTERS))
    if "object" in query:
        rows = rows.filter(object=query["object"]) | rows.filter(object__startswith=f"{query['object']}/")
    return rows


def _shown(rows: list[AuditEvent]) -> list[Any]:
    return wire_list(AuditEventOut, rows)


def _export(rows: QuerySet[AuditEvent]) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for row in rows.order_by("id").iterator(chunk_size=EXPORT_CHUNK_ROWS):
            yield json.dumps(wire(AuditEventOut, row), cls=JSONEncoder, ensure_ascii=False) + "\n"

    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(lines(), content_type=JSON_LINES, headers=headers)


class TenantAuditBase(ApiView):
    """For owners: rows of this very tenant, not of an earlier one that had its slug."""

    least_role_to_read: ClassVar[Role | None] = Role.OWNER

    def rows(self) -> QuerySet[AuditEvent]:
        """What owners may read."""
        return AuditEvent.objects.filter(tenant_id=self.tenant.pk)


class TenantAuditView(TenantAuditBase):
    @described("listTenantAudit", tag="Audit", summary="List who did what in a tenant", query=AuditQuery,
               answers={200: AuditEventPage}, problems=(403, 404, 422),
               about="Needs the role owner. Newest first.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(AuditQuery, request)
        return page(request, _filtered(self.rows(), query), query, _shown, order="-id")


class TenantAuditExportView(TenantAuditBase):
    @described("exportTenantAudit", tag="Audit", summary="Export a tenant's audit as JSON lines", query=AuditFilters,
               answers={(200, JSON_LINES): OpenApiTypes.STR}, problems=(403, 404, 422),
               about="Needs the role owner. One object per line, oldest first, streamed.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> StreamingHttpResponse:
        return _export(_filtered(self.rows(), read_query(AuditFilters, request)))


class AllAuditBase(AdministratorsView):
    def rows(self) -> QuerySet[AuditEvent]:
        """All rows; those of the token's tenant when it is limited to one."""
        rows = AuditEvent.objects.all()
        return rows.filter(tenant_id=self.token.tenant_id) if self.token and self.token.tenant_id else rows


class AuditView(AllAuditBase):
    @described("listAudit", tag="Audit", summary="List who did what, everywhere", query=AllAuditQuery,
               answers={200: AuditEventPage}, problems=(404, 422),
               about="For platform administrators. Newest first.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(AllAuditQuery, request)
        return page(request, _filtered(self.rows(), query), query, _shown, order="-id")


class AuditExportView(AllAuditBase):
    @described("exportAudit", tag="Audit", summary="Export the audit as JSON lines", query=AllAuditFilters,
               answers={(200, JSON_LINES): OpenApiTypes.STR}, problems=(404, 422),
               about="For platform administrators. One object per line, oldest first, streamed.")  # fmt: skip
    def get(self, request: Request) -> StreamingHttpResponse:
        return _export(_filtered(self.rows(), read_query(AllAuditFilters, request)))
