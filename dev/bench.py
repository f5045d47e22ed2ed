"""`make bench`: how long Berth takes to deliver a Redis Cluster, beside the same by hand, in one run on one API server.

(a) from POST to every manifest applied, against `kubectl apply --server-side` of the same manifests;
(b) from POST to proven ready, split into steps, against kubectl apply, wait, `redis-cli --cluster create`, SET, GET;
(c) latency of the create request at 1, 8 and 32 parallel clients.

Rounds alternate between the two roads, and each begins when the machine has come to rest, so both meet the same. It
prints ratios and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from dev.stack import CLUSTERS, Stack, interruptible, running_stack
from provisioning.engines.base import ClusterView, common_labels
from provisioning.engines.registry import ENGINES
from sandbox import Sandbox

TENANT = "demo"
SPEC = {"shards": 3, "replicasPerShard": 1}
HAND_NAMESPACE = "by-hand"
READY_DEADLINE_SECONDS = 120.0
# The share of the machine's cores that is idle when nothing but the portal and the target are there.
AT_REST = 0.8


def stamp(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def order(stack: Stack, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any], float]:
    """Create one cluster through the API: the ended operation, the cluster, and when the request was sent (epoch)."""
    api = stack.api()
    body = {"engine": "redis", "name": name, "plan": "redis-dev", "spec": SPEC}
    sent = time.time()
    answer = api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": secrets.token_hex(16)})
    operation = api.follow(answer["operation"])
    if operation["state"] != "succeeded":
        sys.exit(f"The order of {name} failed: {json.dumps(operation['error'])}")
    return operation, answer["cluster"], sent


def remove(stack: Stack, name: str) -> None:
    """Delete one cluster with its volumes and wait until it is gone."""
    api = stack.api()
    answer = api.request("DELETE", f"{CLUSTERS}/{name}?volumes=delete&confirm={name}")
    api.follow(answer["operation"])


class ByHand:
    """The same cluster, made with kubectl and redis-cli, in a namespace of its own."""

    def __init__(self, stack: Stack, sandbox: Sandbox, cluster: Mapping[str, Any]) -> None:
        self.stack, self.sandbox = stack, sandbox
        self.engine = ENGINES["redis"]
        self.view = ClusterView(
            id="clu_byhand", name="byhand", tenant=TENANT, namespace=HAND_NAMESPACE, engine="redis",
            version=str(cluster["version"]), generation=1, spec=cluster["spec"],
        )  # fmt: skip
        self.password = secrets.token_hex(16)
        self.file = stack.folder / "by-hand.json"
        self.manifest_count = 0

    def write(self) -> None:
        """The very manifests Berth applies, with the labels the core adds, as one file for kubectl."""
        labels = common_labels(self.view)
        items: list[dict[str, Any]] = []
        for secret in self.engine.secrets(self.view):
            data = dict.fromkeys(secret.generate, self.password)
            items.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret.name}, "stringData": data})
        items += [dict(manifest) for manifest in self.engine.render(self.view)]
        for item in items:
            metadata = item["metadata"]
            item["metadata"] = {
                **metadata, "namespace": HAND_NAMESPACE, "labels": {**labels, **metadata.get("labels", {})},
            }  # fmt: skip
        self.manifest_count = len(items)
        self.file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl; returns what it printed, ends the benchmark when it fails."""
        done = self.sandbox.kubectl(*arguments)
        if done.returncode != 0:
            sys.exit(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
        return done.stdout

    def prepare(self) -> None:
        self.kubectl("create", "namespace", HAND_NAMESPACE)
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        while self.sandbox.kubectl("-n", HAND_NAMESPACE, "get", "serviceaccount", "default").returncode != 0:
            if time.monotonic() > deadline:
                sys.exit("The namespace's service account did not appear.")
            time.sleep(0.05)

    def apply(self) -> float:
        """Seconds of `kubectl apply --server-side` of every manifest."""
        started = time.monotonic()
        self.kubectl("apply", "--server-side", "--field-manager=by-hand", "-f", str(self.file))
        return time.monotonic() - started

    def deliver(self) -> dict[str, float]:
        """Apply, wait for the pods, form the cluster, write and read: seconds of each part."""
        parts = {"apply": self.apply()}
        started = time.monotonic()
        for shard in range(SPEC["shards"]):
            ready = f"jsonpath={{.status.readyReplicas}}={SPEC['replicasPerShard'] + 1}"
            name = f"statefulset/byhand-s{shard}"
            self.kubectl("-n", HAND_NAMESPACE, "wait", f"--for={ready}", name, "--timeout=120s")
        parts["pods"] = time.monotonic() - started
        started = time.monotonic()
        pods = json.loads(self.kubectl("-n", HAND_NAMESPACE, "get", "pods", "-o", "json"))["items"]
        addresses = [f"{pod['status']['podIP']}:6379" for pod in sorted(pods, key=lambda pod: pod["metadata"]["name"])]
        replicas = str(SPEC["replicasPerShard"])
        self.redis("--cluster", "create", *addresses, "--cluster-replicas", replicas, "--cluster-yes")
        host = addresses[0].rpartition(":")[0]
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        for address in addresses:
            while "cluster_state:ok" not in self.redis("-h", address.rpartition(":")[0], "cluster", "info"):
                if time.monotonic() > deadline:
                    sys.exit("The cluster made by hand did not form.")
                time.sleep(0.05)
        for address in addresses:
            while "master_link_status:down" in self.redis("-h", address.rpartition(":")[0], "info", "replication"):
                if time.monotonic() > deadline:
                    sys.exit("A replica of the cluster made by hand did not link.")
                time.sleep(0.05)
        parts["form"] = time.monotonic() - started
        started = time.monotonic()
        self.redis("-c", "-h", host, "set", "proof", "1")
        if self.redis("-c", "-h", host, "get", "proof").strip() != "1":
            sys.exit("The cluster made by hand lost a key.")
        parts["proof"] = time.monotonic() - started
        return parts

    def redis(self, *arguments: str) -> str:
        done = self.stack.run_inside(
            ["redis-cli", "--no-auth-warning", *arguments], timeout=120,
            env={**os.environ, "REDISCLI_AUTH": self.password},
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"redis-cli {' '.join(arguments[:2])} failed: {done.stdout} {done.stderr}")
        return done.stdout

    def remove(self) -> None:
        self.kubectl("delete", "namespace", HAND_NAMESPACE, "--wait=true")


def await_rest() -> None:
    """Wait until what came before has been cleared away: half a second in which the machine does little, or 20 s."""

    def idle() -> float:
        # user, nice, system, idle, iowait, ...: https://docs.kernel.org/filesystems/proc.html
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[4]) / os.sysconf("SC_CLK_TCK")

    for _ in range(40):
        before = idle()
        time.sleep(0.5)
        if idle() - before > 0.5 * AT_REST * (os.cpu_count() or 1):
            return


