"""Side by side, part of `make bench`: a fourth shard, and what heals a master, with Berth and without it.

(d) a shard is added to a Redis Cluster that holds keys, while a client writes: Berth's PATCH until the operation ends,
    against kubectl apply, wait, `redis-cli --cluster add-node` (master, then replica) and `rebalance`;
(e) a master's process is killed, and (f) its pod is deleted without grace: until the shard has a master and a replica
    in step again, in Berth's cluster and in one that runs on Kubernetes and Redis alone;
(g) a master's disk is emptied and its process killed: confirmed writes that cannot be read any more.

The cluster by hand is made of the same manifests with a plain start command instead of Berth's start and stop scripts.
In each the client of dev/writer.py tells the longest time for which it could not write, and how many writes were
refused. It prints ratios and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dev.bench import HAND_NAMESPACE, READY_DEADLINE_SECONDS, ByHand, order, remove
from dev.redis_watch import Watched, watched
from dev.soak import delete, kill, lose_disk
from dev.stack import CLUSTERS, NAMESPACE, Stack, interruptible, running_stack
from provisioning.engines.base import LABEL_COMPONENT, LABEL_INSTANCE
from sandbox import Sandbox

# What no replica has confirmed is not asked for: nobody follows an empty master for so long.
EMPTIED_SECONDS = 20.0
PLAIN_START = """#!/bin/sh
set -eu
password=$(cat /etc/redis-auth/password)
printf 'requirepass %s\\nmasterauth %s\\n' "$password" "$password" > /run/redis/auth.conf
exec redis-server /etc/redis/redis.conf --cluster-announce-ip "$POD_IP"
"""
PLAIN_STOP = "#!/bin/sh\nexit 0\n"


class Plain(ByHand):
    """A cluster by hand whose pods have nothing of Berth's in them."""

    def write(self) -> None:
        """See ByHand.write."""
        super().write()
        found = json.loads(self.file.read_text())
        for item in found["items"]:
            if item["kind"] == "ConfigMap":
                item["data"] |= {"start.sh": PLAIN_START, "stop.sh": PLAIN_STOP}
        self.file.write_text(json.dumps(found))

    def add_shard(self) -> None:
        """One shard more, with the data spread over all."""
        shards = self.view.spec["shards"]
        self.view = replace(self.view, spec={**self.view.spec, "shards": shards + 1})
        self.write()
        self.apply()
        self.kubectl("-n", HAND_NAMESPACE, "wait", "--for=jsonpath={.status.readyReplicas}=2",
                     f"statefulset/byhand-s{shards}", "--timeout=120s")  # fmt: skip
        first, new, replica = (
            self._address(name) for name in ("byhand-s0-0", f"byhand-s{shards}-0", f"byhand-s{shards}-1")
        )
        self.redis("--cluster", "add-node", new, first)
        master = self.redis("-h", new.rpartition(":")[0], "cluster", "myid").strip()
        self._agreed(2 * shards + 1)
        self.redis("--cluster", "add-node", replica, first, "--cluster-slave", "--cluster-master-id", master)
        self._agreed(2 * shards + 2)
        self.redis("--cluster", "rebalance", first, "--cluster-use-empty-masters")

    def _address(self, pod: str) -> str:
        address = self.kubectl("-n", HAND_NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
        return f"{address}:6379"

    def _agreed(self, nodes: int) -> None:
        """redis-cli refuses to go on while nodes do not know each other."""
        pods = self.kubectl(
            "-n", HAND_NAMESPACE, "get", "pods", "-l", f"{LABEL_INSTANCE}=byhand,{LABEL_COMPONENT}=redis", "-o",
            "jsonpath={.items[*].status.podIP}",
        ).split()  # fmt: skip
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        while True:
            said = [self.redis("-h", address, "cluster", "info") for address in pods]
            if sum(f"cluster_known_nodes:{nodes}" in one for one in said) >= nodes:
                return
            if time.monotonic() > deadline:
                sys.exit("The nodes of the cluster by hand did not agree.")
            time.sleep(0.1)


@dataclass
class Side:
    """Figures of one road, by part: seconds it took, the client's longest gap, and refusals."""

    took: dict[str, list[float]] = field(default_factory=dict)
    gaps: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, list[float]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)

    def note(self, part: str, seconds: float, tally: Mapping[str, Any]) -> None:
        """One measurement."""
        self.took.setdefault(part, []).append(seconds)
        self.gaps.setdefault(part, []).append(tally["accepted_gap"])
        self.refused.setdefault(part, []).append(tally["refused"])


