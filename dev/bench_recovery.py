"""`python -m dev.bench_recovery`: how long a Redis Cluster takes to recover from each fault that Berth knows.

Part of `make bench`. One cluster of the plan redis-dev (three shards with a replica each, a node timeout of 5 s) on the
embedded target, a client that writes to all shards all the time (dev/writer.py), and one fault after another. For each:

- writes: the longest time for which the client could not write somewhere;
- whole: from the fault until every shard has its master and its replica in step, and all nodes agree;
- ready: from the fault until Berth says so;
- named: from the fault until the first of the cluster's `causes` is what it is to be, or the event is there that tells
  it of something that the same look has mended.

Beside `writes` stands what docs/engines/redis.md says of it for this node timeout.

Where something is put back by hand (a lost node, frozen processes), that is done as soon as the client can write again,
and `whole` and `ready` count from then. The two clusters that swap addresses are processes on loopback addresses, since
nobody can make a network give addresses so: their `whole` is from the start of all servers until both are in order,
`named` until a look at each has named it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dev.portal import Api
from dev.redis_watch import Pod, Watched, watched
from dev.soak import freeze, kill, lose_disk
from dev.stack import CLUSTERS, NAMESPACE, Stack, interruptible, running_stack
from provisioning.engines.base import LABEL_INSTANCE
from provisioning.engines.redis.diagnosis import failover_seconds
from provisioning.engines.redis.tests.servers import ENGINE, Fleet, view
from sandbox import Sandbox, faults

LOOK_EVERY_SECONDS = 0.2
GIVE_UP_SECONDS = 300.0
NODE_TIMEOUT_MS = 5000
# The client is back when it saw no gap longer than this, and no refusal, between two looks.
CALM_SECONDS = 0.5

Cure = Callable[[], object]


@dataclass
class Figures:
    """Seconds, of every round."""

    writes: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    named: list[float] = field(default_factory=list)

    def row(self, title: str, expected: str) -> str:
        """Medians."""
        cells = [
            f"{statistics.median(values):8.1f}" if values else f"{'-':>8}"
            for values in (self.writes, self.whole, self.ready, self.named)
        ]
        return f"    {title:<52}{''.join(cells)}   {expected}"


@dataclass(frozen=True)
class Scene:
    """A cluster under test."""

    stack: Stack
    name: str
    seen: Watched

    @property
    def sandbox(self) -> Sandbox:
        assert self.stack.sandbox is not None
        return self.stack.sandbox

    @cached_property
    def api(self) -> Api:
        """A client of its own."""
        return self.stack.api()

    @property
    def path(self) -> str:
        return f"{CLUSTERS}/{self.name}"

    def cluster(self) -> Mapping[str, Any]:
        """The cluster as the API shows it."""
        found: Mapping[str, Any] = self.api.request("GET", self.path)
        return found

    def events(self) -> list[Mapping[str, Any]]:
        """The newest events."""
        found: list[Mapping[str, Any]] = self.api.request("GET", f"{self.path}/events?limit=100")["items"]
        return found


class Told:
    """What Berth has said of a fault so far: its first causes, and the events for what was mended at the same look."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.before = {one["id"] for one in scene.events()}
        self.codes: set[str] = set()

    def has(self, wanted: Set[str]) -> bool:
        """Whether one of these codes has been the first cause."""
        self.codes |= {one["code"] for one in self.scene.cluster()["causes"][:1]}
        words = {code.title().replace("-", ""): code for code in wanted}
        told = {one["reason"] for one in self.scene.events() if one["id"] not in self.before and one["warning"]}
        self.codes |= {code for word, code in words.items() if word in told}
        return bool(self.codes & wanted)


def kill_master(scene: Scene) -> None:
    kill(scene.sandbox, scene.seen.member(0, master=True))


def kill_shard(scene: Scene) -> None:
    _kill_together(scene, [pod for pod in scene.seen.pods() if pod.shard == 0])


def kill_all(scene: Scene) -> None:
    _kill_together(scene, scene.seen.pods())


def _kill_together(scene: Scene, pods: Sequence[Pod]) -> None:
    faults.kill_containers(scene.sandbox, [f"{NAMESPACE}/{pod.name}" for pod in pods], "redis")


def new_addresses(scene: Scene) -> None:
    faults.new_addresses(scene.sandbox, NAMESPACE, f"{LABEL_INSTANCE}={scene.name}")


def lose_master_disk(scene: Scene) -> None:
    lose_disk(scene.sandbox, scene.seen.member(0, master=True))


def lose_replica_disk(scene: Scene) -> None:
    lose_disk(scene.sandbox, scene.seen.member(0, master=False))