def delivery(stack: Stack, sandbox: Sandbox, rounds: int, say: Callable[[str], None]) -> None:
    """Print (a) and (b)."""
    applied: list[float] = []
    ready: list[float] = []
    steps: dict[str, list[float]] = {}
    by_hand_apply: list[float] = []
    by_hand_parts: dict[str, list[float]] = {}
    for number in range(rounds):
        name = f"bench-{number}"
        await_rest()
        operation, cluster, sent = order(stack, name)
        applied.append(stamp(next(step["ended"] for step in operation["steps"] if step["key"] == "apply")) - sent)
        ready.append(stamp(operation["ended"]) - sent)
        before = sent
        for step in operation["steps"]:
            ended = stamp(step["ended"])
            steps.setdefault(step["title"], []).append(max(0.0, ended - before))
            before = max(before, ended)
        remove(stack, name)
        hand = ByHand(stack, sandbox, cluster)
        hand.write()
        hand.prepare()
        await_rest()
        parts = hand.deliver()
        by_hand_apply.append(parts["apply"])
        for key, seconds in parts.items():
            by_hand_parts.setdefault(key, []).append(seconds)
        hand.remove()
        began = stamp(operation["started"]) - sent
        slowest = max(steps, key=lambda title: steps[title][-1])
        say(
            f"round {number + 1} of {rounds}: Berth {ready[-1]:.2f} s (taken up after {began:.2f} s, longest: "
            f"{slowest} {steps[slowest][-1]:.2f} s), by hand {sum(parts.values()):.2f} s"
        )
    hand_total = [sum(values) for values in zip(*by_hand_parts.values(), strict=True)]
    say("")
    say(f"(a) {hand.manifest_count} manifests of a Redis Cluster 3x(1+1), median of {rounds}")
    mine, theirs = statistics.median(applied), statistics.median(by_hand_apply)
    say(f"    Berth, POST to all applied        {mine:6.2f} s")
    say(f"    kubectl apply --server-side       {theirs:6.2f} s")
    say(f"    ratio                             {mine / theirs:6.2f}   (at most 0.5 wanted)")
    say(f"(b) the same cluster, POST to proven ready, median of {rounds}")
    for title, values in steps.items():
        say(f"      {title:<32}{statistics.median(values):6.2f} s")
    mine, theirs = statistics.median(ready), statistics.median(hand_total)
    say(f"    Berth                             {mine:6.2f} s   (under 10 s wanted)")
    for key, values in by_hand_parts.items():
        say(f"      by hand: {key:<23}{statistics.median(values):6.2f} s")
    say(f"    kubectl and redis-cli by hand     {theirs:6.2f} s")
    say(f"    ratio                             {mine / theirs:6.2f}   (at most 0.7 wanted)")


