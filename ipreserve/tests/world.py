"""A small cluster for tests: pods with addresses on the real API server, and the services' own accounts."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ipreserve import errors, install, kube, settings, store, sweeper
from ipreserve.kube import JsonObject, Kube
from ipreserve.records import Address, Record
from ipreserve.tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "ip-reserve"
_numbers = itertools.count(1)
COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


def ensure(door: Kube, collection: str, manifest: dict[str, Any]) -> None:
    """Create it, unless it is there."""
    try:
        door.request("POST", collection, manifest)
    except errors.Conflict:
        return


def insist(write: Callable[[], object]) -> None:
    """Write, again when somebody else wrote in between."""

    def written() -> bool:
        try:
            write()
        except errors.Conflict:
            return False
        return True

    eventually(written, "written")


def accounts(door: Kube) -> None:
    """The deployables' namespace, accounts and permissions, as they are shipped."""
    ensure(door, "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for one in yaml.safe_load_all((ROOT / "deploy/ipreserve/base/rbac.yaml").read_text()):
        ensure(door, COLLECTIONS[one["kind"]].format(NAMESPACE), one)


def kubeconfig_of(door: Kube, admin: Path, account: str, to: Path, *, server: str = "") -> Path:
    """A kubeconfig of one of the service's accounts, with a token of an hour."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    token = door.request("POST", path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    content = yaml.safe_load(admin.read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    if server:
        content["clusters"][0]["cluster"]["server"] = server
    to.write_text(yaml.safe_dump(content))
    to.chmod(0o600)
    return to


def overwrite(world: World, collection: str, manifest: dict[str, Any]) -> None:
    """Make an object be this, whether it is there or not."""
    path = f"{collection}/{manifest['metadata']['name']}"

    def write() -> None:
        try:
            version = world.kube.get(path)["metadata"]["resourceVersion"]
        except errors.NotFound:
            world.kube.request("POST", collection, manifest)
            return
        metadata = {**manifest["metadata"], "resourceVersion": version}
        world.kube.request("PUT", path, {**manifest, "metadata": metadata})

    insist(write)


@dataclass
class World:
    """One test's namespace and addresses; the services' objects are everybody's."""

    kube: Kube
    namespace: str = field(default_factory=lambda: f"team-{secrets.token_hex(3)}")
    number: int = field(default_factory=lambda: next(_numbers))
    sweepers: list[sweeper.Sweeper] = field(default_factory=list)
    protected: bool = True

    def __post_init__(self) -> None:
        self.make_namespace(self.namespace, protected=self.protected)

    def make_namespace(self, name: str, *, protected: bool, annotations: dict[str, str] | None = None) -> None:
        labels = {"ip-reserve": "enabled"} if protected else {}
        metadata = {"name": name, "labels": labels, "annotations": annotations or {}}
        self.kube.request("POST", "/api/v1/namespaces", {"metadata": metadata})
        account = f"/api/v1/namespaces/{name}/serviceaccounts"
        ensure(self.kube, account, {"metadata": {"name": "default"}})

    def address(self, last: int) -> str:
        """An address of this test's own."""
        return f"10.{100 + self.number // 200}.{self.number % 200}.{last}"

    def pods(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{name}" if name else "")

    def pod(
        self, name: str, *addresses: str, node: str = "", stateful: bool = True, phase: str = "Running",
        annotations: dict[str, str] | None = None, **spec: Any,
    ) -> JsonObject:  # fmt: skip
        """A pod with these addresses, as kubelet would report it."""
        labels = {"statefulset.kubernetes.io/pod-name": name} if stateful else {}
        body = {
            "metadata": {"name": name, "labels": labels, "annotations": annotations or {}},
            "spec": {
                "containers": [{"name": "main", "image": "busybox"}],
                "terminationGracePeriodSeconds": 30,
                **({"nodeName": node} if node else {}),
                **spec,
            },
        }
        self.kube.request("POST", self.pods(), body)
        return self.report(name, *addresses, phase=phase)

    def report(self, name: str, *addresses: str, phase: str = "Running") -> JsonObject:
        """What kubelet says of a pod."""
        status: dict[str, Any] = {"phase": phase, "podIP": addresses[0] if addresses else None}
        status["podIPs"] = [{"ip": one} for one in addresses] or None
        return self.kube.request(
            "PATCH", self.pods(name) + "/status", {"status": status}, content_type="application/merge-patch+json"
        )

    def delete(self, name: str, **options: Any) -> JsonObject:
        """DELETE, with DeleteOptions."""
        return self.kube.request("DELETE", self.pods(name), options)

    def finish(self, pod: JsonObject) -> None:
        """Kubelet's last DELETE of a pod that is terminating."""
        self.delete(pod["metadata"]["name"], gracePeriodSeconds=0, preconditions={"uid": pod["metadata"]["uid"]})

    def evict(self, name: str, **options: Any) -> JsonObject:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options}
        return self.kube.request("POST", self.pods(name) + "/eviction", body)

    def store(self) -> store.Store:
        return store.Store(self.kube, NAMESPACE, lambda: kube.detect(self.kube))

    def barred(self) -> frozenset[Address]:
        """All barred addresses of the cluster."""
        return frozenset().union(*(one.addresses for one in self.store().all_barred().values()))

    def records(self) -> dict[Address, Record]:
        """The whole ledger."""
        return {a: r for shard in self.store().all_kept().values() for a, r in shard.ledger.records.items()}

    def listed(self) -> list[str]:
        """The list in the first IPReservation, as it is written."""
        raw = self.store().read_barred(0).raw or {}
        found: list[str] = (raw.get("spec") or {}).get("reservedCIDRs") or []
        return found

    def wipe(self) -> None:
        """No reservations, no ledger, no history."""
        held = self.store()
        for path in held.reservation_paths():
            self.kube.request("DELETE", path)
        items, _ = self.kube.list(held.configmaps)
        for one in items:
            if one["metadata"]["name"].startswith((store.NAME, store.HISTORY, store.CONFIG)):
                self.kube.request("DELETE", f"{held.configmaps}/{one['metadata']['name']}")

        self.free_lease()

    def free_lease(self) -> None:
        """Nobody leads; what a killed sweeper would do by not renewing it."""
        try:
            self.kube.request("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{install.LEASE}")
        except errors.NotFound:
            return

    def close(self) -> None:
        """End what this test's sweepers watch."""
        for one in self.sweepers:
            one.lease.give_up()
            one.stop()

    def sweeper(self, kubeconfig: Path, **options: Any) -> sweeper.Sweeper:
        """A sweeper under its own account, swept by hand."""
        door = kube.connect(kubeconfig)
        chosen: dict[str, Any] = {"identity": f"test-{secrets.token_hex(3)}", "max_count": 100} | options
        found = sweeper.Sweeper(settings.Settings(namespace=NAMESPACE, **chosen), door)
        self.sweepers.append(found)
        found.start()
        assert eventually(found.lease.acquire, "the Lease is free")
        return found


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Service:
    """One of the services as a real process."""

    def __init__(
        self, command: str, kubeconfig: Path, log: Path, *, extra: tuple[str, ...] = (), **flags: object
    ) -> None:
        self.port, self.metrics_port, self.log = free_port(), free_port(), log
        argv = [sys.executable, "-m", "ipreserve", command, f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}"]
        argv += [f"--metrics=127.0.0.1:{self.metrics_port}"]
        if command == "webhook":
            argv += [f"--listen=127.0.0.1:{self.port}", f"--url={self.url}"]
        argv += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()] + list(extra)
        with log.open("ab") as out:
            environment = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=out, stderr=out, env=environment)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether it says that it can write a reservation. Fails with its log when it has ended."""
        assert self.process.poll() is None, self.said()
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5, context=trusting) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metrics(self) -> str:
        """What Prometheus would read; empty while the port is closed."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
        except OSError:
            return ""
        return text

    def value(self, line: str) -> float:
        """A metric by its name and labels as written; 0 when it is not there."""
        return next((float(one.rpartition(" ")[2]) for one in self.metrics().splitlines() if one.startswith(line)), 0.0)

    def kill(self) -> None:
        """As the out-of-memory killer does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As kubelet does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")


def pretty(found: object) -> str:
    """For messages of failed assertions."""
    return json.dumps(found, indent=1, default=str)
