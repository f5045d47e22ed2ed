"""…/grants and /shared-clusters: one cluster for one person of another tenant."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.clusters import ClusterOut, ClusterPage, complete
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import Body, Text, read_body, read_query, wire, wire_list
from portal.idempotency import idempotent
from provisioning.clusters.grants import share, unshare
from provisioning.models import ClusterGrant
from tenants.models import Role

RIGHT_CHOICES = [("read", "read"), ("use", "use")]


class GrantOrder(Body):
    """With whom, and for what."""

    username = Text(max_length=150, help_text="Of a user outside the tenant, exactly as written.")
    right = serializers.ChoiceField(
        choices=RIGHT_CHOICES, help_text="read: see it, no secrets. use: also its credentials and snippets."
    )


class GrantOut(serializers.Serializer[Any]):
    username = serializers.CharField(source="user.username")
    right = serializers.ChoiceField(choices=RIGHT_CHOICES)


class GrantPage(serializers.Serializer[Any]):
    items = GrantOut(many=True)
    next = serializers.CharField(allow_null=True)


class GrantsView(ApiView):
    least_role = Role.OWNER
    scope = "admin"

    @described("listGrants", tag="People", summary="List with whom a cluster is shared", query=PageQuery,
               answers={200: GrantPage}, problems=(404, 422))  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(PageQuery, request)
        rows = ClusterGrant.objects.filter(content_object=self.cluster).select_related("user", "permission")
        return page(request, rows, query, lambda found: wire_list(GrantOut, found))

    @described("shareCluster", tag="People", summary="Share a cluster with a person of another tenant",
               request=GrantOrder, answers={201: GrantOut}, problems=(400, 403, 404, 409, 415, 422),
               about="Needs the role owner. Replaces what was granted to the person before.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        sent = read_body(GrantOrder, request)
        grant = share(cluster=self.cluster, username=sent["username"], right=sent["right"])
        self.audit_object = f"clusters/{self.cluster.name}/grants/{sent['username']}"
        self.audit_detail = {"right": sent["right"]}
        return Response(wire(GrantOut, grant), status=201)


class GrantView(ApiView):
    least_role = Role.OWNER
    scope = "admin"

    @described("unshareCluster", tag="People", summary="End the sharing of a cluster", answers={204: None},
               problems=(403, 404), about="Needs the role owner. Works at once.")  # fmt: skip
    def delete(self, request: Request, tenant: str, name: str, username: str) -> Response:
        unshare(cluster=self.cluster, username=username)
        return Response(status=204)


class SharedClustersView(ApiView):
    @described("listSharedClusters", tag="Clusters", summary="List clusters others share with you", query=PageQuery,
               answers={200: ClusterPage}, problems=(422,), about="Newest first.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        rows = complete(self.clusters().shared_with(self.user).present())
        return page(request, rows, query, lambda found: wire_list(ClusterOut, found), order="-id")
