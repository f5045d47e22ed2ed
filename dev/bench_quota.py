"""`python -m dev.bench_quota`: how long a quota forecast takes, over HTTP, in a tenant with many clusters.

Starts a private PostgreSQL and Redis and gunicorn with 2 workers; needs no Kubernetes. It asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dev.portal import Api
from dev.services import private_services
from dev.stack import free_port, prepare

SEED = """
import sys
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
FORECAST = "/api/v1/tenants/demo/quota/forecast"


def main() -> None:
    """Print p50 and p95."""
    parser = argparse.ArgumentParser(prog="python -m dev.bench_quota", description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="berth-b-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with private_services(folder / "services", fast=True) as services:
            environment, _ = prepare(folder, services)
            run(folder, {**os.environ, **environment}, arguments.clusters, arguments.requests)


def run(folder: Path, environment: dict[str, str], clusters: int, requests: int) -> None:
    """Fill the tenant, start the web server, ask."""

    def manage(*words: str) -> None:
        subprocess.run([sys.executable, "manage.py", *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    token = folder / "token"
    manage("migrate", "--verbosity", "0")
    manage("berth_setup")
    manage("berth_demo", "--token-file", str(token))
    manage("shell", "-c", SEED.replace("COUNT", str(clusters)))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "portal.wsgi", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    web = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        api = Api("127.0.0.1", port, token.read_text().strip())
        api.await_ready()
        seconds = []
        for _ in range(requests):
            started = time.monotonic()
            api.request("POST", FORECAST, DRAFT)
            seconds.append(time.monotonic() - started)
    finally:
        web.terminate()
        web.wait()
    seconds.sort()
    p50, p95 = statistics.median(seconds) * 1000, seconds[round(0.95 * (len(seconds) - 1))] * 1000
    times = f"p50 {p50:.0f} ms   p95 {p95:.0f} ms   (under 100 wanted)"
    print(f"quota forecast, tenant with {clusters} clusters, {requests} requests: {times}")


if __name__ == "__main__":
    main()
