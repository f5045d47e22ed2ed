"""What is told when a process freezes, and masters that are made even again afterwards, on a real target."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dev.stack import Stack
from sandbox import faults
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox


def rules(placed: Order) -> Mapping[str, bool | None]:
    return {one["key"]: one["holds"] for one in placed.read()["spread"]["invariants"]}


def test_a_frozen_master_is_told_as_such_and_its_successor_hands_over_on_request(
    stack: Stack, order: OrderCluster
) -> None:
    placed = order(plan="redis-dev", spec={"nodeTimeoutMs": 5000})
    assert rules(placed) == {"replicas": True, "apart": True, "even": True}
    (head,) = [one for one in placed.read()["members"] if one["shard"] == "0" and one["role"] == "master"]
    pod = f"berth-demo/{head['pod']}"
    faults.freeze(embedded(stack), pod, "redis")
    try:
        eventually(lambda: placed.read()["causes"], "a cause is told, though Kubernetes reports nothing")
        (cause,) = placed.read()["causes"]
        assert (cause["code"], cause["object"]) == ("process-frozen", f"pod/{head['pod']}")
        assert placed.read()["reason"].startswith(cause["message"])
        eventually(
            lambda: any(m["shard"] == "0" and m["role"] == "master" and m["pod"] != head["pod"]
                        for m in placed.read()["members"]),
            "its replica has taken over",
        )  # fmt: skip
        eventually(lambda: placed.read()["phase"] == "ready", "it is ended, and comes back as a replica", seconds=180)
    except BaseException:
        faults.thaw(embedded(stack), pod, "redis")
        raise
    events = placed.api.request("GET", f"{placed.path}/events?limit=100")["items"]
    assert [one["object"] for one in events if one["reason"] == "HopelessEnded"] == [f"pod/{head['pod']}"]
    assert placed.read()["causes"] == []
    assert rules(placed) == {"replicas": True, "apart": True, "even": False}
    operation = placed.api.request("POST", f"{placed.path}/rebalance-masters")["operation"]
    ended = placed.api.follow(operation)
    assert ended["state"] == "succeeded", ended["error"]
    assert [step["state"] for step in ended["steps"]] == ["done"] * 3
    assert rules(placed) == {"replicas": True, "apart": True, "even": True}
