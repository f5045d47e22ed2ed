"""`make bench-ipreserve`: what deletions wait for, and what very many reserved addresses cost.

On one real API server, without nodes, in one run: parallel deletions of pods with nobody asked, through ipreserve's
webhook, and through one that patches a shared pair of objects per request (dev/per_request_webhook.py). Then ipreserve
with 10,000 and 100,000 addresses at rest. Everything runs on this machine's cores. Prints, and asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from dev import per_request_webhook
from ipreserve import certs, errors, install, kube, layout, records, store
from ipreserve.kube import JsonObject, Kube
from ipreserve.records import Address, Claim, Record, State
from ipreserve.settings import Live
from ipreserve.sweeper import Sweeper
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, ROOT, Service, World, accounts, ensure, free_port, kubeconfig_of
from sandbox import Sandbox
from sandbox.api import Client
from sandbox.calico import crds

# What one lost node of 110 pods and a fifth leave at rest: the service's own default count.
HELD_FROM_THE_START = 132
# Deletions measured with so many parallel clients.
DELETIONS = {1: 40, 32: 256, 100: 400, 400: 400}
BLOCK = 64
HELD_PER_BLOCK = 48
BLOCKS_PER_HOST = 20
HOLD_SECONDS = 86_400.0
QUIET_SWEEPS = 5
V1 = "/apis/crd.projectcalico.org/v1"


@dataclass(frozen=True)
class Burst:
    """What came of many deletions. `seconds` are those of the allowed ones, sorted; `denied` counts by status.

    `cpu` are the seconds that each party worked meanwhile: together at most `took` times the machine's cores.
    """

    seconds: list[float]
    denied: Counter[int]
    took: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Allowed deletions per second."""
        return len(self.seconds) / self.took

    def at(self, quantile: float) -> float:
        """Seconds; none when nothing was allowed."""
        return self.seconds[round(quantile * (len(self.seconds) - 1))] if self.seconds else float("nan")

    def row(self, parallel: int, who: str, more: str = "") -> str:
        """One line of the report."""
        total = len(self.seconds) + self.denied.total()
        denied = f"{self.denied.total()} of {total} denied" + (f" {dict(self.denied)}" if self.denied else "")
        return (
            (
                f"    {parallel:>4} parallel  {who:<22} {self.rate:7.1f}/s   p50 {self.at(0.5) * 1000:6.0f} ms   "
                f"p99 {self.at(0.99) * 1000:6.0f} ms   {denied}   {more}"
            ).rstrip()
            + f"   CPU of {self.took:.2f} s: "
            + ", ".join(f"{who} {used:.2f}" for who, used in self.cpu.items())
        )


def say(line: str = "") -> None:
    """Print one line now."""
    print(line, flush=True)


# --- pods, made and deleted by many clients ------------------------------------------------------------------------