def freeze_master(scene: Scene) -> None:
    freeze(scene.sandbox, scene.seen.member(0, master=True))


def lose_node(scene: Scene) -> Cure:
    node = scene.seen.member(0, master=True).node
    faults.node_down(scene.sandbox, node)
    return lambda: faults.node_up(scene.sandbox, node)


def split(scene: Scene) -> Cure:
    """A master, and a replica of another shard on another node: the rest is a majority."""
    heads, replicas = ([scene.seen.member(shard, master=is_head) for shard in range(3)] for is_head in (True, False))
    head, other = next(
        (head, other) for head in heads for other in replicas if head.shard != other.shard and head.node != other.node
    )
    away: Sequence[Pod] = (head, other)
    for pod in away:
        freeze(scene.sandbox, pod)
    return lambda: [faults.thaw(scene.sandbox, f"{NAMESPACE}/{pod.name}", "redis") for pod in away]


@dataclass(frozen=True)
class Fault:
    """What is done to a cluster of this persistence; `codes`: the first causes that name it; `writes`: after how long
    writes are taken again, as docs/engines/redis.md says it, for the node timeout of the plan.
    """

    act: Callable[[Scene], Cure | None]
    codes: Set[str]
    writes: str
    persistence: str = "aof"


_, MOST = failover_seconds(NODE_TIMEOUT_MS)
BY_ITSELF, BY_SCRIPT, STARTS = f"at most {MOST:g}", f"starts + 1, at most {MOST:g}", "starts"

# By the names of docs/engines/redis.md, "How long it takes".
FAULTS: Mapping[str, Fault] = {
    "killed master": Fault(kill_master, {"master-down"}, BY_SCRIPT),
    "killed shard": Fault(kill_shard, {"shard-down"}, STARTS),
    # The shard that was killed before starts later than the others, and is the cause when they are there.
    "every pod restarted at once": Fault(kill_all, {"all-pods-down", "shard-down"}, STARTS),
    "all addresses new": Fault(new_addresses, {"addresses-changed", "all-pods-down"}, "starts + 2 to 5"),
    "disk lost, of a master": Fault(lose_master_disk, {"disk-lost"}, f"starts, at most {MOST:g}"),
    "disk lost, of a replica": Fault(lose_replica_disk, {"disk-lost"}, "not interrupted"),
    "split by freezing": Fault(split, {"network-split"}, BY_ITSELF),
    "frozen process": Fault(freeze_master, {"process-frozen"}, BY_ITSELF),
    "node lost": Fault(lose_node, {"node-lost"}, BY_ITSELF),
    "master restarted whose memory was not on disk (rdb)": Fault(
        kill_master, {"master-restarted-without-data", "master-down"}, BY_SCRIPT, "rdb"
    ),
}
SWAP = "swapped addresses"
SWAP_CODE = "addresses-changed"


def measure(scene: Scene, fault: Fault, figures: Figures) -> None:
    """One fault, and its figures. Raises TimeoutError when it is not mended."""
    scene.seen.await_whole(3)
    # The faults before left masters uneven: a node with two of three would take the majority with it.
    if not all(one["holds"] for one in scene.cluster()["spread"]["invariants"]):
        scene.api.follow(scene.api.request("POST", f"{scene.path}/rebalance-masters")["operation"])
    scene.seen.mark()
    told = Told(scene)
    started = time.monotonic()
    cure = fault.act(scene)
    gap, named = 0.0, None
    hurt = False
    while cure is not None:
        tally = scene.seen.mark()
        gap = max(gap, tally["accepted_gap"])
        hurt = hurt or bool(tally["refused"]) or gap > CALM_SECONDS
        if named is None and told.has(fault.codes):
            named = time.monotonic() - started
        # Put back before it was named it would never be.
        if hurt and is_back(tally) and named is not None:
            break
        _not_too_long(started, "the client cannot write" if named is not None else f"named as {told.codes}")
        time.sleep(LOOK_EVERY_SECONDS)
    since = time.monotonic() if cure is not None else started
    if cure is not None:
        cure()
    whole, ready, back = None, None, False
    # A gap goes on in the client for as long as it asks dead addresses; the next fault's must not begin with it.
    while whole is None or ready is None or not back:
        tally = scene.seen.mark()
        gap = max(gap, tally["accepted_gap"])
        back = is_back(tally)
        if named is None and told.has(fault.codes):
            named = time.monotonic() - started
        cluster = scene.cluster()
        if whole is None and not (why := scene.seen.ailing(3)):
            whole = time.monotonic() - since
        # What Berth said before it looked is no answer.
        if whole is not None and cluster["phase"] == "ready" and not cluster["causes"]:
            ready = time.monotonic() - since
        _not_too_long(started, f"it is not whole: {why or cluster['reason'] or 'the client cannot write'}")
        time.sleep(LOOK_EVERY_SECONDS)
    figures.writes.append(gap)
    figures.whole.append(whole)
    figures.ready.append(ready)
    if named is not None:
        figures.named.append(named)


