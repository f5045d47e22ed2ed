"""The quota ledger: how much a tenant may hold, what it holds, and which operation moved each number.

This module knows nothing of what is held. A `holder`, a `cause` and a `place` are opaque ids; a resource is a key:

    clusters            count           clusters:<engine>   count of one engine
    pods                count           cpu                 millicores of requests
    memory              MiB of requests storage             MiB over all classes
    storage:<class>     MiB of one storage class

Every number has two parts. `reserved` was promised to an operation that has not ended; `used` stays until it is
released. Both count against a limit. Movements:

    reserve   before anything is written: the growth over what the holder has, refused when a limit would be passed
    commit    the operation has ended: reserved becomes used
    release   something is proven gone

Every function takes the lock of the tenant's row first (SELECT … FOR NO KEY UPDATE, which lets rows that only refer to
the tenant be inserted meanwhile) and does all of its reading after that. So two movements of one tenant never see the
same free room. Callers run them in the transaction that writes what the movement is about: a process killed in between
leaves neither. A caller that also locks rows of its own locks those first.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from operator import add

from django.db import transaction
from django.db.models import Sum

from tenants.access import require_active
from tenants.models import EntryKind, LedgerEntry, QuotaHold, QuotaLimit, QuotaTotal, Tenant, User
from tenants.refusals import Conflict

log = logging.getLogger(__name__)

# Resource key to amount, in the unit of the resource.
Amounts = Mapping[str, int]
# (place, resource) to (used, reserved).
Totals = Mapping[tuple[str, str], tuple[int, int]]

OVERALL = ""
UNITS: Mapping[str, str] = {"clusters": "", "pods": "", "cpu": "millicores", "memory": "MiB", "storage": "MiB"}


def unit_of(resource: str) -> str:
    """The unit of a resource's numbers, "" for counts."""
    return UNITS[resource.partition(":")[0]]


def spoken(resource: str, amount: int) -> str:
    """An amount for people: "1.5 CPU", "2.25 GiB memory", "3 pods"."""
    kind, _, of = resource.partition(":")
    if kind == "cpu":
        return f"{amount / 1000:g} CPU"
    if kind in ("memory", "storage"):
        number = f"{amount / 1024:g} GiB" if abs(amount) >= 1024 else f"{amount} MiB"
        return f"{number} {kind}" + (f" of class {of}" if of else "")
    return f"{amount} {of + ' ' if of else ''}{kind}"


@dataclass(frozen=True)
class Standing:
    """How one resource stands at one place (OVERALL: all places). `limit` None: there is none."""

    resource: str
    place: str
    limit: int | None
    used: int
    reserved: int

    @property
    def left(self) -> int | None:
        """What may still be reserved: negative when the limit was lowered below what is held."""
        return None if self.limit is None else self.limit - self.used - self.reserved

    def short_by(self, requested: int) -> int:
        """How much of `requested` more does not fit, 0 when all does. Growth of nothing always fits."""
        return 0 if self.left is None or requested <= 0 else max(0, requested - self.left)


@dataclass(frozen=True)
class Violation:
    """One limit that `requested` more would pass."""

    resource: str
    place: str
    limit: int
    used: int
    reserved: int
    requested: int
    short_by: int


class QuotaExceeded(Conflict):
    """409 quota_exceeded: nothing was written."""

    def __init__(self, tenant: str, violations: Sequence[Violation]) -> None:
        first = violations[0]
        free = max(0, first.limit - first.used - first.reserved)
        where = f" on {first.place}" if first.place else ""
        more = f" {len(violations) - 1} more in violations." if len(violations) > 1 else ""
        super().__init__(
            "quota_exceeded",
            f"{spoken(first.resource, first.requested)} more do not fit: {tenant} has {spoken(first.resource, free)} "
            f"left{where} of {spoken(first.resource, first.limit)}.{more}",
            suggestion=f"Ask for less, delete what is not needed (GET /api/v1/tenants/{tenant}/quota shows which "
            "cluster holds what), or ask a platform administrator to raise the limit; an owner of the tenant can say "
            "what may go.",
        )
        self.violations = tuple(violations)


