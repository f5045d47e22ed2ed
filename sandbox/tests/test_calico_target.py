"""Pods of the embedded target with addresses by Calico's objects: real kubelets, containerd and cables."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from sandbox import faults
from sandbox.api import Client
from sandbox.calico import plugin
from sandbox.calico.datastore import BASE, Datastore
from sandbox.calico.ipam import Block
from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError
from sandbox.tests.waiting import eventually

pytestmark = pytest.mark.sandbox
IMAGE = "docker.io/library/redis:7.0.15"


class Space:
    """A namespace of a test's own with pods on chosen nodes."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.name = sandbox, f"t-{secrets.token_hex(4)}"
        self.client = Client(sandbox.kubeconfig_path)
        self.kubectl("create", "namespace", self.name)
        account = f"/api/v1/namespaces/{self.name}/serviceaccounts/default"
        eventually(lambda: self.client.exists(account), "the namespace has its account")

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        done = self.sandbox.kubectl("-n", self.name, *arguments, input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, name: str, node: str, **annotations: str) -> str:
        """A Redis on a node; its address."""
        container = {
            "name": "redis", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["redis-server", "--protected-mode", "no", "--save", ""],
        }  # fmt: skip
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]},
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", input=json.dumps(pod))
        path = f"/api/v1/namespaces/{self.name}/pods/{name}"
        status: Callable[[], dict[str, str]] = lambda: self.client.read(path).get("status", {})  # noqa: E731
        eventually(lambda: status().get("podIP"), f"{name} has an address")
        return status()["podIP"]

    def answers(self, pod: str, target: str) -> bool:
        """Whether a pod reaches a Redis."""
        asked = self.sandbox.kubectl("-n", self.name, "exec", pod, "--", "redis-cli", "-h", target, "ping")
        return asked.stdout.strip() == "PONG"

    def block(self, address: str) -> Block:
        """The block an address is of."""
        blocks = Datastore(self.client).read().blocks
        return next(block for cidr, block in blocks.items() if ipaddress.ip_address(address) in cidr)

    def holder(self, address: str) -> str:
        """The pod that has an address by Calico's objects; "" when it is free."""
        block = self.block(address)
        index = block.allocations[int(ipaddress.ip_address(address)) - int(block.cidr.network_address)]
        return "" if index is None else str(block.attributes[index]["secondary"]["pod"])


@pytest.fixture
def space(calico_cluster: Sandbox) -> Iterator[Space]:
    made = Space(calico_cluster)
    yield made
    calico_cluster.kubectl("delete", "namespace", made.name, "--wait=false")


def test_pods_of_all_nodes_get_addresses_of_their_node_s_block_and_reach_each_other(space: Space) -> None:
    given = {node: space.run(f"on-{node}", node) for node in ("n1", "n2", "n3")}
    assert {node: space.block(address).host for node, address in given.items()} == {n: n for n in given}
    assert {node: space.holder(address) for node, address in given.items()} == {n: f"on-{n}" for n in given}
    space.kubectl("expose", "pod", "on-n3", "--port", "6379")
    service = f"on-n3.{space.name}.svc.cluster.local"
    for node in ("n1", "n2"):
        for target in (*given.values(), service):
            eventually(partial(space.answers, f"on-{node}", target), f"{node} reaches {target}")
    assert space.sandbox.exec(["redis-cli", "-h", given["n2"], "ping"]).stdout.strip() == "PONG"


def test_a_deleted_pod_s_address_is_free_and_a_reserved_one_only_for_who_asks_by_name(space: Space) -> None:
    address = space.run("first", "n1")
    reservation = {
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation", "metadata": {"name": space.name},
        "spec": {"reservedCIDRs": [str(space.block(address).cidr)]},
    }  # fmt: skip
    assert space.client.send("POST", f"{BASE}/ipreservations", reservation)[0] == 201
    try:
        space.kubectl("delete", "pod", "first")
        eventually(lambda: space.holder(address) == "", "its address is free")
        # All that is free in the node's block is barred, so the node gets a second block.
        other = space.run("second", "n1")
        assert space.block(other).cidr != space.block(address).cidr
        assert space.block(other).host == "n1"
        assert space.run("third", "n1", **{plugin.ASKS: f'["{address}"]'}) == address
    finally:
        space.client.send("DELETE", f"{BASE}/ipreservations/{space.name}")


def test_a_fault_that_needs_ranges_per_node_is_refused_where_there_are_none(space: Space) -> None:
    with pytest.raises(SandboxError, match="Use node-down"):
        faults.cut_node(space.sandbox, "n1")
