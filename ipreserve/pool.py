"""What becomes of each barred address: one pure decision from one picture of the cluster.

The sweeper takes the picture, asks `decide`, and writes what it says. Nothing here knows Kubernetes.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate, islice
from typing import NamedTuple

from ipreserve.book import Book, Resting, freed_at, place_of
from ipreserve.records import REMEMBERED, UNKNOWN, Address, End, Record, State, order, parse_duration, unknown
from ipreserve.selectors import ALL, selector

COUNT_FACTOR = 1.2
DEFAULT_MAX_PODS = 110
# Calico's own limit when nothing is set, and it does not borrow once it is reached.
DEFAULT_BLOCKS_PER_HOST = 20
POLICIES = ("reserve", "short", "skip")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Times in seconds. `max_count` is the most addresses that rest at once, `max_per_namespace` of one namespace's.

    0 per namespace means no such limit.
    """

    hold: float = 3600.0
    short_hold: float = 120.0
    max_count: int = math.ceil(COUNT_FACTOR * DEFAULT_MAX_PODS)
    max_per_namespace: int = 0
    cancel_after: float = 60.0


Named = tuple[int, str]
"""A pool that a pod names, for an IP version: its name, or its CIDR."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that the API server has. `asks` are addresses, `pools` pools it wants by name (Calico's annotations)."""

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
    pools: tuple[Named, ...] = ()

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

    @cached_property
    def free(self) -> frozenset[Address]:
        """The same without an order. Made once: a block is the same object until it changes."""
        return frozenset(self.queue)


@dataclass(frozen=True, kw_only=True)
class Range:
    """A pool of Calico. `block` is the prefix length of its blocks, `nodes` the selector of its nodes.

    `disabled` are those that no pod gets an address of. `by_request` are given only to pods that name them. `of` is the
    CIDR of the pool where this is what is left of it.
    """

    cidr: str
    block: int
    name: str = ""
    of: str = ""
    nodes: str = ALL
    disabled: bool = False
    by_request: bool = False


