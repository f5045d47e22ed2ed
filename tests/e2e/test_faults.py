"""Killing what carries an order: it is delivered all the same, with exactly one of everything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from dev.stack import Stack
from sandbox import Sandbox, faults
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_main_job import REDIS

pytestmark = pytest.mark.sandbox


def embedded(stack: Stack) -> Sandbox:
    if stack.sandbox is None:
        pytest.skip("breaks things through the embedded target")
    return stack.sandbox


def step(operation: Mapping[str, Any], key: str) -> str:
    return str(next(one["state"] for one in operation["steps"] if one["key"] == key))


def reached(placed: Order, key: str, states: tuple[str, ...]) -> bool:
    operation = placed.api.request("GET", f"/api/v1/operations/{placed.operation['id']}")
    return operation["state"] not in ("queued", "running") or step(operation, key) in states


def assert_exactly_one_of_everything(placed: Order, stack: Stack) -> None:
    assert placed.read()["phase"] == "ready"
    operations = placed.api.request("GET", f"{placed.path}/operations")["items"]
    assert [operation["kind"] for operation in operations] == ["create"]
    label = f"app.kubernetes.io/instance={placed.name}"
    found = stack.kubectl("-n", "berth-demo", "get", "sts,pod,pvc,svc,secret,pdb", "-l", label, "-o", "json")
    kinds: dict[str, int] = {}
    for item in json.loads(found.stdout)["items"]:
        kinds[item["kind"]] = kinds.get(item["kind"], 0) + 1
    assert kinds == {
        "StatefulSet": 3, "Pod": 6, "PersistentVolumeClaim": 6, "Service": 2, "Secret": 1, "PodDisruptionBudget": 3,
    }  # fmt: skip
    assert len(placed.read()["members"]) == 6


@pytest.mark.parametrize(
    ("key", "states"),
    [
        ("apply", ("waiting", "running", "done")),
        ("apply", ("done",)),
        ("schedule", ("done",)),
        ("start", ("running", "done")),
        ("meet", ("running", "done")),
    ],
    ids=["at-once", "applied", "placed", "starting", "forming"],
)
def test_a_worker_killed_in_the_middle_is_replaced_by_another(
    stack: Stack, order: OrderCluster, key: str, states: tuple[str, ...]
) -> None:
    placed = order(plan="redis-dev", spec=REDIS, follow=False)
    eventually(lambda: reached(placed, key, states), f"step {key} is {states}")
    stack.portal.kill("worker")
    stack.portal.start("worker")
    assert placed.api.follow(placed.operation)["state"] == "succeeded"
    assert_exactly_one_of_everything(placed, stack)


def test_a_flushed_broker_loses_no_work(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev", spec=REDIS, follow=False)
    broker = stack.services.broker_url.removeprefix("redis+socket://")
    flushed = subprocess.run(["redis-cli", "-s", broker, "flushall"], capture_output=True, text=True)
    assert flushed.stdout.strip() == "OK"
    assert placed.api.follow(placed.operation)["state"] == "succeeded"
    assert_exactly_one_of_everything(placed, stack)


def test_an_order_waits_for_an_api_server_that_is_away_and_says_so(stack: Stack, order: OrderCluster) -> None:
    sandbox = embedded(stack)
    faults.api_down(sandbox)
    try:
        placed = order(plan="redis-dev", spec=REDIS, follow=False)

        def says_so() -> bool:
            found = placed.api.request("GET", f"/api/v1/operations/{placed.operation['id']}")
            return "API server does not answer" in str(found["reason"])

        eventually(says_so, "the operation names the unreachable API server")
    finally:
        faults.api_up(sandbox)
    assert placed.api.follow(placed.operation)["state"] == "succeeded"
    assert_exactly_one_of_everything(placed, stack)