def reserve(*, tenant_id: str, holder: str, place: str, wanted: Amounts, cause: str, by: User | None = None) -> None:
    """Promise `holder` what `wanted` exceeds of what it has; less is not given back here (see `settle`).

    `by` is who asks, if it is a person's change: refused in a suspended tenant, under the same lock as the numbers.
    Raises QuotaExceeded when a limit would be passed by a resource that grows, Forbidden; nothing is written then.
    """
    # Without a savepoint in a caller's transaction: a refusal comes before anything is written.
    with nullcontext() if transaction.get_connection().in_atomic_block else transaction.atomic():
        tenant = _lock(tenant_id)
        if by is not None:
            require_active(tenant=tenant, user=by)
        held = _held(holder)
        growth = growth_over(wanted, {resource: hold.used + hold.reserved for resource, hold in held.items()})
        if not growth:
            return
        totals = _totals(tenant_id)
        violations = violations_of(_standings(tenant_id, totals), place, growth)
        if violations:
            raise QuotaExceeded(tenant.slug, violations)
        changes = {resource: (0, amount) for resource, amount in growth.items()}
        _write(EntryKind.RESERVE, tenant_id, holder, place, cause, held, changes, totals)


def enter(*, tenant_id: str, holder: str, place: str, amounts: Amounts, cause: str) -> None:
    """Write down as used what `holder` has had all along, whatever the limits say. It must not be known yet."""
    with transaction.atomic():
        _lock(tenant_id)
        held = _held(holder)
        changes = {resource: (amount, 0) for resource, amount in amounts.items() if amount and resource not in held}
        if changes:
            _write(EntryKind.COMMIT, tenant_id, holder, place, cause, held, changes)


def commit(*, tenant_id: str, holder: str, cause: str) -> None:
    """Turn all that is reserved for `holder` into used: its operation has ended without giving anything back."""
    with transaction.atomic():
        _lock(tenant_id)
        held = _held(holder)
        _commit(tenant_id, holder, cause, held)


def settle(*, tenant_id: str, holder: str, cause: str, kept: Amounts) -> None:
    """The operation `cause` has ended, and `holder` is proven to have no more than `kept`: the rest is released.

    `kept` beyond what is held is not taken: only `reserve` grows a number. Asked again, it changes nothing.
    """
    with transaction.atomic():
        _lock(tenant_id)
        held = _held(holder)
        _commit(tenant_id, holder, cause, held)
        surplus = {
            resource: (kept.get(resource, 0) - hold.used, 0)
            for resource, hold in held.items()
            if kept.get(resource, 0) < hold.used
        }
        if surplus:
            place = next(iter(held.values())).place
            _write(EntryKind.RELEASE, tenant_id, holder, place, cause, held, surplus)


def standings(tenant_id: str) -> list[Standing]:
    """How every resource with a limit or a number stands, overall first, then per place. Two queries."""
    return _standings(tenant_id, _totals(tenant_id))


def _totals(tenant_id: str) -> Totals:
    rows = QuotaTotal.objects.filter(tenant=tenant_id).values_list("place", "resource", "used", "reserved")
    return {(place, resource): (used, reserved) for place, resource, used, reserved in rows}


def _standings(tenant_id: str, totals: Totals) -> list[Standing]:
    sums: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (place, resource), (used, reserved) in totals.items():
        for where in (OVERALL, place) if used or reserved else ():
            before = sums[where, resource]
            sums[where, resource] = before[0] + used, before[1] + reserved
    limits = {(limit.place, limit.resource): limit.limit for limit in QuotaLimit.objects.filter(tenant=tenant_id)}
    return [
        Standing(resource, place, limits.get((place, resource)), *sums[place, resource])
        for place, resource in sorted({*sums, *limits}, key=_order)
    ]


def _order(key: tuple[str, str]) -> tuple[str, int, str]:
    place, resource = key
    return place, list(UNITS).index(resource.partition(":")[0]), resource


def violations_of(found: Iterable[Standing], place: str, growth: Amounts) -> list[Violation]:
    """The limits, overall and at `place`, that `growth` would pass."""
    violations = []
    for one in found:
        requested = growth.get(one.resource, 0)
        short_by = one.short_by(requested)
        if short_by and one.limit is not None and one.place in (OVERALL, place):
            violations.append(
                Violation(one.resource, one.place, one.limit, one.used, one.reserved, requested, short_by)
            )
    return violations


def growth_over(wanted: Amounts, held: Amounts) -> dict[str, int]:
    """What `wanted` has more than `held`, resource by resource."""
    more = {resource: amount - held.get(resource, 0) for resource, amount in wanted.items()}
    return {resource: amount for resource, amount in more.items() if amount > 0}


def held_by(holder: str) -> dict[str, int]:
    """All that `holder` counts for, used and reserved together."""
    return {resource: hold.used + hold.reserved for resource, hold in _held(holder).items()}


