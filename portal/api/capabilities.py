"""…/clusters/{name}/capabilities: what the caller may do to a cluster now, and why not.

It asks the rules that the actions themselves are refused by (ApiView.require_access, portal.auth.require_scope).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.clusters import ClusterOperationsView, ClusterView, EventsView, RebalanceView, RestartView
from portal.api.copies import CopyView
from portal.api.credentials import CertificateView, CredentialsView, RevealView, SnippetsView
from portal.api.drift import ClusterDriftView
from portal.api.grants import GrantsView, GrantView
from portal.api.monitoring import AlertsView, ClusterMonitoringView
from portal.api.operations import OperationOut
from portal.api.pauses import PauseView, ResumeView
from portal.api.schema import described
from portal.api.serializers import wire
from portal.api.users import RevokeOldView, RotateView, UsersView, UserView
from portal.auth import require_scope
from portal.problem_codes import CODES
from tenants.refusals import Refusal

# operationId to the view and method that serve it: all there is below a cluster, but for this. A test compares.
ACTIONS: Mapping[str, tuple[type[ApiView], str]] = {
    "getCluster": (ClusterView, "GET"),
    "editCluster": (ClusterView, "PATCH"),
    "deleteCluster": (ClusterView, "DELETE"),
    "getDrift": (ClusterDriftView, "GET"),
    "restartCluster": (RestartView, "POST"),
    "rebalanceMasters": (RebalanceView, "POST"),
    "getClusterOrder": (CopyView, "GET"),
    "pauseCluster": (PauseView, "POST"),
    "resumeCluster": (ResumeView, "POST"),
    "getMonitoring": (ClusterMonitoringView, "GET"),
    "listAlerts": (AlertsView, "GET"),
    "listClusterEvents": (EventsView, "GET"),
    "listClusterOperations": (ClusterOperationsView, "GET"),
    "listCredentials": (CredentialsView, "GET"),
    "revealCredential": (RevealView, "POST"),
    "listUsers": (UsersView, "GET"),
    "addUser": (UsersView, "POST"),
    "getUser": (UserView, "GET"),
    "editUser": (UserView, "PATCH"),
    "removeUser": (UserView, "DELETE"),
    "rotatePassword": (RotateView, "POST"),
    "revokeOldPassword": (RevokeOldView, "POST"),
    "getCertificate": (CertificateView, "GET"),
    "listSnippets": (SnippetsView, "GET"),
    "listGrants": (GrantsView, "GET"),
    "shareCluster": (GrantsView, "POST"),
    "unshareCluster": (GrantView, "DELETE"),
}


class WhyNotOut(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Code of the problem the action would be refused with.")
    detail = serializers.CharField()
    suggestion = serializers.CharField(help_text="What you can do about it.")


class CapabilityOut(serializers.Serializer[Any]):
    action = serializers.CharField(help_text="operationId of the API.")
    allowed = serializers.BooleanField()
    why_not = WhyNotOut(allow_null=True, help_text="null when it is allowed.")


class CapabilitiesOut(serializers.Serializer[Any]):
    actions = CapabilityOut(many=True)
    operation = OperationOut(allow_null=True, help_text="The change under way: deleting the cluster would cancel it.")


class CapabilitiesView(ApiView):
    guest_rights = {"GET": "read"}

    @described("getCapabilities", tag="Clusters", summary="Show what you may do to a cluster, and why not",
               answers={200: CapabilitiesOut}, problems=(404,),
               about="By your role, grant and token, and whether the tenant is suspended. The values of a request are "
               "judged when it comes: a forecast tells about the quota.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        running = self.operations().filter(cluster=self.cluster).open().first()
        actions = [self._judged(action, view, method) for action, (view, method) in ACTIONS.items()]
        return Response({"actions": actions, "operation": wire(OperationOut, running) if running else None})

    def _judged(self, action: str, view: type[ApiView], method: str) -> dict[str, Any]:
        """Scope first, then access: in the order in which a request is refused."""
        try:
            require_scope(token=self.token, method=method, scope=view.scope)
            self.require_access(view, method)
        except Refusal as refusal:
            why_not = {
                "code": refusal.code, "detail": refusal.detail,
                "suggestion": refusal.suggestion or CODES[refusal.code].remedy,
            }  # fmt: skip
            return {"action": action, "allowed": False, "why_not": why_not}
        return {"action": action, "allowed": True, "why_not": None}
