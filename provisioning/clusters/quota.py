"""Clusters in the ledger's numbers: what a spec asks for, what a change or an ending does, what Kubernetes enforces.

When the ledger moves, always in the transaction that writes the cause:

1. an order or a change is accepted: its growth is reserved (services.py);
2. its operation ends well: what is reserved is committed, and what the cluster no longer has is released;
3. its operation fails or is canceled: all is committed and nothing released, since what was applied stays applied;
4. a deletion has proven pods and volumes gone: all is released; volumes that were kept go on counting as storage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from django.db.models import Exists, OuterRef

from provisioning.engines.base import Demand, Spec, VolumeView
from provisioning.engines.registry import ENGINES, completed
from provisioning.models import Cluster, Operation
from tenants import quota
from tenants.models import LedgerEntry, User
from tenants.quota import OVERALL, Standing

# The ledger's resources that Kubernetes can enforce, as ResourceQuota names them, and how it writes their units.
ENFORCED: Mapping[str, tuple[str, str]] = {
    "pods": ("pods", ""),
    "cpu": ("requests.cpu", "m"),
    "memory": ("requests.memory", "Mi"),
    "storage": ("requests.storage", "Mi"),
}


def amounts_of(engine: str, spec: Spec) -> dict[str, int]:
    """What a cluster of this spec counts for."""
    return _amounts(engine, ENGINES[engine].demand(completed(engine, spec)))


def _amounts(engine: str, demand: Demand) -> dict[str, int]:
    amounts = {
        "clusters": 1,
        f"clusters:{engine}": 1,
        "pods": demand.pods,
        "cpu": demand.cpu_millicores,
        "memory": demand.memory_mib,
        "storage": sum(demand.storage_mib.values()),
    }
    for name, size in demand.storage_mib.items():
        amounts[f"storage:{name}"] = size
    return {resource: amount for resource, amount in amounts.items() if amount}


def storage_of(volumes: Iterable[VolumeView]) -> dict[str, int]:
    """What these volumes count for."""
    classes: dict[str, int] = defaultdict(int)
    for volume in volumes:
        classes[volume.storage_class] += volume.requested_mib
    return {"storage": sum(classes.values())} | {f"storage:{name}": size for name, size in classes.items()}


def reserve(cluster: Cluster, operation: Operation, by: User | None = None) -> None:
    """Reserve what the cluster's spec asks for beyond what it has. Raises QuotaExceeded, and Forbidden when `by` asks
    for it in a suspended tenant.

    Serves orders and changes alike: call it with the new spec set, in the transaction that opens `operation`.
    """
    quota.reserve(
        tenant_id=cluster.tenant_id, holder=cluster.id, place=cluster.target_id,
        wanted=amounts_of(cluster.engine, cluster.spec), cause=operation.id, by=by,
    )  # fmt: skip


def commit(cluster: Cluster, operation: Operation) -> None:
    """The operation ended without success: what it may have brought about goes on counting."""
    quota.commit(tenant_id=cluster.tenant_id, holder=cluster.id, cause=operation.id)


def settle_as_wished(cluster: Cluster, volumes: Iterable[VolumeView], operation: Operation) -> None:
    """The cluster is proven to be what its spec says. What it had beyond that is released, but for volumes left over.

    A StatefulSet that shrinks keeps its volumes, so storage is the larger of what the spec and what the volumes say.
    """
    kept = amounts_of(cluster.engine, cluster.spec)
    for resource, size in storage_of(volumes).items():
        kept[resource] = max(size, kept.get(resource, 0))
    quota.settle(tenant_id=cluster.tenant_id, holder=cluster.id, cause=operation.id, kept=kept)


def settle_deleted(cluster: Cluster, kept: Iterable[VolumeView], operation: Operation) -> None:
    """Pods are proven gone, and all volumes but `kept`: only those go on counting."""
    quota.settle(tenant_id=cluster.tenant_id, holder=cluster.id, cause=operation.id, kept=storage_of(kept))


def take_stock() -> int:
    """Enter clusters the ledger has never heard of, made before there was one; returns how many.

    No limit refuses them: they are there. Called by `manage.py berth_setup`, which says what it did; safe to repeat.
    """
    known = LedgerEntry.objects.filter(holder=OuterRef("pk"))
    unknown = Cluster.objects.present().exclude(Exists(known))
    for cluster in unknown:
        quota.enter(
            tenant_id=cluster.tenant_id, holder=cluster.id, place=cluster.target_id,
            amounts=amounts_of(cluster.engine, cluster.spec), cause="setup",
        )  # fmt: skip
    return len(unknown)


def enforced_name(resource: str) -> tuple[str, str] | None:
    """What Kubernetes calls a resource, and the suffix of its unit; None for what it cannot count."""
    kind, _, of = resource.partition(":")
    if kind == "storage" and of:
        return f"{of}.storageclass.storage.k8s.io/requests.storage", "Mi"
    return ENFORCED.get(resource)


def hard_limits(found: Iterable[Standing], target: str) -> dict[str, str]:
    """`spec.hard` of the tenant's ResourceQuota on one target.

    The target's own limit, and of the overall limit what other targets have left of it. Never less than what the ledger
    holds here: a limit lowered under use must not keep a pod that died from coming back.
    """
    rows = {(one.place, one.resource): one for one in found}
    hard = {}
    for resource in sorted({one.resource for one in rows.values()}):
        named = enforced_name(resource)
        overall, here = rows.get((OVERALL, resource)), rows.get((target, resource))
        held = here.used + here.reserved if here else 0
        most = []
        if here and here.limit is not None:
            most.append(here.limit)
        if overall and overall.limit is not None:
            most.append(overall.limit - (overall.used + overall.reserved - held))
        if named and most:
            hard[named[0]] = f"{max(held, min(most))}{named[1]}"
    return hard
