"""One cluster on real nodes, broken in one way after another while a client has its writes confirmed.

Each fault is named, mended without anybody's help but for what was taken away from outside, and loses nothing that was
confirmed. How long it takes is measured by dev/bench_recovery.py, whose faults these are.
"""

from __future__ import annotations

from functools import partial

import pytest

from dev.bench_recovery import FAULTS, Cure, Scene, Told, is_back
from dev.portal import ApiError
from dev.redis_watch import watched
from dev.stack import NAMESPACE, Stack
from sandbox import faults
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, OrderCluster
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox

MENDED_SECONDS = 120


def is_well(placed: Order) -> bool:
    cluster = placed.read()
    return cluster["phase"] == "ready" and not cluster["causes"]


def make_even(placed: Order) -> None:
    """A node with two of three masters would take the majority with it."""
    if not all(one["holds"] for one in placed.read()["spread"]["invariants"]):
        operation = placed.api.request("POST", f"{placed.path}/rebalance-masters")["operation"]
        ended = placed.api.follow(operation)
        assert ended["state"] == "succeeded", ended["error"]


def put_back(cure: Cure | None) -> None:
    if cure is not None:
        cure()


def test_every_fault_on_real_nodes_is_named_and_mended_and_loses_nothing_confirmed(
    stack: Stack, order: OrderCluster
) -> None:
    sandbox = embedded(stack)
    placed = order(plan="redis-dev")
    host = placed.read()["endpoints"][0]["host"]
    # What only passes by (frozen processes, a node) comes first: whatever is killed again soon starts later.
    titles = ("node lost", "split by freezing", "killed shard", "every pod restarted at once", "all addresses new")
    with watched(sandbox, NAMESPACE, placed.name, host, placed.password()) as seen:
        scene = Scene(stack, placed.name, seen)
        for title in titles:
            fault = FAULTS[title]
            seen.await_whole(3)
            eventually(lambda: is_well(placed), f"it is well before: {title}", seconds=MENDED_SECONDS)
            make_even(placed)
            told = Told(scene)
            cure = fault.act(scene)
            try:
                eventually(partial(told.has, fault.codes), f"{title}: one of {fault.codes} is told")
                if cure is not None:
                    eventually(lambda: is_back(seen.mark()), f"{title}: the client writes again")
            finally:
                put_back(cure)
            seen.await_whole(3, seconds=MENDED_SECONDS)
            eventually(lambda: is_well(placed), f"{title}: it is well again", seconds=MENDED_SECONDS)
            print(f"{title}: told {sorted(told.codes)}")
        make_even(placed)
        lost = seen.stop()
    assert (lost["lost_count"], lost["confirmed"] > 1000) == (0, True)
    roles = sorted(member["role"] for member in placed.read()["members"])
    assert roles == ["master"] * 3 + ["replica"] * 3


def test_a_disk_lost_without_replicas_is_named_and_served_again_only_when_somebody_accepts_that(
    stack: Stack, order: OrderCluster
) -> None:
    sandbox = embedded(stack)
    placed = order(plan="redis-dev", spec={"replicasPerShard": 0}, loses=True)
    accept = f"{placed.path}/accept-loss"
    with pytest.raises(ApiError) as early:
        placed.api.request("POST", f"{accept}?confirm={placed.name}")
    assert (early.value.status, early.value.problem["code"]) == (409, "nothing_lost")
    pod = f"{NAMESPACE}/{placed.name}-s0-0"
    faults.freeze(sandbox, pod, "redis")
    faults.lose_volume(sandbox, f"{NAMESPACE}/data-{placed.name}-s0-0")
    faults.kill_container(sandbox, pod, "redis")
    eventually(lambda: [one["code"] for one in placed.read()["causes"][:1]] == ["data-lost"], "the loss is told")
    cluster = placed.read()
    assert (cluster["phase"], cluster["loss"]["extent"]) == ("degraded", "0-5460")
    told = placed.api.request("POST", f"{accept}?dry_run=true")
    assert [one["effect"] for one in told["effects"]] == ["loss"]
    with pytest.raises(ApiError) as unconfirmed:
        placed.api.request("POST", accept)
    assert unconfirmed.value.status == 422
    ended = placed.api.follow(placed.api.request("POST", f"{accept}?confirm={placed.name}")["operation"])
    assert ended["state"] == "succeeded", ended["error"]
    cluster = placed.read()
    assert (cluster["phase"], cluster["causes"], cluster["loss"]) == ("ready", [], None)
    assert [member["detail"]["slots"] for member in cluster["members"]] == ["0-5460", "5461-10921", "10922-16383"]
