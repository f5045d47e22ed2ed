"""/metrics-targets, for Prometheus; below a cluster /monitoring and /alerts: where its metrics are, and what fires."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.pagination import PageQuery, page_of
from portal.api.schema import described
from portal.api.serializers import Query, read_query, wire, wire_list
from provisioning.clusters.alerts import SEVERITIES, STATES, Alert, alerts_of
from provisioning.clusters.monitoring import dashboard_of, labels_of, scrape_groups, scrapes_of, watched

ALERT_STATES = [(state, state) for state in STATES]
NOT_CONFIGURED = (
    "Nobody watches: Berth knows no Alertmanager. A platform administrator sets BERTH_ALERTMANAGER_URL, see "
    "docs/monitoring.md."
)


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


class ScrapeOut(serializers.Serializer[Any]):
    pod = serializers.CharField()
    host = serializers.CharField(help_text="Inside the target's network.")
    port = serializers.IntegerField(help_text="Plain HTTP, path /metrics.")
    shard = serializers.CharField(help_text="Empty where there are none.")


class MonitoringOut(serializers.Serializer[Any]):
    metrics = ScrapeOut(many=True, help_text="Where each pod's metrics are; empty when the cluster gives none.")
    labels = serializers.DictField(child=serializers.CharField(), help_text="Of all its series; for queries.")
    dashboard = serializers.CharField(help_text="Address in Grafana; empty without one.")
    alerting = serializers.BooleanField(help_text="Whether Berth knows an Alertmanager to ask for alerts.")


class ClusterMonitoringView(ApiView):
    guest_rights = {"GET": "read"}

    @described("getMonitoring", tag="Clusters", summary="Show where a cluster's metrics are",
               answers={200: MonitoringOut}, problems=(404,),
               about="Prometheus itself asks /metrics-targets.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        value = {
            "metrics": scrapes_of(self.cluster),
            "labels": labels_of(self.cluster),
            "dashboard": dashboard_of(self.cluster),
            "alerting": bool(settings.ALERTMANAGER_URL),
        }
        return Response(wire(MonitoringOut, value))


class AlertOut(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="Alertmanager's fingerprint.")
    name = serializers.CharField(help_text="Of the rule.")
    severity = serializers.CharField(help_text=f"{', '.join(SEVERITIES)}, or what other rules say.")
    state = serializers.ChoiceField(
        choices=ALERT_STATES, help_text="silenced: by a person. muted: another alert says it already."
    )
    since = serializers.DateTimeField()
    summary = serializers.CharField(help_text="May be empty, as the following two.")
    description = serializers.CharField(help_text="The likeliest cause, and what to do.")
    runbook = serializers.CharField(help_text="Where more is told: an address, or a path in Berth's repository.")
    labels = serializers.DictField(child=serializers.CharField(), help_text="Beyond the cluster's own, such as pod.")


class AlertPage(serializers.Serializer[Any]):
    configured = serializers.BooleanField(help_text="false: there is nobody to ask, so no alert means nothing.")
    remedy = serializers.CharField(help_text="What to do then; empty otherwise.")
    items = AlertOut(many=True, help_text="Newest first.")
    next = serializers.CharField(allow_null=True)


def _place(alert: Alert) -> tuple[str, str]:
    return alert.since.astimezone(UTC).isoformat(timespec="microseconds"), alert.id


class AlertsView(ApiView):
    guest_rights = {"GET": "read"}

    @described("listAlerts", tag="Clusters", summary="List what fires about a cluster", query=PageQuery,
               answers={200: AlertPage}, problems=(404, 503),
               about="Asks Alertmanager at this moment. Where none is configured, `configured` is false: then an empty "
               "list says nothing. What Berth itself sees is in the cluster's `causes`.")  # fmt: skip
    def get(self, request: Request, tenant: str, name: str) -> Response:
        query = read_query(PageQuery, request)
        found = alerts_of(self.cluster)
        shown = page_of(found or [], query, lambda rows: wire_list(AlertOut, rows), order="-since", key=_place)
        is_configured = found is not None
        return Response({"configured": is_configured, "remedy": "" if is_configured else NOT_CONFIGURED, **shown.data})