@dataclass(frozen=True, kw_only=True)
class Ipam:
    """What Calico has given out. `nodes` are the labels of all nodes; None where they are not known.

    `claims_blocks` is Calico's `autoAllocateBlocks`: without it a node claims no blocks, and does not borrow.
    `reserved` is what others' IPReservations bar.
    """

    blocks: tuple[Block, ...]
    pools: tuple[Range, ...] = ()
    strict: bool = False
    blocks_per_host: int = DEFAULT_BLOCKS_PER_HOST
    claims_blocks: bool = True
    reserved: frozenset[Address] = frozenset()
    nodes: Mapping[str, Mapping[str, str]] | None = None

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
    `blind`: the blocks were readable a short time ago, so that an address may still be taken though no pod has it.
    """

    now: float
    book: Book
    pods: Sequence[Pod]
    ipam: Ipam | None
    workloads: Mapping[tuple[str, str], Workload] | None = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unrecorded: frozenset[Address] = frozenset()
    blind: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to write. `records` holds only those that change; a record that ends is in state releasing, with its end.

    `protect` are recorded addresses that are not barred. `ended` is in the order of release, oldest first. `crowds` are
    the namespaces that had more at rest than their limit, and how many more.
    """

    records: Mapping[Address, Record]
    protect: frozenset[Address]
    ended: tuple[Address, ...]
    adopted: frozenset[Address]
    unrecorded: frozenset[Address]
    swaps: tuple[Address, ...]
    held: int
    shortage: Mapping[str, int]
    crowds: Mapping[str, int] = field(default_factory=dict)


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
        # What it had at the claim, where it is gone.
        picture.defaults.get(record.namespace, record.space),
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

    1. Each record moves along its states, by the pods and by Calico's blocks. One that rests stays as it is while no
       pod has its address, so those are not looked at.
    2. What is barred without a record gets one, the second time it is seen: the first time it may be on its way.
    3. Holds end by time, then by their namespace's limit, then by count, then because a pool or a node would run dry;
       oldest freed first.
    4. What is recorded and not barred is barred again.
    An address in use is never released, nor one that a live pod asks for by name.
    """
    now, book = picture.now, picture.book
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
    for one in sorted(book.moving | book.ahead | (book.resting.keys() & users.keys()), key=order):
        record = book.records[one]
        after[one] = _step(one, _clamped(record, now), by_uid, users, allocated, picture, rules)
        if after[one].swapped and not record.swapped:
            swaps.append(one)
    adopted = book.unrecorded & picture.unrecorded
    for one in sorted(adopted, key=order):
        user = users.get(one)
        found = unknown(at=now)
        if user is not None:
            found = replace(
                found, namespace=user.namespace, pod=user.name, node=user.node, uid=user.uid, owner=user.owner
            )
        after[one] = _step(one, found, by_uid, users, allocated, picture, rules)

    held = _Held(book, after, (users.keys(), allocated or (), asked))

    def end(which: Address, why: End) -> None:
        after[which] = replace(held[which], state=State.RELEASING, end=why)
        held.end(which)

    for one in held.due(now, rules.hold):
        end(one, End.SKIPPED if held[one].hold == 0.0 else End.EXPIRED)
    crowds = held.crowds(rules.max_per_namespace)
    for one in held.of_namespaces(crowds):
        end(one, End.QUOTA)
    # An address of which nobody knows whose it was, as of a range that somebody barred by hand, ends nobody's hold.
    known = (one for one in held if held[one].namespace != UNKNOWN)
    for one in list(islice(known, max(0, len(held) - held.of_nobody() - rules.max_count))):
        end(one, End.CROWDED)
    shortage: dict[str, int] = {}
    if picture.ipam is not None:
        waiting = Counter(
            (pod.node, pod.pools)
            for pod in picture.pods
            if pod.node and not pod.addresses and not pod.ended and not pod.deleting
        )
        going = {one for one, record in after.items() if record.state is State.RELEASING}
        victims, shortage = relieve(picture.ipam, held, _Barred(book, going, picture.ipam.reserved), waiting)
        for one in victims:
            end(one, End.PRESSURE)

    # Most are the very same: comparing all fields of each would cost more than the rest.
    changed = {
        one: record
        for one, record in after.items()
        if (before := book.records.get(one)) is not record and before != record
    }
    ended = [one for one, record in after.items() if record.state is State.RELEASING]
    ended.sort(key=lambda one: (held.ended.get(one, _BEFORE_ALL), order(one)))
    return Plan(
        records=changed,
        protect=frozenset(
            one for one in book.unprotected if after.get(one, book.records[one]).state is not State.RELEASING
        ),
        ended=tuple(ended),
        adopted=frozenset(adopted),
        unrecorded=frozenset(book.unrecorded - adopted),
        swaps=tuple(swaps),
        held=len(held),
        shortage=shortage,
        crowds=crowds,
    )


# Of records that end without having rested: a claim that came to nothing, a release that was cut short.
_BEFORE_ALL = Resting(-math.inf, 0, (0, 0, 0), Address(""))


class _Held:
    """Addresses at rest that nobody has or asks for: those of the book, as far as `after` does not say otherwise.

    Iterating is in the order of release, and leaves out what has been ended meanwhile.
    """

    def __init__(self, book: Book, after: Mapping[Address, Record], busy: Iterable[Collection[Address]]) -> None:
        self._book, self._after = book, after
        self._left_out = set(book.resting.keys() & after.keys())
        rests = {one: record for one, record in after.items() if record.state is State.FREED}
        for among in busy:
            self._left_out.update(book.resting.keys() & among)
            for one in rests.keys() & among:
                del rests[one]
        self._fresh = sorted(place_of(one, record) for one, record in rests.items())
        self._count = len(book.resting) - len(self._left_out) + len(rests)
        self._rests = rests
        self.ended: dict[Address, Resting] = {}

    def __len__(self) -> int:
        return self._count - len(self.ended)

    def __getitem__(self, one: Address) -> Record:
        return self._rests[one] if one in self._rests else self._book.resting[one]

    def __contains__(self, one: object) -> bool:
        if one in self.ended:
            return False
        return one in self._rests or (one in self._book.resting and one not in self._left_out)

    def __iter__(self) -> Iterator[Address]:
        kept = (place for place in self._book.queue.items if place.address not in self._left_out)
        for place in heapq.merge(kept, self._fresh):
            if place.address not in self.ended:
                yield place.address

    def end(self, one: Address) -> None:
        """It rests no longer."""
        self.ended[one] = place_of(one, self[one])

    def due(self, now: float, hold: float) -> list[Address]:
        """Whose time has passed, oldest freed first. `hold` is for those without a length of their own."""
        book = self._book
        # Sums are not exact, so the list is only where to look.
        near = book.due.items[: bisect_left(book.due.items, (now + 1.0,))]
        found: set[Address] = {one.address for one in near} | book.undated
        found.update(self._rests)

        def has_passed(one: Address) -> bool:
            own = self[one].hold
            return now - freed_at(self[one]) >= (hold if own is None else own)

        return self.oldest(one for one in found if one in self and has_passed(one))

    def oldest(self, among: Iterable[Address]) -> list[Address]:
        """Some of them in the order of release."""
        return sorted(among, key=lambda one: place_of(one, self[one]))

    def of_nobody(self) -> int:
        """How many of them nobody knows the owner of."""
        return self._counted()[UNKNOWN]

    def _counted(self) -> Counter[str]:
        """How many each namespace has."""
        counted = Counter(self._book.by_namespace)
        counted.subtract(Counter(self._book.resting[one].namespace for one in self._left_out))
        counted.update(Counter(record.namespace for record in self._rests.values()))
        counted.subtract(Counter(self[one].namespace for one in self.ended))
        return counted

    def crowds(self, most: int) -> dict[str, int]:
        """By how many each namespace has more at rest than so many; empty where that is 0. Nobody's do not count."""
        if most == 0:
            return {}
        counted = self._counted()
        return {name: count - most for name, count in sorted(counted.items()) if count > most and name != UNKNOWN}

    def of_namespaces(self, wanted: Mapping[str, int]) -> list[Address]:
        """The oldest of each of these namespaces, so many of each."""
        left = dict(wanted)
        found: list[Address] = []
        for one in self if left else ():
            namespace = self[one].namespace
            if left.get(namespace, 0):
                found.append(one)
                left[namespace] -= 1
        return found


