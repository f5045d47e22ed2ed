"""/tenants: the caller's."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import read_query
from tenants.models import Role


class TenantOut(serializers.Serializer[Any]):
    slug = serializers.CharField(help_text="For addresses; never changes.")
    name = serializers.CharField()
    role = serializers.ChoiceField(
        source="my_role",
        choices=Role.choices,
        allow_null=True,
        help_text="Yours; null for an outside administrator.",
    )
    suspended = serializers.BooleanField(help_text="Nothing can be changed.")
    created = serializers.DateTimeField()


class TenantPage(serializers.Serializer[Any]):
    items = TenantOut(many=True)
    next = serializers.CharField(allow_null=True)


class TenantsView(ApiView):
    @described("listTenants", tag="Tenants", summary="List your tenants", query=PageQuery, answers={200: TenantPage},
               problems=(422,), about="By slug. A platform administrator sees all of them.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        return page(request, self.tenants(), query, lambda rows: list(TenantOut(rows, many=True).data), order="slug")


class TenantView(ApiView):
    @described("getTenant", tag="Tenants", summary="Show a tenant", answers={200: TenantOut}, problems=(404,))
    def get(self, request: Request, tenant: str) -> Response:
        return Response(TenantOut(self.tenant).data)
