"""The embedded target as its users meet it: volumes, faults, crashes. Real nodes and containers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import cgroups, faults
from sandbox.cluster import Sandbox
from sandbox.tests.waiting import eventually

pytestmark = pytest.mark.sandbox

IMAGE = "docker.io/library/redis:7.0.15"


class Space:
    """A namespace of a test's own, and kubectl in it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.name = f"t-{secrets.token_hex(4)}"

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        done = self.sandbox.kubectl("-n", self.name, *arguments, input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def field(self, kind: str, name: str, path: str) -> str:
        """One field of an object by JSON path; "" when there is none."""
        return self.sandbox.kubectl("-n", self.name, "get", kind, name, "-o", f"jsonpath={{{path}}}").stdout.strip()

    def server(self, name: str, *, storage_class: str = "standard") -> None:
        """A StatefulSet of one Redis that writes to a volume of 64 MiB."""
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "redis", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                        "command": ["redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always",
                                    "--protected-mode", "no"],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
            },
        }  # fmt: skip
        claim = {
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class,
                "resources": {"requests": {"storage": "64Mi"}},
            },
        }  # fmt: skip
        wish = {
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
            "spec": {
                "serviceName": name, "replicas": 1, "selector": {"matchLabels": {"app": name}},
                "template": template, "volumeClaimTemplates": [claim],
            },
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", input=json.dumps(wish))
        eventually(lambda: self.field("pod", f"{name}-0", ".status.containerStatuses[0].state.running"), "it runs")
        eventually(lambda: self.redis(name, "ping") == "PONG", "it answers")

    def address(self, name: str) -> str:
        return self.field("pod", f"{name}-0", ".status.podIP")

    def redis(self, name: str, *words: str) -> str:
        """What the server says within a second; "" when it says nothing."""
        try:
            done = self.sandbox.exec(["redis-cli", "-h", self.address(name), *words], timeout=1)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()


@pytest.fixture
def space(cluster: Sandbox | None) -> Iterator[Space]:
    if cluster is None:
        pytest.skip("this is about the embedded target itself")
    made = Space(cluster)
    assert cluster.kubectl("create", "namespace", made.name).returncode == 0
    eventually(lambda: made.field("serviceaccount", "default", ".metadata.name"), "the namespace has its account")
    yield made
    cluster.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.mark.parametrize("storage_class", ["standard", "fast-ssd"])
def test_volume_is_bound_for_its_first_pod_and_kept_over_a_restart(space: Space, storage_class: str) -> None:
    space.server("one", storage_class=storage_class)
    assert space.field("pvc", "data-one-0", ".status.phase") == "Bound"
    assert space.redis("one", "set", "kept", "yes") == "OK"
    before = space.field("pod", "one-0", ".metadata.uid")
    space.kubectl("delete", "pod", "one-0", "--now")
    eventually(lambda: space.field("pod", "one-0", ".metadata.uid") not in ("", before), "there is a new pod")
    eventually(lambda: space.redis("one", "get", "kept") == "yes", "the new pod has the old data")


def test_volume_grows_on_request(space: Space) -> None:
    space.server("one")
    space.kubectl("patch", "pvc", "data-one-0", "-p", '{"spec":{"resources":{"requests":{"storage":"128Mi"}}}}')
    eventually(lambda: space.field("pvc", "data-one-0", ".status.capacity.storage") == "128Mi", "the claim has grown")


def test_volume_that_nobody_uses_waits_for_its_pod(space: Space) -> None:
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "lonely"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }  # fmt: skip
    space.kubectl("apply", "-f", "-", input=json.dumps(claim))
    waits = lambda: "waiting for first consumer" in space.kubectl("get", "events")  # noqa: E731
    eventually(waits, "an event says what the claim waits for")
    assert space.field("pvc", "lonely", ".status.phase") == "Pending"


def test_killed_container_is_started_again_in_its_pod(space: Space) -> None:
    space.server("one")
    uid = space.field("pod", "one-0", ".metadata.uid")
    faults.kill_container(space.sandbox, f"{space.name}/one-0")
    restarts = ".status.containerStatuses[0].restartCount"
    eventually(lambda: space.field("pod", "one-0", restarts) == "1", "kubelet has restarted it")
    eventually(lambda: space.redis("one", "ping") == "PONG", "it answers again")
    assert space.field("pod", "one-0", ".metadata.uid") == uid


