"""The plugin as containerd starts it, a process per call, on a real API server with Calico's kinds."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox import components, layout
from sandbox.api import Client
from sandbox.calico import crds, plugin
from sandbox.calico.datastore import BASE, Datastore, set_up
from sandbox.cluster import ROOT, Sandbox

GONE = "https://127.0.0.1:1"


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    """An API server of its own: the run's shared one must not learn of Calico from here."""
    sandbox = Sandbox(f"calico-plugin-{os.getpid() % 10000}", control_plane_only=True)
    try:
        sandbox.up()
        crds.install(Client(sandbox.kubeconfig_path), layout.CALICO_RELEASE)
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@dataclass
class Nodes:
    """Nodes that call the plugin, and the objects behind it."""

    folder: Path
    kubeconfig: Path
    client: Client

    def call(self, command: str, container: str, *, node: str = "n1", pod: str = "", **changes: str) -> dict[str, Any]:
        """One call as containerd makes it; the answer, {} when there is none, or the error."""
        (number,) = [one for one in layout.nodes(3) if one.name == node]
        ipam = {**components.cni_calico(layout.Layout("one"), number)["plugins"][0]["ipam"],
                "kubeconfig": str(self.kubeconfig), "lock": str(self.folder / f"{node}.lock"), **changes}  # fmt: skip
        script = self.folder / "plugin"
        if not script.exists():
            script.write_text(components.calico_plugin(Path(sys.executable), ROOT))
        environment = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
        }  # fmt: skip
        network = json.dumps({"cniVersion": "1.0.0", "name": "k8s-pod-network", "ipam": ipam})
        ran = subprocess.run(
            ["/bin/sh", str(script)], input=network, env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.stderr == ""
        found: dict[str, Any] = json.loads(ran.stdout or "{}")
        assert ran.returncode == ("code" in found)
        return found

    def add(self, container: str, **how: str) -> str:
        """The address of a new container."""
        found = self.call("ADD", container, **how)
        assert "ips" in found, found
        return str(ipaddress.ip_interface(found["ips"][0]["address"]).ip)

    def pool(self, cidr: str, block_size: int) -> None:
        """Have this pool only."""
        for plural in ("ippools", "ipamblocks", "ipreservations"):
            assert self.client.send("DELETE", f"{BASE}/{plural}")[0] == 200
        set_up(self.client, layout.CALICO_RELEASE, pool=cidr, block_size=block_size)

    def reserve(self, *addresses: str) -> None:
        body = {
            "apiVersion": f"{crds.V1[0]}/v1", "kind": "IPReservation", "metadata": {"name": "held"},
            "spec": {"reservedCIDRs": list(addresses)},
        }  # fmt: skip
        assert self.client.send("POST", f"{BASE}/ipreservations", body)[0] == 201

    def pod(self, name: str, asks: str) -> str:
        body = {
            "metadata": {"name": name, "annotations": {plugin.ASKS: asks}},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }  # fmt: skip
        assert self.client.send("POST", "/api/v1/namespaces/default/pods", body)[0] == 201
        return name


@pytest.fixture
def nodes(server: Sandbox, tmp_path: Path) -> Nodes:
    made = Nodes(tmp_path, server.kubeconfig_path, Client(server.kubeconfig_path))
    made.pool("10.9.0.0/28", 29)
    return made


def test_an_address_is_written_down_with_its_pod_and_freed_to_the_tail_of_its_block(nodes: Nodes) -> None:
    pod = nodes.pod("orders-0", '["10.9.0.3"]')
    found = nodes.call("ADD", "c1", pod=pod)
    assert found["ips"] == [{"address": "10.9.0.3/8", "gateway": "10.250.0.1"}]
    assert found["routes"] == [{"dst": "0.0.0.0/0"}]
    (block,) = nodes.client.read(f"{BASE}/ipamblocks")["items"]
    assert (block["metadata"]["name"], block["spec"]["affinity"]) == ("10-9-0-0-29", "host:n1")
    (attribute,) = block["spec"]["attributes"]
    assert attribute["handle_id"] == "k8s-pod-network.c1"
    about = attribute["secondary"]
    assert (about["pod"], about["namespace"], about["node"]) == ("orders-0", "default", "n1")
    assert nodes.call("CHECK", "c1") == {}
    assert nodes.call("DEL", "c1") == nodes.call("DEL", "c1") == {}
    assert nodes.call("CHECK", "c1")["code"] == plugin.NO_ADDRESS
    (block,) = nodes.client.read(f"{BASE}/ipamblocks")["items"]
    assert block["spec"]["unallocated"] == [0, 1, 2, 4, 5, 6, 7, 3]


def test_a_reserved_address_is_given_to_nobody_who_does_not_ask_for_it_by_name(nodes: Nodes) -> None:
    nodes.pool("10.9.0.0/29", 29)
    nodes.reserve(*(f"10.9.0.{last}/32" for last in range(7)))
    assert nodes.add("c1") == "10.9.0.7"
    refused = nodes.call("ADD", "c2")
    assert refused["code"] == plugin.NO_ADDRESS
    assert "no free address for n1 in 10.9.0.0/29" in refused["msg"]
    assert nodes.add("c3", pod=nodes.pod("orders-1", '["10.9.0.2"]')) == "10.9.0.2"
    again = nodes.call("ADD", "c4", pod="orders-1")
    assert (again["code"], again["msg"]) == (plugin.NO_ADDRESS, "10.9.0.2 is in use")


def test_three_nodes_that_ask_at_once_get_different_addresses_and_every_one_is_written_down(nodes: Nodes) -> None:
    with ThreadPoolExecutor(6) as pool:
        given = list(pool.map(lambda n: nodes.add(f"c{n}", node=f"n{n % 3 + 1}"), range(16)))
    # The pool's last address included: two blocks for three nodes, so that one of them borrows.
    assert len(set(given)) == 16
    ipam = Datastore(nodes.client).read()
    held = {str(b.address(n)) for b in ipam.blocks.values() for n, one in enumerate(b.allocations) if one is not None}
    assert held == set(given)
    assert nodes.call("ADD", "one-more")["code"] == plugin.NO_ADDRESS


@pytest.mark.parametrize(
    ("command", "changes", "code", "says"),
    [
        ("PLAY", {}, plugin.BAD_ENVIRONMENT, "CNI_COMMAND is 'PLAY'"),
        ("ADD", {"subnet": "10.0.0.0/99"}, plugin.BAD_CONFIGURATION, "'99' is not a valid netmask"),
        ("ADD", {"kubeconfig": "/nowhere"}, plugin.BAD_CONFIGURATION, "/nowhere"),
        ("ADD", {"subnet": "192.168.0.0/16"}, plugin.BAD_CONFIGURATION, "the pool 10.9.0.0/28 is not inside 192.168"),
    ],
)
def test_what_cannot_be_done_is_told_to_the_runtime_with_code_and_reason(
    nodes: Nodes, command: str, changes: dict[str, str], code: int, says: str
) -> None:
    refused = nodes.call(command, "c1", **changes)
    assert refused["code"] == code
    assert says in refused["msg"]
    assert nodes.client.read(f"{BASE}/ipamblocks")["items"] == []


@pytest.mark.parametrize("asks", ["10.9.0.3", "[]", '["10.9.0.3", "10.9.0.4"]', '["x"]', "7"])
def test_a_wish_for_an_address_that_cannot_be_read_is_refused_and_not_ignored(nodes: Nodes, asks: str) -> None:
    name = nodes.pod(f"pod-{asks.encode().hex()}", asks)
    refused = nodes.call("ADD", "c1", pod=name)
    assert refused["code"] == plugin.BAD_CONFIGURATION
    assert "not a list of one IPv4 address" in refused["msg"]


def test_an_api_server_that_does_not_answer_means_try_again(nodes: Nodes, tmp_path: Path) -> None:
    away = tmp_path / "away"
    text = nodes.kubeconfig.read_text()
    server = next(line.split()[-1] for line in text.splitlines() if line.strip().startswith("server:"))
    away.write_text(text.replace(server, GONE))
    for command in ("ADD", "DEL", "CHECK"):
        refused = nodes.call(command, "c1", kubeconfig=str(away))
        assert refused["code"] == plugin.TRY_AGAIN
        assert "does not answer" in refused["msg"]
    assert nodes.call("ADD", "c2", pod="nobody")["msg"] == "the pod default/nobody cannot be read (404)"


def test_the_plugin_names_the_versions_it_speaks(nodes: Nodes) -> None:
    assert nodes.call("VERSION", "")["supportedVersions"] == ["0.3.1", "0.4.0", "1.0.0"]
