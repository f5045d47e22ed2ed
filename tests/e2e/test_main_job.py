"""The main job, through the public API, on a real target: order, watch, use, heal, delete."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dev.portal import ApiError
from dev.stack import Stack, environment_for_browser
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import OrderCluster

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).resolve().parents[2]
REDIS = {"shards": 3, "replicasPerShard": 1}


def test_redis_is_delivered_and_proven_and_every_step_tells_its_times(order: OrderCluster) -> None:
    placed = order(plan="redis-dev", spec=REDIS)
    assert placed.operation["state"] == "succeeded", placed.operation["error"]
    assert placed.operation["percent"] == 100
    assert [step["state"] for step in placed.operation["steps"]] == ["done"] * len(placed.operation["steps"])
    assert all(step["started"] and step["ended"] for step in placed.operation["steps"])
    assert placed.operation["proof"]["ok"] is True
    cluster = placed.read()
    assert cluster["phase"] == "ready"
    roles = [member["role"] for member in cluster["members"]]
    assert (roles.count("master"), roles.count("replica")) == (3, 3)
    for shard in {member["shard"] for member in cluster["members"]}:
        nodes = [member["node"] for member in cluster["members"] if member["shard"] == shard]
        assert len(set(nodes)) == 2, f"two members of shard {shard} on one node"
    masters = [member["node"] for member in cluster["members"] if member["role"] == "master"]
    assert len(set(masters)) == 3, "masters are not spread evenly over three nodes"


def test_the_shell_snippet_works_as_it_stands(stack: Stack, order: OrderCluster) -> None:
    if stack.sandbox is None:
        pytest.skip("this host is outside the external cluster's network; the proof went through it")
    placed = order(plan="redis-dev", spec=REDIS)
    snippets = placed.api.request("GET", f"{placed.path}/snippets")["items"]
    code = next(snippet["code"] for snippet in snippets if snippet["language"] == "shell")
    ran = stack.run_inside(
        ["bash", "-euo", "pipefail", "-c", code.replace("{password}", placed.password())], timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_killed_pod_is_healed(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev", spec=REDIS)
    victim = next(member["pod"] for member in placed.read()["members"] if member["role"] == "master")
    uid = stack.kubectl("-n", "berth-demo", "get", "pod", victim, "-o", "jsonpath={.metadata.uid}").stdout
    assert stack.kubectl("-n", "berth-demo", "delete", "pod", victim, "--now").returncode == 0

    def healed() -> bool:
        now = stack.kubectl("-n", "berth-demo", "get", "pod", victim, "-o", "jsonpath={.metadata.uid}")
        cluster = placed.read()
        roles = [member["role"] for member in cluster["members"]]
        return (
            now.stdout not in ("", uid)
            and cluster["phase"] == "ready"
            and (roles.count("master"), roles.count("replica")) == (3, 3)
        )

    eventually(healed, "the cluster is ready again with 3 masters and 3 replicas")


def test_zookeeper_is_delivered_through_the_same_door(order: OrderCluster) -> None:
    placed = order("zookeeper", plan="zookeeper-dev")
    assert placed.operation["state"] == "succeeded", placed.operation["error"]
    roles = sorted(member["role"] for member in placed.read()["members"])
    assert roles == ["follower", "follower", "leader"]


def test_zookeeper_survives_that_all_its_pods_get_new_addresses_at_once(stack: Stack, order: OrderCluster) -> None:
    placed = order("zookeeper", plan="zookeeper-dev")
    label = f"app.kubernetes.io/instance={placed.name}"

    def addresses() -> set[str]:
        path = "jsonpath={.items[*].status.podIP}"
        return set(stack.kubectl("-n", "berth-demo", "get", "pods", "-l", label, "-o", path).stdout.split())

    before = addresses()
    assert len(before) == 3
    gone = stack.kubectl("-n", "berth-demo", "delete", "pods", "-l", label, "--grace-period=0", "--force")
    assert gone.returncode == 0, gone.stderr
    eventually(lambda: len(addresses() - before) == 3, "three pods have three new addresses")

    def healed() -> bool:
        cluster = placed.read()
        roles = sorted(member["role"] for member in cluster["members"])
        return cluster["phase"] == "ready" and roles == ["follower", "follower", "leader"]

    eventually(healed, "the ensemble has a leader again and is ready")


def test_deleting_keeps_volumes_unless_the_name_is_typed(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev", spec=REDIS)
    with pytest.raises(ApiError) as refused:
        placed.api.request("DELETE", f"{placed.path}?volumes=delete&confirm=another")
    assert refused.value.status == 422
    cluster_id = placed.read()["id"]
    answer = placed.api.request("DELETE", placed.path)
    assert placed.api.follow(answer["operation"])["state"] == "succeeded"
    label = f"app.kubernetes.io/instance={placed.name}"
    kept = stack.kubectl("-n", "berth-demo", "get", "pvc", "-l", label, "-o", "name").stdout.split()
    left = stack.kubectl(
        "-n", "berth-demo", "get", "pods,statefulsets,services,configmaps,secrets,pdb", "-l", label, "-o", "name"
    ).stdout.split()
    assert len(kept) == 6
    assert left == []
    body = {"engine": "redis", "name": placed.name, "plan": "redis-dev"}
    with pytest.raises(ApiError) as again:
        placed.api.request("POST", "/api/v1/tenants/demo/clusters", body, headers={"Idempotency-Key": placed.name})
    assert again.value.problem["code"] == "volumes_kept"
    kept_path = f"/api/v1/tenants/demo/quota/kept-volumes/{cluster_id}?confirm={placed.name}"
    removed = placed.api.request("DELETE", kept_path)
    assert placed.api.follow(removed["operation"])["state"] == "succeeded"
    assert stack.kubectl("-n", "berth-demo", "get", "pvc", "-l", label, "-o", "name").stdout == ""


@pytest.mark.browser
def test_the_page_carries_a_person_from_sign_in_to_deletion(stack: Stack) -> None:
    environment = {**os.environ, **environment_for_browser(stack)}
    ran = subprocess.run(
        ["python3", "dev/bootstrap.py", "npm", "run", "e2e"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
