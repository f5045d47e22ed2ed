"""Masters over the nodes: seen, and made even again, with real servers."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import replace

import pytest

from provisioning.engines.base import Advance, Spread
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Crash, Fleet, view
from provisioning.engines.redis.tests.test_changes import masters, writing


def look(fleet: Fleet) -> Spread:
    """How it stands at one look."""
    found = ENGINE.advance(fleet.cluster, fleet.world(), fleet).spread
    assert found is not None
    return found


def rules(fleet: Fleet) -> dict[str, bool | None]:
    return {one.key: one.holds for one in look(fleet).invariants}


def hand_over(fleet: Fleet, pod: str) -> None:
    """Somebody fails a shard over by hand."""
    one = next(found for found in fleet.world().pods if found.name == pod)
    with Connection(fleet.connect(one, PORT), ("", PASSWORD)) as connection:
        connection.call("CLUSTER", "FAILOVER")
    deadline = time.monotonic() + 20
    while pod not in masters(fleet).values():
        assert time.monotonic() < deadline, "it leads"
        time.sleep(0.05)
    fleet.settle()


def pile_up(fleet: Fleet) -> None:
    """All masters on one node."""
    for server in fleet.servers:
        if server.node == "n1" and server.pod not in masters(fleet).values():
            hand_over(fleet, server.pod)


def rebalance(fleet: Fleet) -> list[Advance]:
    """Looks of an operation until it is done."""
    wish = replace(fleet.cluster, rebalance=True)
    outcomes: list[Advance] = []
    deadline = time.monotonic() + 40
    while not outcomes or not outcomes[-1].healthy:
        assert time.monotonic() < deadline, outcomes[-1].reason
        outcomes.append(ENGINE.advance(wish, fleet.world(), fleet))
    return outcomes


def take_overs(fleet: Fleet) -> int:
    return sum(reason == "TakeOver" for reason, _ in fleet.events)


def test_a_new_cluster_keeps_every_rule_and_says_where_its_masters_stand(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    found = look(fleet)
    assert {one.key: one.holds for one in found.invariants} == {"replicas": True, "apart": True, "even": True}
    assert [(one.node, one.masters, one.members) for one in found.nodes] == [("n0", 1, 2), ("n1", 1, 2), ("n2", 1, 2)]
    assert (found.hand_overs, found.repair_after) == (0, None)


def test_uneven_masters_are_seen_and_made_even_one_at_a_time_while_a_client_loses_nothing(start: Start) -> None:
    fleet = start(view(shards=4, replicasPerShard=2))
    fleet.settle()
    pile_up(fleet)
    found = look(fleet)
    assert rules(fleet) == {"replicas": True, "apart": True, "even": False}
    assert {one.node: one.masters for one in found.nodes} == {"n0": 0, "n1": 4, "n2": 0}
    assert found.hand_overs == 2
    fleet.events.clear()
    with writing(fleet) as writer:
        outcomes = rebalance(fleet)
        writer.await_writes(100)
        assert writer.stop() == []
    assert take_overs(fleet) == 2
    assert rules(fleet) == {"replicas": True, "apart": True, "even": True}
    assert sorted(Counter(one.masters for one in look(fleet).nodes)) == [1, 2]
    assert [one.reason for one in outcomes if one.reason == "one hand-over is left"], "the core looks in between"


def test_nobody_is_asked_to_take_over_unless_an_operation_says_so(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    pile_up(fleet)
    fleet.events.clear()
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert (outcome.healthy, take_overs(fleet)) == (True, 0)
    automatic = replace(
        fleet.cluster, spec={**fleet.cluster.spec, "spreadRepair": "automatic", "spreadRepairMinutes": 7}
    )
    outcome = ENGINE.advance(automatic, fleet.world(), fleet)
    assert outcome.spread is not None
    assert (outcome.spread.repair_after, take_overs(fleet)) == (420, 0)


def test_no_hand_over_while_a_member_is_away(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    pile_up(fleet)
    victim = next(server for server in fleet.servers if server.pod not in masters(fleet).values())
    fleet.kill(victim)
    fleet.events.clear()
    outcome = ENGINE.advance(replace(fleet.cluster, rebalance=True), fleet.world(), fleet)
    assert (outcome.healthy, take_overs(fleet)) == (False, 0)
    assert rules(fleet)["replicas"] is False
    fleet.run(victim)
    rebalance(fleet)
    assert rules(fleet) == {"replicas": True, "apart": True, "even": True}


@pytest.mark.parametrize("commands", [0, 1])
def test_a_worker_killed_between_hand_overs_leaves_what_the_next_one_finishes(start: Start, commands: int) -> None:
    fleet = start(view(shards=4, replicasPerShard=2))
    fleet.settle()
    pile_up(fleet)
    fleet.budget = commands
    with contextlib.suppress(Crash):
        rebalance(fleet)
    fleet.budget = None
    rebalance(fleet)
    assert rules(fleet) == {"replicas": True, "apart": True, "even": True}


def test_two_members_of_a_shard_on_one_node_are_told(start: Start) -> None:
    fleet = start(view(spread="soft"))
    fleet.settle()
    for server in fleet.servers:
        if server.shard == 0:
            server.node = "n0"
    assert rules(fleet)["apart"] is False
    assert "of shard 0 stand on n0" in next(one.message for one in look(fleet).invariants if one.key == "apart")
