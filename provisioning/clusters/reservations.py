"""Addresses of a tenant's pods that rest, and who had them: asked of every target the tenant's clusters are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from provisioning.apply import errors
from provisioning.apply.reservations import Hold, Standing, holds_of_tenant, standing
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Cluster, Target
from tenants.models import Tenant
from tenants.refusals import Unavailable


@dataclass(frozen=True)
class Reservation:
    """A hold, the target it is on, and the cluster whose pod had the address; None when that cannot be told."""

    hold: Hold
    target: str
    cluster: Cluster | None


@dataclass(frozen=True)
class Reservations:
    """`targets` are those that were asked."""

    targets: dict[str, Standing]
    found: list[Reservation]


def reservations_of(*, tenant: Tenant, clusters: Sequence[Cluster], targets: Sequence[Target]) -> Reservations:
    """What ipreserve says on these targets. `clusters` are the tenant's, deleted ones too, to name the owners by.

    Raises Unavailable when one of the targets does not answer: half an answer would look like a whole one.
    """
    namespace = namespace_of(tenant.slug)
    standings: dict[str, Standing] = {}
    found: list[Reservation] = []
    for target in targets:
        here = [one for one in clusters if one.target_id == target.pk]
        try:
            client = client_for(target)
            standings[target.pk] = standing(client)
            holds = holds_of_tenant(
                client, service=settings.IPRESERVE_NAMESPACE, namespace=namespace, tenant_id=tenant.pk
            )
        except errors.DoorError as error:
            raise Unavailable(
                "target_unreachable", f"Target {target.name}: {error.message}", suggestion=error.remedy
            ) from error
        found += [Reservation(hold, target.pk, cluster_of(hold, here)) for hold in holds]
    return Reservations(standings, found)


def cluster_of(hold: Hold, clusters: Sequence[Cluster]) -> Cluster | None:
    """Whose pod it was: engines name workloads `<cluster>` or `<cluster>-…`; a name may be used again after a deletion.

    Of several that fit, the one that lived then and has the longest name, since `a-b-0` may be of `a` or of `a-b`.
    """
    workload = hold.owner.partition("/")[2] or hold.pod.rpartition("-")[0]
    fitting = [
        one
        for one in clusters
        if (workload == one.name or workload.startswith(f"{one.name}-"))
        and one.created <= hold.first
        and (one.deleted_at is None or hold.first <= one.deleted_at)
    ]
    known = [one for one in fitting if any(entry.get("name") == workload for entry in one.inventory)]
    return max(known or fitting, key=lambda one: (len(one.name), one.created), default=None)
