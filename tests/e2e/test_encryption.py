"""A Redis Cluster with TLS through the public API, on a real target, while a client that verifies it stays."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dev.portal import ApiError
from dev.stack import Stack
from provisioning.credentials.certificates import AUTHORITY, AUTHORITY_KEY, SERVER_LIFE, issue, read_pair
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_changes import pods
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox

NAMESPACE = "berth-demo"
ROOT = Path(__file__).resolve().parents[2]
# Shakes hands with each host, verified, and prints the serial numbers that were shown.
SERIALS = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
for host in sys.argv[2:]:
    with context.wrap_socket(socket.create_connection((host, 6379), 5), server_hostname=host) as one:
        print(one.getpeercert()["serialNumber"].lower().lstrip("0"))
"""
# Says what comes back on a connection that is not encrypted.
PLAIN = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), 5) as one:
    one.sendall(b"PING\\r\\n")
    try:
        print(one.recv(100))
    except ConnectionResetError:
        print("reset")
"""
METRICS = """
import sys, urllib.request
lines = urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().splitlines()
print([line for line in lines if line.startswith("redis_up ")])
"""


def inside(stack: Stack, code: str, *arguments: str) -> str:
    """Run a program in the cluster's network; what it printed."""
    argv = [*embedded(stack).network_prefix(), sys.executable, "-c", code, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class Writer:
    """tests/e2e/verifying_client.py, running in the cluster's network."""

    def __init__(self, stack: Stack, placed: Order, host: str, trusted: Path) -> None:
        program = [sys.executable, "-m", "tests.e2e.verifying_client", host, str(trusted)]
        argv = [*embedded(stack).network_prefix(), *program]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(placed.password() + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    def stop(self) -> dict[str, Any]:
        said, _ = self.process.communicate(timeout=120)
        found: dict[str, Any] = json.loads(said)
        return found


@contextlib.contextmanager
def writing(stack: Stack, placed: Order, host: str, trusted: Path) -> Iterator[Writer]:
    """A client that stays connected until the end, or until it is stopped."""
    writer = Writer(stack, placed, host, trusted)
    try:
        yield writer
    finally:
        writer.process.kill()
        writer.process.wait()


def secret(stack: Stack, name: str) -> dict[str, str]:
    found = json.loads(stack.kubectl("-n", NAMESPACE, "get", "secret", name, "-o", "json").stdout)
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def condition(placed: Order) -> dict[str, Any]:
    (found,) = [one for one in placed.read()["conditions"] if one["type"] == "CertificateValid"]
    return dict(found)


def serial(placed: Order) -> str:
    return str(placed.api.request("GET", f"{placed.path}/certificate")["serial"])


def taken(placed: Order) -> set[str]:
    """Pods that have taken up a renewed certificate."""
    events = placed.api.request("GET", f"{placed.path}/events?limit=200")["items"]
    return {one["object"].removeprefix("pod/") for one in events if one["reason"] == "CertificateTaken"}


def age(stack: Stack, placed: Order) -> str:
    """Put a certificate into the Secret that has had two thirds of its life, and a bit; returns its serial number."""
    signer = read_pair(secret(stack, f"{placed.name}-tls-authority"), AUTHORITY, AUTHORITY_KEY)
    assert signer is not None
    names = placed.api.request("GET", f"{placed.path}/certificate")["names"]
    old = issue(signer, names, datetime.now(UTC) - SERVER_LIFE * 2 / 3 - timedelta(hours=1))
    patch = {"stringData": {"tls.crt": old.pem, "tls.key": old.key_pem}}
    done = stack.kubectl("-n", NAMESPACE, "patch", "secret", f"{placed.name}-tls", "--patch", json.dumps(patch))
    assert done.returncode == 0, done.stderr
    return f"{old.certificate.serial_number:x}"


def test_a_cluster_with_tls_is_verified_by_its_client_and_renewed_while_that_stays_connected(
    stack: Stack, order: OrderCluster, tmp_path: Path
) -> None:
    placed = order(plan="redis-dev", spec={"tls": "on", "exporter": True})
    assert placed.operation["state"] == "succeeded", placed.operation["error"]
    told = placed.api.request("GET", f"{placed.path}/certificate")
    trusted = tmp_path / "ca.crt"
    trusted.write_text(told["authority"])
    host = placed.read()["endpoints"][0]["host"]
    names = sorted(pods(stack, placed))
    hosts = [f"{pod}.{placed.name}-nodes.{NAMESPACE}.svc.cluster.local" for pod in names]
    assert condition(placed)["reason"] == "Served"
    assert "PONG" not in (said := inside(stack, PLAIN, host))
    assert "NOAUTH" not in said
    assert inside(stack, SERIALS, str(trusted), host, *hosts).split() == [told["serial"]] * 7
    address = stack.kubectl("-n", NAMESPACE, "get", "pod", names[0], "-o", "jsonpath={.status.podIP}").stdout
    assert inside(stack, METRICS, f"http://{address}:9121/metrics").strip() == "['redis_up 1']"
    before = pods(stack, placed)
    with writing(stack, placed, host, trusted) as writer:
        old = age(stack, placed)
        eventually(lambda: serial(placed) not in (told["serial"], old), "an old certificate is renewed", 120)
        renewed = placed.api.request("GET", f"{placed.path}/certificate")
        # A kubelet looks about once a minute what has become of the Secrets its pods mount.
        eventually(lambda: taken(placed) == set(names), "every member has taken it up", 240)
        assert inside(stack, SERIALS, str(trusted), *hosts).split() == [renewed["serial"]] * 6
        eventually(lambda: condition(placed)["reason"] == "Served", "the cluster says so", 60)
        seen = writer.stop()
    assert (seen["lost"], seen["refused"], seen["reconnected"]) == ([], 0, [])
    assert seen["acknowledged"] > 100
    assert renewed["authority"] == told["authority"], "clients need nothing new"
    assert pods(stack, placed) == before, "nothing was restarted"
    assert placed.read()["phase"] == "ready"
    print(f"acknowledged {seen['acknowledged']}, longest gap {seen['longest_gap']:.2f} s")
    with pytest.raises(ApiError) as refused:
        placed.api.request("PATCH", placed.path, {"spec": {"tls": "off"}})
    assert "Order a new cluster with tls off" in json.dumps(refused.value.problem)
