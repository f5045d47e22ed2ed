"""/tenants/{tenant}/quota: what may be used, which cluster and operation holds it, what an order would take."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.api.base import ApiView
from portal.api.clusters import AcceptedOut, accepted
from portal.api.etags import content_revision, etag, expected_revision
from portal.api.operations import ChangeOut
from portal.api.pagination import PageQuery, page
from portal.api.schema import ETAG, IF_MATCH, LOCATION, described
from portal.api.serializers import (
    Body,
    Query,
    Text,
    ViolationOut,
    Whole,
    lookups,
    read_body,
    read_query,
    wire,
    wire_list,
)
from portal.problems import violation_body
from provisioning.clusters import limits as limits_service
from provisioning.clusters.forecast import Forecast, forecast_change, forecast_order
from provisioning.clusters.services import delete_kept_volumes
from provisioning.models import Cluster, Operation, OperationState, Phase
from tenants import quota
from tenants.models import EntryKind, LedgerEntry, QuotaFinding, QuotaHold, QuotaLimit
from tenants.quota import Standing, standings, unit_of
from tenants.refusals import Missing

LARGEST_LIMIT = 2**53 - 1
MOST_LIMITS = 500
RESOURCES = "`clusters`, `clusters:<engine>`, `pods`, `cpu`, `memory`, `storage`, `storage:<class>`."


class StandingOut(serializers.Serializer[Any]):
    resource = serializers.CharField(help_text=f"One of {RESOURCES}")
    target = serializers.CharField(allow_null=True, help_text="null: all targets together.")
    unit = serializers.CharField(help_text="Of the numbers: millicores, MiB, or empty for counts.")
    limit = serializers.IntegerField(allow_null=True, help_text="null: none.")
    used = serializers.IntegerField()
    reserved = serializers.IntegerField(help_text="Promised to operations under way.")
    left = serializers.IntegerField(
        allow_null=True, help_text="Below 0 when the limit was lowered under use: that blocks growth only."
    )
    over = serializers.BooleanField(help_text="More is held than the limit allows.")


class OperationRef(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.CharField()
    state = serializers.ChoiceField(choices=OperationState.choices)


class HeldOut(serializers.Serializer[Any]):
    resource = serializers.CharField()
    unit = serializers.CharField()
    used = serializers.IntegerField()
    used_by = OperationRef(allow_null=True, help_text="The operation that last changed `used`.")
    reserved = serializers.IntegerField()
    reserved_by = OperationRef(allow_null=True, help_text="The operation it is promised to.")


class HolderOut(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Of the cluster.")
    name = serializers.CharField()
    engine = serializers.CharField()
    target = serializers.CharField()
    phase = serializers.ChoiceField(choices=Phase.choices)
    volumes_kept = serializers.BooleanField(help_text="Deleted, but its volumes were kept and go on counting.")
    holds = HeldOut(many=True)


class FindingOut(serializers.Serializer[Any]):
    tenant = serializers.CharField()
    target = serializers.CharField()
    holder = serializers.CharField(help_text="Id of the cluster; empty: what belongs to no cluster.")
    resource = serializers.CharField()
    unit = serializers.CharField()
    ledger = serializers.IntegerField()
    observed = serializers.IntegerField(help_text="What Kubernetes really requests.")
    note = serializers.CharField()
    first_seen = serializers.DateTimeField()
    last_seen = serializers.DateTimeField()


class FindingPage(serializers.Serializer[Any]):
    items = FindingOut(many=True)
    next = serializers.CharField(allow_null=True)


class QuotaPage(serializers.Serializer[Any]):
    resources = StandingOut(many=True, help_text="The same on every page.")
    findings = FindingOut(many=True, help_text="Where ledger and Kubernetes differ now: the first 100.")
    items = HolderOut(many=True, help_text="What every number is made of, oldest cluster first.")
    next = serializers.CharField(allow_null=True)


class EntryOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.ChoiceField(choices=EntryKind.choices)
    cluster = serializers.CharField(source="holder")
    operation = serializers.CharField(source="cause")
    target = serializers.CharField(source="place")
    resource = serializers.CharField()
    unit = serializers.SerializerMethodField()
    used_change = serializers.IntegerField()
    reserved_change = serializers.IntegerField()
    created = serializers.DateTimeField()

    def get_unit(self, entry: LedgerEntry) -> str:
        return unit_of(entry.resource)


class EntryPage(serializers.Serializer[Any]):
    items = EntryOut(many=True)
    next = serializers.CharField(allow_null=True)


class EntriesQuery(PageQuery):
    cluster = serializers.CharField(required=False, max_length=40, help_text="Only of the cluster with this id.")
    operation = serializers.CharField(required=False, max_length=40, help_text="Only what this operation caused.")
    resource = serializers.CharField(required=False, max_length=80, help_text="Only this resource, such as cpu.")
    target = serializers.CharField(required=False, max_length=30, help_text="Only on this target.")


# Filter to the column it compares with.
ENTRY_FILTERS = {"cluster": "holder", "operation": "cause", "resource": "resource", "target": "place"}


class ForecastDraft(Body):
    """An order that is still being written; or, with `cluster`, a change of one that is there."""

    cluster = Text(
        required=False, allow_null=True, default=None,
        help_text="Name of a cluster to change; leave out engine, plan and target then.",
    )  # fmt: skip
    engine = Text(required=False, allow_null=True, default=None, help_text="Required without `cluster`.")
    plan = Text(required=False, allow_null=True, default=None)
    target = Text(required=False, allow_null=True, default=None, help_text="Default: the only one.")
    version = Text(
        required=False, allow_null=True, default=None, help_text="Default: the engine's, or the one the cluster has."
    )
    spec = serializers.DictField(required=False, default=dict, help_text="Plan fields, as in an order or a change.")


class AmountOut(serializers.Serializer[Any]):
    resource = serializers.CharField()
    unit = serializers.CharField()
    amount = serializers.IntegerField()


class ForecastStandingOut(StandingOut):
    requested = serializers.IntegerField(help_text="How much more it would take; 0 when it takes none or less.")
    left_after = serializers.IntegerField(allow_null=True, help_text="null: no limit.")
    fits = serializers.BooleanField()


class ForecastOut(serializers.Serializer[Any]):
    target = serializers.CharField()
    fits = serializers.BooleanField()
    amounts = AmountOut(many=True, help_text="All the cluster would count for.")
    resources = ForecastStandingOut(many=True, help_text="Of this target and of all targets together.")
    violations = ViolationOut(many=True, help_text="What an order would be refused for; empty when it fits.")
    changes = ChangeOut(
        many=True, help_text="With `cluster`: what the change does to what runs, field by field; fixed: it is refused."
    )


class ConfirmQuery(Query):
    confirm = serializers.CharField(max_length=30, help_text="The cluster's name, typed again.")


class LimitItem(Body):
    resource = Text(help_text=f"One of {RESOURCES}")
    target = Text(required=False, allow_null=True, default=None, help_text="null: all targets together.")
    limit = Whole(
        min_value=0, max_value=LARGEST_LIMIT, help_text="In the unit of the resource: millicores, MiB, a count."
    )


class LimitsBody(Body):
    limits = serializers.ListField(
        child=LimitItem(), max_length=MOST_LIMITS, help_text="All of them: what is left out has no limit."
    )


class LimitOut(serializers.Serializer[Any]):
    resource = serializers.CharField()
    target = serializers.CharField(allow_null=True)
    unit = serializers.CharField()
    limit = serializers.IntegerField()


class LimitsOut(serializers.Serializer[Any]):
    limits = LimitOut(many=True)


def standing_body(one: Standing) -> dict[str, Any]:
    """A standing on the wire."""
    return {
        "resource": one.resource, "target": one.place or None, "unit": unit_of(one.resource), "limit": one.limit,
        "used": one.used, "reserved": one.reserved, "left": one.left, "over": one.left is not None and one.left < 0,
    }  # fmt: skip


def _holders(clusters: list[Cluster]) -> list[dict[str, Any]]:
    holds: dict[str, list[QuotaHold]] = defaultdict(list)
    rows = QuotaHold.objects.filter(holder__in=[cluster.pk for cluster in clusters]).order_by("resource")
    for hold in rows:
        holds[hold.holder].append(hold)
    causes = {cause for hold in rows for cause in (hold.used_by, hold.reserved_by) if cause}
    operations = {
        one.pk: {"id": one.pk, "kind": one.kind, "state": one.state} for one in Operation.objects.filter(pk__in=causes)
    }
    return [
        {
            "id": cluster.pk, "name": cluster.name, "engine": cluster.engine, "target": cluster.target_id,
            "phase": cluster.phase, "volumes_kept": cluster.volumes_kept,
            "holds": [
                {
                    "resource": hold.resource, "unit": unit_of(hold.resource), "used": hold.used,
                    "used_by": operations.get(hold.used_by), "reserved": hold.reserved,
                    "reserved_by": operations.get(hold.reserved_by),
                }
                for hold in holds[cluster.pk]
            ],
        }
        for cluster in clusters
    ]  # fmt: skip


def _finding_body(finding: QuotaFinding) -> dict[str, Any]:
    return {
        "tenant": finding.tenant.slug, "target": finding.place, "holder": finding.holder, "resource": finding.resource,
        "unit": unit_of(finding.resource), "ledger": finding.ledger, "observed": finding.observed,
        "note": finding.note, "first_seen": finding.first_seen, "last_seen": finding.last_seen,
    }  # fmt: skip


def _open_findings() -> QuerySet[QuotaFinding]:
    return QuotaFinding.objects.filter(ended=None).select_related("tenant")


class FindingsView(ApiView):
    @described("listQuotaFindings", tag="Quota", summary="List where ledger and Kubernetes differ", query=PageQuery,
               answers={200: FindingPage}, problems=(422,),
               about="Of all tenants you may see. The proof runs every minute and mends nothing.")  # fmt: skip
    def get(self, request: Request) -> Response:
        query = read_query(PageQuery, request)
        rows = _open_findings().filter(tenant__in=self.tenants())
        return page(request, rows, query, lambda found: [_shown_finding(one) for one in found], order="-id")


def _shown_finding(finding: QuotaFinding) -> dict[str, Any]:
    return wire(FindingOut, _finding_body(finding))


class QuotaView(ApiView):
    @described("getQuota", tag="Quota", summary="Show limits, use, and what holds it", query=PageQuery,
               answers={200: QuotaPage}, problems=(404, 422))  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(PageQuery, request)
        holders = QuotaHold.objects.filter(tenant=self.tenant).values("holder")
        answer = page(request, self.clusters().filter(pk__in=holders), query, _holders)
        findings = _open_findings().filter(tenant=self.tenant).order_by("-pk")[:100]
        body = {
            "resources": [standing_body(one) for one in standings(self.tenant.pk)],
            "findings": [_finding_body(one) for one in findings],
            **answer.data,
        }
        return Response(QuotaPage(body).data)


class KeptVolumesView(ApiView):
    @described("deleteKeptVolumes", tag="Quota", summary="Delete the volumes of a deleted cluster", query=ConfirmQuery,
               answers={202: AcceptedOut}, problems=(403, 404, 409, 422), parameters=[LOCATION],
               about="They count as storage until they are gone. The data is lost.")  # fmt: skip
    def delete(self, request: Request, tenant: str, holder: str) -> Response:
        query = read_query(ConfirmQuery, request)
        cluster = self.clusters().filter(pk=holder, phase=Phase.DELETED).select_related("tenant").first()
        if cluster is None:
            raise Missing("not_found", f"{self.tenant.slug} has no deleted cluster {holder[:60]}.")
        operation = delete_kept_volumes(
            cluster=cluster, by=self.user, confirm=query["confirm"], request_id=logs.request_id.get()
        )
        return accepted(self, operation)


class EntriesView(ApiView):
    @described("listQuotaEntries", tag="Quota", summary="List the ledger's entries", query=EntriesQuery,
               answers={200: EntryPage}, problems=(404, 422), about="Newest first; entries never change.")  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        query = read_query(EntriesQuery, request)
        rows = LedgerEntry.objects.filter(tenant=self.tenant, **lookups(query, ENTRY_FILTERS))
        return page(request, rows, query, lambda found: wire_list(EntryOut, found), order="-id")


class ForecastView(ApiView):
    @described("forecastQuota", tag="Quota", summary="What an order would take of the quota", request=ForecastDraft,
               answers={200: ForecastOut}, problems=(400, 403, 404, 415, 422),
               about="Checks the draft as an order is checked, and writes nothing. What fits now may be taken by "
               "somebody else before the order comes: only the order itself reserves.", changes=False)  # fmt: skip
    def post(self, request: Request, tenant: str) -> Response:
        sent = read_body(ForecastDraft, request)
        name = sent.pop("cluster")
        if name is None:
            found = forecast_order(tenant=self.tenant, **sent)
        else:
            found = forecast_change(clusters=self.clusters().present(), name=name, **sent)
        return Response(wire(ForecastOut, _forecast_body(found)))


def _forecast_body(found: Forecast) -> dict[str, Any]:
    resources = []
    for one in found.standings:
        requested = found.growth.get(one.resource, 0)
        left = None if one.left is None else one.left - requested
        resources.append(
            {**standing_body(one), "requested": requested, "left_after": left, "fits": not one.short_by(requested)}
        )
    amounts = [
        {"resource": resource, "unit": unit_of(resource), "amount": amount}
        for resource, amount in found.amounts.items()
    ]
    return {
        "target": found.target, "fits": not found.violations, "amounts": amounts, "resources": resources,
        "violations": [violation_body(one) for one in found.violations], "changes": found.changes,
    }  # fmt: skip


class LimitsView(ApiView):
    scope = "admin"
    administrators_only = "Limits are set by platform administrators."

    @described("getQuotaLimits", tag="Quota", summary="Show a tenant's limits", answers={200: LimitsOut},
               problems=(404,), parameters=[ETAG])  # fmt: skip
    def get(self, request: Request, tenant: str) -> Response:
        return self._told()

    @described("setQuotaLimits", tag="Quota", summary="Set a tenant's limits", request=LimitsBody,
               answers={200: LimitsOut}, problems=(400, 403, 404, 412, 415, 422), parameters=[IF_MATCH, ETAG],
               about="For platform administrators. Replaces all limits: send the ETag you read in If-Match, and no "
               "limit that somebody set meanwhile is lost. A limit below what is held takes nothing away: "
               "it is shown as `over` and blocks growth of that resource only.")  # fmt: skip
    def put(self, request: Request, tenant: str) -> Response:
        sent = read_body(LimitsBody, request)
        quota.lock(self.tenant.pk)
        expected_revision(request, content_revision(self._shown()))
        self.audit_detail = {"limits": [dict(item) for item in sent["limits"]]}
        limits_service.set_limits(
            tenant=self.tenant,
            limits=[(item["target"], item["resource"], item["limit"]) for item in sent["limits"]],
        )
        return self._told()

    def _told(self) -> Response:
        shown = self._shown()
        return Response(shown, headers={"ETag": etag(content_revision(shown))})

    def _shown(self) -> dict[str, Any]:
        rows = QuotaLimit.objects.filter(tenant=self.tenant).order_by("place", "resource")
        limits = [
            {"resource": row.resource, "target": row.place or None, "unit": unit_of(row.resource), "limit": row.limit}
            for row in rows
        ]
        return wire(LimitsOut, {"limits": limits})
