"""The rest of a cluster's life on a real target: paused and resumed, ordered again."""

from __future__ import annotations

from typing import Any

import pytest

from dev.portal import ApiError
from dev.stack import Stack
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster

pytestmark = pytest.mark.sandbox


def condition(placed: Order, kind: str) -> Any:
    return next((one["status"] for one in placed.read()["conditions"] if one["type"] == kind), None)


def test_a_workload_taken_away_by_hand_comes_back_only_when_the_cluster_is_resumed(
    stack: Stack, order: OrderCluster
) -> None:
    placed = order(plan="redis-dev")
    shown = placed.api.request("POST", f"{placed.path}/pause", {"reason": "shard 2 is rebuilt by hand"})
    assert shown["paused"]["reason"] == "shard 2 is rebuilt by hand"
    with pytest.raises(ApiError, match="paused"):
        placed.api.request("PATCH", placed.path, {"spec": {"evictionPolicy": "allkeys-lru"}})
    workload = f"statefulset/{placed.name}-s2"

    def is_there() -> bool:
        found = stack.kubectl("-n", "berth-demo", "get", workload, "--ignore-not-found", "-o", "name")
        return bool(found.stdout.strip())

    stack.kubectl("-n", "berth-demo", "delete", workload)
    # Two looks after it went: the first that sees the damage, and one more that would have mended it.
    eventually(lambda: placed.read()["phase"] == "degraded", "the damage is shown", seconds=60)
    assert placed.read()["causes"], "why is shown"
    assert condition(placed, "Paused") == "True"
    before = placed.read()["causes"]
    stack.kubectl("-n", "berth-demo", "delete", "pod", f"{placed.name}-s1-1")
    eventually(lambda: placed.read()["causes"] != before, "another look was taken", seconds=60)
    assert not is_there(), "nobody mends a paused cluster"
    placed.api.request("POST", f"{placed.path}/resume")
    eventually(lambda: placed.read()["phase"] == "ready", "it is mended", seconds=120)
    assert is_there()
    assert condition(placed, "Paused") == "False"
    reasons = [event["reason"] for event in placed.api.request("GET", f"{placed.path}/events?limit=100")["items"]]
    assert {"Paused", "Resumed"} <= set(reasons)


def test_another_like_it_is_ordered_and_has_its_own_password(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev", spec={"config": {"hz": 20}})
    copy = placed.api.request("GET", f"{placed.path}/order")
    assert copy["left_out"] == []
    wish = copy["order"]
    other = order(wish["engine"], plan=wish["plan"], spec=wish["spec"])
    assert other.operation["state"] == "succeeded", other.operation["error"]
    assert other.read()["spec"] == placed.read()["spec"]
    assert other.password() != placed.password()


def test_the_second_restart_knows_how_long_the_first_took(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev")
    placed.api.follow(placed.api.request("POST", f"{placed.path}/restart")["operation"], deadline_seconds=240)
    rehearsed = placed.api.request("PATCH", f"{placed.path}?dry_run=true", {"version": "8.0.2"})
    estimate = placed.api.request("POST", f"{placed.path}/restart")["operation"]["estimate"]
    assert estimate["based_on"] >= 1
    assert estimate["seconds"] > 0
    assert rehearsed["operation"]["estimate"] == estimate
