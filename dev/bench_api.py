"""`python -m dev.bench_api`: how fast the API answers over HTTP, in a tenant with many clusters.

Starts a private PostgreSQL and Redis and gunicorn with 2 workers, the client on the same cores; needs no Kubernetes, so
no worker runs. It prints what it measured and asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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

Call = Callable[[Api, int], object]


def timed(port: int, token: str, clients: int, requests: int, call: Call) -> tuple[list[float], float]:
    """Sorted seconds of each of `requests` calls by `clients` parallel clients, and requests per second of all."""
    local = threading.local()

    def one(number: int) -> float:
        if not hasattr(local, "api"):
            local.api = Api("127.0.0.1", port, token)
            local.api.request("GET", "/api/v1/session")
        started = time.monotonic()
        call(local.api, number)
        return time.monotonic() - started

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))  # connections are open, and everything was loaded once
        started = time.monotonic()
        seconds = sorted(pool.map(one, range(clients, clients + requests)))
        total = time.monotonic() - started
    return seconds, requests / total


def row(what: str, seconds: list[float], rate: float, wanted: str = "") -> None:
    """Print one line."""
    p50, p95 = statistics.median(seconds) * 1000, seconds[round(0.95 * (len(seconds) - 1))] * 1000
    print(f"    {what:<52} p50 {p50:5.0f} ms   p95 {p95:5.0f} ms   {rate:5.0f}/s   {wanted}".rstrip(), flush=True)


def reading(path: str) -> Call:
    """A GET of `path`."""
    return lambda api, _: api.request("GET", path)


def forecast(api: Api, number: int) -> Any:
    """What one more cluster would take."""
    return api.request("POST", f"{QUOTA}/forecast", DRAFT)


def walk(api: Api, number: int) -> None:
    """Every page of the list of clusters."""
    cursor: str | None = ""
    while cursor is not None:
        cursor = api.request("GET", f"{CLUSTERS}?limit={PAGE}&cursor={cursor}")["next"]


def order(api: Api, number: int) -> Any:
    """Order one more cluster."""
    body = {"engine": "redis", "name": f"o-{number}-{secrets.token_hex(3)}", "plan": "redis-dev"}
    return api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": secrets.token_hex(16)})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench_api", description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=200)
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
        operation = order(first, 0)["operation"]["id"]
        print(f"gunicorn with 2 workers, a tenant with {clusters} clusters, {requests} requests each", flush=True)
        calls: list[tuple[str, int, Call, str]] = [
            ("quota forecast, one client", 1, forecast, "under 100"),
            (f"list, a page of {PAGE}, one client", 1, reading(f"{CLUSTERS}?limit={PAGE}"), ""),
            ("list, all pages, one client", 1, walk, "under 150"),
            ("one cluster, 8 clients", 8, reading(f"{CLUSTERS}/c-1"), ""),
            ("list, a page of 50, 8 clients", 8, reading(CLUSTERS), ""),
            ("one operation, 8 clients", 8, reading(f"/api/v1/operations/{operation}"), ""),
            ("quota, 8 clients", 8, reading(QUOTA), ""),
            (f"create accepted, {PARALLEL} clients", PARALLEL, order, "under 250"),
        ]
        for what, parallel, call, limit in calls:
            count = max(20, requests // 5) if "all pages" in what else requests
            row(what, *timed(port, token, parallel, count, call), f"(p95 {limit} ms wanted)" if limit else "")
    finally:
        web.terminate()
        web.wait()


if __name__ == "__main__":
    main()
