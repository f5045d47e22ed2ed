"""A client of a Redis Cluster: writes numbered values, has each confirmed by a replica (WAIT 1), reads them back.

Run as a program inside the cluster's network: `python -m dev.writer HOST [--lanes N] [--pause SECONDS]`, the password
as the first line of its input. It prints "ready" when every lane has had writes confirmed, then answers each further
line with one line of JSON: `mark` tells what happened since the mark before, `look ADDRESS …` how these servers see
themselves, `fill COUNT` writes so many other keys. At the end of its input everything confirmed is read back, and told.

A lane is a thread whose keys share a hash slot; the lanes' slots lie evenly over all slots. So a lane sees what happens
to one shard: its longest gap is how long nobody could write there. Nothing is tried twice under one number: an attempt
that fails is counted as refused, and the next is made with the next number.

What counts as lost: a key whose value is none, or older than the last value that was confirmed. A newer one that was
not confirmed may be there or not. SET and WAIT must go over one connection, which cluster clients do not promise; so
redirections are followed here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from provisioning.engines.base import LinkError
from provisioning.engines.redis.admin import Connection, RedisError, parse_info, parse_nodes

PORT = 6379
# A lane begins to write over its keys after so many, so that hours of writing fit into a small cluster.
KEYS = 20_000
WAIT_MS = 250
TIMEOUT_SECONDS = 2.0
ASK_SECONDS = 0.5
AGAIN_SECONDS = 0.05
READ_EVERY = 10
CHECK_AT_ONCE = 200
CHECK_SECONDS = 60
FAILURES = (LinkError, RedisError, OSError)


@dataclass
class Tally:
    """What one lane, or all of them, saw. Gaps in seconds: between two accepted, and between two confirmed writes.
    `refusals` has an example of each kind, and how many there were.
    """

    confirmed: int = 0
    unconfirmed: int = 0
    refused: int = 0
    stale: int = 0
    accepted_gap: float = 0.0
    confirmed_gap: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take another lane's in: counts are summed, the longest gap is the longest of all."""
        self.confirmed += other.confirmed
        self.unconfirmed += other.unconfirmed
        self.refused += other.refused
        self.stale += other.stale
        self.accepted_gap = max(self.accepted_gap, other.accepted_gap)
        self.confirmed_gap = max(self.confirmed_gap, other.confirmed_gap)
        for why, count in other.refusals.items():
            self.refusals[why] = self.refusals.get(why, 0) + count


class Book:
    """Who serves what, as the servers told it last."""

    def __init__(self, host: str, password: str) -> None:
        self.host, self.password = host, password
        self._known: list[str] = []

    def connect(self, host: str, port: int = PORT, seconds: float = TIMEOUT_SECONDS) -> Connection:
        """A signed-in connection. Raises one of FAILURES."""
        return Connection(socket.create_connection((host, port), seconds), ("", self.password))

    def owner(self, slot: int) -> str:
        """Address of who serves a slot, in the words of the first server that answers. Raises LinkError: nobody did."""
        for place in [*random.sample(self._known, len(self._known)), self.host]:
            with contextlib.suppress(*FAILURES), self.connect(place, seconds=ASK_SECONDS) as connection:
                peers = parse_nodes(connection.text("CLUSTER", "NODES"))
                self._known = sorted({peer.ip for peer in peers if peer.ip and not peer.failed})
                for peer in peers:
                    if any(first <= slot <= last for first, last in peer.slots) and "master" in peer.flags:
                        return peer.ip or place
        raise LinkError("nobody says who serves it")


