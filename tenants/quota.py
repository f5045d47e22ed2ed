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

from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone

from tenants.access import require_active
from tenants.models import (
    EntryKind,
    LedgerEntry,
    QuotaHold,
    QuotaLimit,
    QuotaTotal,
    Tenant,
    User,
    new_entry_id,
)
from tenants.refusals import Conflict, Missing

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
        books = _open_books(tenant_id, holder)
        if by is not None:
            require_active(tenant=books.tenant, user=by)
        growth = growth_over(wanted, {resource: hold.used + hold.reserved for resource, hold in books.held.items()})
        if not growth:
            return
        violations = violations_of(_standings(books.totals, books.limits), place, growth)
        if violations:
            raise QuotaExceeded(books.tenant.slug, violations)
        _write(EntryKind.RESERVE, books, place, cause, {resource: (0, amount) for resource, amount in growth.items()})


def enter(*, tenant_id: str, holder: str, place: str, amounts: Amounts, cause: str) -> None:
    """Write down as used what `holder` has had all along, whatever the limits say. It must not be known yet."""
    with transaction.atomic():
        books = _open_books(tenant_id, holder)
        fresh = {resource: (amount, 0) for resource, amount in amounts.items() if amount and resource not in books.held}
        _write(EntryKind.COMMIT, books, place, cause, fresh)


def commit(*, tenant_id: str, holder: str, cause: str) -> None:
    """Turn all that is reserved for `holder` into used: its operation has ended without giving anything back."""
    with transaction.atomic():
        _commit(_open_books(tenant_id, holder), cause)


def settle(*, tenant_id: str, holder: str, cause: str, kept: Amounts) -> None:
    """The operation `cause` has ended, and `holder` is proven to have no more than `kept`: the rest is released.

    `kept` beyond what is held is not taken: only `reserve` grows a number. Asked again, it changes nothing.
    """
    with transaction.atomic():
        books = _open_books(tenant_id, holder)
        _commit(books, cause)
        surplus = {
            resource: (kept.get(resource, 0) - hold.used, 0)
            for resource, hold in books.held.items()
            if kept.get(resource, 0) < hold.used
        }
        _write(EntryKind.RELEASE, books, books.place, cause, surplus)


def standings(tenant_id: str) -> list[Standing]:
    """How every resource with a limit or a number stands, overall first, then per place. Two queries."""
    limits = QuotaLimit.objects.filter(tenant=tenant_id).values_list("place", "resource", "limit")
    return _standings(_totals(tenant_id), {(place, resource): limit for place, resource, limit in limits})


def _totals(tenant_id: str) -> Totals:
    rows = QuotaTotal.objects.filter(tenant=tenant_id).values_list("place", "resource", "used", "reserved")
    return {(place, resource): (used, reserved) for place, resource, used, reserved in rows}


def _standings(totals: Totals, limits: Mapping[tuple[str, str], int]) -> list[Standing]:
    sums: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (place, resource), (used, reserved) in totals.items():
        for where in (OVERALL, place) if used or reserved else ():
            before = sums[where, resource]
            sums[where, resource] = before[0] + used, before[1] + reserved
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
        lock(tenant_id)
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
        lock(tenant_id)
        QuotaLimit.objects.filter(tenant=tenant_id).delete()
        QuotaLimit.objects.bulk_create(
            QuotaLimit(tenant_id=tenant_id, place=place, resource=resource, limit=limit)
            for (place, resource), limit in limits.items()
        )


def lock(tenant_id: str) -> Tenant:
    """Take the tenant's row. What is read after this is what the last movement left. Raises Missing."""
    tenant = Tenant.objects.select_for_update(no_key=True).filter(pk=tenant_id).first()
    if tenant is None:
        raise _gone()
    return tenant


def _gone() -> Missing:
    return Missing("not_found", "The tenant was deleted meanwhile.")


def _held(holder: str) -> dict[str, QuotaHold]:
    return {hold.resource: hold for hold in QuotaHold.objects.filter(holder=holder)}


@dataclass
class _Books:
    """What a movement goes by, read under the lock of the tenant's row. `held`: what the holder has, by resource."""

    tenant: Tenant
    holder: str
    held: dict[str, QuotaHold]
    totals: dict[tuple[str, str], tuple[int, int]]
    limits: dict[tuple[str, str], int]

    @property
    def place(self) -> str:
        """Where the holder is; all of it is at one place. "" when it holds nothing."""
        return next((hold.place for hold in self.held.values()), "")


