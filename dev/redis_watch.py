"""A Redis Cluster on the embedded target while a client writes to it: for the soak, the benchmarks and the tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provisioning.engines.base import LABEL_COMPONENT, LABEL_INSTANCE, LABEL_SHARD
from sandbox import Sandbox
from sandbox.api import Client

ROOT = Path(__file__).resolve().parent.parent
LOOK_EVERY_SECONDS = 0.1
CHECK_SECONDS = 300.0


@dataclass(frozen=True)
class Pod:
    """One member's pod."""

    name: str
    uid: str
    shard: int
    address: str
    node: str
    ready: bool


class Watched:
    """One cluster by name, with dev/writer.py running beside it. Made by `watched`.

    `by_head`: a shard is who follows one master, in the order of the masters' ids. redis-cli pairs pods as it likes;
    Berth's shards are those of the pods' labels.
    """

    def __init__(
        self, sandbox: Sandbox, namespace: str, name: str, host: str, password: str, *, lanes: int = 6,
        pause: float = 0.02, by_head: bool = False,
    ) -> None:  # fmt: skip
        self.sandbox, self.namespace, self.name, self.by_head = sandbox, namespace, name, by_head
        self._client = Client(sandbox.kubeconfig_path)
        self._lock = threading.Lock()
        argv = [
            *sandbox.network_prefix(), sys.executable, "-m", "dev.writer", host, f"--lanes={lanes}", f"--pause={pause}",
        ]  # fmt: skip
        self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(password + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said == "ready\n", f"the client did not start: {said!r}"

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def mark(self) -> Mapping[str, Any]:
        """What the client saw since the mark before, see dev.writer.Tally."""
        return self._ask("mark")

    def fill(self, count: int) -> None:
        """Have so many keys of 100 bytes written, spread over all slots."""
        self._ask(f"fill {count}")

    def stop(self) -> Mapping[str, Any]:
        """End the client, and return all it saw, with what was lost: see dev/writer.py."""
        said, _ = self.process.communicate(timeout=CHECK_SECONDS)
        found: dict[str, Any] = json.loads(said)
        return found

    def pods(self) -> list[Pod]:
        """The pods that are there, by name."""
        wish = f"{LABEL_INSTANCE}={self.name},{LABEL_COMPONENT}=redis".replace("=", "%3D").replace("/", "%2F")
        items = self._client.read(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={wish}").get("items", [])
        found = []
        for item in items:
            metadata, status = item["metadata"], item.get("status", {})
            conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
            is_ready = conditions.get("Ready") == "True" and "deletionTimestamp" not in metadata
            found.append(
                Pod(metadata["name"], metadata["uid"], int(metadata["labels"][LABEL_SHARD]), status.get("podIP", ""),
                    item["spec"].get("nodeName", ""), is_ready)
            )  # fmt: skip
        return sorted(found, key=lambda pod: pod.name)

    def roles(self) -> dict[str, Mapping[str, Any]]:
        """Pod to how its server sees itself, see dev.writer.look; empty for one that does not answer."""
        pods = [pod for pod in self.pods() if pod.address]
        told = self._ask("look " + " ".join(pod.address for pod in pods))
        return {pod.name: told[pod.address] for pod in pods}

    def _seen(self) -> tuple[list[Pod], dict[str, Mapping[str, Any]]]:
        """The pods with the shard each belongs to, and their `roles`; who does not answer keeps its label's shard."""
        pods, told = self.pods(), self.roles()
        if self.by_head:
            heads = sorted({said["head"] for said in told.values() if said})
            pods = [
                replace(pod, shard=heads.index(told[pod.name]["head"])) if told.get(pod.name) else pod for pod in pods
            ]
        return pods, told

    def member(self, shard: int, *, master: bool) -> Pod:
        """The master of a shard, or one of its replicas."""
        pods, told = self._seen()
        want = "master" if master else "replica"
        return next(pod for pod in pods if pod.shard == shard and told.get(pod.name, {}).get("role") == want)

    def ailing(self, shards: int | None = None, replicas: int | None = None) -> str:
        """What is not whole: pods away, a shard without one master and its replicas in step, nodes that do not agree.
        Empty when all is well. Without `shards`, of those whose pods are there: a shard on its way in or out may have
        no slots.
        """
        pods, told = self._seen()
        by_shard: dict[int, list[Pod]] = {}
        for pod in pods:
            by_shard.setdefault(pod.shard, []).append(pod)
            said = told.get(pod.name)
            if not pod.ready or not said:
                return f"{pod.name} is not there"
            if not said["ok"] or said["failed"] or said["nodes"] != len(pods):
                return f"{pod.name}: ok {said['ok']}, knows {said['nodes']} of {len(pods)}, {said['failed']} failed"
        if not pods or (shards is not None and len(by_shard) != shards):
            return f"{len(by_shard)} shards are there"
        for shard, members in by_shard.items():
            if replicas is not None and len(members) != replicas + 1:
                return f"shard {shard} has {len(members)} members"
            masters = [pod.name for pod in members if told[pod.name]["role"] == "master"]
            if len(masters) != 1 or told[masters[0]]["linked"] != len(members) - 1:
                return f"shard {shard}: masters {masters}, linked {[told[pod.name]['linked'] for pod in members]}"
            if shards is not None and not told[masters[0]]["slots"]:
                return f"shard {shard} serves nothing"
        return ""

    def whole_shards(self, replicas: int = 1) -> dict[int, dict[Pod, str]]:
        """Shards whose members are all there, ready and in step: to their pods with their roles."""
        pods, told = self._seen()
        found: dict[int, dict[Pod, str]] = {}
        for shard in sorted({pod.shard for pod in pods}):
            members = {pod: told.get(pod.name, {}) for pod in pods if pod.shard == shard}
            heads = [said for said in members.values() if said and said["role"] == "master"]
            in_step = len(heads) == 1 and heads[0]["linked"] == replicas and heads[0]["slots"] and heads[0]["ok"]
            if in_step and all(said and pod.ready and said["linked"] for pod, said in members.items()):
                found[shard] = {pod: str(said["role"]) for pod, said in members.items()}
        return found

    def await_whole(self, shards: int | None = None, *, seconds: float = 180) -> float:
        """Wait until nothing is `ailing`; returns the seconds it took. Raises TimeoutError with what still is."""
        started = time.monotonic()
        while why := self.ailing(shards):
            if time.monotonic() - started > seconds:
                raise TimeoutError(f"not whole after {seconds:.0f} s: {why}")
            time.sleep(LOOK_EVERY_SECONDS)
        return time.monotonic() - started


@contextlib.contextmanager
def watched(
    sandbox: Sandbox, namespace: str, name: str, host: str, password: str, *, lanes: int = 6, pause: float = 0.02,
    by_head: bool = False,
) -> Iterator[Watched]:  # fmt: skip
    """A client that writes to a cluster; it is ended at the end."""
    made = Watched(sandbox, namespace, name, host, password, lanes=lanes, pause=pause, by_head=by_head)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
