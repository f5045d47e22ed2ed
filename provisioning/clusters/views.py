"""Rows as the frozen values engines and the door take."""

from __future__ import annotations

from provisioning.apply.client import CLIENTS, KubeClient
from provisioning.engines.base import ClusterView
from provisioning.models import Cluster, Target
from provisioning.targets import targets_folder


def namespace_of(tenant_slug: str) -> str:
    """One namespace per tenant and target."""
    return f"berth-{tenant_slug}"


def cluster_view(cluster: Cluster) -> ClusterView:
    """The wish, as an engine sees it. Wants `tenant` loaded."""
    return ClusterView(
        id=cluster.id,
        name=cluster.name,
        tenant=cluster.tenant.slug,
        namespace=namespace_of(cluster.tenant.slug),
        engine=cluster.engine,
        version=cluster.version,
        generation=cluster.generation,
        spec=cluster.spec,
        labels=cluster.labels,
    )


def client_for(target: Target) -> KubeClient:
    """The client of a target. Raises NoKubeconfig."""
    return CLIENTS.get(target.name, source=target.source, folder=targets_folder())