# Orders of one tenant wait for each other from here to the commit, so all of it is one message. The statements are
# worked off one after the other, and each sees what was committed before it began (READ COMMITTED): whatever stands
# after the first is what the last movement left.
_OPEN = """
SELECT id, slug, suspended FROM tenants_tenant WHERE id = %s FOR NO KEY UPDATE;
SELECT resource, place, used, reserved, used_by, reserved_by FROM tenants_quotahold WHERE holder = %s;
SELECT place, resource, used, reserved FROM tenants_quotatotal WHERE tenant_id = %s;
SELECT place, resource, "limit" FROM tenants_quotalimit WHERE tenant_id = %s
"""
# Lists in place of one VALUES for each row: so the text is always the same, and need not be taken apart anew.
_WRITE = """
INSERT INTO tenants_ledgerentry
    (id, tenant_id, kind, place, holder, cause, resource, used_change, reserved_change, created)
SELECT id, %(tenant)s, %(kind)s, %(place)s, %(holder)s, %(cause)s, resource, used, reserved, %(now)s
FROM unnest(%(ids)s::text[], %(resources)s::text[], %(used)s::bigint[], %(reserved)s::bigint[])
    AS change (id, resource, used, reserved);
INSERT INTO tenants_quotatotal (tenant_id, place, resource, used, reserved)
SELECT %(tenant)s, %(place)s, resource, used, reserved
FROM unnest(%(resources)s::text[], %(total_used)s::bigint[], %(total_reserved)s::bigint[])
    AS total (resource, used, reserved)
ON CONFLICT (tenant_id, place, resource) DO UPDATE SET used = EXCLUDED.used, reserved = EXCLUDED.reserved;
INSERT INTO tenants_quotahold (tenant_id, place, holder, resource, used, reserved, used_by, reserved_by)
SELECT %(tenant)s, place, %(holder)s, resource, used, reserved, used_by, reserved_by
FROM unnest(%(hold_places)s::text[], %(resources)s::text[], %(hold_used)s::bigint[], %(hold_reserved)s::bigint[],
    %(used_by)s::text[], %(reserved_by)s::text[]) AS hold (place, resource, used, reserved, used_by, reserved_by)
ON CONFLICT (holder, resource) DO UPDATE SET used = EXCLUDED.used, reserved = EXCLUDED.reserved,
    used_by = EXCLUDED.used_by, reserved_by = EXCLUDED.reserved_by
"""
_DROP_EMPTY = "DELETE FROM tenants_quotahold WHERE holder = %s AND used = 0 AND reserved = 0"


def _open_books(tenant_id: str, holder: str) -> _Books:
    """Take the tenant's row, and read what the last movement left. Raises Missing."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [tenant_id, holder, tenant_id, tenant_id])
        found = []
        for _ in range(4):
            found.append(cursor.fetchall())
            cursor.nextset()
    tenants, holds, totals, limits = found
    if not tenants:
        raise _gone()
    ((key, slug, suspended),) = tenants
    return _Books(
        tenant=Tenant(id=key, slug=slug, suspended=suspended),
        holder=holder,
        held={
            resource: QuotaHold(
                tenant_id=key, place=place, holder=holder, resource=resource, used=used, reserved=reserved,
                used_by=used_by, reserved_by=reserved_by,
            )
            for resource, place, used, reserved, used_by, reserved_by in holds
        },
        totals={(place, resource): (used, reserved) for place, resource, used, reserved in totals},
        limits={(place, resource): limit for place, resource, limit in limits},
    )  # fmt: skip


def _commit(books: _Books, cause: str) -> None:
    open_ones = {resource: (hold.reserved, -hold.reserved) for resource, hold in books.held.items() if hold.reserved}
    _write(EntryKind.COMMIT, books, books.place, cause, open_ones)


def _write(kind: EntryKind, books: _Books, place: str, cause: str, changes: Mapping[str, tuple[int, int]]) -> None:
    """Append the entries, bring holds and totals up to date: `changes` is resource to (used, reserved)."""
    if not changes:
        return
    for resource, (used, reserved) in changes.items():
        before = books.totals.get((place, resource), (0, 0))
        books.totals[place, resource] = before[0] + used, before[1] + reserved
        hold = books.held.setdefault(resource, QuotaHold(place=place, resource=resource))
        hold.used += used
        hold.reserved += reserved
        if used:
            hold.used_by = cause
        hold.reserved_by = cause if hold.reserved else ""
    totals = [books.totals[place, resource] for resource in changes]
    holds = [books.held[resource] for resource in changes]
    with connection.cursor() as cursor:
        cursor.execute(
            _WRITE,
            {
                "tenant": books.tenant.id, "kind": kind.value, "place": place, "holder": books.holder, "cause": cause,
                "now": timezone.now(), "ids": [new_entry_id() for _ in changes], "resources": list(changes),
                "used": [used for used, _ in changes.values()],
                "reserved": [reserved for _, reserved in changes.values()],
                "total_used": [used for used, _ in totals], "total_reserved": [reserved for _, reserved in totals],
                "hold_places": [hold.place for hold in holds], "hold_used": [hold.used for hold in holds],
                "hold_reserved": [hold.reserved for hold in holds], "used_by": [hold.used_by for hold in holds],
                "reserved_by": [hold.reserved_by for hold in holds],
            },
        )  # fmt: skip
        if any(not hold.used and not hold.reserved for hold in holds):
            cursor.execute(_DROP_EMPTY, [books.holder])
            books.held = {resource: hold for resource, hold in books.held.items() if hold.used or hold.reserved}
