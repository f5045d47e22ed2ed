"""The proof that the ledger says what Kubernetes really requests. Differences are reported and never mended.

1. Read the ledger, then list what the namespace requests, then read the ledger again. A holder whose numbers or open
   operations changed in between is left for the next time: nothing could be said about it.
2. A cluster at rest (ready, degraded, deleted with volumes kept) must request exactly what it holds. One that is being
   changed, or whose change failed, may request less, never more.
3. What belongs to no cluster of ours holds nothing.
4. Each hold must be the sum of its entries.
5. What is reserved belongs to an operation that is open; what counts as a cluster is one that is not deleted.

While a target cannot be asked, 4 and 5 are proven from the database alone, and no finding ends: what Kubernetes would
say is not known.

A difference becomes a QuotaFinding, a line in the log and an event of the cluster; once it is gone, it is ended.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from provisioning.apply import errors
from provisioning.apply.requests import requested
from provisioning.clusters.quota import enforced_name
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Cluster, ClusterEvent, Operation, Phase, Target
from tenants.models import LedgerEntry, QuotaFinding, QuotaHold, QuotaTotal, Tenant
from tenants.quota import spoken, unexplained

log = logging.getLogger(__name__)
AT_REST = (Phase.READY, Phase.DEGRADED, Phase.DELETED)


@dataclass(frozen=True)
class Difference:
    """One resource of one holder ("" for nobody's) where ledger and observation are not equal."""

    holder: str
    resource: str
    ledger: int
    observed: int
    note: str


@dataclass(frozen=True)
class _Snapshot:
    """What the ledger says of one tenant on one target."""

    # Holder to resource to (used, reserved).
    holds: dict[str, dict[str, tuple[int, int]]]
    phases: dict[str, str]
    busy: frozenset[str]

    def of(self, holder: str) -> tuple[dict[str, tuple[int, int]], str | None, bool]:
        return self.holds.get(holder, {}), self.phases.get(holder), holder in self.busy


def prove(tenant: Tenant, target: Target) -> list[Difference]:
    """Compare and report for one tenant on one target; returns the differences of this look. Raises a DoorError."""
    before = _snapshot(tenant, target)
    try:
        observed = requested(client_for(target), namespace_of(tenant.slug))
    except errors.Absent:
        observed = {}
    return _compare(tenant, target, before, observed)


def prove_books(tenant: Tenant, target: Target) -> list[Difference]:
    """The same as far as the database alone can tell, for a target that cannot be asked."""
    return _compare(tenant, target, _snapshot(tenant, target), None)


def prove_all() -> None:
    """All tenants on all targets where they have, or ever had, anything.

    Of a target that cannot be asked, which is logged, the books are proven; the rest is left for the next time.
    """
    pairs = QuotaHold.objects.values_list("tenant_id", "place").union(
        # Who holds nothing (any more) may have left something running, or may be missing what the entries say.
        LedgerEntry.objects.values_list("tenant_id", "place"),
        QuotaTotal.objects.values_list("tenant_id", "place"),
        Cluster.objects.values_list("tenant_id", "target_id"),
        QuotaFinding.objects.filter(ended=None).values_list("tenant_id", "place"),
    )
    by_target: dict[str, list[str]] = defaultdict(list)
    for tenant_id, place in pairs:
        by_target[place].append(tenant_id)
    for target in Target.objects.filter(name__in=by_target):
        is_away = False
        for tenant in Tenant.objects.filter(pk__in=by_target[target.name]).order_by("pk"):
            if not is_away:
                try:
                    prove(tenant, target)
                    continue
                except errors.DoorError as error:
                    log.warning("%s", error.message, extra={"target": target.name, "code": error.code})
                    is_away = True
            prove_books(tenant, target)


def _compare(
    tenant: Tenant, target: Target, before: _Snapshot, observed: dict[str, dict[str, int]] | None
) -> list[Difference]:
    """Judge and report what has not changed since `before`. `observed`: None when Kubernetes could not be asked."""
    after = _snapshot(tenant, target)
    holders = {*before.holds, *after.holds, *(observed or {})}
    sure = {holder for holder in holders if before.of(holder) == after.of(holder)}
    found: dict[tuple[str, str], Difference] = {}
    for holder in sorted(sure):
        differences = _in_the_books(holder, after)
        if observed is not None:
            differences += _in_kubernetes(holder, after, observed.get(holder, {}))
        found |= {(holder, one.resource): one for one in differences}
    for place, holder, resource, hold, entries in unexplained(tenant.pk):
        if place == target.name:
            sure.add(holder)
            what = "hold" if holder else "tenant's total"
            note = f"The {what} is not the sum of the ledger's entries: a defect of Berth, or a hand in the database."
            found[holder, resource] = Difference(holder, resource, hold, entries, note)
    _report(tenant, target, list(found.values()), unsure=None if observed is None else holders - sure)
    return list(found.values())


def _snapshot(tenant: Tenant, target: Target) -> _Snapshot:
    holds: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for hold in QuotaHold.objects.filter(tenant=tenant, place=target.name):
        holds[hold.holder][hold.resource] = hold.used, hold.reserved
    clusters = Cluster.objects.filter(tenant=tenant, target=target)
    # Deleted ones that hold nothing are history.
    phases = dict(clusters.present().values_list("pk", "phase"))
    phases |= dict(clusters.filter(pk__in=list(holds)).values_list("pk", "phase"))
    busy = Operation.objects.open().filter(cluster__tenant=tenant, cluster__target=target)
    return _Snapshot(dict(holds), phases, frozenset(busy.values_list("cluster_id", flat=True)))


def _in_the_books(holder: str, ledger: _Snapshot) -> list[Difference]:
    holds, phase, is_busy = ledger.of(holder)
    found = []
    counted = sum(holds.get("clusters", ()))
    if counted and phase in (None, Phase.DELETED):
        found.append(Difference(holder, "clusters", counted, 0, "It is deleted, and counts as a cluster all the same."))
    for resource, (_, reserved) in sorted(holds.items()):
        if reserved and not is_busy:
            note = f"{spoken(resource, reserved)} are reserved for an operation that has ended."
            found.append(Difference(holder, resource, reserved, 0, note))
    return found


def _in_kubernetes(holder: str, ledger: _Snapshot, observed: dict[str, int]) -> list[Difference]:
    holds, phase, is_busy = ledger.of(holder)
    exact = phase in AT_REST and not is_busy
    found = []
    # Only what Kubernetes counts too.
    held = {resource: sum(amounts) for resource, amounts in holds.items() if enforced_name(resource)}
    for resource in sorted({*held, *observed}):
        has, asks = held.get(resource, 0), observed.get(resource, 0)
        if asks > has or (exact and asks < has):
            found.append(Difference(holder, resource, has, asks, _note(holder, phase, resource, has, asks)))
    return found


def _note(holder: str, phase: str | None, resource: str, has: int, asks: int) -> str:
    if not holder:
        return f"{spoken(resource, asks)} in the tenant's namespace belong to no cluster: find and delete them."
    if phase == Phase.DELETED and asks < has:
        return "Kept volumes were removed by hand: remove them in Berth too, so that they stop counting."
    if phase is None:
        return f"Kubernetes runs {spoken(resource, asks)} of a cluster Berth does not know or has deleted."
    return f"The ledger counts {spoken(resource, has)}, Kubernetes requests {spoken(resource, asks)}."


def _report(tenant: Tenant, target: Target, found: list[Difference], *, unsure: set[str] | None) -> None:
    """Findings of holders in `unsure` (None: of all) do not end."""
    now = timezone.now()
    with transaction.atomic():
        still = QuotaFinding.objects.select_for_update().filter(tenant=tenant, place=target.name, ended=None)
        known = {(one.holder, one.resource): one for one in still}
        for one in found:
            row = known.pop((one.holder, one.resource), None)
            if row is not None:
                row.ledger, row.observed, row.note, row.last_seen = one.ledger, one.observed, one.note, now
                row.save(update_fields=["ledger", "observed", "note", "last_seen"])
                continue
            QuotaFinding.objects.create(
                tenant=tenant, place=target.name, holder=one.holder, resource=one.resource, ledger=one.ledger,
                observed=one.observed, note=one.note, last_seen=now,
            )  # fmt: skip
            log.warning(
                "quota ledger and Kubernetes differ: %s", one.note,
                extra={"tenant": tenant.slug, "target": target.name, "cluster_id": one.holder,
                       "resource": one.resource, "ledger": one.ledger, "observed": one.observed},
            )  # fmt: skip
            if Cluster.objects.filter(pk=one.holder).exists():
                ClusterEvent.objects.create(
                    cluster_id=one.holder, reason="QuotaDiffers", message=one.note, object=one.resource, warning=True
                )
        for (holder, resource), row in known.items():
            if unsure is not None and holder not in unsure:
                QuotaFinding.objects.filter(pk=row.pk).update(ended=now)
                log.info("quota ledger and Kubernetes agree again", extra={"cluster_id": holder, "resource": resource})
