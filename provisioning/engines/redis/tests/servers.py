"""Real redis-server processes on loopback addresses, with the very configuration we render, and a Link to them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from provisioning.credentials.certificates import advance
from provisioning.engines.base import (
    LABEL_COMPONENT,
    LABEL_SHARD,
    Advance,
    ClusterView,
    LinkError,
    NodeView,
    PodView,
    User,
    VolumeView,
    WorkloadView,
    World,
)
from provisioning.engines.redis import RedisEngine, users
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.encryption import Channel, is_on, pod_host, secret_name
from provisioning.engines.redis.manifests import PORT, START, redis_conf

PASSWORD = "correcthorsebatterystaple"
# Networks of this process's own: several share the machine's loopback addresses when tests run in parallel.
BASE = f"127.{77 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"
ENGINE = RedisEngine()
# <sys/ptrace.h>, <linux/wait.h>
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def view(name: str = "orders", **spec: object) -> ClusterView:
    """A small cluster's wish."""
    complete = {one.key: one.default for one in ENGINE.fields}
    complete |= {"memoryGiB": 0.125, "nodeTimeoutMs": 3000, **spec}
    everybody = (User("default", (1,)),)
    return ClusterView(
        f"clu_{name}", name, "acme", "berth-acme", "redis", ENGINE.versions[0], 1, complete, users=everybody
    )


@dataclass
class Server:
    """One process: `address` is its own loopback address, since every node uses the same port."""

    pod: str
    shard: int
    node: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    revision: str = "1"
    version: str = ""


