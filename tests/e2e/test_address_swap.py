"""Why addresses rest: two Redis clusters are stopped and started, and one comes back under the other's addresses.

Plain Redis, as any team would run it, and two clusters of Berth's, on real nodes; addresses by Calico's objects and the
sandbox's model of Calico's choice. The service runs all the time. What differs is the one label on the namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dev.portal import Api
from dev.stack import CLUSTERS, Stack, running_stack
from dev.stack import NAMESPACE as BERTHS
from ipreserve import install, kube
from ipreserve.kube import Kube
from ipreserve.records import State, address
from ipreserve.store import Store
from ipreserve.tests.world import NAMESPACE, accounts, kubeconfig_of
from sandbox import Sandbox
from sandbox.api import Client
from sandbox.calico.datastore import BASE, Datastore
from sandbox.calico.ipam import Ipam
from sandbox.tests.waiting import eventually

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "docker.io/library/redis:7.0.15"
DEFAULT_POOL, OWN_POOL = f"{BASE}/ippools/default-ipv4-ippool", f"{BASE}/ippools/swap"
# Ports of the sandbox's own network.
LISTEN, SWEEPER_METRICS = "127.0.0.1:18443", "127.0.0.1:19091"
MERGE_PATCH = "application/merge-patch+json"


@dataclass
class Service:
    """ipreserve in the sandbox's network: both processes, under their own accounts."""

    sandbox: Sandbox
    door: Kube
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: str, *flags: str) -> None:
        config = self.folder / f"{command}.kubeconfig"
        kubeconfig_of(self.door, self.sandbox.inside_kubeconfig_path, f"ipreserve-{command}", config)
        argv = [sys.executable, "-m", "ipreserve", command, f"--kubeconfig={config}", f"--namespace={NAMESPACE}"]
        with (self.folder / f"{command}.log").open("wb") as log:
            self.running.append(self.sandbox.popen([*argv, *flags], cwd=ROOT, stdout=log.fileno()))

    def armed(self) -> bool:
        """Whether deletions ask the webhook, and wait for its answer."""
        assert [one.poll() for one in self.running] == [None for _ in self.running], self.said()
        found = self.door.get(f"{install.VALIDATING}/{install.CONFIGURATION}")
        return bool(found["webhooks"][0]["failurePolicy"] == "Fail")

    def swaps(self, protected: str) -> float:
        """Addresses that went from one workload to another within a hold, as the sweeper counts them."""
        text = self.sandbox.exec(["curl", "-s", f"http://{SWEEPER_METRICS}/metrics"]).stdout
        found = re.search(rf'^ipreserve_swaps_observed_total{{protected="{protected}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else -1.0

    def said(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))

    def stop(self) -> None:
        for one in self.running:
            one.terminate()
        for one in self.running:
            one.wait(30)