class Lane(threading.Thread):
    """Writes to one slot until `ended`."""

    def __init__(self, book: Book, tag: str, pause: float, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.book, self.tag, self.pause, self.ended = book, tag, pause, ended
        self.slot = key_slot(tag.encode())
        self.since, self.total = Tally(), Tally()
        # Key to the number last confirmed for it.
        self.confirmed: dict[str, int] = {}
        self.suspects: list[str] = []
        self._number = 0
        self._last = dict.fromkeys(("accepted", "confirmed"), time.monotonic())
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._address = ""

    def _key(self, number: int) -> str:
        return f"{{{self.tag}}}:{number % KEYS}"

    def run(self) -> None:
        """See the module."""
        while not self.ended.wait(self.pause):
            self._number += 1
            try:
                self._write(self._number)
                if self._number % READ_EVERY == 0:
                    self._read()
            except FAILURES as error:
                self._drop()
                with self._lock:
                    self.since.refused += 1
                    why = error.code if isinstance(error, RedisError) else type(error).__name__
                    self.since.refusals[why] = self.since.refusals.get(why, 0) + 1
                self.ended.wait(AGAIN_SECONDS)
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _at(self, host: str, port: int = PORT) -> Connection:
        self._drop()
        self._connection, self._address = self.book.connect(host, port), host
        return self._connection

    def _write(self, number: int) -> None:
        key = self._key(number)
        connection = self._connection or self._at(self.book.owner(self.slot))
        try:
            connection.call("SET", key, number)
        except RedisError as error:
            if error.code not in ("MOVED", "ASK"):
                raise
            host, _, port = str(error).split()[2].rpartition(":")
            if error.code == "MOVED":
                connection = self._at(host, int(port))
                connection.call("SET", key, number)
            else:
                with self.book.connect(host, int(port)) as other:
                    other.call("ASKING")
                    other.call("SET", key, number)
                    self._confirm(other, key, number)
                return
        self._confirm(connection, key, number)

    def _confirm(self, connection: Connection, key: str, number: int) -> None:
        """A write was accepted: wait for a replica to have it too."""
        self._now("accepted")
        replicas = connection.call("WAIT", 1, WAIT_MS)
        if not replicas:
            with self._lock:
                self.since.unconfirmed += 1
            return
        self._now("confirmed")
        with self._lock:
            self.confirmed[key] = number
            self.since.confirmed += 1

    def _now(self, kind: str) -> None:
        now = time.monotonic()
        with self._lock:
            gap = now - self._last[kind]
            self._last[kind] = now
            if kind == "accepted":
                self.since.accepted_gap = max(self.since.accepted_gap, gap)
            else:
                self.since.confirmed_gap = max(self.since.confirmed_gap, gap)

    def _read(self) -> None:
        """One of the last values confirmed. A server that has been replaced and does not know it yet may tell an older
        one, so this is no loss yet: that shows at the end.
        """
        key = self._key(random.randrange(max(0, self._number - 500), self._number))
        if self._connection is None or key not in self.confirmed:
            return
        try:
            found = self._connection.call("GET", key)
        except RedisError as error:
            if error.code in ("MOVED", "ASK"):
                return
            raise
        if found is None or int(str(found)) < self.confirmed[key]:
            with self._lock:
                self.since.stale += 1
            said = f"{key} at {self._address}: {found}, and {self.confirmed[key]} was confirmed"
            self.suspects.append(f"{time.strftime('%H:%M:%S')} {said}")

    def mark(self) -> Tally:
        """What happened since the mark before; a gap that is still open counts."""
        now = time.monotonic()
        with self._lock:
            told, self.since = self.since, Tally()
            told.accepted_gap = max(told.accepted_gap, now - self._last["accepted"])
            told.confirmed_gap = max(told.confirmed_gap, now - self._last["confirmed"])
            self.total.add(told)
        return told

    def lost(self) -> list[str]:
        """Confirmed writes that are not there, or that nobody tells within a minute."""
        left = list(self.confirmed.items())
        found: list[str] = []
        until = time.monotonic() + CHECK_SECONDS
        while left:
            some = left[:CHECK_AT_ONCE]
            try:
                with self.book.connect(self.book.owner(self.slot)) as connection:
                    values = connection.call("MGET", *(key for key, _ in some))
            except FAILURES as error:
                if time.monotonic() > until:
                    return [*found, *(f"{key}: {number} was confirmed, and: {error}" for key, number in left)]
                time.sleep(AGAIN_SECONDS)
                continue
            assert isinstance(values, list)
            found += [
                f"{key}: {number} was confirmed, {value} is there"
                for (key, number), value in zip(some, values, strict=True)
                if value is None or int(str(value)) < number
            ]
            left = left[CHECK_AT_ONCE:]
        return found


def tags(count: int) -> Iterator[str]:
    """Hash tags whose slots lie evenly over all slots."""
    width = REDIS_CLUSTER_HASH_SLOTS // count
    for lane in range(count):
        middle = lane * width + width // 2
        numbered = (f"lane-{lane}-{number}" for number in range(1_000_000))
        yield next(tag for tag in numbered if abs(key_slot(tag.encode()) - middle) < width // 8)


def look(book: Book, address: str) -> dict[str, Any]:
    """How one server sees itself: `role`, `head` (the id of its shard's master), `linked` (of a master the replicas in
    step, of a replica 1 or 0), `slots` (how many it serves), `open` (how many it marks as on the move), `ok` (whether
    all slots are served in its eyes), `nodes` it knows, `failed` of them. Empty when it does not answer.
    """
    try:
        with book.connect(address, seconds=ASK_SECONDS) as connection:
            nodes, info, replication = (
                connection.text(*words)
                for words in (("CLUSTER", "NODES"), ("CLUSTER", "INFO"), ("INFO", "replication"))
            )
    except FAILURES:
        return {}
    peers, said = parse_nodes(nodes), parse_info(replication)
    is_master = said["role"] == "master"
    replicas = [value for key, value in said.items() if key.startswith("slave") and ",state=online," in value]
    me = next(peer for peer in peers if "myself" in peer.flags)
    return {
        "role": "master" if is_master else "replica",
        "head": me.id if is_master else me.master,
        "linked": len(replicas) if is_master else int(said["master_link_status"] == "up"),
        "slots": sum(last - first + 1 for first, last in me.slots),
        "open": len(me.moving),
        "ok": parse_info(info)["cluster_state"] == "ok",
        "nodes": len(peers),
        "failed": sum(peer.doubted for peer in peers),
    }


def fill(book: Book, count: int) -> None:
    """Write so many keys of 100 bytes, spread over all slots. Raises one of FAILURES."""
    by_owner: dict[str, list[str]] = {}
    owners: dict[int, str] = {}
    with book.connect(book.host) as connection:
        for peer in parse_nodes(connection.text("CLUSTER", "NODES")):
            for first, last in peer.slots:
                owners |= dict.fromkeys(range(first, last + 1), peer.ip)
    for number in range(count):
        key = f"fill-{number}"
        by_owner.setdefault(owners[key_slot(key.encode())], []).append(key)
    for address, keys in by_owner.items():
        with book.connect(address) as connection:
            for first in range(0, len(keys), 500):
                replies = connection.pipeline([["SET", key, "x" * 100] for key in keys[first : first + 500]])
                for reply in replies:
                    if isinstance(reply, RedisError):
                        raise reply


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m dev.writer")
    parser.add_argument("host")
    parser.add_argument("--lanes", type=int, default=6)
    # Paced, so that the machine has something left for what is tested.
    parser.add_argument("--pause", type=float, default=0.02)
    arguments = parser.parse_args()
    book = Book(arguments.host, sys.stdin.readline().strip())
    ended = threading.Event()
    lanes = [Lane(book, tag, arguments.pause, ended) for tag in tags(arguments.lanes)]
    for lane in lanes:
        lane.start()
    while not all(lane.since.confirmed >= 20 for lane in lanes):
        time.sleep(AGAIN_SECONDS)
    print("ready", flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        answer: dict[str, Any] = {}
        if command == "mark":
            told = Tally()
            for lane in lanes:
                told.add(lane.mark())
            answer = asdict(told)
        elif command == "look":
            with ThreadPoolExecutor(8) as pool:
                answer = dict(zip(words, pool.map(lambda address: look(book, address), words), strict=True))
        elif command == "fill":
            fill(book, int(words[0]))
        print(json.dumps(answer), flush=True)
    ended.set()
    for lane in lanes:
        lane.join()
    total = Tally()
    for lane in lanes:
        lane.mark()
        total.add(lane.total)
    with ThreadPoolExecutor(len(lanes)) as pool:
        lost = [one for found in pool.map(Lane.lost, lanes) for one in found]
    suspects = [one for lane in lanes for one in lane.suspects]
    print(json.dumps({**asdict(total), "lost": lost[:50], "lost_count": len(lost), "suspects": suspects[:20]}))


if __name__ == "__main__":
    main()