@dataclass
class Fleet:
    """The processes of one cluster; `network` is the third number of their addresses."""

    cluster: ClusterView
    folder: Path
    network: int
    servers: list[Server] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    budget: int | None = None
    # What the core and Kubernetes would have: shard to replicas and to the template's state; names of volumes.
    sets: dict[int, int] = field(default_factory=dict)
    revision: str = "1"
    volumes: set[str] = field(default_factory=set)
    restarted: list[str] = field(default_factory=list)
    numbers: int = 0
    # Version to a folder with its redis-server; any other is the system's.
    programs: dict[str, Path] = field(default_factory=dict)
    # Kubernetes nodes that are not ready.
    lost: set[str] = field(default_factory=set)
    # Pod to the thread that is held.
    held: dict[str, int] = field(default_factory=dict)
    stored: dict[str, str] = field(default_factory=lambda: {"password": PASSWORD})
    # What the core keeps in Secrets, with TLS: the authority's, and the servers' own.
    authority: Mapping[str, str] = field(default_factory=dict)
    certificate: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Make and start every server that is wished and not there, members of a shard on different nodes."""
        members = self.cluster.spec["replicasPerShard"] + 1
        there = {server.pod for server in self.servers}
        for shard in range(self.cluster.spec["shards"]):
            self.sets[shard] = max(members, self.sets.get(shard, 0))
            for ordinal in range(members):
                pod = f"{self.cluster.name}-s{shard}-{ordinal}"
                if pod in there:
                    continue
                self.numbers += 1
                node = f"n{(shard + ordinal) % 3}"
                address = f"{BASE}.{self.network}.{self.numbers}"
                server = Server(
                    pod, shard, node, address, self.folder / pod, revision=self.revision, version=self.cluster.version
                )
                self.servers.append(server)
                self.volumes.add(f"data-{pod}")
                self.run(server)

    def wish(self, *, roll: bool = False, version: str = "", **spec: object) -> None:
        """An operation wishes another spec, as after its step "apply"; `roll`: with another template."""
        view = replace(
            self.cluster, spec={**self.cluster.spec, **spec}, changing=True, version=version or self.cluster.version
        )
        self.cluster = view
        self.revision = str(int(self.revision) + roll)
        self.start()

    def obey(self, outcome: Advance) -> None:
        """Do what the core and Kubernetes do on an engine's word."""
        if outcome.restart is not None:
            server = next(one for one in self.servers if one.pod == outcome.restart.name)
            self.restarted.append(server.pod)
            self.end(server)
            server.revision, server.version = self.revision, self.cluster.version
            self.run(server)
        for kind, name in outcome.retired:
            if kind == "StatefulSet":
                shard = int(name.rpartition("-s")[2])
                members = self.cluster.spec["replicasPerShard"] + 1 if shard < self.cluster.spec["shards"] else 0
                for server in [one for one in self.servers if one.shard == shard]:
                    if int(server.pod.rpartition("-")[2]) >= members:
                        if server.process is not None:
                            self.end(server)
                        self.servers.remove(server)
                self.sets[shard] = members
                if not members:
                    del self.sets[shard]
            elif kind == "PersistentVolumeClaim":
                self.volumes.remove(name)

    def end(self, server: Server) -> None:
        """SIGTERM, as a kubelet ends a container."""
        assert server.process is not None
        server.process.terminate()
        server.process.wait()
        server.process = None

    def run(self, server: Server) -> None:
        """Start one process where it is to be, and wait for it."""
        self.launch(server)
        self.listens(server)

    def listens(self, server: Server) -> None:
        """Wait until a process takes connections."""
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((server.address, PORT), 1).close()
            except OSError:
                assert time.monotonic() < deadline, (server.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def launch(self, server: Server) -> None:
        """Start one process by the pods' own start script, with their files in a folder of its own."""
        server.folder.mkdir(exist_ok=True)
        for key, value in self.secret(f"{self.cluster.name}-auth").items():
            (server.folder / key).write_text(value)

        def here(text: str) -> str:
            for place in ("/etc/redis-tls", "/etc/redis-auth", "/etc/redis", "/run/redis", "/data"):
                text = text.replace(place, str(server.folder))
            return text

        program = self.programs.get(server.version)
        path = f"{program}:{os.environ['PATH']}" if program else os.environ["PATH"]
        environment = {**os.environ, "PATH": path, "POD_IP": server.address}
        if is_on(self.cluster.spec):
            environment["POD_HOST"] = pod_host(self.cluster, server.pod)
            if not self.certificate:
                self.keep_certificates()
            self.bring_certificates(server)

        (server.folder / "redis.conf").write_text(here(redis_conf(self.cluster)) + f"bind {server.address}\n")
        script = server.folder / "start.sh"
        peers = " ".join(one.address for one in self.servers if one is not server)
        script.write_text(here(START).replace("@PEERS@", peers))
        assert shutil.which("redis-server") is not None, "redis-server is not installed"
        with (server.folder / "log").open("ab") as log:
            server.process = subprocess.Popen(
                ["/bin/sh", str(script)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=environment,
            )  # fmt: skip

    def keep_certificates(self, now: datetime | None = None) -> None:
        """What the core does about once a minute."""
        (wanted,) = ENGINE.certificates(self.cluster)
        moment = now or datetime.now(UTC)
        self.authority, self.certificate = advance(self.authority, self.certificate, wanted.names, "orders", moment)

    def bring_certificates(self, server: Server) -> None:
        """What a kubelet does, about a minute later."""
        for name, text in self.certificate.items():
            (server.folder / name).write_text(text)

    def kill(self, server: Server) -> None:
        """SIGKILL."""
        assert server.process is not None
        server.process.kill()
        thread = self.held.pop(server.pod, None)
        if thread is not None:
            # Who holds a thread must take note of its end; before that the process does not.
            os.waitpid(thread, WALL)
        server.process.wait()
        server.process = None

    def freeze(self, server: Server) -> None:
        """SIGSTOP: connections are taken by the kernel, and nobody answers."""
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)

    def thaw(self, server: Server) -> None:
        """SIGCONT."""
        assert server.process is not None
        server.process.send_signal(signal.SIGCONT)

    def stall_disk(self, server: Server) -> None:
        """Its next sync of the append-only file does not end: the thread that does it is held by ptrace(2)."""
        assert server.process is not None
        tasks = Path(f"/proc/{server.process.pid}/task")
        (thread,) = [int(one.name) for one in tasks.iterdir() if (one / "comm").read_text().strip() == "bio_aof_fsync"]
        libc = ctypes.CDLL(None, use_errno=True)
        for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
            if libc.ptrace(request, thread, None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")
        os.waitpid(thread, WALL)
        self.held[server.pod] = thread

    def wipe(self, server: Server) -> None:
        """Its disk is lost: every file, while the process is ended."""
        for path in server.folder.rglob("*"):
            if path.is_file():
                path.unlink()

    def move(self, server: Server, network: int) -> None:
        """Start it again under an address of another network."""
        server.address = f"{BASE}.{network}.{server.address.rpartition('.')[2]}"
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
                ready=server.process is not None, restarts=0, deleting=False, created=now, revision=server.revision,
            )
            for server in self.servers
        ]  # fmt: skip
        nodes = tuple(NodeView(name, "", name not in self.lost, True) for name in ("n0", "n1", "n2"))
        workloads = tuple(
            WorkloadView(
                "StatefulSet", f"{self.cluster.name}-s{shard}", {LABEL_SHARD: str(shard)}, replicas, replicas, True,
                self.revision,
            )
            for shard, replicas in self.sets.items()
        )  # fmt: skip
        volumes = tuple(
            VolumeView(name, "Bound", "standard", 1024, 1024, {LABEL_SHARD: name.split("-")[-2][1:]})
            for name in sorted(self.volumes)
        )
        return World(now, tuple(sorted(pods, key=lambda pod: pod.name)), volumes, workloads, nodes)

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
        if name == secret_name(self.cluster):
            return self.certificate
        assert name == f"{self.cluster.name}-auth"
        if self.cluster.users is None:
            return {"password": PASSWORD}
        self.stored = users.secret_content(self.cluster.users, self.stored, lambda length: token_hex(length // 2))
        return self.stored

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
                self.cluster = replace(self.cluster, changing=False, accepted="", formed=True)
                return time.monotonic() - started
            self.obey(outcome)
            assert time.monotonic() - started < seconds, outcome.reason
            time.sleep(min(0.2, outcome.retry_after or 0.2))


class Crash(Exception):
    """The worker was killed right after a command."""


def config(fleet: Fleet, key: str) -> set[str]:
    """What CONFIG GET says, over all nodes."""
    found = set()
    for pod in fleet.world().pods:
        connected = Channel(fleet.cluster, fleet).to_pod(fleet.connect(pod, PORT), pod.name)
        with Connection(connected, ("", PASSWORD)) as connection:
            reply = connection.call("CONFIG", "GET", key)
            assert isinstance(reply, list)
            found.add(str(reply[1]))
    return found