def unexplained(tenant_id: str) -> list[tuple[str, str, str, int, int]]:
    """Where a hold is not the sum of its entries: (place, holder, resource, hold, entries). Empty, or a defect.

    With "" for the holder: where a total is not the sum of all entries there.
    """
    with transaction.atomic():
        _lock(tenant_id)
        holds = {
            (hold.place, hold.holder, hold.resource): hold.used + hold.reserved
            for hold in QuotaHold.objects.filter(tenant=tenant_id)
        }
        sums = {
            (place, holder, resource): used + reserved
            for place, holder, resource, used, reserved in LedgerEntry.objects.filter(tenant=tenant_id)
            .values_list("place", "holder", "resource")
            .annotate(Sum("used_change"), Sum("reserved_change"))
        }
        holds |= {
            (place, "", resource): used + reserved for (place, resource), (used, reserved) in _totals(tenant_id).items()
        }
    for (place, _, resource), amount in list(sums.items()):
        sums[place, "", resource] = sums.get((place, "", resource), 0) + amount
    return [
        (*key, holds.get(key, 0), sums.get(key, 0))
        for key in sorted({*holds, *sums})
        if holds.get(key, 0) != sums.get(key, 0)
    ]


def replace_limits(*, tenant_id: str, limits: Mapping[tuple[str, str], int]) -> None:
    """Set the limits, (place, resource) to amount, in place of all there were.

    A limit below what is held is allowed: it takes nothing away and blocks growth of that resource only.
    """
    with transaction.atomic():
        _lock(tenant_id)
        QuotaLimit.objects.filter(tenant=tenant_id).delete()
        QuotaLimit.objects.bulk_create(
            QuotaLimit(tenant_id=tenant_id, place=place, resource=resource, limit=limit)
            for (place, resource), limit in limits.items()
        )


def _lock(tenant_id: str) -> Tenant:
    """Take the tenant's row. What is read after this is what the last movement left."""
    return Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)


def _held(holder: str) -> dict[str, QuotaHold]:
    return {hold.resource: hold for hold in QuotaHold.objects.filter(holder=holder)}


def _commit(tenant_id: str, holder: str, cause: str, held: dict[str, QuotaHold]) -> None:
    open_ones = {resource: (hold.reserved, -hold.reserved) for resource, hold in held.items() if hold.reserved}
    if open_ones:
        place = next(iter(held.values())).place
        _write(EntryKind.COMMIT, tenant_id, holder, place, cause, held, open_ones)


def _write(
    kind: EntryKind, tenant_id: str, holder: str, place: str, cause: str, held: dict[str, QuotaHold],
    changes: Mapping[str, tuple[int, int]], totals: Totals | None = None,
) -> None:  # fmt: skip
    """Append the entries, bring holds and totals up to date: `changes` is resource to (used, reserved).

    `totals`: the tenant's, if they were read under this lock already.
    """
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            tenant_id=tenant_id, kind=kind, place=place, holder=holder, cause=cause, resource=resource,
            used_change=used, reserved_change=reserved,
        )
        for resource, (used, reserved) in changes.items()
    )  # fmt: skip
    before = _totals(tenant_id) if totals is None else totals
    after = []
    for resource, change in changes.items():
        used, reserved = map(add, before.get((place, resource), (0, 0)), change)
        after.append(QuotaTotal(tenant_id=tenant_id, place=place, resource=resource, used=used, reserved=reserved))
    QuotaTotal.objects.bulk_create(
        after, update_conflicts=True, unique_fields=["tenant", "place", "resource"], update_fields=["used", "reserved"]
    )
    fresh = [
        QuotaHold(tenant_id=tenant_id, place=place, holder=holder, resource=resource)
        for resource in changes
        if resource not in held
    ]
    held.update({hold.resource: hold for hold in fresh})
    for resource, (used, reserved) in changes.items():
        hold = held[resource]
        hold.used += used
        hold.reserved += reserved
        if used:
            hold.used_by = cause
        hold.reserved_by = cause if hold.reserved else ""
    touched = [held[resource] for resource in changes]
    QuotaHold.objects.bulk_update([hold for hold in touched if hold.pk], ["used", "reserved", "used_by", "reserved_by"])
    QuotaHold.objects.bulk_create(hold for hold in fresh)
    empty = [hold for hold in touched if not hold.used and not hold.reserved]
    if empty:
        QuotaHold.objects.filter(pk__in=[hold.pk for hold in empty]).delete()
        for hold in empty:
            del held[hold.resource]