def test_frozen_container_is_silent_until_it_is_thawed(space: Space) -> None:
    space.server("one")
    faults.freeze(space.sandbox, f"{space.name}/one-0")
    assert space.redis("one", "ping") == ""
    faults.thaw(space.sandbox, f"{space.name}/one-0")
    eventually(lambda: space.redis("one", "ping") == "PONG", "it answers again")


def test_cut_pod_is_silent_until_its_cable_is_back(space: Space) -> None:
    space.server("one")
    faults.cut_pod(space.sandbox, f"{space.name}/one-0")
    assert space.redis("one", "ping") == ""
    faults.heal_pod(space.sandbox, f"{space.name}/one-0")
    eventually(lambda: space.redis("one", "ping") == "PONG", "it answers again")


def test_all_pods_get_new_addresses_at_once(space: Space) -> None:
    space.server("one")
    before = space.address("one")
    faults.new_addresses(space.sandbox, space.name, "app=one")
    eventually(lambda: space.address("one") not in ("", before), "the pod has another address")
    eventually(lambda: space.redis("one", "ping") == "PONG", "it answers there")


def test_lost_volume_is_empty_when_its_container_looks_again(space: Space) -> None:
    space.server("one")
    assert space.redis("one", "set", "gone", "soon") == "OK"
    faults.lose_volume(space.sandbox, f"{space.name}/data-one-0")
    faults.kill_container(space.sandbox, f"{space.name}/one-0")
    eventually(lambda: space.redis("one", "dbsize") == "0", "it starts on an empty disk")


def test_node_that_is_down_is_noticed_and_comes_back(space: Space) -> None:
    ready = ".status.conditions[?(@.type=='Ready')].status"
    faults.node_down(space.sandbox, "n3")
    try:
        eventually(lambda: space.field("node", "n3", ready) == "Unknown", "the API server calls it lost")
    finally:
        faults.node_up(space.sandbox, "n3")
    eventually(lambda: space.field("node", "n3", ready) == "True", "it is Ready again")


@pytest.fixture
def small() -> Iterator[Sandbox]:
    """A sandbox of one node, beside the one the run shares: two at once is itself part of what is tested."""
    sandbox = Sandbox(f"small-{os.getpid()}", nodes=1)
    try:
        yield sandbox
    finally:
        sandbox.down(wipe=True)


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def _links() -> str:
    """The host's interfaces and firewall, as far as they could be touched."""
    argv = ["sh", "-c", "ls /sys/class/net /run/netns 2>/dev/null; ip rule; ip -o address; nft list ruleset"]
    return subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    ).stdout


def test_sandbox_that_was_killed_is_cleaned_up_without_a_trace(cluster: Sandbox | None, small: Sandbox) -> None:
    if cluster is None:
        pytest.skip("this is about the embedded target itself")
    mounts, links = _mounts(), _links()
    small.up()
    assert small.is_running()
    assert cluster.is_running()
    for name in ("control-plane", "kubelet-n1", "containerd-n1", "holder"):
        os.kill(small.record.read()[name].pid, signal.SIGKILL)
    small.down(wipe=True)
    assert not cgroups.members_root(small.layout.cgroup).exists()
    assert not small.layout.state.exists()
    assert not small.layout.run.exists()
    assert (_mounts(), _links()) == (mounts, links)
    left = [path.name for path in Path("/proc").glob("[0-9]*") if small.name in _command(path)]
    assert left == []
    assert cluster.is_running()
    assert cluster.kubectl("get", "nodes").returncode == 0


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""  # it ended meanwhile


def test_objects_and_volumes_outlive_a_stop(cluster: Sandbox | None, small: Sandbox) -> None:
    if cluster is None:
        pytest.skip("this is about the embedded target itself")
    small.up()
    before = Space(small)
    assert small.kubectl("create", "namespace", before.name).returncode == 0
    eventually(lambda: before.field("serviceaccount", "default", ".metadata.name"), "the namespace has its account")
    before.server("one")
    assert before.redis("one", "set", "kept", "yes") == "OK"
    small.down()
    small.up()
    eventually(lambda: before.redis("one", "get", "kept") == "yes", "the server is back with its data")
