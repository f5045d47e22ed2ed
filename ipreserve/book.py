"""All that is recorded and barred, followed from one sweep to the next and kept in order. Pure.

A sweep of very many addresses at rest costs what changed: whoever decides looks at what is not at rest, at what is in
use, and at the ends of these lists, and never at each record.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from ipreserve.layout import shard_of
from ipreserve.records import Address, Record, State, order

# More changes than this at once are sorted in; fewer are put at their places, each for a move of the list's rest.
FEW = 500

Item = TypeVar("Item", int, "Resting", "Due")


class Resting(NamedTuple):
    """A place in the order of release: freed first, first out."""

    freed: float
    seq: int
    order: tuple[int, int, int]
    address: Address


class Due(NamedTuple):
    """When a hold of known length has passed."""

    at: float
    address: Address


class Sorted(Generic[Item]):
    """A sorted list without repeats."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def change(self, gone: set[Item], come: Iterable[Item]) -> None:
        """Take some out, which are in it, and put others in."""
        fresh = sorted(come)
        if len(gone) + len(fresh) > FEW:
            fresh += [one for one in self.items if one not in gone]
            self.items = sorted(fresh)
            return
        for one in gone:
            del self.items[bisect_left(self.items, one)]
        for one in fresh:
            insort(self.items, one)


def freed_at(record: Record) -> float:
    """Where the hold runs from; the last claim, where nobody wrote down when the address was freed."""
    return record.freed if record.freed is not None else record.last


def place_of(one: Address, record: Record) -> Resting:
    """Its place in the order of release."""
    return Resting(freed_at(record), record.seq, order(one), one)


class _Shard(NamedTuple):
    records: Mapping[Address, Record]
    barred: frozenset[Address]


class Book:
    """What `follow` was told of each shard, as one.

    `records` and `barred` are the union; where two shards have a record of one address, the younger claim counts.
    `moving` are recorded addresses that do not rest, `resting` those that do. `ahead` are those with a time later than
    the time at which they came. `unprotected` are recorded and not barred, `unrecorded` barred and not recorded.
    `strays` are addresses by the shard in which they are and do not belong.
    """

    def __init__(self, shards: int = 1) -> None:
        self.shards = shards
        self.records: dict[Address, Record] = {}
        self.barred: set[Address] = set()
        self.moving: set[Address] = set()
        self.resting: dict[Address, Record] = {}
        self.ahead: set[Address] = set()
        self.unprotected: set[Address] = set()
        self.unrecorded: set[Address] = set()
        self.strays: dict[int, set[Address]] = {}
        self.states: Counter[State] = Counter()
        self.by_namespace: Counter[str] = Counter()
        self.queue: Sorted[Resting] = Sorted()
        self.due: Sorted[Due] = Sorted()
        # At rest without a length of their own.
        self.undated: set[Address] = set()
        # What is recorded or barred, by IP version.
        self.numbers: dict[int, Sorted[int]] = {4: Sorted(), 6: Sorted()}
        self._shards: dict[int, _Shard] = {}

    @classmethod
    def of(cls, records: Mapping[Address, Record], barred: Iterable[Address], *, at: float = math.inf) -> Book:
        """Of one shard."""
        found = cls()
        found.follow({0: (records, frozenset(barred))}, at=at)
        return found

    def follow(self, shards: Mapping[int, tuple[Mapping[Address, Record], frozenset[Address]]], *, at: float) -> None:
        """What each shard holds at a time that never goes back. A shard that is not named any longer is empty.

        What is the very same object as before costs nothing.
        """
        touched: set[Address] = set()
        for index in {*shards, *self._shards}:
            before = self._shards.get(index, _Shard({}, frozenset()))
            now = _Shard(*shards.get(index, ({}, frozenset())))
            if now.records is before.records and now.barred is before.barred:
                continue
            changed = _changed(before.records, now.records)
            changed |= before.barred ^ now.barred
            self._shards[index] = now
            stray = self.strays.pop(index, set()) | {one for one in changed if shard_of(one, self.shards) != index}
            stray = {one for one in stray if one in now.records or one in now.barred}
            if stray:
                self.strays[index] = stray
            touched |= changed
        self._touch(touched, at)

    def _touch(self, touched: set[Address], at: float) -> None:
        queue_gone: set[Resting] = set()
        queue_come: list[Resting] = []
        due_gone: set[Due] = set()
        due_come: list[Due] = []
        numbers_gone: dict[int, set[int]] = {4: set(), 6: set()}
        numbers_come: dict[int, list[int]] = {4: [], 6: []}
        for one in touched:
            before, now = self.records.get(one), None
            was_there, barred = before is not None or one in self.barred, False
            for shard in self._having(one):
                barred = barred or one in shard.barred
                record = shard.records.get(one)
                if record is not None and (now is None or (record.last, record.seq) > (now.last, now.seq)):
                    now = record
            if before is not now:
                if before is not None and one in self.resting:
                    queue_gone.add(place_of(one, before))
                    if before.hold is not None:
                        due_gone.add(Due(freed_at(before) + before.hold, one))
                if now is not None and now.state is State.FREED:
                    queue_come.append(place_of(one, now))
                    if now.hold is not None:
                        due_come.append(Due(freed_at(now) + now.hold, one))
                self._set(one, before, now, at)
            (self.barred.add if barred else self.barred.discard)(one)
            (self.unprotected.add if now is not None and not barred else self.unprotected.discard)(one)
            (self.unrecorded.add if now is None and barred else self.unrecorded.discard)(one)
            is_there = now is not None or barred
            if is_there != was_there:
                version, number, _ = order(one)
                if is_there:
                    numbers_come[version].append(number)
                else:
                    numbers_gone[version].add(number)
        self.queue.change(queue_gone, queue_come)
        self.due.change(due_gone, due_come)
        for version, numbers in self.numbers.items():
            numbers.change(numbers_gone[version], numbers_come[version])

    def _having(self, one: Address) -> Iterator[_Shard]:
        """The shards that may have it."""
        home = shard_of(one, self.shards)
        if home in self._shards:
            yield self._shards[home]
        # In one order, whichever came first: of two claims of the same moment the same one counts after a restart.
        for index in sorted(self.strays):
            if one in self.strays[index]:
                yield self._shards[index]

    def _set(self, one: Address, before: Record | None, now: Record | None, at: float) -> None:
        if before is not None:
            self.states[before.state] -= 1
            if self.resting.pop(one, None) is not None:
                self.by_namespace[before.namespace] -= 1
        self.moving.discard(one)
        self.ahead.discard(one)
        self.undated.discard(one)
        if now is None:
            self.records.pop(one, None)
            return
        self.records[one] = now
        self.states[now.state] += 1
        if max(now.first, now.last, now.freed or 0, now.terminating or 0) > at:
            self.ahead.add(one)
        if now.state is State.FREED:
            self.resting[one] = now
            self.by_namespace[now.namespace] += 1
            if now.hold is None:
                self.undated.add(one)
        else:
            self.moving.add(one)


def _changed(before: Mapping[Address, Record], now: Mapping[Address, Record]) -> set[Address]:
    """Addresses whose record is another object."""
    if before is now:
        return set()
    found = {one for one, record in now.items() if before.get(one) is not record}
    found.update(before.keys() - now.keys())
    return found
