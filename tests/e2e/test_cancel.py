"""Operations of a real Redis Cluster canceled in the middle, while a client has its writes confirmed.

Each stops where nothing is half done, says how far it came, leaves a cluster that is whole, and is finished when it is
asked for again. One cluster for all; each test begins and ends with three shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dev.redis_watch import Watched
from dev.stack import Stack
from provisioning.engines.redis.placement import SLOTS
from sandbox.tests.waiting import eventually
from tests.e2e.conftest import Order, ordering
from tests.e2e.test_changes import pods, writing
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox

# Their way takes longer than the 3 s for which a worker may be at it before it sees that it was canceled.
KEYS = 400_000
SETTLED_SECONDS = 120


@pytest.fixture(scope="module")
def placed(stack: Stack) -> Iterator[Order]:
    embedded(stack)
    with ordering(stack) as place:
        yield place(plan="redis-dev")


def served(writer: Watched) -> dict[str, int]:
    """Shard to how many slots its members say they serve; only of those that serve some."""
    found: dict[str, int] = {}
    for pod, said in writer.roles().items():
        shard = pod.rpartition("-")[0].rpartition("-s")[2]
        if slots := said.get("slots", 0):
            found[shard] = found.get(shard, 0) + slots
    return found


def cancel(placed: Order, operation: Mapping[str, Any], reason: str) -> None:
    path = f"/api/v1/operations/{operation['id']}"
    answer = placed.api.request("POST", f"{path}/cancel", {"reason": reason})
    assert (answer["state"], answer["cancelable"]) == ("canceled", False)


def left(placed: Order, operation: Mapping[str, Any], reason: str) -> str:
    """What a canceled operation says it has left undone, after who canceled it and why."""
    found = placed.api.request("GET", f"/api/v1/operations/{operation['id']}")
    said, _, undone = found["reason"].partition(". Left undone: ")
    assert (found["state"], said) == ("canceled", f"Canceled by alice: {reason}")
    words: str = undone
    return words


def settle(placed: Order, writer: Watched, shards: int, replicas: int = 1) -> None:
    """Returns when Berth takes the cluster for well without an operation, and it is: see `assert_whole`."""

    def is_well() -> bool:
        cluster = placed.read()
        return cluster["phase"] == "ready" and not cluster["causes"] and not writer.ailing(shards, replicas)

    eventually(is_well, f"{shards} shards are well: {writer.ailing(shards, replicas)}", seconds=SETTLED_SECONDS)
    told = writer.roles()
    assert sum(one["slots"] for one in told.values()) == SLOTS
    assert {name: one["open"] for name, one in told.items() if one["open"]} == {}


def again(placed: Order, operation: Mapping[str, Any]) -> None:
    """Retry it, to its end."""
    answer = placed.api.request("POST", f"/api/v1/operations/{operation['id']}/retry")
    ended = placed.api.follow(answer["operation"], deadline_seconds=300)
    assert ended["state"] == "succeeded", ended["error"]


def assert_nothing_lost(writer: Watched) -> None:
    seen = writer.stop()
    assert (seen["lost"], seen["confirmed"] > 100) == ([], True)
    print(f"confirmed {seen['confirmed']}, longest gap {seen['accepted_gap']:.2f} s, refused {seen['refused']}")


def test_slots_on_their_way_to_a_new_shard_stop_at_a_slots_end_and_all_of_them_come_when_asked_again(
    stack: Stack, placed: Order
) -> None:
    def drain() -> Mapping[str, Any]:
        operation: Mapping[str, Any] = placed.api.request("PATCH", placed.path, {"spec": {"shards": 3}})["operation"]
        eventually(lambda: served(writer).get("3", 0) < SLOTS // 4, "the first slots have gone")
        return operation

    with writing(stack, placed) as writer:
        writer.fill(KEYS)
        operation = placed.api.request("PATCH", placed.path, {"spec": {"shards": 4}})["operation"]
        eventually(lambda: "3" in served(writer), "the first slots have come")
        cancel(placed, operation, "the wrong cluster")
        settle(placed, writer, 4)
        came = served(writer)
        assert 0 < came["3"] < SLOTS // 4
        to_come = SLOTS // 4 - came["3"]
        assert left(placed, operation, "the wrong cluster") == f"{to_come} slots are still to be moved."
        # Another look, and another, moves nothing more: nobody has asked for evenness.
        placed.api.request("POST", f"{placed.path}/pause", {"reason": "a look"})
        placed.api.request("POST", f"{placed.path}/resume")
        settle(placed, writer, 4)
        assert served(writer) == came
        again(placed, operation)
        settle(placed, writer, 4)
        assert served(writer) == dict.fromkeys("0123", SLOTS // 4)

        # And back.
        operation = drain()
        cancel(placed, operation, "the wrong shard")
        back = placed.api.request("PATCH", placed.path, {"spec": {"shards": 4}})["operation"]
        assert placed.api.follow(back, deadline_seconds=120)["state"] == "succeeded"
        settle(placed, writer, 4)
        assert served(writer) == dict.fromkeys("0123", SLOTS // 4), "it stays when it is wished again"

        operation = drain()
        cancel(placed, operation, "the wrong shard")
        settle(placed, writer, 3)
        assert max(served(writer).values()) - min(served(writer).values()) <= 1, "otherwise it leaves all the same"
        assert left(placed, operation, "the wrong shard") == "nothing."
        again(placed, operation)
        settle(placed, writer, 3)
        assert_nothing_lost(writer)


def test_a_rolling_restart_stops_between_two_pods_and_the_rest_restart_when_asked_again(
    stack: Stack, placed: Order
) -> None:
    before = pods(stack, placed)
    with writing(stack, placed) as writer:
        operation = placed.api.request("POST", f"{placed.path}/restart")["operation"]
        eventually(lambda: pods(stack, placed).items() != before.items(), "the first pod restarts")
        cancel(placed, operation, "not during the day")
        settle(placed, writer, 3)
        stopped = pods(stack, placed)
        done = {name for name, uid in stopped.items() if before[name] != uid}
        assert stopped.keys() == before.keys()
        assert 0 < len(done) < 3, "one, or one more that was under way"
        undone = f"{6 - len(done)} of 6 pods run an older template."
        assert left(placed, operation, "not during the day") == undone
        (outdated,) = [one for one in placed.read()["conditions"] if one["type"] == "UpToDate"]
        assert outdated["status"] == "False"
        assert {name for name in before if name in outdated["message"]} == before.keys() - done
        again(placed, operation)
        settle(placed, writer, 3)
        after = pods(stack, placed)
        assert {name for name, uid in after.items() if stopped[name] != uid} == before.keys() - done, "each once"
        assert_nothing_lost(writer)


def test_evening_out_masters_stops_between_two_hand_overs_and_the_rest_follow_when_asked_again(
    stack: Stack, placed: Order
) -> None:
    def rebalance() -> Mapping[str, Any]:
        operation: Mapping[str, Any] = placed.api.request("POST", f"{placed.path}/rebalance-masters")["operation"]
        return operation

    def leaders() -> dict[int, str]:
        """Shard to its master's node."""
        told = writer.roles()
        return {pod.shard: pod.node for pod in writer.pods() if told.get(pod.name, {}).get("slots")}

    def hand_overs() -> int:
        found: int = placed.read()["spread"]["hand_overs"]
        return found

    with writing(stack, placed) as writer:
        grown = placed.api.request("PATCH", placed.path, {"spec": {"replicasPerShard": 2}})["operation"]
        assert placed.api.follow(grown)["state"] == "succeeded"
        settle(placed, writer, 3, 2)
        # Every node has a member of every shard; by hand, one gets all masters.
        crowded = writer.member(0, master=True).node
        sandbox = embedded(stack)
        for pod in writer.pods():
            if pod.node == crowded:
                sandbox.exec(["redis-cli", "-h", pod.address, "CLUSTER", "FAILOVER"],
                             env={"REDISCLI_AUTH": placed.password(), "PATH": "/usr/bin:/bin"}, timeout=10)  # fmt: skip
        eventually(lambda: leaders() == dict.fromkeys(range(3), crowded), "it leads all")
        settle(placed, writer, 3, 2)
        eventually(lambda: hand_overs() == 2, "Berth sees that two hand-overs are needed")
        operation = rebalance()
        eventually(lambda: list(leaders().values()).count(crowded) < 3, "one has been handed over")
        cancel(placed, operation, "after the sale")
        settle(placed, writer, 3, 2)
        eventually(lambda: hand_overs() == 1, "Berth sees that one is left")
        assert left(placed, operation, "after the sale") == "hand-overs still to be made: 1."
        assert sorted(leaders().values()).count(crowded) == 2
        ended = placed.api.follow(rebalance())
        assert ended["state"] == "succeeded", ended["error"]
        assert len(set(leaders().values())) == 3
        fewer = placed.api.request("PATCH", placed.path, {"spec": {"replicasPerShard": 1}})["operation"]
        assert placed.api.follow(fewer)["state"] == "succeeded"
        settle(placed, writer, 3)
        assert_nothing_lost(writer)
