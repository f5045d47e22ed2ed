"""The shipped kustomize base on a real API server: accepted, fail-open, and removed without a deletion blocked."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ipreserve import errors, install, kube
from ipreserve.kube import Kube
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import World
from sandbox import Sandbox

pytestmark = pytest.mark.control_plane
DEPLOY = Path(__file__).resolve().parents[1] / "deploy" / "ipreserve"
CONFIGURATION = f"{install.VALIDATING}/{install.CONFIGURATION}"


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    """An API server of its own: what is installed here asks for every deletion."""
    sandbox = Sandbox(f"test-kust-{os.getpid()}", control_plane_only=True)
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """As a platform engineer writes it: the base, with the component for addresses that come back."""
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [os.path.relpath(DEPLOY / "base", tmp_path)],
        "components": [os.path.relpath(DEPLOY / "give-back", tmp_path)],
    }  # fmt: skip
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def done(ended: subprocess.CompletedProcess[str]) -> str:
    """What it said. Fails when it did not succeed, or when the API server warned."""
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    return ended.stdout


def test_the_base_is_accepted_blocks_nothing_and_goes_in_the_documented_order(server: Sandbox, overlay: Path) -> None:
    rendered = list(yaml.safe_load_all(done(server.kubectl("kustomize", str(overlay)))))
    applied = done(server.kubectl("apply", "--server-side", "-k", str(overlay))).splitlines()
    assert len(applied) == len(rendered)
    assert all(line.endswith("serverside-applied") for line in applied)
    # Again, as every deployment does: nobody else owns a field by now.
    done(server.kubectl("apply", "--server-side", "-k", str(overlay)))

    door = kube.connect(server.kubeconfig_path)
    world = World(door)
    world.pod("cache-0", "10.0.0.1")
    # Nobody serves yet, and deletions pass.
    world.delete("cache-0")

    # As an armed webhook leaves it, and then all of them are gone.
    fail_closed(door)
    # The API server takes a changed configuration up a moment later.
    assert "failed calling webhook" in eventually(lambda: refused(world, "cache-1"), "the deletion is refused")

    done(server.kubectl("delete", "validatingwebhookconfiguration", "ipreserve"))
    eventually(lambda: not refused(world, "cache-1"), "the deletion passes")
    left = server.kubectl("delete", "--ignore-not-found", "--timeout=60s", "-k", str(overlay))
    assert left.returncode == 0, left.stderr
    eventually(lambda: "ip-reserve" not in names(door, "/api/v1/namespaces"), "its namespace is gone")
    roles = names(door, "/apis/rbac.authorization.k8s.io/v1/clusterroles")
    assert not [one for one in roles if "ipreserve" in one]
    assert names(door, install.VALIDATING) == names(door, install.MUTATING) == []


def test_webhooks_are_rolled_out_on_two_nodes_while_both_old_ones_serve(server: Sandbox, overlay: Path) -> None:
    door = kube.connect(server.kubeconfig_path)
    done(server.kubectl("apply", "--server-side", "-k", str(overlay)))
    nodes = ["n1", "n2"]
    try:
        for node in nodes:
            node_that_is_ready(door, node)
        first = eventually(lambda: ready_on(door, nodes), "one on each node")
        eventually(lambda: available(door) == 2, "both are counted as available")
        # As a new image does.
        template = {"metadata": {"annotations": {"again": "1"}}}
        door.request("PATCH", DEPLOYMENT, {"spec": {"template": template}}, content_type="application/merge-patch+json")
        second = eventually(lambda: ready_on(door, nodes, not_of=first), "the new ones are on both nodes")
        assert len(first) == len(second) == 2
    finally:
        # Nobody is there to end the pods of nodes that are none.
        server.kubectl("delete", "--ignore-not-found", "--wait=false", "-k", str(overlay))
        server.kubectl("delete", "pods", "--all", "--force", "--namespace=ip-reserve")
        for node in nodes:
            door.request("DELETE", f"/api/v1/nodes/{node}")
        eventually(lambda: "ip-reserve" not in names(door, "/api/v1/namespaces"), "its namespace is gone")


PODS, DEPLOYMENT = (
    "/api/v1/namespaces/ip-reserve/pods",
    "/apis/apps/v1/namespaces/ip-reserve/deployments/ipreserve-webhook",
)


def node_that_is_ready(door: Kube, name: str) -> None:
    labels = {"kubernetes.io/hostname": name}
    door.request("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
    room = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": room, "capacity": room}
    merge = "application/merge-patch+json"
    door.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, content_type=merge)
    # The controller says "not ready" of every node that is new, and takes it back when it looks.
    door.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, content_type=merge)


def available(door: Kube) -> int:
    """How many webhooks the Deployment says serve."""
    found: int = door.get(DEPLOYMENT)["status"].get("availableReplicas", 0)
    return found


def ready_on(door: Kube, nodes: list[str], *, not_of: frozenset[str] = frozenset()) -> frozenset[str]:
    """Says for each webhook that has a node that it is ready, as kubelet would, and removes those that are going.

    The uids of those that serve once they are on all these nodes, all new and nothing else is left; else none.
    """
    found = door.get(PODS, labelSelector="app.kubernetes.io/name=ipreserve-webhook")["items"]
    for pod in found:
        path = f"{PODS}/{pod['metadata']['name']}"
        with contextlib.suppress(errors.NotFound):
            if "deletionTimestamp" in pod["metadata"]:
                door.request("DELETE", path, {"gracePeriodSeconds": 0})
            elif pod["spec"].get("nodeName"):
                status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                merge = "application/merge-patch+json"
                door.request("PATCH", f"{path}/status", {"status": status}, content_type=merge)
    uids = frozenset(pod["metadata"]["uid"] for pod in found)
    serve = sorted(str(pod["spec"].get("nodeName")) for pod in found) == nodes
    if not_of:
        # At no time fewer than two answer.
        assert available(door) >= 2
    return uids if serve and not uids & not_of else frozenset()


def test_documented_patch_lets_only_the_control_plane_reach_the_webhook(server: Sandbox, overlay: Path) -> None:
    text = (DEPLOY.parents[1] / "docs" / "ip-reservation.md").read_text()
    (patch,) = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "ipBlock" in block]
    file = overlay / "kustomization.yaml"
    file.write_text(file.read_text() + patch)
    rendered = yaml.safe_load_all(done(server.kubectl("kustomize", str(overlay))))
    (policy,) = [one for one in rendered if one["kind"] == "NetworkPolicy"]
    webhook, metrics = policy["spec"]["ingress"]
    assert webhook == {
        "ports": [{"port": 9443, "protocol": "TCP"}],
        "from": [{"ipBlock": {"cidr": "192.0.2.10/32"}}, {"ipBlock": {"cidr": "192.0.2.11/32"}}],
    }
    assert metrics["ports"] == [{"port": 9090, "protocol": "TCP"}]


def fail_closed(door: Kube) -> None:
    """What arming does to the entries that may refuse, without a webhook behind them."""
    found = door.get(CONFIGURATION)
    for entry in found["webhooks"]:
        entry["failurePolicy"] = "Ignore" if "status" in entry["name"] else "Fail"
    door.request("PUT", CONFIGURATION, found)


def refused(world: World, pod: str) -> str:
    """Why the deletion of a pod is refused; empty when it passes."""
    # An earlier try may have passed.
    with contextlib.suppress(errors.Conflict):
        world.pod(pod, "10.0.0.2")
    try:
        world.delete(pod)
    except errors.ApiError as error:
        return str(error)
    return ""


def names(door: Kube, path: str) -> list[str]:
    return [one["metadata"]["name"] for one in door.list(path)[0]]