def is_back(tally: Mapping[str, Any]) -> bool:
    """Whether the client could write everywhere since the look before."""
    return bool(tally["accepted_gap"] < CALM_SECONDS and not tally["refused"])


def _not_too_long(started: float, what: str) -> None:
    if time.monotonic() - started > GIVE_UP_SECONDS:
        raise TimeoutError(f"after {GIVE_UP_SECONDS:.0f} s: {what}")


def swap(figures: Figures, network: int) -> None:
    """Two clusters of processes start under each other's addresses."""
    with tempfile.TemporaryDirectory(prefix="berth-swap-") as folder:
        fleets = []
        try:
            for number, name in enumerate(("first", "second")):
                place = Path(folder) / name
                place.mkdir()
                fleet = Fleet(view(name, nodeTimeoutMs=NODE_TIMEOUT_MS), place, network + number)
                fleets.append(fleet)
                fleet.start()
                fleet.settle()
            for fleet in fleets:
                for server in fleet.servers:
                    fleet.kill(server)
            for fleet, other in (fleets, fleets[::-1]):
                for server in fleet.servers:
                    fleet.move(server, other.network)
            started = time.monotonic()
            for fleet in fleets:
                found = ENGINE.advance(fleet.cluster, fleet.world(), fleet).causes
                if [one.code for one in found[:1]] != [SWAP_CODE]:
                    raise TimeoutError(f"what was named first: {found[:1]}")
            figures.named.append(time.monotonic() - started)
            for fleet in fleets:
                fleet.settle()
            figures.whole.append(time.monotonic() - started)
        finally:
            for fleet in fleets:
                fleet.stop()


def recovery(stack: Stack, rounds: int, only: str, say: Callable[[str], None]) -> None:
    """Measure and print. Ends the program when an order fails."""
    assert stack.sandbox is not None
    api = stack.api()
    found: dict[str, Figures] = {title: Figures() for title in [*FAULTS, SWAP] if only in title}
    for persistence in ("aof", "rdb"):
        mine = [title for title, fault in FAULTS.items() if fault.persistence == persistence and title in found]
        if not mine:
            continue
        name = f"recovery-{persistence}"
        body = {
            "engine": "redis",
            "name": name,
            "plan": "redis-dev",
            "spec": {"persistence": persistence, "nodeTimeoutMs": NODE_TIMEOUT_MS},
        }
        answer = api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": secrets.token_hex(16)})
        if api.follow(answer["operation"])["state"] != "succeeded":
            sys.exit(f"The order of {name} failed.")
        principal = api.request("GET", f"{CLUSTERS}/{name}/credentials")["items"][0]["name"]
        password = api.request("POST", f"{CLUSTERS}/{name}/credentials/{principal}/reveal")["password"]
        host = api.request("GET", f"{CLUSTERS}/{name}")["endpoints"][0]["host"]
        with watched(stack.sandbox, NAMESPACE, name, host, password) as seen:
            scene = Scene(stack, name, seen)
            for number in range(rounds):
                for title in mine:
                    measure(scene, FAULTS[title], found[title])
                    say(f"round {number + 1}: {found[title].row(title, FAULTS[title].writes).strip()}")
            lost = seen.stop()["lost_count"]
        say(f"{name}: {lost} confirmed writes lost")
        api.follow(api.request("DELETE", f"{CLUSTERS}/{name}?volumes=delete&confirm={name}")["operation"])
    for number in range(rounds if SWAP in found else 0):
        swap(found[SWAP], 200 + 2 * number)
    say(f"recovery, median of {rounds}, seconds; node timeout {NODE_TIMEOUT_MS / 1000:g} s")
    say(f"    {'':<52}{'writes':>8}{'whole':>8}{'ready':>8}{'named':>8}   writes, as documented")
    for title, figures in found.items():
        say(figures.row(title, FAULTS[title].writes if title in FAULTS else ""))


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench_recovery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="faults whose title contains this")
    arguments = parser.parse_args()
    if os.environ.get("KUBECONFIG"):
        sys.exit("Faults reach only the embedded target; unset KUBECONFIG.")

    def say(line: str) -> None:
        print(line, flush=True)

    with interruptible(), running_stack(name="recovery", progress=say, fast=True) as stack:
        recovery(stack, arguments.rounds, arguments.only, say)


if __name__ == "__main__":
    main()
