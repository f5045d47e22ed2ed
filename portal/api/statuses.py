"""/tenants/{tenant}/cluster-status: where many clusters stand, in one request and few bytes."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.schema import described
from portal.api.serializers import Query, read_query, wire_list
from provisioning.models import Cluster, Operation, OperationState, Phase

# A hundred of the longest names still fit gunicorn's longest request line, 4094 bytes.
MOST_NAMES = 100
LONGEST_NAME = 30


class StatusQuery(Query):
    names = serializers.CharField(
        max_length=MOST_NAMES * (LONGEST_NAME + 1), help_text=f"Up to {MOST_NAMES} names, with commas between them."
    )

    def validate_names(self, names: str) -> list[str]:
        """Each name once, in the order they came."""
        found = list(dict.fromkeys(names.split(",")))
        if "" in found:
            raise serializers.ValidationError("A name is empty: write one comma between two names.", "empty_name")
        if len(found) > MOST_NAMES:
            raise serializers.ValidationError(
                f"These are {len(found)} names; ask for {MOST_NAMES} at a time.", "too_many"
            )
        return found


class StatusOperationOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.CharField()
    state = serializers.ChoiceField(choices=OperationState.choices)
    percent = serializers.IntegerField(help_text="0 to 100.")
    reason = serializers.CharField(help_text="What it waits for right now; empty when it waits for nothing.")
    revision = serializers.IntegerField(help_text="Grows with every visible change.")


class StatusOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    id = serializers.CharField()
    phase = serializers.ChoiceField(choices=Phase.choices)
    reason = serializers.CharField(help_text="Why it is degraded or failed, or what it waits for.")
    generation = serializers.IntegerField(help_text="Counts changes of the spec.")
    observed_generation = serializers.IntegerField(help_text="The generation that has been brought about.")
    revision = serializers.IntegerField(help_text="Counts everything people change: the ETag.")
    operation = serializers.SerializerMethodField(help_text="The change under way, null when there is none.")

    @extend_schema_field(StatusOperationOut(allow_null=True))
    def get_operation(self, cluster: Cluster) -> dict[str, Any] | None:
        """Of a cluster that was read with `open_operations`."""
        found: list[Operation] = getattr(cluster, "open_operations", [])
        return wire_list(StatusOperationOut, found[:1])[0] if found else None


class StatusesOut(serializers.Serializer[Any]):
    clusters = StatusOut(many=True, help_text="By name.")
    missing = serializers.ListField(
        child=serializers.CharField(), help_text="Names of no cluster you may see: never made, deleted, or not yours."
    )


class ClusterStatusView(ApiView):
    @described("getClusterStatuses", tag="Clusters", summary="Show where many clusters stand", query=StatusQuery,
               answers={200: StatusesOut}, problems=(404, 422),
               about="For who watches many clusters, such as a pipeline; a single one is better waited for with "
               "`GET /operations/{operation}?wait=30`.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        names: list[str] = read_query(StatusQuery, request)["names"]
        operations = Operation.objects.open().only("cluster", *StatusOperationOut().fields.keys())
        shown = {*StatusOut().fields.keys()} - {"operation"}
        rows = self.clusters().present().filter(name__in=names).only(*shown).order_by("name")
        found = list(rows.prefetch_related(Prefetch("operations", queryset=operations, to_attr="open_operations")))
        there = {cluster.name for cluster in found}
        missing = [name for name in names if name not in there]
        return Response({"clusters": wire_list(StatusOut, found), "missing": missing})
