"""/drift and …/clusters/{name}/drift: where Kubernetes holds something else than what was wished."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import AdministratorsView, ApiView
from portal.api.operations import ClusterRef
from portal.api.pagination import PageQuery, page
from portal.api.rehearsals import Actions, DifferenceOut, TargetProblemOut, problem_body
from portal.api.schema import described
from portal.api.serializers import read_query, wire
from provisioning.clusters.drift import Drift, drift_of
from provisioning.models import Phase

# The target is asked about each object of each cluster: some 30 requests for one Redis.
MOST_CLUSTERS = 20


class DriftQuery(PageQuery):
    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=MOST_CLUSTERS, default=MOST_CLUSTERS, help_text="Clusters per page."
    )
    tenant = serializers.CharField(required=False, max_length=30, help_text="Only clusters of this tenant.")
    target = serializers.CharField(required=False, max_length=30, help_text="Only clusters on this target.")


class DriftObjectOut(serializers.Serializer[Any]):
    kind = serializers.CharField()
    name = serializers.CharField()
    action = serializers.ChoiceField(
        choices=Actions.choices, help_text="What Berth would do. create: it is missing; change: it differs."
    )
    changes = DifferenceOut(many=True, help_text="before: what is there. after: what was wished.")
    restarts = serializers.BooleanField(help_text="Pods that run would be replaced.")
    refusal = TargetProblemOut(
        allow_null=True, help_text="Why Berth cannot put it right: mostly, another owns the value."
    )


class DriftOut(serializers.Serializer[Any]):
    cluster = ClusterRef()
    target = serializers.CharField()
    phase = serializers.ChoiceField(choices=Phase.choices)
    in_step = serializers.BooleanField(allow_null=True, help_text="Everything is as wished. null: not known.")
    objects = DriftObjectOut(many=True, help_text="Only what differs.")
    problem = TargetProblemOut(allow_null=True, help_text="Why it could not be compared.")


class DriftPage(serializers.Serializer[Any]):
    items = DriftOut(many=True)
    next = serializers.CharField(allow_null=True)


def _shown(drift: Drift) -> dict[str, Any]:
    value = {
        "cluster": drift.cluster,
        "target": drift.cluster.target_id,
        "phase": drift.cluster.phase,
        "in_step": drift.in_step,
        "problem": problem_body(drift.problem),
        "objects": [
            {
                "kind": one.kind, "name": one.name, "action": one.action, "changes": one.changes,
                "restarts": one.restarts, "refusal": problem_body(one.refusal),
            }
            for one in drift.objects
        ],
    }  # fmt: skip
    return wire(DriftOut, value)


class ClusterDriftView(ApiView):
    @described("getDrift", tag="Clusters", summary="Compare a cluster with what runs", answers={200: DriftOut},
               problems=(404,), about="Asks Kubernetes now, by a dry run. Berth puts things right about once a minute; "
               "a value that another field manager owns stays, and is named here. While a change is under way, what it "
               "has not done yet differs.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        return Response(_shown(drift_of(self.cluster)))


class DriftView(AdministratorsView):
    @described(
        "listDrift",
        tag="Clusters",
        summary="Compare all clusters with what runs",
        query=DriftQuery,
        answers={200: DriftPage},
        problems=(404, 422),
        about="For platform administrators. Asks Kubernetes now, about one page of clusters, oldest first.",
    )
    def get(self, request: Request) -> Response:
        query = read_query(DriftQuery, request)
        clusters = self.clusters().present().select_related("tenant", "target")
        if "tenant" in query:
            clusters = clusters.filter(tenant__slug=query["tenant"])
        if "target" in query:
            clusters = clusters.filter(target=query["target"])
        return page(request, clusters, query, lambda rows: [_shown(drift_of(one)) for one in rows])
