"""…/capabilities of a tenant and of a cluster: what the caller may do to it now, and why not.

It asks the rules that the actions themselves are refused by (portal.auth.require_scope, ApiView.require_access and
require_kind, provisioning/clusters/obstacles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.audit import TenantAuditExportView, TenantAuditView
from portal.api.base import ApiView
from portal.api.clusters import (
    AcceptLossView,
    ClusterOperationsView,
    ClustersView,
    ClusterView,
    EventsView,
    RebalanceView,
    RestartView,
)
from portal.api.copies import CopyView
from portal.api.credentials import CertificateView, CredentialsView, RevealView, SnippetsView
from portal.api.drift import ClusterDriftView
from portal.api.grants import GrantsView, GrantView
from portal.api.interventions import CancelView, OverrideView, RetryView
from portal.api.monitoring import AlertsView, ClusterMonitoringView
from portal.api.operations import OperationOut, TenantOperationsView
from portal.api.pauses import PauseView, ResumeView
from portal.api.people import (
    InvitationsView,
    InvitationView,
    MembersView,
    MemberView,
    ServiceTokensView,
    ServiceTokenView,
)
from portal.api.quota import EntriesView, ForecastView, KeptVolumesView, LimitsView, QuotaView
from portal.api.reservations import ReservationsView
from portal.api.schema import described
from portal.api.serializers import wire
from portal.api.statuses import ClusterStatusView
from portal.api.tenants import SuspendView, TenantView, UnsuspendView
from portal.api.users import RevokeOldView, RotateView, UsersView, UserView
from portal.auth import only_asks, require_scope
from portal.problem_codes import CODES
from provisioning.clusters import obstacles
from provisioning.models import Cluster, Operation
from tenants.models import Tenant, User
from tenants.people import not_empty
from tenants.refusals import Conflict, Refusal


@dataclass(frozen=True)
class Facts:
    """What the state of a cluster is judged by. `running`: the operation that has not ended; `last`: the newest."""

    cluster: Cluster
    running: Operation | None
    last: Operation | None
    user: User


F = TypeVar("F")
Judge = Callable[[Facts], Refusal | None]


def _delete_tenant(tenant: Tenant) -> Refusal | None:
    return not_empty(tenant) if Cluster.objects.filter(tenant=tenant).exists() else None


def _change(facts: Facts) -> Refusal | None:
    return obstacles.to_change(facts.cluster, facts.running)


def _rebalance(facts: Facts) -> Refusal | None:
    return _change(facts) or obstacles.to_rebalance(facts.cluster)


def _accept_loss(facts: Facts) -> Refusal | None:
    return _change(facts) or obstacles.to_accept_loss(facts.cluster)


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
class Action(Generic[F]):
    """The view and method that serve an action, what the object's state has against it, and what against a part."""

    view: type[ApiView]
    method: str
    state: Callable[[F], Refusal | None] = lambda facts: None
    limited: Callable[[F], Refusal | None] = lambda facts: None


# operationId to what serves it: all there is below a cluster, but for this, and what can be done to its newest
# operation. A test compares.
ACTIONS: Mapping[str, Action[Facts]] = {
    "getCluster": Action(ClusterView, "GET"),
    "editCluster": Action(ClusterView, "PATCH", limited=_change),
    "deleteCluster": Action(ClusterView, "DELETE"),
    "getDrift": Action(ClusterDriftView, "GET"),
    "restartCluster": Action(RestartView, "POST", _change),
    "rebalanceMasters": Action(RebalanceView, "POST", _rebalance),
    "acceptLoss": Action(AcceptLossView, "POST", _accept_loss),
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
# The same for all there is below a tenant, but for what is below a cluster.
TENANT_ACTIONS: Mapping[str, Action[Tenant]] = {
    "getTenant": Action(TenantView, "GET"),
    "renameTenant": Action(TenantView, "PATCH"),
    "deleteTenant": Action(TenantView, "DELETE", _delete_tenant),
    "suspendTenant": Action(SuspendView, "POST"),
    "unsuspendTenant": Action(UnsuspendView, "POST"),
    "listMembers": Action(MembersView, "GET"),
    "addMember": Action(MembersView, "POST"),
    "getMember": Action(MemberView, "GET"),
    "changeMember": Action(MemberView, "PATCH"),
    "removeMember": Action(MemberView, "DELETE"),
    "listInvitations": Action(InvitationsView, "GET"),
    "invite": Action(InvitationsView, "POST"),
    "withdrawInvitation": Action(InvitationView, "DELETE"),
    "listServiceTokens": Action(ServiceTokensView, "GET"),
    "createServiceToken": Action(ServiceTokensView, "POST"),
    "revokeServiceToken": Action(ServiceTokenView, "DELETE"),
    "getClusterStatuses": Action(ClusterStatusView, "GET"),
    "listClusters": Action(ClustersView, "GET"),
    "createCluster": Action(ClustersView, "POST"),
    "listOperations": Action(TenantOperationsView, "GET"),
    "getQuota": Action(QuotaView, "GET"),
    "listQuotaEntries": Action(EntriesView, "GET"),
    "deleteKeptVolumes": Action(KeptVolumesView, "DELETE"),
    "forecastQuota": Action(ForecastView, "POST"),
    "getQuotaLimits": Action(LimitsView, "GET"),
    "setQuotaLimits": Action(LimitsView, "PUT"),
    "listIpReservations": Action(ReservationsView, "GET"),
    "listTenantAudit": Action(TenantAuditView, "GET"),
    "exportTenantAudit": Action(TenantAuditExportView, "GET"),
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


class TenantCapabilitiesOut(serializers.Serializer[Any]):
    actions = CapabilityOut(many=True)


class Judging(ApiView):
    """Judges actions of its own address, whoever serves them."""

    def judged(self, actions: Mapping[str, Action[F]], facts: F) -> list[dict[str, Any]]:
        """CapabilityOut of each: scope first, then access, then the state, in the order in which a request is
        refused.
        """
        found = []
        for name, action in actions.items():
            refusal = self._refused(action) or action.state(facts)
            limited = action.limited(facts) if refusal is None else None
            found.append(
                {"action": name, "allowed": refusal is None, "why_not": _told(refusal), "limited": _told(limited)}
            )
        return found

    def _refused(self, action: Action[F]) -> Refusal | None:
        view, method = action.view, action.method
        try:
            require_scope(token=self.token, asks=only_asks(view, method), scope=view.scope)
            self.require_access(view, method)
            self.require_kind(view, method)
        except Refusal as refusal:
            return refusal
        return None


class TenantCapabilitiesView(Judging):
    @described("getTenantCapabilities", tag="Tenants", summary="Show what you may do in a tenant, and why not",
               answers={200: TenantCapabilitiesOut}, problems=(404,),
               about="By your role and token, and whether the tenant is suspended or empty. What can be done to a "
               "cluster, its own capabilities say.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        return Response({"actions": self.judged(TENANT_ACTIONS, self.tenant)})


class CapabilitiesView(Judging):
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
        shown = wire(OperationOut, running) if running else None
        return Response({"actions": self.judged(ACTIONS, facts), "operation": shown})


def _told(refusal: Refusal | None) -> dict[str, str] | None:
    if refusal is None:
        return None
    suggestion = refusal.suggestion or CODES[refusal.code].remedy
    return {"code": refusal.code, "detail": refusal.detail, "suggestion": suggestion}