class Line(asyncio.Protocol):
    """One client's connection: HTTP/1.1, one request at a time, and no more of it than the API server's answers need.

    The clients share this machine's cores with what is measured, so each of their microseconds is somebody's wait.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._got = bytearray()
        self._until: int | None = None
        self._chunked = False
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        # uvloop's are of no class of asyncio's.
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the API server closed a connection: {exc}"))

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """The status of the answer, when all of it has come."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._got.clear()
        self._until, self._chunked = None, False
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._got += data
        if self._until is None and not self._chunked:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._got[:end]).lower()
            self._chunked = b"transfer-encoding: chunked" in head
            if not self._chunked:
                _, _, length = head.partition(b"content-length:")
                self._until = end + 4 + int(length.partition(b"\r\n")[0])
        complete = self._got.endswith(b"\r\n0\r\n\r\n") if self._chunked else len(self._got) == self._until
        if complete and self._answer is not None and not self._answer.done():
            self._answer.set_result(int(self._got[9:12]))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class Crowd:
    """Clients on one event loop of their own; each has its own connection to the API server, opened before."""

    def __init__(self, door: Kube) -> None:
        self._door = door
        where = urlsplit(door.server)
        self._host, self._port = str(where.hostname), where.port or 443
        self._numbers = itertools.count(1)
        # Whose CPU is told with each burst: process ids by party.
        self.watched: dict[str, list[int]] = {"clients": [os.getpid()]}
        self._lines: list[Line] = []
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True).start()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines:
            self._loop.call_soon_threadsafe(line.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _line(self, number: int) -> Line:
        """The connection of one client, open."""
        while len(self._lines) <= number:
            self._lines.append(Line())
        if not self._lines[number].open:
            _, self._lines[number] = await self._loop.create_connection(
                Line, self._host, self._port, ssl=self._door.context
            )
        return self._lines[number]

    def _request(self, method: str, path: str, body: object, kind: str = "application/json") -> bytes:
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: application/json\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    async def _among(self, parallel: int, jobs: Sequence[Callable[[Line], Awaitable[None]]]) -> None:
        """Every client takes the next job as soon as its last is done. All connections are open before."""
        # So many at a time: a burst of handshakes would be refused by the listener's queue.
        opening = asyncio.Semaphore(32)

        async def opened(number: int) -> Line:
            async with opening:
                return await self._line(number)

        lines = await asyncio.gather(*map(opened, range(parallel)))
        left = iter(jobs)

        async def client(line: Line) -> None:
            for job in left:
                await job(line)

        await asyncio.gather(*map(client, lines))

    def pods(self, world: World, count: int) -> list[str]:
        """Make running pods of a StatefulSet, each with an address of its own; returns their paths."""
        numbers = [next(self._numbers) for _ in range(count)]
        paths = [world.pods(f"cache-{number}") for number in numbers]

        async def make(line: Line, number: int, path: str) -> None:
            name = f"cache-{number}"
            manifest = {
                "metadata": {"name": name, "labels": {"statefulset.kubernetes.io/pod-name": name}},
                "spec": {
                    "nodeName": "n1", "containers": [{"name": "main", "image": "busybox"}],
                    # The node has no kubelet: nothing shall be evicted from it for that.
                    "tolerations": [{"operator": "Exists"}],
                },
            }  # fmt: skip
            one = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            status = {"status": {"phase": "Running", "podIP": one, "podIPs": [{"ip": one}]}}
            made = await line.ask(self._request("POST", world.pods(), manifest))
            reported = await line.ask(self._request("PATCH", path + "/status", status, "application/merge-patch+json"))
            if (made, reported) != (201, 200):
                sys.exit(f"A pod could not be made: {made}, {reported}.")

        self._do(self._among(16, [partial(make, number=n, path=p) for n, p in zip(numbers, paths, strict=True)]))
        return paths

    def delete(self, paths: Sequence[str], parallel: int) -> Burst:
        """Graceful DELETE of each; every client sends its next as soon as its last is answered."""
        seconds: list[float] = []
        denied: Counter[int] = Counter()

        async def one(line: Line, request: bytes) -> None:
            began = time.perf_counter()
            status = await line.ask(request)
            if status < 400:
                seconds.append(time.perf_counter() - began)
            else:
                denied[status] += 1

        async def warm(line: Line) -> None:
            await line.ask(self._request("GET", "/version", None))

        # Every client's connection is open before the clock starts.
        self._do(self._among(parallel, [warm] * parallel))
        requests = [self._request("DELETE", path, {}) for path in paths]
        before = {who: _cpu(pids) for who, pids in self.watched.items()}
        began = time.perf_counter()
        self._do(self._among(parallel, [partial(one, request=request) for request in requests]))
        took = time.perf_counter() - began
        cpu = {who: _cpu(pids) - before[who] for who, pids in self.watched.items()}
        return Burst(sorted(seconds), denied, took, cpu)

    @contextmanager
    def watching(self, who: str, pid: int) -> Iterator[None]:
        """Also tell the CPU of this process."""
        self.watched[who] = [pid]
        try:
            yield
        finally:
            del self.watched[who]


def _cpu(pids: Sequence[int]) -> float:
    """Seconds that these processes have worked."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def clear(world: World) -> None:
    """Remove all pods at once. To be called while no webhook is configured."""
    world.kube.request("DELETE", world.pods(), {"gracePeriodSeconds": 0}, timeout=120)
    eventually(lambda: not world.kube.get(world.pods(), limit="1")["items"], "the pods are gone", seconds=120)


# --- addresses at rest ----------------------------------------------------------------------------------------------


def held_record(number: int, at: float) -> Record:
    """A hold with names of a usual length."""
    pod = f"orders-s{number % 9}-{number % 3}"
    claim = Claim(
        address=Address("10.0.0.1"), namespace=f"berth-team-{number % 50:02d}", pod=pod,
        node=f"node-{number % 105:03d}", uid=f"6f1c2b9e-9d1f-4c59-8a0e-{number:012d}",
        owner=f"StatefulSet/orders-s{number % 9}", via="delete", at=at - 40, policy={"hold": "2h"},
    )  # fmt: skip
    record = records.claimed(claim, before=None, seq=number + 1)
    return replace(record, state=State.FREED, terminating=at - 38, freed=at, hold=HOLD_SECONDS)


@dataclass(frozen=True)
class Held:
    """Addresses at rest, and Calico's blocks around them: three quarters of each block rest, chosen at random."""

    addresses: list[Address]
    blocks: list[JsonObject]
    pools: list[JsonObject]


def held(count: int) -> Held:
    """The same every time."""
    chosen = random.Random(count)
    addresses: list[Address] = []
    blocks: list[JsonObject] = []
    number = 0
    while len(addresses) < count:
        third, fourth = number // 4, number % 4 * BLOCK
        prefix = f"10.{third // 256}.{third % 256}"
        resting = sorted(chosen.sample(range(BLOCK), min(HELD_PER_BLOCK, count - len(addresses))))
        addresses += [Address(f"{prefix}.{fourth + ordinal}") for ordinal in resting]
        spec = {
            "cidr": f"{prefix}.{fourth}/26", "affinity": f"host:node-{number // BLOCKS_PER_HOST:03d}",
            "allocations": [None] * BLOCK, "unallocated": list(range(BLOCK)), "attributes": [], "deleted": False,
        }  # fmt: skip
        name = f"10-{third // 256}-{third % 256}-{fourth}-26"
        blocks.append({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock", "metadata": {"name": name}})
        blocks[-1]["spec"] = spec
        number += 1
    pools = [
        {
            "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "default"},
            "spec": {"cidr": "10.0.0.0/9", "blockSize": 26},
        }
    ]  # fmt: skip
    return Held(addresses, blocks, pools)


def fill(world: World, found: Held) -> int:
    """Write them as the service would have, into as many shards; returns how many those are."""
    world.wipe()
    with ThreadPoolExecutor(8) as workers:
        for kind, manifests in (("ippools", found.pools), ("ipamblocks", found.blocks)):
            list(workers.map(lambda one, kind=kind: ensure(world.kube, f"{V1}/{kind}", one), manifests))
    now = world.kube.clock.now()
    parts: dict[int, dict[Address, Record]] = {}
    shards, largest = layout.shards_for(len(found.addresses), 1), layout.SHARD_BYTES + 1
    while largest > layout.SHARD_BYTES:
        parts = {index: {} for index in range(shards)}
        for number, one in enumerate(found.addresses):
            parts[layout.shard_of(one, shards)][one] = held_record(number, now)
        largest = max(sum(map(len, records.write(records.Ledger(records=part)).values())) for part in parts.values())
        if largest > layout.SHARD_BYTES:
            shards = layout.shards_for(len(found.addresses), shards, largest=largest)
    aggregate = len(found.addresses) > layout.AGGREGATE_FROM
    target = world.store()
    for index, part in parts.items():
        target.write_barred(store.Barred(index), part, aggregate=aggregate)
        target.write_kept(store.Kept(index), records.Ledger(records=part), shards=shards if index == 0 else None)
    return shards


def reservation_bytes(world: World) -> int:
    """How much every start of a pod makes Calico read."""
    return len(json.dumps(world.kube.get(f"{V1}/ipreservations")))


# --- who is asked -----------------------------------------------------------------------------------------------------


@contextmanager
def ipreserve_asked(world: World, kubeconfig: Path, folder: Path) -> Iterator[Service]:
    """The real webhook under its own account, armed."""
    service = Service("webhook", kubeconfig, folder / "webhook.log", deny_seconds=600)
    install.install(world.kube, namespace=NAMESPACE, url=service.url, give_back=False)
    try:
        eventually(lambda: service.is_ready() and _policy(world, install.CONFIGURATION) == "Fail", "armed", seconds=120)
        yield service
    finally:
        install.uninstall(world.kube, None, namespace=NAMESPACE, purge=False)
        service.stop()


def _policy(world: World, name: str) -> str:
    found = world.kube.get(f"{install.VALIDATING}/{name}")
    return str(found["webhooks"][0]["failurePolicy"])


@contextmanager
def one_pair_asked(world: World, admin: Path, folder: Path) -> Iterator[int]:
    """The one that patches per request, with the same selection of pods, with as many addresses at rest: its pid."""
    name, path = per_request_webhook.NAME, f"{V1}/ipreservations"
    now = world.kube.clock.now()
    first = held(HELD_FROM_THE_START).addresses
    spec = {"reservedCIDRs": [records.canonical(one) for one in first]}
    data = {records.key(one): records.legacy(held_record(number, now)) for number, one in enumerate(first)}
    manifest: JsonObject = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation"}
    world.kube.request("POST", path, manifest | {"metadata": {"name": name}, "spec": spec})
    configmaps = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    world.kube.request("POST", configmaps, {"metadata": {"name": name}, "data": data})
    authority = certs.make_authority(datetime.now(UTC))
    served = certs.issue(authority, ["127.0.0.1"], datetime.now(UTC))
    file = folder / "one-pair.pem"
    file.touch(mode=0o600)
    file.write_bytes(served.certificate + served.key)
    port = free_port()
    argv = [sys.executable, "-m", "dev.per_request_webhook", f"--kubeconfig={admin}", f"--port={port}"]
    environment = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
    with (folder / "one-pair.log").open("ab") as log:
        process = subprocess.Popen(
            [*argv, f"--certificate={file}"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )  # fmt: skip
    configuration = install.validating(
        namespace=NAMESPACE, url=f"https://127.0.0.1:{port}", live=Live(), bundle=authority.certificate, armed=True
    )
    configuration["metadata"]["name"] = name
    try:
        eventually(lambda: _answers(port), "the other webhook serves")
        world.kube.request("POST", install.VALIDATING, configuration)
        yield process.pid
    finally:
        for one in (f"{install.VALIDATING}/{name}", f"{path}/{name}", f"{configmaps}/{name}"):
            _forget(world.kube, one)
        process.kill()
        process.wait()


def _forget(door: Kube, path: str) -> None:
    try:
        door.request("DELETE", path)
    except errors.NotFound:
        return


def _answers(port: int) -> bool:
    try:
        ssl.get_server_certificate(("127.0.0.1", port), timeout=2)
    except OSError:
        return False
    return True


# --- the two parts ----------------------------------------------------------------------------------------------------


def side_by_side(world: World, crowd: Crowd, kubeconfig: Path, admin: Path, parallels: Sequence[int]) -> None:
    """Nobody asked, ipreserve, one pair patched per request: for each number of clients, one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-ip-") as name:
        folder = Path(name)
        for parallel in parallels:
            count = DELETIONS.get(parallel, 2 * parallel)
            world.wipe()
            alone = crowd.delete(crowd.pods(world, count), parallel)
            clear(world)
            say(alone.row(parallel, "nobody asked"))
            fill(world, held(HELD_FROM_THE_START))
            with ipreserve_asked(world, kubeconfig, folder) as asked, crowd.watching("webhook", asked.process.pid):
                paths = crowd.pods(world, count + parallel)
                crowd.delete(paths[count:], parallel)
                ours = crowd.delete(paths[:count], parallel)
                missing = _unrecorded(world, count + parallel)
            clear(world)
            say(ours.row(parallel, "ipreserve", missing))
            with one_pair_asked(world, admin, folder) as pid, crowd.watching("webhook", pid):
                paths = crowd.pods(world, count + parallel)
                # Only 32 to warm up: more of them would still be at work when the clock starts.
                crowd.delete(paths[count:][:32], min(parallel, 32))
                theirs = crowd.delete(paths[:count], parallel)
            clear(world)
            say(theirs.row(parallel, "one pair, per request"))
            ratio = ours.rate / theirs.rate if theirs.rate else float("inf")
            wanted = "   (wanted: 30 or more, p99 under 1000 ms, 0 denied)" if parallel == 400 else ""
            say(f"         throughput {ratio:.1f} times that of one pair{wanted}")


def _unrecorded(world: World, deleted: int) -> str:
    """A word when a deletion was allowed without its address being barred and recorded: there must be none."""
    barred, known = world.barred(), world.records()
    missing = deleted + HELD_FROM_THE_START - len(barred & set(known))
    return f"{missing} NOT RECORDED" if missing else ""


def many_held(
    world: World, crowd: Crowd, webhook: Path, sweeper: Path, count: int, parallels: Sequence[int]
) -> None:  # fmt: skip
    """Latency of admission and duration of sweeps with so many addresses at rest."""
    found = held(count)
    shards = fill(world, found)
    say(
        f"{count:,} addresses at rest, {len(found.blocks):,} blocks: {shards} shards, "
        f"{reservation_bytes(world) / 1000:,.0f} kB of IPReservations for Calico to read"
    )
    with tempfile.TemporaryDirectory(prefix="bench-ip-") as name, ipreserve_asked(world, webhook, Path(name)) as asked:
        for parallel in parallels:
            total = DELETIONS.get(parallel, 2 * parallel)
            paths = crowd.pods(world, total + parallel)
            crowd.delete(paths[total:], parallel)
            with crowd.watching("webhook", asked.process.pid):
                say(crowd.delete(paths[:total], parallel).row(parallel, "ipreserve"))
        say(f"    webhook's memory {_memory(asked.process.pid):.0f} MiB")
    clear(world)
    process = Service("sweeper", sweeper, Path(os.devnull), max_count=10 * count, hold=HOLD_SECONDS, period=1)
    try:
        eventually(lambda: process.value("ipreserve_sweeps_total") >= 3, "three sweeps", seconds=300)
        say(f"    sweeper's memory {_memory(process.process.pid):.0f} MiB")
    finally:
        process.stop()
    world.free_lease()
    swept = world.sweeper(sweeper, max_count=10 * count, hold=HOLD_SECONDS)
    sweeps(world, swept, crowd, found)


def sweeps(world: World, swept: Sweeper, crowd: Crowd, found: Held) -> None:
    """Print durations: quiet sweeps, one that takes up 400 claims, one that ends 400 holds."""
    timed(swept)
    quiet = [timed(swept) for _ in range(QUIET_SWEEPS)]
    say(f"    sweep, nothing new       {statistics.median(quiet):6.2f} s")
    now = world.kube.clock.now()
    target = world.store()
    shards = target.read_kept(0).shards
    fresh = [Address(f"10.127.{number // 256}.{number % 256}") for number in range(400)]
    parts: dict[int, list[Address]] = {}
    for one in fresh:
        parts.setdefault(layout.shard_of(one, shards), []).append(one)
    for index, part in parts.items():
        before = target.read_barred(index)
        target.write_barred(before, before.addresses | set(part), aggregate=True)
        ledger = target.read_kept(index)
        claimed = {one: replace(held_record(7, now), state=State.CLAIMED, freed=None, hold=None) for one in part}
        target.write_kept(ledger, replace(ledger.ledger, records={**ledger.ledger.records, **claimed}))
    say(f"    sweep, 400 freed         {timed(swept):6.2f} s")
    swept.options = replace(swept.options, max_count=len(world.records()) - 400)
    say(f"    sweep, 400 holds ended   {timed(swept):6.2f} s")
    left = len(world.records())
    if left != swept.options.max_count:
        say(f"    {left - swept.options.max_count} holds were NOT ended")


def timed(swept: Sweeper) -> float:
    """Seconds of one sweep."""
    if not swept.lease.acquire():
        sys.exit("Somebody else has the Lease.")
    began = time.perf_counter()
    swept.sweep()
    return time.perf_counter() - began


def _memory(pid: int) -> float:
    """Resident MiB."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def numbers(text: str) -> list[int]:
    """`1,32` as numbers. Raises ArgumentTypeError."""
    try:
        found = [int(one) for one in text.split(",") if one]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between") from error
    if any(one < 1 for one in found):
        raise argparse.ArgumentTypeError(f"{text!r}: only numbers from 1")
    return found


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(prog="make bench-ipreserve", description=__doc__)
    parser.add_argument("--release", choices=crds.RELEASES, default="3.32", help="whose schemas are served")
    parser.add_argument("--parallel", type=numbers, default=list(DELETIONS), help="numbers of clients, such as 1,32")
    parser.add_argument("--held", type=numbers, default=[10_000, 100_000], help="such as 10000,100000; empty for none")
    parser.add_argument("--only-held", action="store_true", help="leave out the comparison")
    given = parser.parse_args()
    sandbox = Sandbox(f"bench-ip-{os.getpid()}", control_plane_only=True)
    try:
        sandbox.up()
        run(sandbox, given)
    finally:
        sandbox.down(wipe=True)


def run(sandbox: Sandbox, given: argparse.Namespace) -> None:
    """Everything, on a running control plane."""
    admin = sandbox.kubeconfig_path
    door = kube.connect(admin)
    accounts(door)
    crds.install(Client(admin), given.release)
    ensure(door, "/api/v1/nodes", {"metadata": {"name": "n1"}})
    world, crowd = World(door), Crowd(door)
    crowd.watched["control plane"] = [one.pid for one in sandbox.record.read().values()]
    with tempfile.TemporaryDirectory(prefix="bench-ip-") as name:
        webhook = kubeconfig_of(door, admin, "ipreserve-webhook", Path(name) / "webhook")
        sweeper = kubeconfig_of(door, admin, "ipreserve-sweeper", Path(name) / "sweeper")
        try:
            if not given.only_held:
                say(f"Deletions of pods, schemas of Calico {given.release}, {HELD_FROM_THE_START} addresses at rest")
                side_by_side(world, crowd, webhook, admin, given.parallel)
            for count in given.held:
                many_held(world, crowd, webhook, sweeper, count, given.parallel)
        finally:
            world.close()
            crowd.close()


if __name__ == "__main__":
    main()
