"""What becomes of each barred address: one pure decision from one picture of the cluster.

The sweeper takes the picture, asks `decide`, and writes what it says. Nothing here knows Kubernetes.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from ipreserve.records import REMEMBERED, Address, End, Record, State, canonical, order, parse_duration, unknown

# One ledger and one IPReservation are enough below this; the price of a write grows with its length.
SHARD_SIZE = 2000
SHARD_BYTES = 700_000
FIRST_SPLIT = 16
# From here on the list is written as ranges: Calico walks all of it for every pod that starts.
AGGREGATE_FROM = 5000
LARGEST_RANGE = 256
# Neighbours share a shard, so that the addresses of one lost node still join into ranges.
SHARD_BITS = 4
COUNT_FACTOR = 1.2
DEFAULT_MAX_PODS = 110
# Calico's own limit when nothing is set, and it does not borrow once it is reached.
DEFAULT_BLOCKS_PER_HOST = 20
POLICIES = ("reserve", "short", "skip")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Times in seconds. `max_count` is the most addresses that rest at once."""

    hold: float = 3600.0
    short_hold: float = 120.0
    max_count: int = math.ceil(COUNT_FACTOR * DEFAULT_MAX_PODS)
    cancel_after: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that the API server has. `asks` are addresses it wants by name (Calico's annotation)."""

    uid: str
    namespace: str
    name: str
    node: str
    owner: str
    addresses: tuple[Address, ...]
    created: float
    deleting: bool = False
    ended: bool = False
    asks: tuple[Address, ...] = ()

    @property
    def workload(self) -> tuple[str, str]:
        """Pods of one workload may take over each other's address without harm to anybody else."""
        return self.namespace, self.owner or self.name


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of Calico's IPAM. `queue` is the order in which its free addresses will be given out."""

    cidr: str
    host: str
    allocated: frozenset[Address]
    queue: tuple[Address, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """A pool of Calico. `block` is the prefix length of its blocks."""

    cidr: str
    block: int
    disabled: bool = False


@dataclass(frozen=True, kw_only=True)
class Ipam:
    """What Calico has given out."""

    blocks: tuple[Block, ...]
    pools: tuple[Range, ...] = ()
    strict: bool = False
    blocks_per_host: int = DEFAULT_BLOCKS_PER_HOST

    def allocated(self) -> frozenset[Address]:
        """All addresses that somebody has."""
        return frozenset().union(*(block.allocated for block in self.blocks)) if self.blocks else frozenset()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A StatefulSet as far as policies ask."""

    replicas: int
    deleting: bool
    annotations: Mapping[str, str] = field(default_factory=dict)
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The cluster at one moment. `ipam` is None where Calico's blocks cannot be read.

    `workloads` are StatefulSets by (namespace, name); None when they could not be read. `defaults` are the policy
    annotations of namespaces. `unrecorded` are addresses that the sweep before also saw barred without a record.
    """

    now: float
    records: Mapping[Address, Record]
    barred: frozenset[Address]
    pods: Sequence[Pod]
    ipam: Ipam | None
    workloads: Mapping[tuple[str, str], Workload] | None = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unrecorded: frozenset[Address] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write. `records` holds only those that change; a record that ends is in state releasing, with its end.

    `protect` are recorded addresses that are not barred. `ended` is in the order of release, oldest first.
    """

    records: Mapping[Address, Record]
    protect: frozenset[Address]
    ended: tuple[Address, ...]
    adopted: frozenset[Address]
    unrecorded: frozenset[Address]
    swaps: tuple[Address, ...]
    held: int
    shortage: Mapping[str, int]


# --- sets and shards ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=REMEMBERED)
def shard_of(one: Address, shards: int) -> int:
    """The shard of an address, by a hash of its 16 neighbours' common prefix."""
    if shards == 1:
        return 0
    version, number, _ = order(one)
    prefix = (number >> SHARD_BITS << SHARD_BITS).to_bytes(4 if version == 4 else 16, "big")
    # Not a checksum: those are linear, and regular addresses would meet in a few shards.
    return int.from_bytes(hashlib.blake2b(prefix, digest_size=4).digest(), "big") % shards


def shards_for(entries: int, now: int, *, largest: int = 0) -> int:
    """How many shards hold so many addresses: 1, 16, 32, 64 …; never fewer than there are now.

    `largest` is the size of the largest ledger in bytes: long names fill a ConfigMap (1 MiB) before the count does.
    """

    def more(than: int) -> int:
        return FIRST_SPLIT if than == 1 else than * 2

    wanted = 1
    while entries > SHARD_SIZE * wanted:
        wanted = more(wanted)
    return max(wanted, more(now) if largest > SHARD_BYTES else now)


def render(addresses: Iterable[Address], *, ranges: Iterable[str] = (), aggregate: bool = False) -> list[str]:
    """The list for Calico: canonical, unique, sorted; whole ranges where `aggregate` is set."""
    if not aggregate:
        return sorted({canonical(one) for one in addresses} | set(ranges), key=order)
    numbers: dict[int, set[int]] = {4: set(), 6: set()}
    for one in addresses:
        version, number, _ = order(one)
        numbers[version].add(number)
    return sorted({*_joined(numbers[4], 4), *_joined(numbers[6], 6), *ranges}, key=order)


def _joined(numbers: set[int], version: int) -> Iterator[str]:
    """The fewest CIDRs that hold exactly these; none longer than what a reader is sure to take apart again."""
    bits, make = (32, ipaddress.IPv4Address) if version == 4 else (128, ipaddress.IPv6Address)
    left = sorted(numbers)
    start = 0
    while start < len(left):
        first = left[start]
        size = 1
        # Twice as many, if the first one is at such a boundary and the last one of them is there.
        while (
            size < LARGEST_RANGE
            and first % (2 * size) == 0
            and start + 2 * size <= len(left)
            and left[start + 2 * size - 1] == first + 2 * size - 1
        ):
            size *= 2
        yield f"{make(first)}/{bits - size.bit_length() + 1}"
        start += size


def max_count(pods_per_node: Iterable[int]) -> int:
    """1.2 times the pods of the largest node: what one lost node can leave behind, and a fifth."""
    return math.ceil(COUNT_FACTOR * max(pods_per_node, default=DEFAULT_MAX_PODS))


# --- policies -------------------------------------------------------------------------------------------------------


def hold_for(record: Record, picture: Picture, rules: Rules) -> float:
    """Seconds that the address rests, by the annotations of its StatefulSet, its pod, its namespace, in this order.

    A value that makes no sense counts as not set: the longer hold is the safe side.
    """
    kind, _, name = record.owner.partition("/")
    workload = None
    if picture.workloads is not None and kind == "StatefulSet":
        workload = picture.workloads.get((record.namespace, name))
    layers = (
        workload.annotations if workload is not None else {},
        record.policy,
        picture.defaults.get(record.namespace, {}),
    )

    def setting(which: str) -> str | None:
        return next((layer[which] for layer in layers if which in layer), None)

    hold = rules.hold
    said = setting("hold")
    if said == "skip":
        return 0.0
    if said is not None:
        try:
            hold = parse_duration(said)
        except ValueError:
            hold = rules.hold
    cause = None
    if kind == "StatefulSet" and picture.workloads is not None:
        if workload is None or workload.deleting:
            cause = "on-owner-delete"
        elif ordinal(record.pod) >= workload.start + workload.replicas:
            cause = "on-scale-down"
    answer = setting(cause) if cause is not None else None
    return {"short": min(hold, rules.short_hold), "skip": 0.0}.get(answer or "reserve", hold)


def ordinal(pod: str) -> int:
    """The number at the end of a StatefulSet pod's name; -1 when it has none."""
    tail = pod.rpartition("-")[2]
    return int(tail) if tail.isdecimal() else -1


# --- the decision ---------------------------------------------------------------------------------------------------


def decide(picture: Picture, rules: Rules) -> Plan:
    """What to write now.

    1. Each record moves along its states, by the pods and by Calico's blocks.
    2. What is barred without a record gets one, the second time it is seen: the first time it may be on its way.
    3. Holds end by time, then by count, then because a pool or a node would run dry; oldest freed first.
    4. What is recorded and not barred is barred again.
    An address in use is never released, nor one that a live pod asks for by name.
    """
    now = picture.now
    by_uid = {pod.uid: pod for pod in picture.pods}
    users: dict[Address, Pod] = {}
    for pod in sorted(picture.pods, key=lambda one: one.created):
        # A pod that has ended keeps its address in its status only; somebody else may have it by now.
        if not pod.ended:
            users.update(dict.fromkeys(pod.addresses, pod))
    asked = {one for pod in picture.pods for one in pod.asks if not pod.ended}
    allocated = picture.ipam.allocated() if picture.ipam is not None else None

    after: dict[Address, Record] = {}
    swaps: list[Address] = []
    for one, record in picture.records.items():
        after[one] = _step(one, _clamped(record, now), by_uid, users, allocated, picture, rules)
        if after[one].swapped and not record.swapped:
            swaps.append(one)
    adopted = {one for one in picture.barred - set(picture.records) if one in picture.unrecorded}
    for one in sorted(adopted, key=order):
        user = users.get(one)
        found = unknown(at=now)
        if user is not None:
            found = replace(
                found, namespace=user.namespace, pod=user.name, node=user.node, uid=user.uid, owner=user.owner
            )
        after[one] = _step(one, found, by_uid, users, allocated, picture, rules)
    busy = set(users) | (allocated or set()) | asked
    held = {one: r for one, r in after.items() if r.state is State.FREED and one not in busy}
    queue = sorted(held, key=lambda one: (_freed(held[one]), held[one].seq, order(one)))

    def end(which: Address, why: End) -> None:
        after[which] = replace(after[which], state=State.RELEASING, end=why)
        del held[which]

    for one in queue:
        hold = held[one].hold
        if now - _freed(held[one]) >= (rules.hold if hold is None else hold):
            end(one, End.SKIPPED if hold == 0.0 else End.EXPIRED)
    for one in [one for one in queue if one in held][: max(0, len(held) - rules.max_count)]:
        end(one, End.CROWDED)
    shortage: dict[str, int] = {}
    if picture.ipam is not None:
        waiting: dict[str, int] = defaultdict(int)
        for pod in picture.pods:
            if pod.node and not pod.addresses and not pod.ended and not pod.deleting:
                waiting[pod.node] += 1
        barred_now = (picture.barred | set(after)) - {o for o, r in after.items() if r.state is State.RELEASING}
        victims, shortage = relieve(picture.ipam, [one for one in queue if one in held], barred_now, waiting)
        for one in victims:
            end(one, End.PRESSURE)

    # Most are the very same: comparing all fields of each would cost more than the rest.
    changed = {
        one: record
        for one, record in after.items()
        if (before := picture.records.get(one)) is not record and before != record
    }
    ended = [one for one, record in after.items() if record.state is State.RELEASING]
    place = {one: number for number, one in enumerate(queue)}
    ended.sort(key=lambda one: (place.get(one, -1), order(one)))
    return Plan(
        records=changed,
        protect=frozenset(o for o, r in after.items() if r.state is not State.RELEASING) - picture.barred,
        ended=tuple(ended),
        adopted=frozenset(adopted),
        unrecorded=frozenset(picture.barred - set(picture.records) - adopted),
        swaps=tuple(swaps),
        held=len(held),
        shortage=shortage,
    )


def _freed(record: Record) -> float:
    return record.freed if record.freed is not None else record.last


def _clamped(record: Record, now: float) -> Record:
    """Times of the future become now: a clock that was ahead must not stretch a hold."""
    if max(record.first, record.last, record.freed or 0, record.terminating or 0) <= now:
        return record
    return replace(
        record, first=min(record.first, now), last=min(record.last, now),
        terminating=None if record.terminating is None else min(record.terminating, now),
        freed=None if record.freed is None else min(record.freed, now),
    )  # fmt: skip


def _step(
    one: Address, record: Record, by_uid: Mapping[str, Pod], users: Mapping[Address, Pod],
    allocated: frozenset[Address] | None, picture: Picture, rules: Rules,
) -> Record:  # fmt: skip
    """One record, one sweep further."""
    now = picture.now
    user = users.get(one)
    if record.state is State.RELEASING:
        if user is None or record.end in (End.CANCELLED, End.RETURNED):
            return record
        # A release that was cut short goes on, unless somebody got the address meanwhile.
        record = replace(record, state=State.FREED, freed=_freed(record), end=None)
    if not record.uid and user is not None and (user.namespace, user.name) == (record.namespace, record.pod):
        # Another tool wrote this one, without the pod's uid.
        record = replace(record, uid=user.uid, owner=user.owner)
    pod = by_uid.get(record.uid)
    has_it = pod is not None and one in pod.addresses and not pod.ended
    if record.state in (State.CLAIMED, State.TERMINATING) and pod is not None and has_it:
        if pod.deleting:
            return record if record.state is State.TERMINATING else _terminating(record, now)
        if record.state is State.TERMINATING or now - record.last >= rules.cancel_after:
            # Nothing undoes a deletion, so a record in terminating whose pod is not was somebody's hand.
            return replace(record, state=State.RELEASING, end=End.CANCELLED)
        return record
    if user is not None and user.uid != record.uid:
        if (user.namespace, user.name) == (record.namespace, record.pod):
            return replace(record, state=State.RELEASING, end=End.RETURNED)
        if record.state is not State.FREED and user.created <= record.first:
            # It had gone to somebody else before it was claimed: the pod that left had only kept it in its status.
            return replace(record, state=State.RELEASING, end=End.CANCELLED)
        other = user.workload != (record.namespace, record.owner or record.pod) and not record.is_unknown
        return replace(record, swapped=record.swapped or other)
    if record.state is State.FREED:
        return record
    if user is not None or (allocated is not None and one in allocated):
        return record if record.state is State.TERMINATING else _terminating(record, now)
    return replace(record, state=State.FREED, freed=now, hold=hold_for(record, picture, rules))


def _terminating(record: Record, now: float) -> Record:
    return replace(record, state=State.TERMINATING, terminating=now)


# --- the pressure valve ---------------------------------------------------------------------------------------------


def margin(size: int) -> int:
    """Addresses of a pool or node that shall stay free: a twentieth, at least 1, at most 32."""
    return max(1, min(32, size // 20))


def relieve(
    ipam: Ipam, queue: Sequence[Address], barred: Iterable[Address], waiting: Mapping[str, int]
) -> tuple[list[Address], dict[str, int]]:
    """Which holds to end, oldest first, so that pools and nodes do not run dry; and what each lacked.

    A node can use: what is free and not barred in its own blocks, whole blocks that it may still claim (the limit per
    host counts), and what is free in others' blocks, unless borrowing is off or the limit is reached: Calico then
    fails without trying to borrow. `waiting` are pods per node that have no address yet.
    """
    blocked = set(barred)
    left = list(queue)
    victims: list[Address] = []
    shortage: dict[str, int] = {}
    queues = {block.cidr: frozenset(block.queue) for block in ipam.blocks}

    def take(which: Iterable[Address], missing: int, place: str) -> bool:
        if missing <= 0:
            return False
        inside = set(which)
        chosen = [one for one in left if one in inside][:missing]
        shortage[place] = missing
        gone = set(chosen)
        left[:] = [one for one in left if one not in gone]
        blocked.difference_update(gone)
        victims.extend(chosen)
        return bool(chosen)

    for version in (4, 6):
        pools = [pool.cidr for pool in ipam.pools if not pool.disabled and _span(pool.cidr).version == version]
        if not pools:
            continue
        spans = [_span(pool) for pool in pools]
        size = sum(span.size for span in spans)
        taken = {one for block in ipam.blocks for one in block.allocated if _in_any(one, spans)}
        resting = sum(1 for one in blocked if one not in taken and _in_any(one, spans))
        needed = sum(waiting.values()) + margin(size)
        missing = needed - (size - len(taken) - resting)
        take((one for one in left if _in_any(one, spans)), missing, f"pools of IPv{version}")

    def count() -> tuple[dict[str, int], list[_Unclaimed]]:
        """Free addresses by block, and in what nobody has claimed: the same for all nodes until a hold ends."""
        return {cidr: len(free - blocked) for cidr, free in queues.items()}, _unclaimed(ipam, blocked)

    free, unclaimed = count()
    by_host: dict[str, list[Block]] = defaultdict(list)
    for block in ipam.blocks:
        by_host[block.host].append(block)
    hosts = sorted({host for host in by_host if host} | {node for node, n in waiting.items() if n})
    for host in hosts:
        own = by_host.get(host, [])
        size = sum(_span(block.cidr).size for block in own)
        usable = mine = sum(free[block.cidr] for block in own)
        more = ipam.blocks_per_host - len(own)
        if more > 0:
            usable += sum(max(0, min(one.free, more * one.block)) for one in unclaimed)
            if not ipam.strict:
                usable += sum(free.values()) - mine
        needed = waiting.get(host, 0) + (margin(size) if own else 0)
        candidates: set[Address] = set().union(*(queues[block.cidr] for block in own)) if own else set()
        if not own and not ipam.strict:
            candidates = set(left)
        if take(candidates, needed - usable, f"node {host}"):
            free, unclaimed = count()
    return victims, shortage


class _Span(NamedTuple):
    version: int
    first: int
    size: int


def _span(cidr: str) -> _Span:
    """First number and size."""
    version, first, length = order(cidr)
    return _Span(version, first, 1 << ((32 if version == 4 else 128) - length))


def _in_any(one: str, spans: Iterable[_Span]) -> bool:
    version, number, _ = order(one)
    return any(span.version == version and span.first <= number < span.first + span.size for span in spans)


class _Unclaimed(NamedTuple):
    """Of one pool: addresses in blocks that nobody has claimed and that are not barred, and the size of a block."""

    free: int
    block: int


def _unclaimed(ipam: Ipam, blocked: set[Address]) -> list[_Unclaimed]:
    claimed = {_span(block.cidr)[:2] for block in ipam.blocks}
    found: list[_Unclaimed] = []
    for pool in ipam.pools:
        if pool.disabled:
            continue
        span = _span(pool.cidr)
        size = 1 << ((32 if span.version == 4 else 128) - pool.block)
        used = sum(1 for block in ipam.blocks if _in_any(block.cidr, (span,)))
        barred = 0
        for one in blocked:
            version, number, _ = order(one)
            inside = version == span.version and span.first <= number < span.first + span.size
            barred += inside and (version, number // size * size) not in claimed
        found.append(_Unclaimed((max(1, span.size // size) - used) * size - barred, size))
    return found


# --- what it was good for -------------------------------------------------------------------------------------------


def spared(before: Ipam | None, now: Ipam | None, held: Iterable[Address]) -> frozenset[Address]:
    """Held addresses that Calico passed over: something behind them in their block's queue was given out instead.

    Without the hold, the pod that got the later address would have got this one: a swap that did not happen.
    """
    if before is None or now is None:
        return frozenset()
    given = {block.cidr: block.allocated for block in now.blocks}
    holds = set(held)
    found: set[Address] = set()
    for block in before.blocks:
        fresh = given.get(block.cidr, frozenset()) - block.allocated
        places = [number for number, one in enumerate(block.queue) if one in fresh]
        if places:
            found.update(one for one in block.queue[: max(places)] if one in holds and one not in fresh)
    return frozenset(found)


def advise(ipam: Ipam, *, cooldown: float | None, pods_per_node: int, rules: Rules) -> list[str]:
    """What an operator should change, in sentences; empty when all fits."""
    found: list[str] = []
    for pool in ipam.pools:
        bits = ipaddress.ip_network(pool.cidr).max_prefixlen
        most = ipam.blocks_per_host << (bits - pool.block)
        if most < pods_per_node + rules.max_count:
            found.append(
                f"pool {pool.cidr}: a node gets at most {ipam.blocks_per_host} blocks of /{pool.block}, "
                f"{most} addresses, and may need {pods_per_node} for pods and {rules.max_count} for holds. "
                f"Raise maxBlocksPerHost in Calico's IPAM configuration, use larger blocks, or lower max-count."
            )
    if cooldown is None:
        found.append(
            "ipCooldownSeconds: this Calico has none, or it is not set. Where there is one (3.33), 30 to 60 s also "
            "cover what no webhook sees, such as addresses of unprotected namespaces."
        )
    elif cooldown > 60:
        found.append(
            f"ipCooldownSeconds: {cooldown:.0f} s hold every address of the cluster, also those nobody waits for, and "
            f"pods fail when the pool is dry. 30 to 60 s are enough beside the holds of this service."
        )
    if cooldown:
        found.append("ipCooldownSeconds: while it is above 0, Calico refuses to give an ordinal its own address back.")
    return found
