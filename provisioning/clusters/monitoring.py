"""What Prometheus is to read of clusters, and with which labels: those that rules and dashboards ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings

from provisioning.clusters.views import cluster_view
from provisioning.engines.base import Scrape
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, ClusterQuerySet, Phase


@dataclass(frozen=True)
class ScrapeGroup:
    """One pod to scrape, as a group of Prometheus' HTTP service discovery: `targets` are host:port."""

    targets: tuple[str, ...]
    labels: Mapping[str, str]


def scrapes_of(cluster: Cluster) -> Sequence[Scrape]:
    """Where the metrics of a cluster's pods are read. Wants `tenant` loaded.

    Pods that are wished are among them though they are away: that they give no metrics must be seen.
    """
    engine = ENGINES.get(cluster.engine)
    members = [member["pod"] for member in cluster.members]
    return engine.scrapes(cluster_view(cluster), members) if engine is not None else []


def watched(clusters: ClusterQuerySet) -> ClusterQuerySet:
    """Those whose silence is worth an alert: they were ready once, and nobody has asked to delete them."""
    gone = (Phase.DELETING, Phase.DELETED)
    return clusters.exclude(phase__in=gone).filter(ready_at__isnull=False).select_related("tenant")


def scrape_groups(clusters: Iterable[Cluster]) -> list[ScrapeGroup]:
    """What Prometheus is to scrape of these clusters, by cluster and pod; `node` is where a pod was last seen."""
    found = []
    for cluster in clusters:
        nodes = {member["pod"]: member.get("node", "") for member in cluster.members}
        for one in scrapes_of(cluster):
            labels = {**labels_of(cluster), "shard": one.shard, "pod": one.pod, "node": nodes.get(one.pod, "")}
            # A label that is empty is none to Prometheus.
            said = {name: value for name, value in labels.items() if value}
            found.append(ScrapeGroup((f"{one.host}:{one.port}",), said))
    return found


def labels_of(cluster: Cluster) -> dict[str, str]:
    """The labels all series of a cluster have in common."""
    return {
        "engine": cluster.engine,
        "target": cluster.target_id,
        "tenant": cluster.tenant.slug,
        "cluster": cluster.name,
        "namespace": cluster_view(cluster).namespace,
    }


def dashboard_of(cluster: Cluster) -> str:
    """Address of the engine's dashboard in Grafana, on this cluster; "" without one."""
    engine = ENGINES.get(cluster.engine)
    if not settings.GRAFANA_URL or engine is None or not engine.dashboard:
        return ""
    asked = {f"var-{name}": value for name, value in labels_of(cluster).items() if name in ("tenant", "cluster")}
    return f"{settings.GRAFANA_URL}/d/{engine.dashboard}?{urlencode(asked)}"
