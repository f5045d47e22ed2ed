"""`python -m dev.bench_api`: how fast the API answers over HTTP, in a tenant with many clusters.

Starts a private PostgreSQL and Redis and gunicorn with 2 workers; needs no Kubernetes, so no worker runs. The client is
one thread that writes prepared bytes to raw sockets, since it shares the cores with what it measures. It prints what it
measured, and how much of a core it took itself, and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from itertools import count
from pathlib import Path

import psycopg

from dev.portal import Api
from dev.services import private_services
from dev.stack import CLUSTERS, free_port, prepare

SEED = """
from provisioning.clusters.services import create_cluster
from provisioning.models import Target
from tenants.models import QuotaLimit, Tenant, User
Target.objects.create(name="main", title="Main")
tenant, alice = Tenant.objects.get(slug="demo"), User.objects.get(username="alice")
QuotaLimit.objects.filter(tenant=tenant).update(limit=10**9)
for number in range(COUNT):
    create_cluster(tenant=tenant, by=alice, name=f"c-{number}", engine="redis", plan="redis-dev")
"""
DRAFT = {"engine": "redis", "plan": "redis-standard", "spec": {"shards": 6}}
QUOTA = "/api/v1/tenants/demo/quota"
PARALLEL = 16
PAGE = 200
# Both web processes have opened their connections and composed their queries by then.
WARM_UP = 64
CHANGE_ALL = "UPDATE provisioning_cluster SET reason = 'changed ' || clock_timestamp()"
NEXT = re.compile(rb'"next":(?:null|"([^"]*)")}\Z')

# One call of a client: yields the bytes of a request, is sent the body of its answer, and may go on.
Call = Generator[bytes, bytes, None]


class Requests:
    """The bytes of requests with a token."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.numbers = count()
        self.run = os.urandom(4).hex()

    def bytes(
        self, method: str, path: str, body: Mapping[str, object] | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """One request on a kept connection."""
        data = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join([*lines, "", ""]).encode() + data

    def reading(self, path: str) -> Callable[[], Call]:
        """GETs of `path`."""
        sent = self.bytes("GET", path)

        def call() -> Call:
            yield sent

        return call

    def forecast(self) -> Call:
        """What one more cluster would take."""
        yield self.bytes("POST", f"{QUOTA}/forecast", DRAFT)

    def walk(self) -> Call:
        """Every page of the list of clusters."""
        cursor: bytes | None = b""
        while cursor is not None:
            body = yield self.bytes("GET", f"{CLUSTERS}?limit={PAGE}&cursor={cursor.decode()}")
            found = NEXT.search(body[-600:])
            assert found, body[-200:]
            cursor = found[1]

    def order(self) -> Call:
        """Order one more cluster."""
        name = f"o-{self.run}-{next(self.numbers)}"
        body = {"engine": "redis", "name": name, "plan": "redis-dev"}
        yield self.bytes("POST", CLUSTERS, body, {"Idempotency-Key": name})


class Client:
    """One kept connection, and the call it is at."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.call: Call | None = None
        self.began = 0.0
        self.buffer = bytearray()
        self.needed = -1

    def begin(self, call: Call) -> None:
        """Send a call's first request."""
        self.call, self.began = call, time.monotonic()
        self.socket.sendall(next(call))

    def receive(self) -> bool:
        """Take what has arrived, send the call's next request when its answer is whole; whether the call has ended.

        Raises ConnectionError for an answer that is not of the 200s.
        """
        self.buffer += self.socket.recv(1 << 20)
        if self.needed < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = re.search(rb"\r\nContent-Length: (\d+)", self.buffer[:end], re.IGNORECASE)
            if not self.buffer.startswith(b"HTTP/1.1 2") or length is None:
                raise ConnectionError(bytes(self.buffer[:2000]).decode(errors="replace"))
            self.needed = end + 4 + int(length[1])
            self.start = end + 4
        if len(self.buffer) < self.needed:
            return False
        body = bytes(self.buffer[self.start :])
        self.buffer.clear()
        self.needed = -1
        assert self.call is not None
        try:
            self.socket.sendall(self.call.send(body))
        except StopIteration:
            return True
        return False


def timed(port: int, clients: int, calls: int, make: Callable[[], Call]) -> tuple[list[float], float]:
    """Sorted seconds of each of `calls` calls by `clients` parallel clients, and calls per second of all.

    Each client begins its next call as soon as its last has ended.
    """
    selector = selectors.DefaultSelector()
    seconds: list[float] = []
    begun = clients
    started = time.monotonic()
    for _ in range(clients):
        client = Client(port)
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.begin(make())
    while len(seconds) < calls:
        for key, _ in selector.select():
            client = key.data
            if client.receive():
                seconds.append(time.monotonic() - client.began)
                if begun < calls:
                    begun += 1
                    client.begin(make())
                else:
                    selector.unregister(client.socket)
                    client.socket.close()
    selector.close()
    return sorted(seconds), calls / (time.monotonic() - started)


def row(what: str, seconds: list[float], rate: float, wanted: str = "") -> None:
    """Print one line."""
    p50, p95 = statistics.median(seconds) * 1000, seconds[round(0.95 * (len(seconds) - 1))] * 1000
    print(f"    {what:<58} p50 {p50:5.0f} ms   p95 {p95:5.0f} ms   {rate:5.0f}/s   {wanted}".rstrip(), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench_api", description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="berth-b-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with private_services(folder / "services", fast=False) as services:
            environment, _ = prepare(folder, services)
            # One client asks faster than one may: counted like all requests, refused never.
            environment |= {"BERTH_RATE_LIMIT_CALLER": "1000000", "BERTH_RATE_LIMIT_TENANT": "1000000"}
            run(folder, {**os.environ, **environment}, arguments.clusters, arguments.requests)


def run(folder: Path, environment: dict[str, str], clusters: int, requests: int) -> None:
    """Fill the tenant, start the web server as in production, ask."""

    def manage(*words: str) -> None:
        subprocess.run([sys.executable, "manage.py", *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    token_file = folder / "token"
    manage("migrate", "--verbosity", "0")
    manage("berth_setup")
    manage("berth_demo", "--token-file", str(token_file))
    manage("shell", "-c", SEED.replace("COUNT", str(clusters)))
    token = token_file.read_text().strip()
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "portal.wsgi", "--config", "deploy/gunicorn.conf.py"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "2"]
    web = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        first = Api("127.0.0.1", port, token)
        first.await_ready()
        asked = Requests(token)
        operation = first.request("GET", f"{CLUSTERS}?limit=1")["items"][0]["operation"]["id"]
        with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as database:
            # As autovacuum does in time.
            database.execute("ANALYZE")

            def changed(make: Callable[[], Call]) -> Callable[[], Call]:
                def call() -> Call:
                    database.execute(CHANGE_ALL)
                    return make()

                return call

            page = asked.reading(f"{CLUSTERS}?limit={PAGE}")
            rows: list[tuple[str, int, int, Callable[[], Call], str]] = [
                ("quota forecast, one client", 1, requests, asked.forecast, "under 100"),
                (f"list, a page of {PAGE}, one client", 1, requests, page, ""),
                (f"list, all {clusters}, one client", 1, requests // 4, asked.walk, "under 150"),
                (f"list, all {clusters}, each changed since", 1, requests // 10, changed(asked.walk), "under 150"),
                ("one cluster, 8 clients", 8, requests, asked.reading(f"{CLUSTERS}/c-1"), ""),
                ("list, a page of 50, 8 clients", 8, requests, asked.reading(CLUSTERS), ""),
                ("one operation, 8 clients", 8, requests, asked.reading(f"/api/v1/operations/{operation}"), ""),
                ("quota, 8 clients", 8, requests, asked.reading(QUOTA), ""),
                (f"create accepted, {PARALLEL} clients", PARALLEL, requests, asked.order, "under 250"),
            ]
            print(f"gunicorn with 2 workers, a tenant with {clusters} clusters, {requests} requests each", flush=True)
            cpu, began = 0.0, time.monotonic()
            for what, parallel, calls, make, limit in rows:
                timed(port, PARALLEL, WARM_UP if calls >= WARM_UP else PARALLEL, make)
                before = time.process_time()
                row(what, *timed(port, parallel, calls, make), f"(p95 {limit} ms wanted)" if limit else "")
                cpu += time.process_time() - before
        print(f"the client took {cpu / (time.monotonic() - began):.0%} of a core", flush=True)
    finally:
        web.terminate()
        web.wait()


if __name__ == "__main__":
    main()
