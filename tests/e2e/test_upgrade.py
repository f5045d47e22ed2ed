"""A running Redis Cluster goes to another version on a real target, while a client writes to it."""

from __future__ import annotations

import json

import pytest

from dev.portal import ApiError
from dev.stack import Stack
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_changes import pods, writing

pytestmark = pytest.mark.sandbox

OLD, NEW = "7.0.15", "8.0.2"


def images(stack: Stack, placed: Order) -> set[str]:
    """The images its Redis containers run, as the nodes report them."""
    label = f"app.kubernetes.io/instance={placed.name}"
    found = json.loads(stack.kubectl("-n", "berth-demo", "get", "pods", "-l", label, "-o", "json").stdout)["items"]
    containers = [one for pod in found for one in pod["spec"]["containers"] if one["name"] == "redis"]
    return {one["image"] for one in containers}


def test_another_version_is_rolled_out_by_a_worker_that_dies_and_its_successor(
    stack: Stack, order: OrderCluster
) -> None:
    placed = order(plan="redis-dev")
    before = pods(stack, placed)
    led = {member["shard"]: member["pod"] for member in placed.read()["members"] if member["role"] == "master"}
    rehearsed = placed.api.request("PATCH", f"{placed.path}?dry_run=true", {"version": NEW})
    assert [(one["pointer"], one["effect"]) for one in rehearsed["effects"]] == [("/version", "roll")]
    assert len([one for one in rehearsed["objects"] if one["kind"] == "StatefulSet" and one["changes"]]) == 3
    with writing(stack, placed) as writer:
        operation = placed.api.request("PATCH", placed.path, {"version": NEW})["operation"]
        assert operation["kind"] == "upgrade"
        eventually(lambda: pods(stack, placed).items() != before.items(), "the first pod restarts")
        stack.portal.kill("worker")
        stack.portal.start("worker")
        ended = placed.api.follow(operation, deadline_seconds=400)
        assert ended["state"] == "succeeded", ended["error"]
        seen = writer.stop()
    assert seen["lost"] == []
    assert seen["confirmed"] > 100
    print(f"confirmed {seen['confirmed']}, longest gap {seen['accepted_gap']:.2f} s, refused {seen['refused']}")
    assert images(stack, placed) == {f"docker.io/library/redis:{NEW}"}
    assert not set(pods(stack, placed).values()) & set(before.values())
    events = sorted(placed.api.request("GET", f"{placed.path}/events?limit=100")["items"], key=lambda one: one["id"])
    restarted = [one["object"].removeprefix("pod/") for one in events if one["reason"] == "Restart"]
    assert sorted(restarted) == sorted(before), "each once"
    for shard, master in led.items():
        assert [pod for pod in restarted if f"-s{shard}-" in pod][-1] == master, "the old master last"
    cluster = placed.read()
    assert (cluster["version"], cluster["phase"]) == (NEW, "ready")
    with pytest.raises(ApiError, match="never goes back"):
        placed.api.request("PATCH", placed.path, {"version": OLD})
