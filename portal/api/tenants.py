"""/tenants: the caller's; made, renamed, suspended and deleted by platform administrators."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.etags import content_revision, etag, expected_revision
from portal.api.pagination import PageQuery, page
from portal.api.parsers import JsonParser, MergePatchParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, read_body, read_query, wire, wire_list
from portal.auth import SAFE
from portal.idempotency import idempotent
from tenants.models import SLUG_RULE, Role, Tenant
from tenants.people import create_tenant, delete_tenant, lock_tenant, rename_tenant, set_suspended
from tenants.refusals import Forbidden


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


class TenantOrder(Body):
    """A new tenant."""

    slug = Text(max_length=30, validators=[SLUG_RULE], help_text="For addresses; never changes.")
    name = Text(max_length=100, help_text="For people.")
    owner = Text(required=False, allow_null=True, default=None, max_length=150, help_text="User name of its owner.")


class TenantPatch(Body):
    """A merge patch: what is absent stays."""

    name = Text(required=False, max_length=100)


def tenant_revision(tenant: Tenant) -> str:
    """Of what can be changed of a tenant itself."""
    return content_revision({"name": tenant.name, "suspended": tenant.suspended})


class AdminView(ApiView):
    """Changes are for platform administrators. Everybody who sees the tenant may know that, so others get 403.

    What belongs to no tenant is not changed with a token that is limited to one.
    """

    scope = "admin"
    administrators_only = "This is for platform administrators."

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE and "tenant" not in self.kwargs and self.token and self.token.tenant_id:
            raise Forbidden("scope_required", "This needs a token that is not limited to a tenant.")

    def shown(self) -> Response:
        """The tenant in the address, read again."""
        return self.told(Tenant.objects.with_role_of(self.user).get(pk=self.tenant.pk))

    def told(self, tenant: Tenant, status: int = 200) -> Response:
        """A tenant with its ETag."""
        return Response(wire(TenantOut, tenant), status=status, headers={"ETag": etag(tenant_revision(tenant))})

    def require_unchanged(self) -> None:
        """Lock the tenant and refuse when it is not as If-Match says. Raises Stale."""
        expected_revision(self.request, tenant_revision(lock_tenant(self.tenant)))


class TenantsView(AdminView):
    @described("listTenants", tag="Tenants", summary="List your tenants", query=PageQuery, answers={200: TenantPage},
               problems=(422,), about="By slug. A platform administrator sees all of them.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        return page(request, self.tenants(), query, lambda rows: wire_list(TenantOut, rows), order="slug")

    @described("createTenant", tag="Tenants", summary="Make a tenant", request=TenantOrder, answers={201: TenantOut},
               problems=(400, 403, 409, 415, 422), parameters=[ETAG],
               about="For platform administrators.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request) -> Response:
        sent = read_body(TenantOrder, request)
        made = create_tenant(**sent)
        self.audit_tenant, self.audit_object, self.audit_detail = made, "tenant", {"owner": sent["owner"]}
        return self.told(Tenant.objects.with_role_of(self.user).get(pk=made.pk), 201)


class TenantView(AdminView):
    parser_classes = [JsonParser, MergePatchParser]

    @described("getTenant", tag="Tenants", summary="Show a tenant", answers={200: TenantOut}, problems=(404,),
               parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        return self.told(self.tenant)

    @described("renameTenant", tag="Tenants", summary="Rename a tenant", request=TenantPatch, answers={200: TenantOut},
               problems=(400, 403, 404, 412, 415, 422), parameters=[IF_MATCH, ETAG],
               about="For platform administrators. Its slug stays.")  # fmt: skip
    def patch(self, request: Request, tenant: str) -> Response:
        sent = read_body(TenantPatch, request)
        self.require_unchanged()
        if "name" in sent:
            rename_tenant(tenant=self.tenant, name=sent["name"])
            self.audit_detail = {"name": sent["name"], "before": self.tenant.name}
        return self.shown()

    @described("deleteTenant", tag="Tenants", summary="Delete an empty tenant", answers={204: None},
               problems=(403, 404, 409, 412), parameters=[IF_MATCH],
               about="For platform administrators. Only a tenant that never had a cluster; "
               "suspend others.")  # fmt: skip
    def delete(self, request: Request, tenant: str) -> Response:
        # The audit names the tenant as it was.
        self.audit_tenant, self.audit_object = Tenant(pk=self.tenant.pk, slug=self.tenant.slug), "tenant"
        self.require_unchanged()
        delete_tenant(tenant=self.tenant)
        return Response(status=204)


class SuspendView(AdminView):
    @described("suspendTenant", tag="Tenants", summary="Suspend a tenant", answers={200: TenantOut},
               problems=(403, 404, 412), parameters=[IF_MATCH, ETAG],
               about="For platform administrators. Reads stay, changes stop, clusters run on, "
               "nothing is deleted.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str) -> Response:
        self.require_unchanged()
        set_suspended(tenant=self.tenant, suspended=True)
        return self.shown()


class UnsuspendView(AdminView):
    @described("unsuspendTenant", tag="Tenants", summary="Lift a tenant's suspension", answers={200: TenantOut},
               problems=(403, 404, 412), parameters=[IF_MATCH, ETAG],
               about="For platform administrators.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str) -> Response:
        self.require_unchanged()
        set_suspended(tenant=self.tenant, suspended=False)
        return self.shown()
