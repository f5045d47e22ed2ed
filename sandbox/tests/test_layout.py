"""Names, addresses, folders, configuration: pure."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest

from sandbox import SandboxError, components, layout
from sandbox.cluster import Sandbox
from sandbox.layout import Layout


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERTH_SANDBOX_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["", "Demo", "1st", "a/b", "..", "a" * 21, "a b", "-a", "é"])
def test_name_that_does_not_fit_into_file_names_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(SandboxError, match="1 to 20 lower-case letters"):
        Layout(name)


def test_two_sandboxes_share_no_path_and_no_cgroup() -> None:
    one, two = Layout("one"), Layout("two")
    assert one.cgroup != two.cgroup
    assert one.run != two.run
    assert one.state != two.state


def test_socket_path_fits_into_what_the_kernel_takes() -> None:
    longest = Layout("a" * 20).socket(layout.nodes(50)[-1])
    # containerd's shims make sockets of their own elsewhere; this is the one we name.
    assert len(str(longest) + ".ttrpc") < 108


def test_state_folder_with_too_long_a_path_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_SANDBOX_HOME", "/tmp/" + "x" * 90)
    with pytest.raises(SandboxError, match="BERTH_SANDBOX_HOME"):
        Sandbox("one", control_plane_only=True).up()


def test_three_nodes_are_in_two_zones_with_a_range_each() -> None:
    nodes = layout.nodes(3)
    assert [node.zone for node in nodes] == ["zone-a", "zone-a", "zone-b"]
    ranges = [ipaddress.ip_network(node.pod_range) for node in nodes]
    assert not any(a.overlaps(b) for a in ranges for b in ranges if a is not b)
    services = ipaddress.ip_network(layout.SERVICE_RANGE)
    assert not any(one.overlaps(services) for one in ranges)
    assert ipaddress.ip_address(layout.DNS_SERVICE) in services


@pytest.mark.parametrize("count", [0, -1, 51])
def test_number_of_nodes_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(SandboxError, match="between 1 and 50"):
        Sandbox("one", nodes=count)


def test_sandbox_remembers_how_many_nodes_it_was_made_with(home: Path) -> None:
    (home / "one").mkdir()
    (home / "one" / "settings.json").write_text('{"nodes": 2}')
    assert len(Sandbox("one").nodes) == 2
    (home / "one" / "settings.json").write_text('{"nodes": 0}')
    assert Sandbox("one").control_plane_only


def test_sandbox_remembers_who_gives_addresses_and_refuses_another(home: Path) -> None:
    (home / "one").mkdir()
    (home / "one" / "settings.json").write_text('{"nodes": 2}')
    assert Sandbox("one").ipam == "host-local"
    (home / "one" / "settings.json").write_text('{"nodes": 2, "ipam": "calico"}')
    assert Sandbox("one").ipam == "calico"
    with pytest.raises(SandboxError, match="made with 2 nodes and addresses from calico, not with 2 nodes"):
        Sandbox("one", ipam="host-local")._keep_settings()


def test_address_giver_that_is_unknown_or_has_no_nodes_is_refused() -> None:
    with pytest.raises(SandboxError, match=r"ipam: 'cilium' is not one of host-local, calico"):
        Sandbox("one", ipam="cilium")
    with pytest.raises(SandboxError, match="ipam: a control plane without nodes"):
        Sandbox("one", ipam="calico", control_plane_only=True)


def option(arguments: list[str], name: str) -> str:
    return next(argument.partition("=")[2] for argument in arguments if argument.startswith(f"--{name}="))


def test_api_server_is_reachable_under_every_name_its_certificate_must_hold() -> None:
    arguments = components.certificate_arguments(Layout("one"), components.WITH_NODES, layout.nodes(3))
    names = option(arguments, "server-names").split(",")
    # 127.0.0.1 is where the forwarder on the host listens, the first Service address is what pods use.
    assert {"127.0.0.1", layout.API_ADDRESS, "10.96.0.1", "kubernetes.default.svc"} <= set(names)
    assert option(arguments, "nodes") == "n1=10.250.0.1,n2=10.250.0.2,n3=10.250.0.3"


def test_control_plane_alone_listens_on_loopback_only() -> None:
    arguments = components.apiserver(Layout("one"), components.without_nodes(6000))
    assert option(arguments, "bind-address") == "127.0.0.1"
    assert ipaddress.ip_network(option(arguments, "service-cluster-ip-range")).is_loopback


def test_kubelet_keeps_to_its_own_cgroup_socket_and_folders() -> None:
    nodes = layout.nodes(2)
    first, second = (json.dumps(components.kubelet_configuration(Layout("one"), node)) for node in nodes)
    assert "/berth-one/n1" in first
    assert "/n1/" not in second
    assert "n2" not in first


def test_lost_node_is_noticed_after_several_missed_renewals() -> None:
    """A grace period shorter than a few renewals would take busy nodes for lost ones."""
    kubelet = components.kubelet_configuration(Layout("one"), layout.nodes(1)[0])
    grace = option(components.controller_manager(Layout("one"), components.WITH_NODES), "node-monitor-grace-period")
    # kubelet renews its lease four times in the lease's duration.
    assert int(grace.rstrip("s")) >= 3 * kubelet["nodeLeaseDurationSeconds"] / 4
