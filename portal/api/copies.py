"""…/clusters/{name}/order: what to POST for another cluster like this one."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.schema import described
from portal.api.serializers import wire
from provisioning.clusters.copies import order_like


class CopiedOrderOut(serializers.Serializer[Any]):
    engine = serializers.CharField()
    plan = serializers.CharField(allow_null=True)
    version = serializers.CharField()
    target = serializers.CharField(allow_null=True)
    spec = serializers.DictField(help_text="Complete: no value depends on the plan any more.")
    labels = serializers.DictField(child=serializers.CharField())
    description = serializers.CharField()


class LeftOutOut(serializers.Serializer[Any]):
    pointer = serializers.CharField(help_text="JSON pointer into `order`.")
    message = serializers.CharField(help_text="Why the original's value is not there.")


class CopyOut(serializers.Serializer[Any]):
    order = CopiedOrderOut(help_text="A body of POST …/clusters, but for `name`, which has to be a new one.")
    left_out = LeftOutOut(many=True, help_text="What could not be taken over, and what was put there instead.")


class CopyView(ApiView):
    guest_rights = {"GET": "read"}

    @described("getClusterOrder", tag="Clusters", summary="Show the order for another cluster like this",
               answers={200: CopyOut}, problems=(404,),
               about="Add a `name` and POST it, in this tenant or another. Data, credentials and users are not copied: "
               "the new cluster makes its own.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        copy = order_like(self.cluster)
        left_out = [{"pointer": pointer, "message": message} for pointer, message in copy.left_out.items()]
        return Response(wire(CopyOut, {"order": copy.order, "left_out": left_out}))
