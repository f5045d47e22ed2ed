"""Rows as the frozen values engines and the door take."""

from __future__ import annotations

from provisioning.apply.client import CLIENTS, KubeClient
from provisioning.apply.examination import cluster_uid
from provisioning.engines.base import ClusterView, User
from provisioning.engines.registry import completed
from provisioning.models import Cluster, Operation, Target
from provisioning.targets import another, targets_folder


def namespace_of(tenant_slug: str) -> str:
    """One namespace per tenant and target."""
    return f"berth-{tenant_slug}"


def cluster_view(
    cluster: Cluster, *, changing: bool = False, rebalance: bool = False, overridden: frozenset[str] = frozenset(),
    users: tuple[User, ...] | None = None, accepted: str = "",
) -> ClusterView:  # fmt: skip
    """The wish, as an engine sees it; `changing`, `rebalance`: what an operation brings about now; `overridden`: gates
    it is not to wait at; `users`: see accounts.users_of; `accepted`: see losses.accepted_by. Wants `tenant` loaded.
    """
    return ClusterView(
        id=cluster.id,
        name=cluster.name,
        tenant=cluster.tenant.slug,
        namespace=namespace_of(cluster.tenant.slug),
        engine=cluster.engine,
        version=cluster.version,
        generation=cluster.generation,
        spec=completed(cluster.engine, cluster.spec),
        labels=cluster.labels,
        restart=cluster.restarts,
        changing=changing,
        rebalance=rebalance,
        formed=cluster.ready_at is not None,
        accepted=accepted,
        overridden=overridden,
        users=users,
    )


def pause_told(cluster: Cluster) -> str:
    """Who paused a cluster, since when and why, in one sentence; "" when nobody did."""
    pause = cluster.paused
    if pause is None:
        return ""
    return f"Paused by {pause['by']} since {pause['since'][:16].replace('T', ' ')} UTC: {pause['reason']}"


def overridden_gates(operation: Operation | None) -> frozenset[str]:
    """Keys of the gates an administrator let this operation pass."""
    if operation is None:
        return frozenset()
    return frozenset(entry["gate"] for entry in operation.params.get("overridden", ()))


def client_for(target: Target) -> KubeClient:
    """The client of a target. Raises NoKubeconfig, AnotherCluster when not the registered cluster answers, Unreachable.

    Each process asks once per kubeconfig which cluster it leads to; whether that changes later is looked at by
    `targets.discover`.
    """
    if target.other_uid:
        raise another(target.name)
    client = CLIENTS.get(target.name, source=target.source, folder=targets_folder())
    if target.uid:
        if client.uid is None:
            client.uid = cluster_uid(client)
        if client.uid != target.uid:
            raise another(target.name)
    return client