class _Barred:
    """What stays barred: all of the book but `going`, and what `others` bar, who do not ask this service.

    Counts of ranges come from a sorted list of numbers.
    """

    def __init__(self, book: Book, going: set[Address], others: frozenset[Address] = frozenset()) -> None:
        self._numbers = {version: list(numbers.items) for version, numbers in book.numbers.items()}
        self.addresses: set[Address] = book.records.keys() | book.barred
        self.others = others
        more = others - self.addresses
        for version, numbers in self._numbers.items():
            fresh = [number for kind, number, _ in map(order, more) if kind == version]
            if fresh:
                numbers += fresh
                numbers.sort()
        self.addresses |= more
        self.open(going)

    def open(self, which: Iterable[Address]) -> None:
        """These are barred no longer, unless somebody else bars them as well."""
        inside = self.addresses.intersection(which) - self.others
        self.addresses -= inside
        for one in inside:
            version, number, _ = order(one)
            numbers = self._numbers[version]
            del numbers[bisect_left(numbers, number)]

    def within(self, span: _Span) -> int:
        """How many are in a range."""
        numbers = self._numbers[span.version]
        return bisect_left(numbers, span.first + span.size) - bisect_left(numbers, span.first)

    def numbers(self, span: _Span) -> list[int]:
        """Those in a range, as numbers, in order."""
        numbers = self._numbers[span.version]
        return numbers[bisect_left(numbers, span.first) : bisect_left(numbers, span.first + span.size)]


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
        if user is None or record.end in (End.CANCELLED, End.RETURNED) or one not in picture.book.barred:
            return record
        # A release that was cut short goes on, unless somebody got the address before it was opened.
        record = replace(record, state=State.FREED, freed=freed_at(record), end=None)
    if not record.uid and user is not None and (user.namespace, user.name) == (record.namespace, record.pod):
        # Another tool wrote this one, without the pod's uid.
        record = replace(record, uid=user.uid, owner=user.owner)
    pod = by_uid.get(record.uid)
    has_it = pod is not None and one in pod.addresses and not pod.ended
    if record.state in (State.CLAIMED, State.TERMINATING) and pod is not None and has_it:
        if pod.deleting:
            return record if record.state is State.TERMINATING else _terminating(record, now)
        if now - max(record.last, record.terminating or 0.0) >= rules.cancel_after:
            # Nothing undoes a deletion, so a record in terminating whose pod stays was somebody's hand, or the pod was
            # not seen. Until then a webhook may take it for granted, and it may be going by now.
            return replace(record, state=State.RELEASING, end=End.CANCELLED)
        return record
    if user is not None and user.uid != record.uid:
        if (user.namespace, user.name) == (record.namespace, record.pod):
            return replace(record, state=State.RELEASING, end=End.RETURNED)
        if record.state is not State.FREED and user.created <= record.first:
            # It had gone to somebody else before it was claimed: the pod that left had only kept it in its status.
            if user.deleting:
                # Whose own claim this one replaced, and whose last DELETE a webhook may answer from memory.
                return _terminating(_taken_over(record, user), now)
            if now - record.last < rules.cancel_after:
                # It may have been claimed and be going, and the mirror of pods has not shown it yet.
                return record
            return replace(record, state=State.RELEASING, end=End.CANCELLED)
        other = user.workload != (record.namespace, record.owner or record.pod) and not record.is_unknown
        return replace(record, swapped=record.swapped or other)
    if record.state is State.FREED:
        return record
    if user is not None or picture.blind or (allocated is not None and one in allocated):
        return record if record.state is State.TERMINATING else _terminating(record, now)
    return replace(record, state=State.FREED, freed=now, hold=hold_for(record, picture, rules))


def _taken_over(record: Record, user: Pod) -> Record:
    """The claim as that of the pod that has the address. Its own policy annotations are not known here."""
    return replace(
        record, namespace=user.namespace, pod=user.name, node=user.node, uid=user.uid, owner=user.owner, policy={}
    )


def _terminating(record: Record, now: float) -> Record:
    return replace(record, state=State.TERMINATING, terminating=now)


# --- the pressure valve ---------------------------------------------------------------------------------------------


