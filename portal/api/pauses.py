"""…/clusters/{name}/pause and /resume: whether Berth brings the wish about, or only watches."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.clusters import ClusterOut, show_cluster
from portal.api.etags import etag, expected_revision
from portal.api.parsers import JsonParser
from portal.api.schema import ETAG, IF_MATCH, described
from portal.api.serializers import Body, Text, read_body
from portal.idempotency import idempotent
from provisioning.clusters.pauses import pause_cluster, resume_cluster


class PauseOrder(Body):
    """Why reconcile is paused."""

    reason = Text(max_length=500, help_text="Shown to everybody who sees the cluster.")


class PauseView(ApiView):
    parser_classes = [JsonParser]

    @described("pauseCluster", tag="Clusters", summary="Pause the reconcile of a cluster", request=PauseOrder,
               answers={200: ClusterOut}, problems=(400, 403, 404, 409, 412, 415, 422),
               parameters=[IF_MATCH, ETAG],
               about="Until it is resumed Berth watches it and shows how it is, but applies, mends and changes "
               "nothing: what is done to it by hand stays. An operation under way is held, and its deadline moves by "
               "as long. Changes are refused with `cluster_paused`; deleting is possible.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        reason = read_body(PauseOrder, request)["reason"]
        self.audit_detail = {"reason": reason}
        expected = expected_revision(request, self.cluster.revision)
        pause_cluster(cluster=self.cluster, by=self.user, reason=reason, expected_revision=expected)
        shown = show_cluster(self, self.cluster.id)
        return Response(shown, headers={"ETag": etag(shown["revision"])})


class ResumeView(ApiView):
    @described("resumeCluster", tag="Clusters", summary="Resume the reconcile of a paused cluster",
               answers={200: ClusterOut}, problems=(400, 403, 404, 409, 412),
               parameters=[IF_MATCH, ETAG],
               about="At once: what differs from the wish is put right, and a held operation goes on.")  # fmt: skip
    @idempotent(required_from_tokens=False)
    def post(self, request: Request, tenant: str, name: str) -> Response:
        expected = expected_revision(request, self.cluster.revision)
        resume_cluster(cluster=self.cluster, by=self.user, expected_revision=expected)
        shown = show_cluster(self, self.cluster.id)
        return Response(shown, headers={"ETag": etag(shown["revision"])})
