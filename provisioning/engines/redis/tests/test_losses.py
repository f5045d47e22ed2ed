"""Data that is gone: named, left alone until somebody accepts it, and then served again, empty; with real servers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from provisioning.engines.base import Advance, Loss
from provisioning.engines.redis import losses
from provisioning.engines.redis.admin import Connection, parse_nodes
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.placement import SLOTS
from provisioning.engines.redis.slots import slot_of
from provisioning.engines.redis.tests.conftest import Start, networks
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Crash, Fleet, view
from provisioning.engines.redis.tests.test_changes import client_of
from provisioning.engines.redis.tests.test_diagnosis import seen
from provisioning.engines.redis.tests.test_topology import known, server_pod

FIRST_THIRD = "0-5460"


def fleet_of(start: Start, *, replicas: int = 0) -> Fleet:
    """A cluster with keys in every shard."""
    fleet = start(view(replicasPerShard=replicas, nodeTimeoutMs=2000))
    fleet.settle()
    client = client_of(fleet)
    for number in range(100):
        client.set(f"key-{number}", number)
    client.close()
    return fleet


def lose(fleet: Fleet, *shards: int, keeps_address: bool = False) -> None:
    """Every member of these shards comes back on an empty disk."""
    lost = [server for server in fleet.servers if server.shard in shards]
    for server in lost:
        fleet.kill(server)
    for server in lost:
        fleet.wipe(server)
    for server in lost:
        fleet.move(server, fleet.network if keeps_address else next(networks))


def look(fleet: Fleet) -> Advance:
    return ENGINE.advance(fleet.cluster, fleet.world(), fleet)


def until(fleet: Fleet, is_so: Callable[[Advance], bool]) -> Advance:
    """Look until it is so."""
    deadline = time.monotonic() + 30
    while not is_so(outcome := look(fleet)):
        assert time.monotonic() < deadline, outcome
    return outcome


def own_slots(connection: Connection) -> int:
    """How many slots a node says it serves."""
    me = next(peer for peer in parse_nodes(connection.text("CLUSTER", "NODES")) if "myself" in peer.flags)
    return sum(last - first + 1 for first, last in me.slots)


def slots_of(fleet: Fleet) -> dict[str, int]:
    """The same of every pod that answers."""
    found = {}
    for pod in fleet.world().pods:
        if pod.started:
            with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
                found[pod.name] = own_slots(connection)
    return found


def everybody_has_met(fleet: Fleet) -> bool:
    return min(known(fleet)) >= len(fleet.servers)


def accept(fleet: Fleet, loss: Loss) -> None:
    """What an operation does that accepts the loss."""
    fleet.cluster = replace(fleet.cluster, accepted=loss.extent)
    fleet.settle()


@pytest.mark.parametrize(("replicas", "keeps_address"), [(0, False), (0, True), (1, False)])
def test_a_shard_that_lost_every_disk_is_named_at_once_and_nothing_is_done_unasked(
    start: Start, replicas: int, keeps_address: bool
) -> None:
    fleet = fleet_of(start, replicas=replicas)
    lose(fleet, 0, keeps_address=keeps_address)
    outcome = look(fleet)
    cause = outcome.causes[0]
    assert (cause.code, cause.object) == ("data-lost", "pod/orders-s0-0")
    assert f"shard 0 is gone: no member holds slots {FIRST_THIRD} (5461 of {SLOTS})" in cause.message
    assert "accept the loss" in cause.remedy
    assert outcome.loss is not None
    assert outcome.loss.extent == FIRST_THIRD
    # As far as it goes without being asked: all have met.
    until(fleet, lambda _: everybody_has_met(fleet))
    outcome = until(fleet, lambda outcome: [one.code for one in outcome.causes] == ["data-lost"])
    served = slots_of(fleet)
    assert [served[f"orders-s0-{ordinal}"] for ordinal in range(replicas + 1)] == [0] * (replicas + 1)
    assert not outcome.healthy


@pytest.mark.parametrize(("replicas", "keeps_address"), [(0, False), (0, True), (1, False)])
def test_an_accepted_loss_is_served_again_and_the_other_shards_keep_their_keys(
    start: Start, replicas: int, keeps_address: bool
) -> None:
    fleet = fleet_of(start, replicas=replicas)
    lose(fleet, 0, keeps_address=keeps_address)
    loss = look(fleet).loss
    assert loss is not None
    accept(fleet, loss)
    assert known(fleet) == {len(fleet.servers)}, "the ghost is forgotten"
    assert sorted(count for count in slots_of(fleet).values() if count) == [5461, 5461, 5462]
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok
    client = client_of(fleet)
    there = [number for number in range(100) if client.get(f"key-{number}") is not None]
    in_first = [number for number in range(100) if slot_of(f"key-{number}") <= 5460]
    client.close()
    assert in_first
    assert sorted(there + in_first) == list(range(100))
    assert look(fleet).loss is None


def test_most_shards_lost_at_once_can_be_accepted_though_the_rest_is_no_majority(start: Start) -> None:
    fleet = fleet_of(start)
    lose(fleet, 0, 2)
    loss = look(fleet).loss
    assert loss is not None
    assert loss.extent == "0-5460, 10922-16383"
    accept(fleet, loss)
    assert sum(slots_of(fleet).values()) == SLOTS
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_a_cluster_that_lost_every_disk_is_not_formed_anew_unless_somebody_accepts_that(start: Start) -> None:
    fleet = fleet_of(start)
    lose(fleet, 0, 1, 2)
    outcome = look(fleet)
    assert [cause.code for cause in outcome.causes] == ["all-disks-lost"]
    assert "accept the loss" in outcome.causes[0].remedy
    for _ in range(3):
        outcome = look(fleet)
    assert slots_of(fleet) == {"orders-s0-0": 0, "orders-s1-0": 0, "orders-s2-0": 0}
    assert known(fleet) == {1}, "who has lost nothing finds nobody new when the disks come back"
    assert outcome.loss is not None
    assert outcome.loss.extent == f"0-{SLOTS - 1}"
    accept(fleet, outcome.loss)
    assert sum(slots_of(fleet).values()) == SLOTS
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_what_may_still_come_back_is_no_loss(start: Start) -> None:
    fleet = fleet_of(start)
    lost, away = fleet.servers[0], fleet.servers[1]
    fleet.kill(away)
    lose(fleet, 0)
    assert look(fleet).loss is None, "a pod is away, and nobody knows what it holds"
    fleet.cluster = replace(fleet.cluster, accepted=FIRST_THIRD)
    outcome = look(fleet)
    assert (outcome.loss, outcome.blocked) == (None, None)
    assert slots_of(fleet)[lost.pod] == 0, "not even when it was accepted before"
    fleet.run(away)
    fleet.settle()
    assert sum(slots_of(fleet).values()) == SLOTS


def test_replicas_that_still_have_the_data_are_no_loss_and_lead_though_no_majority_can_vote(start: Start) -> None:
    fleet = fleet_of(start, replicas=1)
    masters = {member.shard: member.pod for member in look(fleet).members if member.role == "master"}
    victims = [server for server in fleet.servers if server.pod in (masters["0"], masters["1"])]
    for server in victims:
        fleet.kill(server)
        fleet.wipe(server)
    # Two of three masters are gone for good, so no replica can be voted for; both hold their shards.
    for server in victims:
        fleet.move(server, next(networks))
    outcome = look(fleet)
    assert outcome.loss is None
    assert "data-lost" not in [cause.code for cause in outcome.causes]
    fleet.settle()
    client = client_of(fleet)
    assert [number for number in range(100) if client.get(f"key-{number}") is None] == []
    client.close()


def test_no_more_is_given_up_than_was_accepted(start: Start) -> None:
    fleet = fleet_of(start)
    lose(fleet, 0)
    loss = look(fleet).loss
    assert loss is not None
    lose(fleet, 1)
    fleet.cluster = replace(fleet.cluster, accepted=loss.extent)
    outcome = look(fleet)
    assert outcome.blocked is not None
    assert (outcome.blocked.code, "5461-10921" in outcome.blocked.message) == ("more_was_lost", True)
    assert slots_of(fleet) == {"orders-s0-0": 0, "orders-s1-0": 0, "orders-s2-0": 5462}


@pytest.mark.parametrize("commands", [0, 1, 2, 3, 4, 5])
def test_a_worker_killed_while_a_loss_is_accepted_is_followed_by_one_that_goes_on(start: Start, commands: int) -> None:
    fleet = fleet_of(start)
    lose(fleet, 0, 1)
    outcome = until(fleet, lambda outcome: outcome.loss is not None and everybody_has_met(fleet))
    assert outcome.loss is not None
    fleet.budget = commands
    fleet.cluster = replace(fleet.cluster, accepted=outcome.loss.extent)
    with contextlib.suppress(Crash):
        fleet.settle()
    fleet.budget = None
    fleet.settle()
    assert sorted(slots_of(fleet).values()) == [5461, 5461, 5462]
    assert known(fleet) == {3}


def test_an_old_disk_that_comes_back_after_all_does_not_wipe_what_was_written_since(start: Start) -> None:
    fleet = fleet_of(start)
    victim = fleet.servers[0]
    fleet.kill(victim)
    old = victim.folder.rename(victim.folder.with_name("old"))
    fleet.move(victim, next(networks))
    loss = look(fleet).loss
    assert loss is not None
    accept(fleet, loss)
    client = client_of(fleet)
    number = next(number for number in range(100) if slot_of(f"key-{number}") <= 5460)
    client.set(f"key-{number}", "new")
    client.close()
    stranger = replace(victim, pod="stranger", folder=old, address=f"{victim.address.rpartition('.')[0]}.200")
    fleet.servers.append(stranger)
    fleet.launch(stranger)
    fleet.listens(stranger)
    try:
        with Connection(fleet.connect(server_pod(fleet, stranger), PORT), ("", PASSWORD)) as connection:
            deadline = time.monotonic() + 30
            while "loading:0" not in connection.text("INFO", "persistence"):
                assert time.monotonic() < deadline, "it has read its disk"
                time.sleep(0.05)
            for other in fleet.servers[1:3]:
                connection.call("CLUSTER", "MEET", other.address, PORT)
            while own_slots(connection):
                assert time.monotonic() < deadline, connection.text("CLUSTER", "NODES")
                time.sleep(0.1)
    finally:
        fleet.kill(stranger)
        fleet.servers.remove(stranger)
    fleet.settle()
    client = client_of(fleet)
    assert client.get(f"key-{number}") == b"new"
    client.close()


def test_members_read_in_the_middle_of_a_hand_over_have_lost_nothing() -> None:
    """One is asked before it takes over, the other after it has given way: each says that it follows the other."""
    sight, _ = seen({})
    sight.cluster = replace(sight.cluster, formed=True)
    giver = next(node for node in sight.nodes if node.pod.name == "orders-s0-0")
    demoted = replace(giver.me, flags=frozenset({"myself", "slave"}), master="orders-s0-1", slots=())
    giver.peers = {**giver.peers, giver.id: demoted}
    assert losses.seen(sight) is None
    # Empty, and following nobody, it is another matter.
    for node in sight.shard(0):
        alone = replace(node.me, flags=frozenset({"myself", "master"}), master="", slots=())
        node.peers = {**node.peers, node.id: alone}
    found = losses.seen(sight)
    assert found is not None
    assert found.extent == "0-5461"