def margin(size: int) -> int:
    """Addresses of a pool or node that shall stay free: a twentieth, at least 1, at most 32."""
    return max(1, min(32, size // 20))


class _Span(NamedTuple):
    version: int
    first: int
    size: int

    def holds(self, version: int, number: int) -> bool:
        """Whether a number is inside."""
        return version == self.version and self.first <= number < self.first + self.size


@lru_cache(maxsize=REMEMBERED)
def _span(cidr: str) -> _Span:
    """First number and size."""
    version, first, length = order(cidr)
    return _Span(version, first, 1 << (_bits(version) - length))


def _bits(version: int) -> int:
    return 32 if version == 4 else 128


def _in_any(one: str, spans: Iterable[_Span]) -> bool:
    version, number, _ = order(one)
    return any(span.holds(version, number) for span in spans)


class _Unclaimed(NamedTuple):
    """Blocks of one pool that nobody has claimed: free addresses of those that are barred in part, by their number, and
    how many are not barred at all. Those that are barred as a whole are none that Calico would claim."""

    part: Mapping[int, int]
    whole: int
    size: int


@dataclass
class _Need:
    """What a node lacks beyond the blocks that it uses (`missing`, 0 and less where nothing), and how many blocks more
    it may have. `first` of its own are empty and may be used before the others. `blocks` is what it takes of those that
    no pod uses, at most."""

    asker: _Asker
    missing: int
    more: int
    pods: int
    first: int
    blocks: int


def _blocks(sums: Sequence[int], missing: int, least: int) -> int:
    """How many blocks make up for it whichever they are; one more than there are where none do."""
    return max(least, bisect_left(sums, missing) if missing > 0 else 0)


class _Asker(NamedTuple):
    """A node, and the pools from which its pods get addresses of one IP version. `name` is how people call both."""

    name: str
    host: str
    pools: tuple[Range, ...]


def relieve(
    ipam: Ipam, queue: _Held, barred: _Barred, waiting: Mapping[tuple[str, tuple[Named, ...]], int]
) -> tuple[list[Address], dict[str, int]]:
    """Which holds to end, oldest first, so that pools and nodes do not run dry; and what each lacked.

    As Calico chooses, for each IP version by itself: of the pools that give addresses to pods, those that the pod
    names, else those that select its node. A node can use what is free and not barred in its own blocks of these
    pools, then blocks that it may still claim (the limit per host counts), and when nothing is left to claim what is
    free in others' blocks, unless borrowing is off. With the limit reached Calico fails without trying to borrow.

    1. Each node, with its pods that wait. 2. All nodes together that share the same pools, since what one may borrow
    another may as well. 3. Blocks that nobody uses, handed out once over all nodes: whatever each of them claims, what
    the others need must be left. 4. Pods whose pools are partly those of others: what is enough for each whatever the
    others take. `waiting` are pods that have no address yet, by node and the pools they name. What is chosen is opened
    in `barred`.
    """
    victims: dict[Address, None] = {}
    shortage: dict[str, int] = {}
    for version in (4, 6):
        _Valve(ipam, version, queue, barred, victims, shortage).relieve(waiting)
    return list(victims), shortage


class _Valve:
    """The pools of one IP version."""

    def __init__(
        self, ipam: Ipam, version: int, queue: _Held, barred: _Barred, victims: dict[Address, None],
        shortage: dict[str, int],
    ) -> None:  # fmt: skip
        self.ipam, self.version = ipam, version
        self.queue, self.barred, self.victims, self.shortage = queue, barred, victims, shortage
        self.pools = [one for one in ipam.pools if not one.disabled and _span(one.cidr).version == version]
        self.blocks = [one for one in ipam.blocks if _span(one.cidr).version == version]
        self.by_host: dict[str, list[Block]] = defaultdict(list)
        for one in self.blocks:
            self.by_host[one.host].append(one)
        self.within = lru_cache(maxsize=None)(self._within)
        self.claimed = lru_cache(maxsize=None)(self._claimed)
        self.free: dict[str, int] = {}
        self._count(self.blocks)

    def _count(self, blocks: Iterable[Block]) -> None:
        """What is the same for all nodes, until a hold ends in these blocks, or in none."""
        self.free.update((one.cidr, len(one.free - self.barred.addresses)) for one in blocks)
        self.free_in = lru_cache(maxsize=None)(lambda pools: sum(self.free[one.cidr] for one in self.within(pools)))
        self.unclaimed = lru_cache(maxsize=None)(self._unclaimed)

    def relieve(self, waiting: Mapping[tuple[str, tuple[Named, ...]], int]) -> None:
        if not self.pools:
            return
        asking: Counter[_Asker] = Counter()
        for host, named in sorted({(one.host, ()) for one in self.blocks if one.host} | set(waiting)):
            asker = self._asker(host, named)
            if asker is not None:
                asking[asker] += waiting.get((host, named), 0)
        for asker, pods in asking.items():
            self._node(asker, pods)
        everywhere = tuple(one for one in self.pools if not one.by_request)
        # From the smallest on: what it gives up is also there for the others.
        shared = sorted(
            {asker.pools for asker in asking} | {everywhere},
            key=lambda some: (len(some), [order(one.cidr) for one in some]),
        )
        if self.ipam.strict:
            for pools in shared:
                self._keep_margins(pools, asking)
        # What one of the two opens may be what the other must reckon with.
        before = -1
        while before != len(self.victims):
            before = len(self.victims)
            for pools in shared:
                self._together(pools, sum(pods for asker, pods in asking.items() if set(asker.pools) <= set(pools)))
            for pools in shared:
                self._make_sure(pools, asking)
            self._between(asking)

    def _asker(self, host: str, named: tuple[Named, ...]) -> _Asker | None:
        """None where no pool is meant: a pod that gets no address whatever happens here, a node that is gone."""
        what = f"node {host} IPv{self.version}"
        pools = [one for one in self.pools if not one.by_request]
        wanted = {name for version, name in named if version == self.version}
        if wanted:
            # Whatever they select.
            pools = [one for one in self.pools if not wanted.isdisjoint((one.name, one.of or one.cidr))]
            what += f" of {_called(pools)}"
        elif self.ipam.nodes is not None:
            labels = self.ipam.nodes.get(host)
            pools = [one for one in pools if labels is not None and selector(one.nodes)(labels)]
        return _Asker(what, host, tuple(pools)) if pools else None

    def _node(self, asker: _Asker, pods: int) -> None:
        spans = [_span(one.cidr) for one in asker.pools]
        own = [one for one in self.by_host[asker.host] if _in_any(one.cidr, spans)]
        free = sum(self.free[one.cidr] for one in own)
        missing = pods + (margin(sum(_span(one.cidr).size for one in own)) if own else 0) - free
        if missing <= 0:
            return
        mine = frozenset().union(*(one.free for one in own))
        more = max(0, self.ipam.blocks_per_host - len(own)) if self.ipam.claims_blocks else 0
        if more == 0:
            self._take(self.queue.oldest(one for one in mine if one in self.queue), missing, asker.name, within=own)
            return
        # Which blocks it will claim is not known: where it cannot have all, it may be those with the least room.
        fresh: list[tuple[int, int, int]] = []
        blocks = 0
        for place, one in enumerate(map(self.unclaimed, asker.pools)):
            fresh += [(free, place, number) for number, free in one.part.items()]
            fresh += [(one.size, place, -1)] * min(one.whole, more)
            blocks += len(one.part) + one.whole
        fresh = sorted(fresh)[:more]
        missing -= sum(free for free, _, _ in fresh)
        may_borrow = more > blocks and not self.ipam.strict
        if may_borrow:
            missing -= self.free_in(asker.pools) - free
        if missing <= 0:
            return

        claims = {(place, number) for _, place, number in fresh}

        def helps(one: Address) -> bool:
            if one in mine:
                return True
            place = next((n for n, pool in enumerate(asker.pools) if _in_any(one, (_span(pool.cidr),))), None)
            if place is None or may_borrow:
                return place is not None
            number = self._place(one, asker.pools[place])
            # One more block to choose from would be no help where it cannot have all of them.
            return (place, number) in claims or (more > blocks and number not in self.claimed(asker.pools[place]))

        self._take(filter(helps, self.queue), missing, asker.name)

    def _together(self, pools: tuple[Range, ...], pods: int) -> None:
        spans = [_span(one.cidr) for one in pools]
        size = sum(span.size for span in spans)
        if size == 0:
            return
        taken = frozenset().union(*(one.allocated for one in self.within(pools)))
        resting = sum(map(self.barred.within, spans)) - len(self.barred.addresses & taken)
        missing = pods + margin(size) - (size - len(taken) - resting)
        if missing > 0:
            self._take((one for one in self.queue if _in_any(one, spans)), missing, _called(pools))

    def _keep_margins(self, pools: tuple[Range, ...], asking: Mapping[_Asker, int]) -> None:
        """Without borrowing: where nodes would take from each other the blocks that each counts on, they use their own.

        Before pods wait: the next one may come before the next sweep.
        """
        group = [asker for asker in asking if not set(asker.pools).isdisjoint(pools)]
        wanted = {asker: asking[asker] for asker in group}
        for asker in group:
            own = self._own(asker)
            wanted[asker] += margin(sum(_span(one.cidr).size for one in own)) if own else 0
        needs, sizes = self._needs(pools, wanted)
        self._use_own([one for one in needs if one.asker.pools == pools], needs, sizes, pools)

    def _make_sure(self, pools: tuple[Range, ...], asking: Mapping[_Asker, int]) -> None:
        """Pods that wait get an address whichever blocks Calico chooses; else all holds that could matter end.

        First those in blocks that the nodes have, then those in blocks that no pod uses.
        """
        wanted: dict[_Asker, int] = {}
        for asker, pods in asking.items():
            if pods and not set(asker.pools).isdisjoint(pools):
                # By whatever pools they name, pods of a node share what it has.
                wanted[asker] = sum(
                    more for other, more in asking.items()
                    if other.host == asker.host and not set(other.pools).isdisjoint(asker.pools)
                )  # fmt: skip
        if not any(asker.pools == pools for asker in wanted):
            return
        step = 1
        while True:
            needs, sizes = self._needs(pools, wanted)
            lacking, shared = self._lacking(pools, needs, sizes)
            if not lacking and not shared:
                return
            chosen = len(self.victims)
            for need, missing in lacking:
                self._take(self._held_in(self._own(need.asker)), missing, need.asker.name)
            if shared:
                self._use_own(needs, needs, sizes, pools)
            if chosen != len(self.victims):
                continue
            # Another block is no help at the limit, unless its size is another too.
            whole = shared or len({one.block for one in pools}) > 1
            most = max((-(-need.missing // need.more) for need, _ in lacking if need.more > 0), default=0)
            if shared:
                most = max(1, most, *(need.missing for need in needs))
            place = lacking[0][0].asker.name if lacking else f"nodes of {_called(pools)}"
            self._take(self._unused(pools, most, step, shared=shared, whole=whole), most * step, place)
            if chosen == len(self.victims):
                return
            # So that many blocks do not take many rounds.
            step *= 2

    def _between(self, asking: Mapping[_Asker, int]) -> None:
        """Pods that wait where pools are partly those of others get an address, whoever takes what before them.

        Not exact, but on the safe side: holds end until there is enough for each though all others take from its share.
        Where that cannot be, all that could matter end, so that Calico chooses as if there were none.
        """
        wanted = {asker: most for asker, pods in asking.items() if (most := min(pods, self._potential(asker)))}
        for asker in wanted:
            rivals = {one: more for one, more in wanted.items() if not set(one.pools).isdisjoint(asker.pools)}
            if all(set(one.pools) == set(asker.pools) for one in rivals):
                continue
            step = 1
            while not self._is_sure(asker, rivals):
                # What helps it for certain, then what may, then what keeps others from needing what is its.
                for among in (
                    self._held_in(self._own(asker)),
                    self._held_of(asker.pools),
                    self._held_of(_joint(wanted, asker)),
                ):
                    if some := list(islice(among, step)):
                        self._take(some, len(some), asker.name)
                        break
                else:
                    break
                step *= 2

    def _potential(self, asker: _Asker) -> int:
        """The most addresses that it could get if no hold was left."""
        own = self._own(asker)
        # One that is empty may be taken from it, and then it may claim another.
        if not self.ipam.claims_blocks or sum(1 for one in own if one.allocated) >= self.ipam.blocks_per_host:
            return sum(self.free[one.cidr] for one in own) + len(self._held_in(own))
        return self._room(asker.pools) + sum(1 for _ in self._held_of(asker.pools))

    def _room(self, pools: tuple[Range, ...]) -> int:
        """All that is free there, in blocks of whichever node or of none."""
        fresh = map(self.unclaimed, pools)
        return self.free_in(pools) + sum(sum(one.part.values()) + one.whole * one.size for one in fresh)

    def _held_of(self, pools: Iterable[Range]) -> Iterator[Address]:
        """Holds that can end in these pools, oldest first."""
        spans = [_span(one.cidr) for one in pools]
        useless = self.barred.others
        return (
            one for one in self.queue if one not in self.victims and one not in useless and _in_any(one, spans)
        )  # fmt: skip

    def _is_sure(self, asker: _Asker, rivals: Mapping[_Asker, int]) -> bool:
        """Whether its pods get addresses though all `rivals`, itself among them, take theirs where it could."""
        everybody = sum(rivals.values())
        its_node = sum(pods for one, pods in rivals.items() if one.host == asker.host)
        own, claims = self._own(asker), self.ipam.claims_blocks
        if not claims:
            return sum(self.free[one.cidr] for one in own) >= its_node
        used = [one for one in own if one.allocated or not self.free[one.cidr]]
        free = sum(self.free[one.cidr] for one in used)
        more = self.ipam.blocks_per_host - len(used)
        sizes = [size for one in self.within(asker.pools) if not one.allocated and (size := self.free[one.cidr])]
        for one in map(self.unclaimed, asker.pools):
            sizes += one.part.values()
            # More than pods there is nobody who would take.
            sizes += [one.size] * min(one.whole, 2 * everybody)
        sums = [0, *accumulate(sorted(sizes))]
        if self.ipam.strict:
            # Each of the others takes a block at most; whichever are left for it, and so many are enough.
            left = min(more, len(sizes) - (everybody - its_node))
            return free >= its_node or (left > 0 and free + sums[left] >= its_node)
        # Without a limit in the way it fails only when nothing at all is left. Each block that it claims serves a pod.
        limited = more < everybody and more <= len(sizes) and free + sums[max(0, more)] < everybody
        return not limited and self._room(asker.pools) >= everybody

    def _needs(self, pools: tuple[Range, ...], wanted: Mapping[_Asker, int]) -> tuple[list[_Need], list[int]]:
        """For each node, what it needs beyond the blocks it uses. And what the n smallest of the others hold, for each
        n: of these pools, claimed by nobody, or empty, since Calico takes an empty block from its node."""
        claims = self.ipam.claims_blocks
        sizes = [free for one in self.within(pools) if not one.allocated and (free := self.free[one.cidr])]
        for one in map(self.unclaimed, pools):
            sizes += one.part.values()
            sizes += [one.size] * min(one.whole, sum(wanted.values()))
        sums = [0, *accumulate(sorted(sizes))] if claims else [0]
        needs: list[_Need] = []
        for asker, pods in wanted.items():
            own = self._own(asker)
            # One that is empty and barred as a whole is of no use, and counts for the limit.
            used = [one for one in own if one.allocated or not claims or not self.free[one.cidr]]
            missing = pods - sum(self.free[one.cidr] for one in used)
            more = max(0, self.ipam.blocks_per_host - len(used)) if claims else 0
            # It may look in its empty ones before those that it uses.
            empty = sorted(free for one in own if claims and not one.allocated and (free := self.free[one.cidr]))
            first = min(len(empty), bisect_left([0, *accumulate(empty)], pods))
            needs.append(_Need(asker, missing, more, pods, first, _blocks(sums, missing, first)))
        return needs, sums

    def _lacking(
        self, pools: tuple[Range, ...], needs: list[_Need], sums: list[int]
    ) -> tuple[list[tuple[_Need, int]], bool]:  # fmt: skip
        """Nodes of just these pools that may fail, and by how many addresses; and whether others take them from it."""
        most = len(sums) - 1
        ours = [one for one in needs if one.asker.pools == pools]
        alone = self.ipam.strict or not self.ipam.claims_blocks
        # Each block that it claims serves a pod, and who cannot come to its limit so borrows, once nothing is left.
        limited = ours if alone else [one for one in ours if one.more <= most and one.more < one.pods]
        lacking = [(one, missing) for one in limited if (missing := one.missing - sums[min(one.more, most)]) > 0]
        if sum(min(one.blocks, one.more) for one in needs) <= most or not self.ipam.claims_blocks:
            return lacking, False
        if alone:
            return lacking, True
        borrowed = sum(max(0, one.missing) for one in needs)
        lacking = [
            (one, missing) for one in limited
            if (missing := one.missing + borrowed - max(0, one.missing) - sums[min(one.more, most)]) > 0
        ]  # fmt: skip
        return lacking, bool(lacking)

    def _use_own(
        self, which: Iterable[_Need], needs: Iterable[_Need], sums: Sequence[int], pools: tuple[Range, ...]
    ) -> None:
        """End holds in the nodes' own blocks until what all of them need of the rest is there."""
        total, most = sum(min(one.blocks, one.more) for one in needs), len(sums) - 1
        if total <= most:
            return
        by_place: dict[Address, _Need] = {}
        for need in which:
            if need.missing > 0:
                by_place.update(dict.fromkeys(self._held_in(self._own(need.asker)), need))
        chosen: list[Address] = []
        for one in self.queue.oldest(by_place):
            need = by_place[one]
            if total <= most:
                break
            if need.missing > 0:
                chosen.append(one)
                need.missing -= 1
                total -= min(need.blocks, need.more)
                need.blocks = _blocks(sums, need.missing, need.first)
                total += min(need.blocks, need.more)
        if chosen:
            self._take(chosen, len(chosen), f"nodes of {_called(pools)}")

    def _own(self, asker: _Asker) -> list[Block]:
        spans = [_span(one.cidr) for one in asker.pools]
        return [one for one in self.by_host[asker.host] if _in_any(one.cidr, spans)]

    def _held_in(self, blocks: Iterable[Block]) -> list[Address]:
        """Holds that can end there, oldest first."""
        useless = self.barred.others
        found = [one for block in blocks for one in block.free if one in self.queue and one not in useless]
        return self.queue.oldest(one for one in found if one not in self.victims)

    def _unused(
        self, pools: tuple[Range, ...], most: int, step: int, *, shared: bool, whole: bool
    ) -> list[Address]:  # fmt: skip
        """Holds in so many blocks (`step`) that no pod uses, so that each of these has room for `most`.

        Those that are barred as a whole only if `whole`, and first where nodes share too few (`shared`).
        """
        empty = {one.cidr for one in self.within(pools) if not one.allocated}
        taken = {pool: self.claimed(pool) for pool in pools}
        emptied = {
            (pool, _span(one).first >> _bits(self.version) - pool.block)
            for pool in pools for one in empty if _in_any(one, (_span(pool.cidr),))
        }  # fmt: skip
        spans = [(pool, _span(pool.cidr)) for pool in pools]
        blocks: dict[tuple[Range, int], list[Address]] = defaultdict(list)
        for one in self.queue:
            version, number, _ = order(one)
            pool = next((pool for pool, span in spans if span.holds(version, number)), None)
            if pool is not None and one not in self.victims and one not in self.barred.others:
                block = pool, self._place(one, pool)
                if block in emptied or block[1] not in taken[pool]:
                    blocks[block].append(one)

        def room(block: tuple[Range, int]) -> int:
            pool, number = block
            size = min(_span(pool.cidr).size, 1 << _bits(self.version) - pool.block)
            return size - self.barred.within(_Span(self.version, number * size, size))

        free = {block: room(block) for block in blocks}
        small = [one for one in blocks if free[one] < most and (whole or free[one] > 0)]
        small.sort(key=lambda one: ((free[one] == 0) != shared, free[one]))
        return [one for block in small[:step] for one in blocks[block][: most - free[block]]]

    def _take(
        self, among: Iterable[Address], missing: int, place: str, *, within: Sequence[Block] | None = None
    ) -> None:  # fmt: skip
        """End the first of these, oldest first. `within` are the blocks in which they can be, where that is known."""
        self.shortage[place] = max(missing, self.shortage.get(place, 0))
        useless = self.barred.others
        chosen = list(islice((one for one in among if one not in self.victims and one not in useless), missing))
        if chosen:
            self.barred.open(chosen)
            self.victims.update(dict.fromkeys(chosen))
            opened = set(chosen)
            blocks = self.blocks if within is None else within
            self._count([one for one in blocks if not opened.isdisjoint(one.free)])

    def _within(self, pools: tuple[Range, ...]) -> list[Block]:
        spans = [_span(one.cidr) for one in pools]
        return [one for one in self.blocks if _in_any(one.cidr, spans)]

    def _place(self, one: Address, pool: Range) -> int:
        """The number of the block in which it is or would be."""
        return order(one)[1] >> _bits(self.version) - pool.block

    def _claimed(self, pool: Range) -> set[int]:
        """Numbers of the blocks that some node has."""
        shift = _bits(self.version) - pool.block
        found: set[int] = set()
        for block in self.within((pool,)):
            inner = _span(block.cidr)
            found.update(range(inner.first >> shift, (inner.first + inner.size - 1 >> shift) + 1))
        return found

    def _unclaimed(self, pool: Range) -> _Unclaimed:
        span, shift, claimed = _span(pool.cidr), _bits(self.version) - pool.block, self.claimed(pool)
        barred = Counter(number >> shift for number in self.barred.numbers(span))
        for number in claimed:
            barred.pop(number, None)
        size = min(span.size, 1 << shift)
        whole = span.size // size - len(claimed) - len(barred)
        return _Unclaimed({n: size - count for n, count in barred.items() if count < size}, whole, size)


def _joint(wanted: Iterable[_Asker], asker: _Asker) -> set[Range]:
    """Its pools, and those of all who share some of them, and so on."""
    found, before = set(asker.pools), 0
    while len(found) != before:
        before = len(found)
        found.update(*(one.pools for one in wanted if not found.isdisjoint(one.pools)))
    return found


def _called(pools: Iterable[Range]) -> str:
    return "pools " + ", ".join(dict.fromkeys(one.of or one.cidr for one in pools))


# --- what it was good for -------------------------------------------------------------------------------------------


def spared(before: Ipam | None, now: Ipam | None, held: Container[Address]) -> frozenset[Address]:
    """Held addresses that Calico passed over: something behind them in their block's queue was given out instead.

    Without the hold, the pod that got the later address would have got this one: a swap that did not happen.
    """
    if before is None or now is None:
        return frozenset()
    given = {block.cidr: block.allocated for block in now.blocks}
    found: set[Address] = set()
    for block in before.blocks:
        fresh = given.get(block.cidr, frozenset()) - block.allocated
        places = [number for number, one in enumerate(block.queue) if one in fresh]
        if places:
            found.update(one for one in block.queue[: max(places)] if one in held and one not in fresh)
    return frozenset(found)


def _by_itself(ipam: Ipam) -> list[Range]:
    return [one for one in ipam.pools if not one.disabled and not one.by_request]


def advise(ipam: Ipam, *, cooldown: float | None, pods_per_node: int, rules: Rules) -> list[str]:
    """What an operator should change, in sentences; empty when all fits."""
    found: list[str] = []
    for version, nodes in sorted({(_span(one.cidr).version, one.nodes or ALL) for one in _by_itself(ipam)}):
        # What Calico may choose from for such a node.
        pools = [
            one for one in _by_itself(ipam)
            if _span(one.cidr).version == version and (one.nodes or ALL) in (nodes, ALL)
        ]  # fmt: skip
        size = sum(_span(one.cidr).size for one in pools)
        if size < pods_per_node + rules.max_count:
            found.append(
                f"{_called(pools)}: {size} addresses in all, and one node may need {pods_per_node} for pods and "
                f"{rules.max_count} for holds. Add a pool or enlarge these, or lower max-count."
            )
    for pool in ipam.pools:
        if pool.disabled:
            continue
        most = ipam.blocks_per_host << (_bits(_span(pool.cidr).version) - pool.block)
        if most < pods_per_node + rules.max_count:
            found.append(
                f"pool {pool.cidr}: a node gets at most {ipam.blocks_per_host} blocks of /{pool.block}, "
                f"{most} addresses, and may need {pods_per_node} for pods and {rules.max_count} for holds. "
                f"Raise maxBlocksPerHost in Calico's IPAM configuration, use larger blocks, or lower max-count."
            )
    if not cooldown:
        found.append(
            "ipCooldownSeconds: this Calico has none, or it is not set, or set to 0. Where there is one (3.33), 30 to "
            "60 s also cover what no webhook sees, such as addresses of unprotected namespaces."
        )
    elif cooldown > 60:
        found.append(
            f"ipCooldownSeconds: {cooldown:.0f} s hold every address of the cluster, also those nobody waits for, and "
            f"pods fail when the pool is dry. 30 to 60 s are enough beside the holds of this service."
        )
    if cooldown:
        found.append("ipCooldownSeconds: while it is above 0, Calico refuses to give an ordinal its own address back.")
    return found