def through(
    seen: Watched, sandbox: Sandbox, namespace: str, side: Side, keys: int, add_shard: Callable[[], None]
) -> None:  # fmt: skip
    """All parts on one cluster."""
    seen.fill(keys)
    seen.mark()
    started = time.monotonic()
    add_shard()
    side.note("d", time.monotonic() - started, seen.mark())
    for part, act in (("e", kill), ("f", delete)):
        seen.await_whole(4)
        seen.mark()
        started = time.monotonic()
        act(sandbox, seen.member(0, master=True), namespace)
        seen.await_whole(4)
        side.note(part, time.monotonic() - started, seen.mark())
    lose_disk(sandbox, seen.member(1, master=True), namespace)
    until = time.monotonic() + EMPTIED_SECONDS
    while seen.ailing(4) and time.monotonic() < until:
        time.sleep(0.2)
    side.lost.append(seen.stop()["lost_count"])


def berth(stack: Stack, sandbox: Sandbox, name: str, side: Side, keys: int) -> Mapping[str, Any]:
    """Order, measure, remove; returns the cluster as it was ordered."""
    _, cluster, _ = order(stack, name)
    api = stack.api()
    principal = api.request("GET", f"{CLUSTERS}/{name}/credentials")["items"][0]["name"]
    password = api.request("POST", f"{CLUSTERS}/{name}/credentials/{principal}/reveal")["password"]
    host = api.request("GET", f"{CLUSTERS}/{name}")["endpoints"][0]["host"]

    def add_shard() -> None:
        ended = api.follow(api.request("PATCH", f"{CLUSTERS}/{name}", {"spec": {"shards": 4}})["operation"])
        if ended["state"] != "succeeded":
            sys.exit(f"The fourth shard failed: {ended['error']}")

    with watched(sandbox, NAMESPACE, name, host, password) as seen:
        through(seen, sandbox, NAMESPACE, side, keys, add_shard)
    remove(stack, name)
    return cluster


def by_hand(stack: Stack, sandbox: Sandbox, cluster: Mapping[str, Any], side: Side, keys: int) -> None:
    """The same with kubectl and redis-cli."""
    hand = Plain(stack, sandbox, cluster)
    hand.write()
    hand.prepare()
    hand.deliver()
    host = f"byhand.{HAND_NAMESPACE}.svc.cluster.local"
    try:
        with watched(sandbox, HAND_NAMESPACE, "byhand", host, hand.password, by_head=True) as seen:
            through(seen, sandbox, HAND_NAMESPACE, side, keys, hand.add_shard)
    finally:
        hand.remove()


def changes(stack: Stack, rounds: int, keys: int, say: Callable[[str], None]) -> None:
    """Measure and print."""
    assert stack.sandbox is not None
    mine, theirs = Side(), Side()
    for number in range(rounds):
        cluster = berth(stack, stack.sandbox, f"changes-{number}", mine, keys)
        by_hand(stack, stack.sandbox, cluster, theirs, keys)
        last = "; ".join(
            f"({part}) {mine.took[part][-1]:.1f} s, by hand {theirs.took[part][-1]:.1f} s" for part in "def"
        )
        say(f"round {number + 1} of {rounds}: {last}; (g) {mine.lost[-1]} lost, by hand {theirs.lost[-1]}")
    titles = {
        "d": f"a fourth shard, {keys} keys of 100 bytes, median of {rounds}",
        "e": "a master's process killed, until master and replica are there",
        "f": "a master's pod deleted without grace, until master and replica are there",
    }
    for part, title in titles.items():
        say(f"({part}) {title}")
        for who, side in (("Berth", mine), ("without Berth", theirs)):
            gap, refused = statistics.median(side.gaps[part]), statistics.median(side.refused[part])
            say(f"    {who:<16}{statistics.median(side.took[part]):7.2f} s   client: longest gap {gap:5.2f} s, "
                f"{refused:.0f} refused")  # fmt: skip
        say(f"    ratio           {statistics.median(mine.took[part]) / statistics.median(theirs.took[part]):7.2f}")
    say(f"(g) a master's disk emptied: confirmed writes lost: Berth {mine.lost}, without Berth {theirs.lost}")


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench_changes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keys", type=int, default=100_000)
    arguments = parser.parse_args()
    if os.environ.get("KUBECONFIG"):
        sys.exit("This breaks things through the embedded target; unset KUBECONFIG.")

    def say(line: str) -> None:
        print(line, flush=True)

    with interruptible(), running_stack(name="changes", progress=say) as stack:
        changes(stack, arguments.rounds, arguments.keys, say)


if __name__ == "__main__":
    main()
