"""The addresses below /api/v1. No slash at the end, anywhere."""

from __future__ import annotations

from django.urls import path

from portal.api import (
    audit,
    capabilities,
    changes,
    clusters,
    credentials,
    engines,
    grants,
    interventions,
    operations,
    people,
    plans,
    quota,
    reservations,
    schema,
    session,
    targets,
    tenants,
    tokens,
)
from portal.problems import code_list, code_page

CLUSTERS = "tenants/<str:tenant>/clusters"
QUOTA = "tenants/<str:tenant>/quota"
CLUSTER = f"{CLUSTERS}/<str:name>"

urlpatterns = [
    path("openapi.json", schema.openapi, name="openapi"),
    path("problems", code_list, name="problems"),
    path("problems/<str:code>", code_page, name="problem"),
    path("session", session.SessionView.as_view(), name="session"),
    path("tokens", tokens.TokensView.as_view(), name="tokens"),
    path("tokens/<str:token>", tokens.TokenView.as_view(), name="token"),
    path("tenants", tenants.TenantsView.as_view(), name="tenants"),
    path("tenants/<str:tenant>", tenants.TenantView.as_view(), name="tenant"),
    path("tenants/<str:tenant>/suspend", tenants.SuspendView.as_view(), name="suspend"),
    path("tenants/<str:tenant>/unsuspend", tenants.UnsuspendView.as_view(), name="unsuspend"),
    path("tenants/<str:tenant>/members", people.MembersView.as_view(), name="members"),
    path("tenants/<str:tenant>/members/<str:username>", people.MemberView.as_view(), name="member"),
    path("tenants/<str:tenant>/invitations", people.InvitationsView.as_view(), name="invitations"),
    path("tenants/<str:tenant>/invitations/<str:invitation>", people.InvitationView.as_view(), name="invitation"),
    path("tenants/<str:tenant>/service-tokens", people.ServiceTokensView.as_view(), name="service-tokens"),
    path("tenants/<str:tenant>/service-tokens/<str:token>", people.ServiceTokenView.as_view(), name="service-token"),
    path("invitations/accept", people.AcceptView.as_view(), name="accept-invitation"),
    path("shared-clusters", grants.SharedClustersView.as_view(), name="shared-clusters"),
    path(f"{CLUSTER}/grants", grants.GrantsView.as_view(), name="grants"),
    path(f"{CLUSTER}/grants/<str:username>", grants.GrantView.as_view(), name="grant"),
    path("engines", engines.EnginesView.as_view(), name="engines"),
    path("engines/<str:engine>", engines.EngineView.as_view(), name="engine"),
    path("plans", plans.PlansView.as_view(), name="plans"),
    path("plans/<str:plan>", plans.PlanView.as_view(), name="plan"),
    path("targets", targets.TargetsView.as_view(), name="targets"),
    path(CLUSTERS, clusters.ClustersView.as_view(), name="clusters"),
    path(CLUSTER, clusters.ClusterView.as_view(), name="cluster"),
    path(f"{CLUSTER}/capabilities", capabilities.CapabilitiesView.as_view(), name="capabilities"),
    path(f"{CLUSTER}/events", clusters.EventsView.as_view(), name="cluster-events"),
    path(f"{CLUSTER}/operations", clusters.ClusterOperationsView.as_view(), name="cluster-operations"),
    path(f"{CLUSTER}/credentials", credentials.CredentialsView.as_view(), name="credentials"),
    path(f"{CLUSTER}/credentials/<str:principal>/reveal", credentials.RevealView.as_view(), name="reveal"),
    path(f"{CLUSTER}/snippets", credentials.SnippetsView.as_view(), name="snippets"),
    path("tenants/<str:tenant>/operations", operations.TenantOperationsView.as_view(), name="tenant-operations"),
    path("quota-findings", quota.FindingsView.as_view(), name="quota-findings"),
    path(QUOTA, quota.QuotaView.as_view(), name="quota"),
    path(f"{QUOTA}/entries", quota.EntriesView.as_view(), name="quota-entries"),
    path(f"{QUOTA}/kept-volumes/<str:holder>", quota.KeptVolumesView.as_view(), name="kept-volumes"),
    path(f"{QUOTA}/forecast", quota.ForecastView.as_view(), name="quota-forecast"),
    path(f"{QUOTA}/limits", quota.LimitsView.as_view(), name="quota-limits"),
    path("tenants/<str:tenant>/ip-reservations", reservations.ReservationsView.as_view(), name="ip-reservations"),
    path("tenants/<str:tenant>/audit", audit.TenantAuditView.as_view(), name="tenant-audit"),
    path("tenants/<str:tenant>/audit/export", audit.TenantAuditExportView.as_view(), name="tenant-audit-export"),
    path("audit", audit.AuditView.as_view(), name="audit"),
    path("audit/export", audit.AuditExportView.as_view(), name="audit-export"),
    path("changes", changes.ChangesView.as_view(), name="changes"),
    path("operations", operations.OperationsView.as_view(), name="operations"),
    path("operations/<str:operation>/cancel", interventions.CancelView.as_view(), name="cancel-operation"),
    path("operations/<str:operation>/retry", interventions.RetryView.as_view(), name="retry-operation"),
    path("operations/<str:operation>", operations.OperationView.as_view(), name="operation"),
]