def create_latency(stack: Stack, clients: int, requests: int) -> list[float]:
    """Seconds of each of `requests` create requests sent by `clients` parallel clients; the clusters are deleted again.

    The worker is stopped meanwhile: what is measured is the request, not a core shared with the clusters it makes.
    """
    local = threading.local()
    run = secrets.token_hex(2)

    def one(number: int) -> float:
        if not hasattr(local, "api"):
            local.api = stack.api()
        body = {"engine": "redis", "name": f"l-{run}-{number}", "plan": "redis-dev", "spec": SPEC}
        started = time.monotonic()
        local.api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": secrets.token_hex(16)})
        return time.monotonic() - started

    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(one, range(requests)))
    api = stack.api()
    for number in range(requests):
        api.request("DELETE", f"{CLUSTERS}/l-{run}-{number}?volumes=delete&confirm=l-{run}-{number}")
    return seconds


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=64, help="create requests for each number of clients in (c)")
    arguments = parser.parse_args()
    if os.environ.get("KUBECONFIG"):
        sys.exit("make bench compares with tools that run inside the embedded target's network; unset KUBECONFIG.")

    def say(line: str) -> None:
        print(line, flush=True)

    with interruptible(), running_stack(name="bench", progress=say) as stack:
        assert stack.sandbox is not None
        # The demo tenant's limits are for people who try it out; here it orders hundreds of clusters.
        stack.portal.manage("shell", "-c", "from tenants.models import QuotaLimit; QuotaLimit.objects.all().delete()")
        order(stack, "warm-up")
        remove(stack, "warm-up")
        delivery(stack, stack.sandbox, arguments.rounds, say)
        say("(c) POST of a create, worker stopped, gunicorn with 2 workers, client on the same 2 cores")
        stack.portal.kill("worker")
        for clients in (1, 8, 32):
            seconds = create_latency(stack, clients, arguments.requests)
            p50, p95 = quantile(seconds, 0.5) * 1000, quantile(seconds, 0.95) * 1000
            say(f"    {clients:>2} clients: p50 {p50:6.0f} ms   p95 {p95:6.0f} ms   ({len(seconds)} requests)")


if __name__ == "__main__":
    main()