@pytest.fixture(scope="module")
def service(calico_cluster: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    door = kube.connect(calico_cluster.kubeconfig_path)
    accounts(door)
    made = Service(calico_cluster, door, tmp_path_factory.mktemp("ipreserve"))
    url = f"https://{LISTEN}"
    install.install(door, namespace=NAMESPACE, url=url, give_back=False)
    try:
        made.start("webhook", f"--listen={LISTEN}", f"--url={url}", "--metrics=127.0.0.1:19090")
        made.start("sweeper", f"--metrics={SWEEPER_METRICS}", "--period=1")
        eventually(made.armed, "the webhook is armed")
        eventually(lambda: made.swaps("no") == 0, "the sweeper counts")
        yield made
    finally:
        store = Store(door, NAMESPACE, lambda: kube.detect(door))
        made.stop()
        install.uninstall(door, store, namespace=NAMESPACE, purge=True)


@dataclass
class Redis:
    """One plain Redis Cluster of masters: a StatefulSet whose servers keep their `nodes.conf` on volumes."""

    sandbox: Sandbox
    client: Client
    namespace: str
    name: str
    size: int

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        done = self.sandbox.kubectl("-n", self.namespace, *arguments, input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self) -> None:
        """Start the servers and make them one cluster."""
        container = {
            "name": "redis", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["redis-server", "--dir", "/data", "--save", "", "--protected-mode", "no",
                        "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }  # fmt: skip
        claim = {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
        }
        labels = {"app": self.name}
        wish = {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": self.name},
            "spec": {
                "serviceName": self.name, "replicas": self.size, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels}, "volumeClaimTemplates": [claim],
                "template": {"metadata": {"labels": labels},
                             "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}},
            },
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", input=json.dumps(wish))
        self.await_all()
        servers = [f"{address}:6379" for address in self.addresses()]
        made = self.sandbox.exec(["redis-cli", "--cluster", "create", *servers, "--cluster-yes"], timeout=60)
        assert made.returncode == 0, made.stdout + made.stderr
        for pod in range(self.size):
            eventually(partial(self.is_whole, pod), f"{self.name}-{pod} is of a whole cluster")

    def is_whole(self, pod: int) -> bool:
        # Every server's own file must name all others: it is what it starts from later.
        return "cluster_state:ok" in self.ask(pod, "cluster", "info") and len(self.nodes(pod)) == self.size

    def scale(self, size: int) -> None:
        self.kubectl("scale", "statefulset", self.name, f"--replicas={size}")

    def stop(self) -> None:
        """Delete all its pods; returns when they are gone."""
        self.scale(0)
        eventually(lambda: not self.pods(), "all are gone")

    def start(self) -> None:
        self.scale(self.size)
        self.await_all()

    def await_all(self) -> None:
        """Returns when every server answers under its address of now."""
        eventually(lambda: len(self.addresses()) == self.size, f"{self.name} has its addresses")
        for pod in range(self.size):
            eventually(partial(self.answers, pod), f"{self.name}-{pod} answers")

    def answers(self, pod: int) -> bool:
        return self.ask(pod, "ping") == "PONG"

    def pods(self) -> dict[str, str]:
        """The address of each pod that there is, "" while it has none."""
        items = self.client.read(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{self.name}")["items"]
        return {one["metadata"]["name"]: one.get("status", {}).get("podIP", "") for one in items}

    def addresses(self) -> list[str]:
        """By ordinal; of those that have one."""
        return [one for _, one in sorted(self.pods().items()) if one]

    def ask(self, pod: int, *words: str) -> str:
        """What a server says; "" while it does not run."""
        return self.sandbox.exec(["redis-cli", "-h", self.pods()[f"{self.name}-{pod}"], *words]).stdout.strip()

    def nodes(self, pod: int) -> dict[str, set[str]]:
        """The servers that one knows, by id, with their flags."""
        lines = [line.split() for line in self.ask(pod, "cluster", "nodes").splitlines()]
        return {words[0]: set(words[2].split(",")) for words in lines}

    def flags_of_peers(self, pod: int) -> list[set[str]]:
        return [flags for flags in self.nodes(pod).values() if "myself" not in flags]

    def met_strangers(self, pod: int) -> bool:
        """Whether a server has none of its peers' addresses: Redis drops one only when somebody else answered there."""
        return all("noaddr" in flags for flags in self.flags_of_peers(pod))

    def dials_in_vain(self, pod: int) -> bool:
        return all(flags & {"fail", "fail?"} for flags in self.flags_of_peers(pod))

    def introduce(self, addresses: list[str]) -> None:
        """What a start script or an operator does that remembers addresses: meet everybody where he was last."""
        for pod in range(self.size):
            for one in addresses:
                assert self.ask(pod, "cluster", "meet", one, "6379") == "OK"

    def known(self) -> set[str]:
        """All ids that any of its servers knows."""
        return {one for pod in range(self.size) for one in self.nodes(pod)}

    def shakes_hands(self) -> bool:
        return any("handshake" in flags for pod in range(self.size) for flags in self.flags_of_peers(pod))


@dataclass
class Restarted:
    """Both clusters after the restart; addresses before and after, by ordinal; ids before."""

    orders: Redis
    carts: Redis
    orders_were: list[str]
    carts_were: list[str]
    orders_are: list[str]
    carts_are: list[str]
    orders_ids: set[str]
    carts_ids: set[str]
    swaps_were: float


@pytest.fixture
def own_pool(calico_cluster: Sandbox) -> Iterator[Client]:
    """One block for all nodes, with nobody else in it."""
    client = Client(calico_cluster.kubeconfig_path)
    body = {
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "swap"},
        "spec": {"cidr": "10.245.0.0/26", "blockSize": 26},
    }  # fmt: skip
    client.send("PATCH", DEFAULT_POOL, {"spec": {"disabled": True}}, kind=MERGE_PATCH)
    try:
        assert client.send("POST", f"{BASE}/ippools", body)[0] == 201
        yield client
    finally:
        eventually(lambda: given_up(client), "all its pods are gone")
        client.send("DELETE", OWN_POOL)
        client.send("PATCH", DEFAULT_POOL, {"spec": {"disabled": False}}, kind=MERGE_PATCH)


def given_up(client: Client) -> bool:
    """Give up empty blocks, as Calico's kube-controllers do and nobody does here; whether none is left.

    A block that is claimed again starts at its first address, whatever was freed last.
    """

    def tidy(ipam: Ipam) -> bool:
        for node in ("n1", "n2", "n3"):
            ipam.release_empty_blocks(node)
        return not [block for block in ipam.blocks.values() if any(block.cidr.overlaps(p.cidr) for p in enabled(ipam))]

    return Datastore(client).change(tidy)


def enabled(ipam: Ipam) -> list[Any]:
    return [pool for pool in ipam.pools if not pool.disabled]


@contextlib.contextmanager
def restarted(service: Service, client: Client, *, labels: dict[str, str]) -> Iterator[Restarted]:
    """Two clusters in a namespace of these labels: started, stopped, and started in the other order."""
    sandbox, namespace = service.sandbox, f"swap-{secrets.token_hex(3)}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    assert sandbox.kubectl("create", "-f", "-", input=json.dumps(manifest)).returncode == 0
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    eventually(lambda: client.exists(account), "the namespace has its account")
    try:
        orders = Redis(sandbox, client, namespace, "orders", 3)
        carts = Redis(sandbox, client, namespace, "carts", 4)
        orders.create()
        carts.create()
        orders_were, carts_were = orders.addresses(), carts.addresses()
        orders_ids, carts_ids = orders.known(), carts.known()
        assert (len(orders_ids), len(carts_ids)) == (3, 4)
        orders.stop()
        carts.stop()
        eventually(lambda: given_up(client), "the empty block is given up")
        swaps_were = service.swaps("no")
        carts.start()
        orders.start()
        yield Restarted(
            orders, carts, orders_were, carts_were, orders.addresses(), carts.addresses(), orders_ids, carts_ids,
            swaps_were,
        )  # fmt: skip
    finally:
        sandbox.kubectl("delete", "namespace", namespace, "--timeout=60s")


def test_without_the_label_one_cluster_answers_under_the_other_s_addresses_and_they_become_one(
    service: Service, own_pool: Client
) -> None:
    with restarted(service, own_pool, labels={}) as now:
        assert set(now.orders_were) <= set(now.carts_are)
        for pod in range(now.orders.size):
            eventually(partial(now.orders.met_strangers, pod), f"orders-{pod} has met strangers where its peers were")
        eventually(lambda: service.swaps("no") >= now.swaps_were + len(now.orders_were), "the swaps are counted")
        now.orders.introduce(now.orders_were)
        eventually(lambda: now.carts.known() >= now.orders_ids, "carts knows all servers of orders")
        eventually(lambda: now.orders.known() >= now.carts_ids, "orders knows all servers of carts")


def test_with_the_label_nobody_answers_there_and_the_clusters_stay_apart(service: Service, own_pool: Client) -> None:
    with restarted(service, own_pool, labels={"ip-reserve": "enabled"}) as now:
        were = set(now.orders_were) | set(now.carts_were)
        assert not were & (set(now.orders_are) | set(now.carts_are))
        for pod in range(now.orders.size):
            eventually(partial(now.orders.dials_in_vain, pod), f"orders-{pod} has dialled its peers in vain")
        now.orders.introduce(now.orders_were)
        eventually(lambda: not now.orders.shakes_hands(), "nobody has come to an introduction")
        assert (now.orders.known(), now.carts.known()) == (now.orders_ids, now.carts_ids)
        assert not any("noaddr" in f for pod in range(now.orders.size) for f in now.orders.flags_of_peers(pod))
        store = Store(service.door, NAMESPACE, lambda: kube.detect(service.door))
        kept = {a: r for shard in store.all_kept().values() for a, r in shard.ledger.records.items()}
        assert {one for one in were if kept[address(one)].state is State.FREED} == were
        assert {address(one) for one in were} <= {a for one in store.all_barred().values() for a in one.addresses}
        assert (service.swaps("yes"), service.swaps("no")) == (0, now.swaps_were)


# --- the same with Berth's clusters -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portal(calico_cluster: Sandbox) -> Iterator[Stack]:
    """A portal on the same target; namespaces it makes have the label."""
    with running_stack(name="swap", sandbox=calico_cluster, fast=True) as running:
        yield running


@dataclass(frozen=True)
class Berths:
    """One Redis Cluster ordered from Berth."""

    stack: Stack
    api: Api
    name: str
    password: str

    @property
    def path(self) -> str:
        return f"{CLUSTERS}/{self.name}"

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api.request("GET", self.path)
        return found

    def addresses(self) -> dict[str, str]:
        """Pod to its address, "" while it has none."""
        label = f"app.kubernetes.io/instance={self.name}"
        found = self.stack.kubectl("-n", BERTHS, "get", "pods", "-l", label, "-o", "json").stdout
        return {one["metadata"]["name"]: one["status"].get("podIP", "") for one in json.loads(found)["items"]}

    def scale(self, replicas: int) -> None:
        """Make every shard so large, by hand."""
        label = f"app.kubernetes.io/instance={self.name}"
        done = self.stack.kubectl("-n", BERTHS, "scale", "statefulset", "-l", label, f"--replicas={replicas}")
        assert done.returncode == 0, done.stderr
        if not replicas:
            # When all of a shard end, a master waits in vain for somebody to hand over to.
            words = ["delete", "pod", "-l", label, "--grace-period=2", "--wait=false"]
            self.stack.kubectl("-n", BERTHS, *words)

    def await_pods(self, pods: int) -> None:
        """Returns when there are so many, each with an address."""
        eventually(
            lambda: len(found := self.addresses()) == pods and all(found.values()), f"{self.name} has {pods} pods"
        )

    def ask(self, address: str, *words: str) -> str:
        sandbox = self.stack.sandbox
        assert sandbox is not None
        environment = {**os.environ, "REDISCLI_AUTH": self.password}
        return sandbox.exec(["redis-cli", "-c", "-h", address, *words], env=environment, timeout=10).stdout.strip()

    def is_refused_at(self, address: str) -> bool:
        """Whether a client of this cluster may not read there. False while nobody answers."""
        said = self.ask(address, "get", "whose")
        assert said in ("", "NOAUTH Authentication required."), said
        return bool(said)

    def known(self) -> set[str]:
        """All ids that any of its servers knows."""
        listed = [self.ask(address, "cluster", "nodes") for address in self.addresses().values()]
        return {line.split()[0] for text in listed for line in text.splitlines() if len(line.split()) > 7}

    def is_well(self) -> bool:
        cluster = self.read()
        return cluster["phase"] == "ready" and not cluster["causes"]


@contextlib.contextmanager
def two_of_berth(stack: Stack) -> Iterator[tuple[Berths, Berths]]:
    """Orders with 6 pods and carts with 8; deleted with their volumes at the end."""
    api = stack.api()
    made = []
    try:
        for kind, shards in (("orders", 3), ("carts", 4)):
            name = f"{kind}-{secrets.token_hex(3)}"
            body = {"engine": "redis", "name": name, "plan": "redis-dev", "spec": {"shards": shards}}
            answer = api.request("POST", CLUSTERS, body, headers={"Idempotency-Key": name})
            made.append(name)
            ended = api.follow(answer["operation"])
            assert ended["state"] == "succeeded", ended["error"]
        passwords = [api.request("POST", f"{CLUSTERS}/{name}/credentials/default/reveal")["password"] for name in made]
        orders, carts = (Berths(stack, api, *one) for one in zip(made, passwords, strict=True))
        yield orders, carts
    finally:
        ending = [api.request("DELETE", f"{CLUSTERS}/{name}?volumes=delete&confirm={name}") for name in made]
        for answer in ending:
            api.follow(answer["operation"])


def stop_and_start_in_the_other_order(client: Client, orders: Berths, carts: Berths) -> None:
    """Both are stopped by hand, as for work on the machines; carts, which is larger, comes back first."""
    for one in (orders, carts):
        one.scale(0)
    for one in (orders, carts):
        one.await_pods(0)
    eventually(lambda: given_up(client), "the empty block is given up")
    for one, pods in ((carts, 8), (orders, 6)):
        one.scale(2)
        one.await_pods(pods)


@pytest.mark.parametrize("protected", [False, True], ids=["without-the-label", "with-the-label"])
def test_two_clusters_of_berth_stay_apart_and_only_with_the_label_get_no_address_of_each_other(
    service: Service, own_pool: Client, portal: Stack, protected: bool
) -> None:
    with two_of_berth(portal) as (orders, carts):
        mine, others = orders.known(), carts.known()
        assert (len(mine), len(others), mine & others) == (6, 8, set())
        for one in (orders, carts):
            first = next(iter(one.addresses().values()))
            assert one.ask(first, "set", "whose", one.name) == "OK"
            # Otherwise Berth would bring everything back at once, the label too.
            one.api.request("POST", f"{one.path}/pause", {"reason": "the machines are worked on"})
        orders_were, carts_were = set(orders.addresses().values()), set(carts.addresses().values())
        if not protected:
            assert portal.kubectl("label", "namespace", BERTHS, "ip-reserve-").returncode == 0
        stop_and_start_in_the_other_order(own_pool, orders, carts)
        orders_are, carts_are = set(orders.addresses().values()), set(carts.addresses().values())
        were, are = orders_were | carts_were, orders_are | carts_are
        assert (orders_were <= carts_are, bool(were & are)) == (not protected, not protected)
        # A client that knows where its servers were, and finds the other cluster there.
        for address in sorted(orders_were & carts_are):
            eventually(partial(orders.is_refused_at, address), f"who is at {address} now tells it nothing")
        for one in (orders, carts):
            one.api.request("POST", f"{one.path}/resume")
        for one in (orders, carts):
            eventually(one.is_well, f"{one.name} is well again", seconds=180)
        assert (orders.known(), carts.known()) == (mine, others)
        for one in (orders, carts):
            assert one.ask(next(iter(one.addresses().values())), "get", "whose") == one.name
