"""Real redis-server processes on loopback addresses, with the very configuration we render, and a Link to them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from provisioning.engines.base import LABEL_COMPONENT, LABEL_SHARD, ClusterView, LinkError, NodeView, PodView, World
from provisioning.engines.redis import RedisEngine
from provisioning.engines.redis.manifests import PORT, redis_conf

PASSWORD = "correcthorsebatterystaple"
ENGINE = RedisEngine()


def view(name: str = "orders", **spec: object) -> ClusterView:
    """A small cluster's wish."""
    complete = {one.key: one.default for one in ENGINE.fields}
    complete |= {"memoryGiB": 0.125, "nodeTimeoutMs": 3000, **spec}
    return ClusterView(f"clu_{name}", name, "acme", "berth-acme", "redis", ENGINE.versions[0], 1, complete)


@dataclass
class Server:
    """One process: `address` is its own loopback address, since every node uses the same port."""

    pod: str
    shard: int
    node: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Fleet:
    """The processes of one cluster; `network` is the third number of their addresses."""

    cluster: ClusterView
    folder: Path
    network: int
    servers: list[Server] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    budget: int | None = None

    def start(self) -> None:
        """Make and start every server, members of a shard on different nodes."""
        members = self.cluster.spec["replicasPerShard"] + 1
        for shard in range(self.cluster.spec["shards"]):
            for ordinal in range(members):
                number = len(self.servers)
                pod = f"{self.cluster.name}-s{shard}-{ordinal}"
                node = f"n{(shard + ordinal) % 3}"
                server = Server(pod, shard, node, f"127.77.{self.network}.{number + 1}", self.folder / pod)
                self.servers.append(server)
                self.run(server)

    def run(self, server: Server) -> None:
        """Start one process where it is to be, and wait for it."""
        server.folder.mkdir(exist_ok=True)
        auth = server.folder / "auth.conf"
        auth.write_text(f"requirepass {PASSWORD}\nmasterauth {PASSWORD}\n")
        text = redis_conf(self.cluster).replace("dir /data", f"dir {server.folder}")
        text = text.replace("/run/redis/auth.conf", str(auth)) + f"bind {server.address}\n"
        (server.folder / "redis.conf").write_text(text)
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed"
        with (server.folder / "log").open("ab") as log:
            argv = [program, str(server.folder / "redis.conf"), "--cluster-announce-ip", server.address]
            server.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((server.address, PORT), 1).close()
            except OSError:
                assert time.monotonic() < deadline, (server.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def kill(self, server: Server) -> None:
        """SIGKILL."""
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        server.process = None

    def move(self, server: Server, network: int) -> None:
        """Start it again under an address of another network."""
        server.address = f"127.77.{network}.{server.address.rpartition('.')[2]}"
        self.run(server)

    def stop(self) -> None:
        for server in self.servers:
            if server.process is not None:
                self.kill(server)

    def world(self) -> World:
        """What Kubernetes would say."""
        now = datetime.now(UTC)
        pods = [
            PodView(
                name=server.pod, uid=server.pod, labels={LABEL_COMPONENT: "redis", LABEL_SHARD: str(server.shard)},
                node=server.node, zone="", ip=server.address, phase="Running", started=server.process is not None,
                ready=server.process is not None, restarts=0, deleting=False, created=now,
            )
            for server in self.servers
        ]  # fmt: skip
        nodes = tuple(NodeView(name, "", True, True) for name in ("n0", "n1", "n2"))
        return World(now, tuple(sorted(pods, key=lambda pod: pod.name)), (), (), nodes)

    # --- Link ---

    def connect(self, pod: PodView, port: int, *, timeout: float = 2.0) -> socket.socket:
        try:
            return socket.create_connection((pod.ip, port), timeout)
        except OSError as error:
            raise LinkError(f"{pod.name} does not answer") from error

    def connect_service(self, service: str, port: int, *, timeout: float = 2.0) -> socket.socket:
        assert service == self.cluster.name
        return self.connect(self.world().pods[0], port, timeout=timeout)

    def secret(self, name: str) -> Mapping[str, str]:
        assert name == f"{self.cluster.name}-auth"
        return {"password": PASSWORD}

    def event(self, reason: str, message: str, *, warning: bool = False, object: str = "") -> None:
        self.events.append((reason, message))
        if self.budget is not None:
            self.budget -= 1
            if self.budget < 0:
                raise Crash

    # --- use ---

    def settle(self, seconds: float = 40) -> float:
        """Advance until healthy; returns the seconds it took."""
        started = time.monotonic()
        while True:
            outcome = ENGINE.advance(self.cluster, self.world(), self)
            if outcome.healthy:
                return time.monotonic() - started
            assert time.monotonic() - started < seconds, outcome.reason
            time.sleep(min(0.2, outcome.retry_after or 0.2))


class Crash(Exception):
    """The worker was killed right after a command."""
