"""Changes of a running Redis Cluster through the public API, on a real target, while a client writes to it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest

from dev.redis_watch import Watched, watched
from dev.stack import NAMESPACE, Stack
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox


@contextlib.contextmanager
def writing(stack: Stack, placed: Order) -> Iterator[Watched]:
    """A client that writes to an ordered cluster."""
    host = placed.read()["endpoints"][0]["host"]
    with watched(embedded(stack), NAMESPACE, placed.name, host, placed.password()) as seen:
        yield seen


def change(placed: Order, **spec: Any) -> Mapping[str, Any]:
    """PATCH and follow; the operation's end."""
    operation = placed.api.request("PATCH", placed.path, {"spec": spec})["operation"]
    ended = placed.api.follow(operation, deadline_seconds=240)
    assert ended["state"] == "succeeded", ended["error"]
    took = datetime.fromisoformat(ended["ended"]) - datetime.fromisoformat(ended["created"])
    print(f"{spec}: {took.total_seconds():.1f} s")
    return ended


def pods(stack: Stack, placed: Order) -> dict[str, str]:
    """Pod to uid."""
    label = f"app.kubernetes.io/instance={placed.name}"
    found = stack.kubectl("-n", "berth-demo", "get", "pods", "-l", label, "-o", "json").stdout
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in json.loads(found)["items"]}


def held(placed: Order) -> dict[str, int]:
    """What the ledger says the cluster uses; nothing is reserved any more."""
    (holder,) = [
        one for one in placed.api.request("GET", "/api/v1/tenants/demo/quota")["items"] if one["name"] == placed.name
    ]
    assert {one["reserved"] for one in holder["holds"]} == {0}
    return {one["resource"]: one["used"] for one in holder["holds"]}


def test_settings_restarts_and_shards_change_under_a_client_that_loses_nothing(
    stack: Stack, order: OrderCluster
) -> None:
    placed = order(plan="redis-dev")
    before, used = pods(stack, placed), held(placed)
    with writing(stack, placed) as writer:
        change(placed, evictionPolicy="allkeys-lru", config={"hz": 20})
        assert pods(stack, placed) == before, "live settings restart nothing"
        rolled = change(placed, memoryGiB=0.25, config={"io-threads": 2}, storageGiB=2)
        assert [step["state"] for step in rolled["steps"]] == ["done"] * len(rolled["steps"])
        after = pods(stack, placed)
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values()), "every pod was restarted"
        change(placed, shards=4)
        assert len(pods(stack, placed)) == 8
        change(placed, shards=3)
        assert pods(stack, placed).keys() == before.keys()
        seen = writer.stop()
    assert seen["lost"] == []
    assert seen["confirmed"] > 100
    cluster = placed.read()
    assert (cluster["phase"], sorted(member["role"] for member in cluster["members"])) == (
        "ready", ["master"] * 3 + ["replica"] * 3,
    )  # fmt: skip
    label = f"app.kubernetes.io/instance={placed.name}"
    sizes = "jsonpath={.items[*].status.capacity.storage}"
    volumes = stack.kubectl("-n", "berth-demo", "get", "pvc", "-l", label, "-o", sizes).stdout.split()
    assert volumes == ["2Gi"] * 6
    assert held(placed) == {
        **used, "memory": used["memory"] + 6 * 128, "storage": 2 * used["storage"],
        "storage:standard": 2 * used["storage:standard"],
    }  # fmt: skip
    print(f"confirmed {seen['confirmed']}, longest gap {seen['accepted_gap']:.2f} s, refused {seen['refused']}")


def test_a_worker_killed_in_a_restart_is_replaced_and_every_pod_restarts_once(
    stack: Stack, order: OrderCluster
) -> None:
    placed = order(plan="redis-dev")
    before = pods(stack, placed)
    operation = placed.api.request("POST", f"{placed.path}/restart")["operation"]
    eventually(lambda: pods(stack, placed).items() != before.items(), "the first pod restarts")
    stack.portal.kill("worker")
    stack.portal.start("worker")
    ended = placed.api.follow(operation, deadline_seconds=240)
    assert ended["state"] == "succeeded", ended["error"]
    assert not set(pods(stack, placed).values()) & set(before.values())
    events = placed.api.request("GET", f"{placed.path}/events?limit=100")["items"]
    restarted = [event["object"] for event in events if event["reason"] == "Restart"]
    assert sorted(restarted) == sorted(f"pod/{name}" for name in before)


def test_a_dry_run_asks_the_members_whether_their_data_fits(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev")
    sandbox = embedded(stack)
    smaller = {"spec": {"maxmemoryPercent": 40}}
    told = placed.api.request("PATCH", f"{placed.path}?dry_run=true", smaller)
    assert (told["target"]["takes_it"], told["target"]["problem"]) == (True, None)
    host = placed.read()["endpoints"][0]["host"]
    environment = {**os.environ, "REDISCLI_AUTH": placed.password()}
    # One value of 60 MiB, of 51 that would be allowed.
    words = ["redis-cli", "-c", "-h", host, "SETRANGE", "large", str(60 * 2**20), "x"]
    written = sandbox.exec(words, env=environment, timeout=60)
    assert written.stdout.strip() == str(60 * 2**20 + 1), written.stdout + written.stderr
    told = placed.api.request("PATCH", f"{placed.path}?dry_run=true", smaller)
    assert (told["target"]["takes_it"], told["target"]["problem"]["code"]) == (False, "data_does_not_fit")
    assert "are in use" in told["target"]["problem"]["message"]
    assert placed.read()["spec"]["maxmemoryPercent"] == 75


def test_zookeeper_restarts_its_leader_last(stack: Stack, order: OrderCluster) -> None:
    placed = order("zookeeper", plan="zookeeper-dev")
    leader = next(member["pod"] for member in placed.read()["members"] if member["role"] == "leader")
    change(placed, tickTimeMs=1000)
    events = placed.api.request("GET", f"{placed.path}/events?limit=100")["items"]
    restarted = [event["object"] for event in sorted(events, key=lambda one: one["id"]) if event["reason"] == "Restart"]
    assert len(restarted) == 3
    assert restarted[-1] == f"pod/{leader}"
