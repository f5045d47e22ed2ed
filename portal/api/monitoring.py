"""/metrics-targets, for Prometheus: what there is to scrape, with the labels that rules and dashboards ask for."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.schema import described
from portal.api.serializers import Query, read_query, wire_list
from provisioning.clusters.monitoring import scrape_groups, watched


class MetricsTargetsQuery(Query):
    target = serializers.CharField(
        required=False, max_length=30, help_text="Only clusters on this target, for a Prometheus that runs there."
    )


class ScrapeGroupOut(serializers.Serializer[Any]):
    targets = serializers.ListField(child=serializers.CharField(), help_text="host:port, inside the target's network.")
    labels = serializers.DictField(
        child=serializers.CharField(),
        help_text="engine, target, tenant, cluster, namespace, pod; shard and node where there are any.",
    )


class MetricsTargetsView(ApiView):
    @described("listMetricsTargets", tag="Clusters", summary="List what Prometheus is to scrape",
               query=MetricsTargetsQuery, answers={200: ScrapeGroupOut(many=True)},
               about="In the form of Prometheus' HTTP service discovery, which knows no pages: all at once, of all "
               "clusters the token may see that were ready once. Pods that are away are among them, so that their "
               "silence is noticed.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(MetricsTargetsQuery, request)
        clusters = watched(self.clusters()).order_by("pk")
        if "target" in query:
            clusters = clusters.filter(target=query["target"])
        return Response(wire_list(ScrapeGroupOut, scrape_groups(clusters)))
