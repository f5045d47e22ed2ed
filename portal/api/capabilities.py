"""…/clusters/{name}/capabilities: what the caller may do to a cluster now, and why not.

It asks the rules that the actions themselves are refused by (ApiView.require_access, portal.auth.require_scope).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from portal.api.interventions import CancelView, OverrideView, RetryView
from portal.api.monitoring import AlertsView, ClusterMonitoringView
from portal.api.operations import OperationOut
from portal.api.pauses import PauseView, ResumeView
from portal.api.schema import described
from portal.api.serializers import wire
from portal.api.users import RevokeOldView, RotateView, UsersView, UserView
from portal.auth import only_asks, require_scope
from portal.problem_codes import CODES
from provisioning.clusters import obstacles
from provisioning.models import Cluster, Operation
from tenants.models import User
from tenants.refusals import Conflict, Refusal


@dataclass(frozen=True)
class Facts:
    """What the state of a cluster is judged by. `running`: the operation that has not ended; `last`: the newest."""

    cluster: Cluster
    running: Operation | None
    last: Operation | None
    user: User


Judge = Callable[[Facts], Refusal | None]


def _change(facts: Facts) -> Refusal | None:
    return obstacles.to_change(facts.cluster, facts.running)


def _rebalance(facts: Facts) -> Refusal | None:
    return _change(facts) or obstacles.to_rebalance(facts.cluster)


def _change_users(facts: Facts) -> Refusal | None:
    return obstacles.to_users(facts.cluster) or _change(facts)


def _cluster(judge: Callable[[Cluster], Refusal | None]) -> Judge:
    return lambda facts: judge(facts.cluster)


def _last(judge: Callable[[Facts, Operation], Refusal | None]) -> Judge:
    none = Conflict("operation_ended", "The cluster has no operation.", suggestion="There is nothing to do.")
    return lambda facts: judge(facts, facts.last) if facts.last else none


def _cancel(facts: Facts, last: Operation) -> Refusal | None:
    return obstacles.to_cancel(last)


def _retry(facts: Facts, last: Operation) -> Refusal | None:
    return obstacles.to_retry(facts.cluster, last, last.pk)


def _override(facts: Facts, last: Operation) -> Refusal | None:
    return obstacles.to_override(last, None, facts.user)


@dataclass(frozen=True)
class Action:
    """The view and method that serve an action, what the cluster's state has against it, and what against a part."""

    view: type[ApiView]
    method: str
    state: Judge = lambda facts: None
    limited: Judge = lambda facts: None


# operationId to what serves it: all there is below a cluster, but for this, and what can be done to its newest
# operation. A test compares.
ACTIONS: Mapping[str, Action] = {
    "getCluster": Action(ClusterView, "GET"),
    "editCluster": Action(ClusterView, "PATCH", limited=_change),
    "deleteCluster": Action(ClusterView, "DELETE"),
    "getDrift": Action(ClusterDriftView, "GET"),
    "restartCluster": Action(RestartView, "POST", _change),
    "rebalanceMasters": Action(RebalanceView, "POST", _rebalance),
    "getClusterOrder": Action(CopyView, "GET"),
    "pauseCluster": Action(PauseView, "POST", _cluster(obstacles.to_pause)),
    "resumeCluster": Action(ResumeView, "POST", _cluster(obstacles.to_resume)),
    "getMonitoring": Action(ClusterMonitoringView, "GET"),
    "listAlerts": Action(AlertsView, "GET"),
    "listClusterEvents": Action(EventsView, "GET"),
    "listClusterOperations": Action(ClusterOperationsView, "GET"),
    "listCredentials": Action(CredentialsView, "GET"),
    "revealCredential": Action(RevealView, "POST"),
    "listUsers": Action(UsersView, "GET", _cluster(obstacles.to_users)),
    "addUser": Action(UsersView, "POST", _change_users),
    "getUser": Action(UserView, "GET", _cluster(obstacles.to_users)),
    "editUser": Action(UserView, "PATCH", _change_users),
    "removeUser": Action(UserView, "DELETE", _change_users),
    "rotatePassword": Action(RotateView, "POST", _change_users),
    "revokeOldPassword": Action(RevokeOldView, "POST", _change_users),
    "getCertificate": Action(CertificateView, "GET", _cluster(obstacles.to_certificate)),
    "listSnippets": Action(SnippetsView, "GET"),
    "listGrants": Action(GrantsView, "GET"),
    "shareCluster": Action(GrantsView, "POST"),
    "unshareCluster": Action(GrantView, "DELETE"),
    "cancelOperation": Action(CancelView, "POST", _last(_cancel)),
    "retryOperation": Action(RetryView, "POST", _last(_retry)),
    "overrideGate": Action(OverrideView, "POST", _last(_override)),
}


class WhyNotOut(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Code of the problem the action would be refused with.")
    detail = serializers.CharField()
    suggestion = serializers.CharField(help_text="What you can do about it.")


class CapabilityOut(serializers.Serializer[Any]):
    action = serializers.CharField(help_text="operationId of the API.")
    allowed = serializers.BooleanField()
    why_not = WhyNotOut(allow_null=True, help_text="null when it is allowed.")
    limited = WhyNotOut(
        allow_null=True,
        help_text="What a part of it would be refused with, while the rest is allowed: of editCluster, a change of "
        "`spec` or `version` while labels and description can change. null when all of it is allowed, or nothing.",
    )


class CapabilitiesOut(serializers.Serializer[Any]):
    actions = CapabilityOut(many=True)
    operation = OperationOut(allow_null=True, help_text="The change under way: deleting the cluster would cancel it.")


class CapabilitiesView(ApiView):
    guest_rights = {"GET": "read"}

    @described("getCapabilities", tag="Clusters", summary="Show what you may do to a cluster, and why not",
               answers={200: CapabilitiesOut}, problems=(404,),
               about="By your role, grant and token, whether the tenant is suspended, and by the state of the cluster "
               "and its newest operation, which cancelOperation, retryOperation and overrideGate are about. The values "
               "of a request are judged when it comes: a forecast tells about the quota.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        newest = self.operations().filter(cluster=self.cluster).order_by("-id")
        running = newest.open().first()
        facts = Facts(self.cluster, running, running or newest.first(), self.user)
        actions = [self._judged(name, action, facts) for name, action in ACTIONS.items()]
        return Response({"actions": actions, "operation": wire(OperationOut, running) if running else None})

    def _judged(self, name: str, action: Action, facts: Facts) -> dict[str, Any]:
        """Scope first, then access, then the state: in the order in which a request is refused."""
        refusal, limited = self._refused(action) or action.state(facts), None
        if refusal is None:
            limited = action.limited(facts)
        return {"action": name, "allowed": refusal is None, "why_not": _told(refusal), "limited": _told(limited)}

    def _refused(self, action: Action) -> Refusal | None:
        view, method = action.view, action.method
        try:
            require_scope(token=self.token, asks=only_asks(view, method), scope=view.scope)
            self.require_access(view, method)
        except Refusal as refusal:
            return refusal
        return None


def _told(refusal: Refusal | None) -> dict[str, str] | None:
    if refusal is None:
        return None
    suggestion = refusal.suggestion or CODES[refusal.code].remedy
    return {"code": refusal.code, "detail": refusal.detail, "suggestion": suggestion}
