"""`make soak`: a Redis Cluster is changed and broken for as long as you like while a client writes, and loses nothing.

`python -m dev.soak [--minutes N] [--seed S]`. Each round is an operation through the API (shards out and in, a change
that restarts every pod, a restart, another version, replicas out and in, settings) and faults that happen meanwhile:
processes killed, pods deleted, disks lost, processes frozen, the portal's worker killed. What happens to whom is drawn
from the seed, which is printed; when it happens depends on the machine.

The fault model is that of docs/engines/redis.md: one thing at a time happens to a shard. So a fault hits a shard whose
members are all there and in step, and the next comes when that is so again. A planned restart is a shard's one thing
too; a disk is therefore not lost while pods are being restarted.

It ends with an error when a confirmed write is lost, an operation fails, a fault is not mended, or masters, replicas
and nodes are not as wished at the end. Also when a client has read something older than what it had been confirmed,
but for the two cases of which docs/engines/redis.md says that this may be (`Round.may_read_old`).
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.portal import Api
from dev.redis_watch import Pod, Watched, watched
from dev.stack import CLUSTERS, NAMESPACE, Stack, interruptible, running_stack
from sandbox import Sandbox, faults

MEND_SECONDS = 180.0
OPERATION_SECONDS = 900.0
# A rolling operation has whole shards in passing only.
CATCH_SECONDS = 60.0
POLL_SECONDS = 0.1
# A frozen process thaws when it has been replaced, at the latest now.
FROZEN_SECONDS = 30.0


class SoakError(Exception):
    """It did not hold; the message says what."""


def kill(sandbox: Sandbox, pod: Pod, namespace: str = NAMESPACE) -> None:
    """SIGKILL its redis-server; the pod keeps its address."""
    faults.kill_container(sandbox, f"{namespace}/{pod.name}", "redis")


def delete(sandbox: Sandbox, pod: Pod, namespace: str = NAMESPACE) -> None:
    """Delete its pod without grace; it comes back under a new address."""
    sandbox.kubectl("-n", namespace, "delete", "pod", pod.name, "--grace-period=0", "--force", "--wait=false")


def end(sandbox: Sandbox, pod: Pod, namespace: str = NAMESPACE) -> None:
    """Delete its pod with grace, as a drained node does."""
    sandbox.kubectl("-n", namespace, "delete", "pod", pod.name, "--wait=false")


def lose_disk(sandbox: Sandbox, pod: Pod, namespace: str = NAMESPACE) -> None:
    """Every file of its volume is gone, and its redis-server killed before it can write one again."""
    name = f"{namespace}/{pod.name}"
    faults.freeze(sandbox, name, "redis")
    faults.lose_volume(sandbox, f"{namespace}/data-{pod.name}")
    faults.kill_container(sandbox, name, "redis")


def freeze(sandbox: Sandbox, pod: Pod, namespace: str = NAMESPACE) -> None:
    """SIGSTOP: the kernel goes on taking connections for it."""
    faults.freeze(sandbox, f"{namespace}/{pod.name}", "redis")


# Name to (what is done, whether it is done to a master).
FAULTS: Mapping[str, tuple[Callable[..., None], bool]] = {
    "kill-master": (kill, True),
    "kill-replica": (kill, False),
    "delete-master": (delete, True),
    "delete-replica": (delete, False),
    "end-master": (end, True),
    "lose-disk-of-master": (lose_disk, True),
    "lose-disk-of-replica": (lose_disk, False),
    "freeze-master": (freeze, True),
}
DISKS = frozenset({"lose-disk-of-master", "lose-disk-of-replica"})


@dataclass(frozen=True)
class Round:
    """`change` is a patch of the spec, or "restart", or "upgrade" to the version the engine offers from there (there is
    no way back, so it is done once), or None for no operation; `rolls`: whether it restarts pods.
    """

    title: str
    change: Mapping[str, Any] | str | None
    rolls: bool
    faults: Sequence[str]
    kill_worker: bool = False

    @property
    def may_read_old(self) -> bool:
        """Whether a master that thaws may answer before it learns of its successor, or the giver of slots on the move
        may be replaced by a replica that does not know which of their keys have gone.
        """
        moves = isinstance(self.change, Mapping) and "shards" in self.change
        return "freeze-master" in self.faults or (moves and any(FAULTS[one][1] for one in self.faults))


# The suite's: shards and replicas out and in, what restarts every pod, another version; and every fault.
SHORT = (
    Round("a fourth shard", {"shards": 4}, False, ("kill-master", "delete-replica")),
    Round("more memory", {"memoryGiB": 0.25}, True, ("kill-master", "delete-master"), kill_worker=True),
    Round("three shards", {"shards": 3}, False, ("lose-disk-of-replica",)),
    Round("two replicas", {"replicasPerShard": 2}, False, ("kill-replica",)),
    Round("one replica", {"replicasPerShard": 1}, False, ()),
    Round("another version", "upgrade", True, ("kill-master",), kill_worker=True),
    Round("nothing", None, False, ("lose-disk-of-master", "freeze-master", "end-master")),
)


def drawn(rng: random.Random) -> Iterator[Round]:
    """Rounds without end. The spec goes from three shards with a replica each, and back there every other time."""
    big = False
    while True:
        big = not big
        pairs = [
            (Round("a fourth shard", {"shards": 4}, False, ()), Round("three shards", {"shards": 3}, False, ())),
            (Round("two replicas", {"replicasPerShard": 2}, False, ()),
             Round("one replica", {"replicasPerShard": 1}, False, ())),
            (Round("memory", {"memoryGiB": 0.25 if big else 0.125}, True, ()), Round("restart", "restart", True, ())),
            (Round("a setting", {"config": {"hz": rng.randint(5, 50)}}, False, ()), Round("nothing", None, False, ())),
            (Round("another version", "upgrade", True, ()), Round("nothing", None, False, ())),
        ]  # fmt: skip
        for one in rng.choice(pairs):
            possible = sorted(set(FAULTS) - (DISKS if one.rolls else set()))
            chosen = tuple(rng.choices(possible, k=rng.randint(1, 3)))
            yield Round(one.title, one.change, one.rolls, chosen, kill_worker=rng.random() < 0.2)


@dataclass
class Soak:
    """One cluster under soak."""

    stack: Stack
    api: Api
    path: str
    seen: Watched
    rng: random.Random
    say: Callable[[str], None]
    done: dict[str, int] = field(default_factory=dict)
    replicas: int = 1
    # Of the round under way.
    old_reads: int = 0

    @property
    def sandbox(self) -> Sandbox:
        assert self.stack.sandbox is not None
        return self.stack.sandbox

    def round(self, one: Round) -> None:
        """One operation with its faults. Raises SoakError."""
        operation: Mapping[str, Any] | None = None
        if one.change == "restart":
            operation = self.api.request("POST", f"{self.path}/restart")["operation"]
        elif one.change == "upgrade":
            version = self._newer()
            if version is None:
                self.say(f"{one.title}: it is the newest already; left out")
                return
            operation = self.api.request("PATCH", self.path, {"version": version})["operation"]
        elif isinstance(one.change, Mapping):
            operation = self.api.request("PATCH", self.path, {"spec": one.change})["operation"]
            self.replicas = one.change.get("replicasPerShard", self.replicas)
        self.say(f"{one.title}: begun")
        started = time.monotonic()
        self._mark()
        self.old_reads = 0
        if one.kill_worker:
            self.stack.portal.kill("worker")
            self.stack.portal.start("worker")
            self._count("worker killed")
        for fault in one.faults:
            self.fault(fault)
        if operation is not None:
            ended = self.api.follow(operation, deadline_seconds=OPERATION_SECONDS)
            if ended["state"] != "succeeded":
                raise SoakError(f"{one.title} ended as {ended['state']}: {ended['error']}")
            self._count(one.title)
        self.say(f"{one.title}: {time.monotonic() - started:.1f} s, {_spoken(self._mark())}")
        if self.old_reads and not one.may_read_old:
            suspects = self.seen.stop()["suspects"][:5]
            raise SoakError(f"{one.title}: {self.old_reads} reads of what is older than confirmed, such as {suspects}")

    def _mark(self) -> Mapping[str, Any]:
        """What the client saw since the mark before."""
        tally = self.seen.mark()
        self.old_reads += tally["stale"]
        return tally

    def _newer(self) -> str | None:
        """Where the cluster can go from its version."""
        upgrades: Mapping[str, Sequence[str]] = self.api.request("GET", "/api/v1/engines/redis")["upgrades"]
        return next(iter(upgrades.get(self.api.request("GET", self.path)["version"], ())), None)

    def fault(self, name: str) -> None:
        """Break a shard that is whole, and wait until it is whole again. Raises SoakError."""
        action, of_master = FAULTS[name]
        # What is drawn does not depend on how the cluster is; whom it hits is the first of these that may be hit.
        order = self.rng.sample(range(8), 8)
        pod = self._victim(order, of_master)
        if pod is None:
            self.say(f"  {name}: no shard was whole for a moment; left out")
            return
        self._mark()
        started = time.monotonic()
        action(self.sandbox, pod)
        if name == "freeze-master":
            self._until(lambda: self._led_by_another(pod), f"{pod.name} is replaced", FROZEN_SECONDS)
            faults.thaw(self.sandbox, f"{NAMESPACE}/{pod.name}", "redis")
        self._until(lambda: pod.shard in self.seen.whole_shards(self.replicas), f"{name} of {pod.name} is mended",
                    MEND_SECONDS)  # fmt: skip
        self._count(name)
        self.say(f"  {name} of {pod.name}: {time.monotonic() - started:.1f} s, {_spoken(self._mark())}")

    def _victim(self, order: Sequence[int], master: bool) -> Pod | None:
        want = "master" if master else "replica"
        until = time.monotonic() + CATCH_SECONDS
        while time.monotonic() < until:
            whole = self.seen.whole_shards(self.replicas)
            for shard in order:
                for pod, role in whole.get(shard, {}).items():
                    if role == want:
                        return pod
            time.sleep(POLL_SECONDS)
        return None

    def _led_by_another(self, frozen: Pod) -> bool:
        told = self.seen.roles()
        return any(
            told.get(pod.name, {}).get("role") == "master"
            for pod in self.seen.pods() if pod.shard == frozen.shard and pod.name != frozen.name
        )  # fmt: skip

    def _until(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise SoakError(f"not within {seconds:.0f} s: {what}; {self.seen.ailing()}")
            time.sleep(POLL_SECONDS)

    def _count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def finish(self, shards: int) -> Mapping[str, Any]:
        """Masters made even, all counted, everything read back: what the client saw. Raises SoakError."""
        self.seen.await_whole(shards)
        self._until(lambda: self.api.request("GET", self.path)["phase"] == "ready", "the cluster is ready", 60)
        # Refused when they are even already.
        cluster = self.api.request("GET", self.path)
        if not all(one["holds"] for one in cluster["spread"]["invariants"]):
            ended = self.api.follow(self.api.request("POST", f"{self.path}/rebalance-masters")["operation"])
            if ended["state"] != "succeeded":
                raise SoakError(f"masters were not made even: {ended['error']}")
            cluster = self.api.request("GET", self.path)
        seen = self.seen.stop()
        broken = [one["message"] for one in cluster["spread"]["invariants"] if not one["holds"]]
        roles = [member["role"] for member in cluster["members"]]
        if broken or (roles.count("master"), roles.count("replica")) != (shards, shards * self.replicas):
            raise SoakError(f"not as wished at the end: {broken or roles}")
        if seen["lost_count"]:
            raise SoakError(f"{seen['lost_count']} confirmed writes are lost, such as {seen['lost'][:5]}")
        return seen


def _spoken(tally: Mapping[str, Any]) -> str:
    """What the client saw, in one line."""
    refusals = ", ".join(f"{count} {why}" for why, count in sorted(tally["refusals"].items()))
    return (
        f"{tally['confirmed']} writes confirmed, longest gap {tally['accepted_gap']:.2f} s "
        f"({tally['confirmed_gap']:.2f} s between confirmed ones), refused: {refusals or 'none'}, "
        f"read older than confirmed: {tally['stale']}"
    )


def soak(
    stack: Stack, name: str, rounds: Iterator[Round], *, seed: int, minutes: float | None, say: Callable[[str], None]
) -> Mapping[str, Any]:
    """Soak a cluster that is there and has three shards with a replica each, for all of `rounds` or so many minutes.

    Returns what the client saw. Raises SoakError.
    """
    assert stack.sandbox is not None
    api = stack.api()
    path = f"{CLUSTERS}/{name}"
    principal = api.request("GET", f"{path}/credentials")["items"][0]["name"]
    password = api.request("POST", f"{path}/credentials/{principal}/reveal")["password"]
    host = api.request("GET", path)["endpoints"][0]["host"]
    until = None if minutes is None else time.monotonic() + minutes * 60
    with watched(stack.sandbox, NAMESPACE, name, host, password) as seen:
        run = Soak(stack, api, path, seen, random.Random(seed), say)
        shards = 3
        for one in rounds:
            run.round(one)
            if isinstance(one.change, Mapping):
                shards = one.change.get("shards", shards)
            if until is not None and time.monotonic() > until:
                break
        told = run.finish(shards)
    say(", ".join(f"{count} times {what}" for what, count in sorted(run.done.items())))
    say(f"0 confirmed writes lost; {_spoken(told)}; R and spread exact")
    return told


def main() -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=30, help="for how long new rounds begin; 0: the suite's rounds"
    )
    parser.add_argument("--seed", type=int, default=None, help="what is drawn; printed, so that it can be drawn again")
    arguments = parser.parse_args()
    if os.environ.get("KUBECONFIG"):
        sys.exit("The soak breaks things through the embedded target; unset KUBECONFIG.")
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1_000_000)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    say(f"seed {seed}")
    with interruptible(), running_stack(name="soak", progress=say, fast=True) as stack:
        api = stack.api()
        body = {"engine": "redis", "name": "soak", "plan": "redis-dev", "spec": {"persistence": "aof"}}
        answer = api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": secrets.token_hex(16)})
        if api.follow(answer["operation"])["state"] != "succeeded":
            sys.exit("The cluster to soak was not delivered.")
        rounds = drawn(random.Random(seed)) if arguments.minutes else iter(SHORT)
        try:
            soak(stack, "soak", rounds, seed=seed, minutes=arguments.minutes or None, say=say)
        except (SoakError, TimeoutError) as error:
            say(f"It did not hold: {error}")
            say(f"To draw the same again: make soak MINUTES={arguments.minutes:g} SEED={seed}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
