"""/targets: the Kubernetes clusters Berth delivers to."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page
from portal.api.schema import described
from portal.api.serializers import read_query, wire_list
from provisioning.models import Target


class StorageClassOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    provisioner = serializers.CharField(default="")
    default = serializers.BooleanField(default=False, help_text="The target's own default.")
    expandable = serializers.BooleanField(default=False, help_text="Volumes can grow later.")


class TargetOut(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="Key, for requests.")
    title = serializers.CharField()
    reachable = serializers.BooleanField(allow_null=True, help_text="null until it was looked at for the first time.")
    reason = serializers.CharField(help_text="Why it is not reachable, and what to do.")
    checked = serializers.DateTimeField(allow_null=True)
    kubernetes_version = serializers.CharField()
    nodes = serializers.SerializerMethodField(help_text="Nodes that are ready and take pods.")
    zones = serializers.SerializerMethodField(help_text="Different zones among them.")
    storage_classes = StorageClassOut(many=True)

    def get_nodes(self, target: Target) -> int:
        return len(usable_nodes(target))

    def get_zones(self, target: Target) -> int:
        return len({node.get("zone") for node in usable_nodes(target) if node.get("zone")})


class TargetPage(serializers.Serializer[Any]):
    items = TargetOut(many=True)
    next = serializers.CharField(allow_null=True)


def usable_nodes(target: Target) -> list[dict[str, Any]]:
    """The nodes pods can be placed on."""
    return [node for node in target.nodes if node.get("ready") and node.get("schedulable")]


class TargetsView(ApiView):
    @described("listTargets", tag="Catalogue", summary="List the targets", query=PageQuery, answers={200: TargetPage},
               problems=(422,), about="By name. Clusters can only be ordered on reachable ones.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        return page(request, Target.objects.all(), query, lambda rows: wire_list(TargetOut, rows), order="id")
