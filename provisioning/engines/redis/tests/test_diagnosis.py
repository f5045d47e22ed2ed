"""What is told first when something breaks, with real servers; the last one from what was seen alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest
from redis.cluster import RedisCluster

from provisioning.engines.base import LABEL_COMPONENT, LABEL_SHARD, Cause, Link, NodeView, PodView, VolumeView, World
from provisioning.engines.redis import topology
from provisioning.engines.redis.admin import Connection, Peer, parse_nodes
from provisioning.engines.redis.diagnosis import diagnose
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.sight import Node, Sight
from provisioning.engines.redis.tests.conftest import Start, networks
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, Server, view
from provisioning.engines.redis.tests.test_changes import client_of, masters
from provisioning.engines.redis.tests.test_topology import known, server_pod
from provisioning.engines.redis.upkeep import FROZEN_SECONDS, frozen_for_good


def formed(start: Start) -> Fleet:
    """A cluster that is well, and has nothing to say. Nobody is taken for failed before the test has looked."""
    fleet = start(view(nodeTimeoutMs=15000))
    fleet.settle()
    assert ENGINE.advance(fleet.cluster, fleet.world(), fleet).causes == ()
    return fleet


def causes(fleet: Fleet) -> list[Cause]:
    """What the next look tells: the first one after the symptom."""
    return list(ENGINE.advance(fleet.cluster, fleet.world(), fleet).causes)


def codes(fleet: Fleet) -> list[str]:
    return [cause.code for cause in causes(fleet)]


def of(fleet: Fleet, shard: int, *, master: bool) -> Server:
    """The master of a shard, or a replica."""
    head = masters(fleet)[str(shard)]
    return next(one for one in fleet.servers if one.shard == shard and (one.pod == head) == master)


def test_a_killed_master_is_named_with_its_shard_and_who_takes_over(start: Start) -> None:
    fleet = formed(start)
    victim, heir = of(fleet, 0, master=True), of(fleet, 0, master=False)
    fleet.kill(victim)
    (cause,) = causes(fleet)
    assert (cause.code, cause.object) == ("master-down", f"pod/{victim.pod}")
    assert "the master of shard 0" in cause.message
    assert heir.pod in cause.remedy
    fleet.run(victim)
    fleet.settle()
    assert causes(fleet) == []


def test_a_killed_shard_is_one_cause_and_not_two(start: Start) -> None:
    fleet = formed(start)
    for server in fleet.servers:
        if server.shard == 1:
            fleet.kill(server)
    (cause,) = causes(fleet)
    assert (cause.code, "Shard 1" in cause.message) == ("shard-down", True)
    for server in fleet.servers:
        if server.shard == 1:
            fleet.run(server)
    fleet.settle()
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


@pytest.mark.parametrize("keeps_address", [False, True])
def test_a_master_that_lost_its_disk_is_replaced_without_waiting_for_the_node_timeout(
    start: Start, keeps_address: bool
) -> None:
    fleet = start(view(nodeTimeoutMs=60000))
    fleet.settle()
    client = client_of(fleet)
    for number in range(200):
        client.set(f"key-{number}", number)
    assert client.wait(1, 20_000, target_nodes=RedisCluster.PRIMARIES)
    client.close()
    victim, heir = of(fleet, 0, master=True), of(fleet, 0, master=False)
    fleet.kill(victim)
    fleet.wipe(victim)
    fleet.move(victim, fleet.network if keeps_address else next(networks))
    (cause, *_) = causes(fleet)
    assert (cause.code, cause.object) == ("disk-lost", f"pod/{victim.pod}")
    fleet.settle()
    assert masters(fleet)["0"] == heir.pod
    client = client_of(fleet)
    gone = [number for number in range(200) if client.get(f"key-{number}") is None]
    client.close()
    assert gone == []


def test_every_disk_lost_is_told_as_that_at_the_first_look(start: Start) -> None:
    fleet = formed(start)
    for server in fleet.servers:
        fleet.kill(server)
        fleet.wipe(server)
    for server in fleet.servers:
        fleet.run(server)
    assert codes(fleet)[0] == "all-disks-lost"


def test_an_exporter_that_fails_is_told_as_that_and_its_member_is_there(start: Start) -> None:
    fleet = formed(start)
    world = fleet.world()
    first, *others = world.pods
    failing = replace(first, ready=False, problem="container exporter: CrashLoopBackOff")
    outcome = ENGINE.advance(fleet.cluster, replace(world, pods=(failing, *others)), fleet)
    (cause,) = outcome.causes
    assert (cause.code, cause.object) == ("exporter-failing", f"pod/{first.name}")
    assert outcome.healthy
    assert all(member.healthy for member in outcome.members)


def test_a_replica_that_is_killed_is_named_and_not_its_master(start: Start) -> None:
    fleet = formed(start)
    victim = of(fleet, 0, master=False)
    fleet.kill(victim)
    (cause,) = causes(fleet)
    assert (cause.code, cause.object) == ("replica-down", f"pod/{victim.pod}")
    fleet.run(victim)
    fleet.settle()


def test_a_master_that_starts_without_its_memory_is_told_to_wait_for_its_replica(start: Start) -> None:
    fleet = start(view(persistence="rdb", nodeTimeoutMs=15000))
    fleet.settle()
    victim = of(fleet, 0, master=True)
    fleet.kill(victim)
    fleet.launch(victim)
    # Its start script, which has not yet had a replica take over.
    fleet.freeze(victim)
    (cause,) = causes(fleet)
    assert (cause.code, cause.object) == ("master-restarted-without-data", f"pod/{victim.pod}")
    fleet.thaw(victim)
    fleet.listens(victim)
    fleet.settle()
    assert masters(fleet)["0"] != victim.pod


def test_a_lost_node_s_shards_are_led_by_others_and_are_whole_when_it_is_back(start: Start) -> None:
    fleet = start(view(nodeTimeoutMs=2000))
    fleet.settle()
    gone = of(fleet, 0, master=True).node
    away = [server for server in fleet.servers if server.node == gone]
    for server in away:
        fleet.kill(server)
    fleet.lost = {gone}
    assert codes(fleet) == ["node-lost"]
    left = {server.pod for server in fleet.servers if server.node != gone}
    deadline = time.monotonic() + 30
    while not (set(masters(fleet).values()) <= left and len(masters(fleet)) == 3):
        assert time.monotonic() < deadline, "others lead all shards"
        time.sleep(0.1)
    while not all(serves_all(fleet, server) for server in fleet.servers if server.pod in left):
        assert time.monotonic() < deadline, "every slot is served without the lost node"
        time.sleep(0.1)
    for server in away:
        fleet.run(server)
    fleet.lost = set()
    fleet.settle()
    assert known(fleet) == {6}


def serves_all(fleet: Fleet, server: Server) -> bool:
    with Connection(fleet.connect(server_pod(fleet, server), PORT), ("", PASSWORD)) as connection:
        return "cluster_state:ok" in connection.text("CLUSTER", "INFO")


def test_every_pod_restarted_at_once(start: Start) -> None:
    fleet = formed(start)
    for server in fleet.servers:
        fleet.kill(server)
    (cause,) = causes(fleet)
    assert (cause.code, "All 6 pods" in cause.message) == ("all-pods-down", True)
    for server in fleet.servers:
        fleet.run(server)
    fleet.settle()


def test_a_frozen_process_is_no_dead_one(start: Start) -> None:
    fleet = formed(start)
    victim = of(fleet, 0, master=True)
    fleet.freeze(victim)
    (cause,) = causes(fleet)
    assert (cause.code, cause.object) == ("process-frozen", f"pod/{victim.pod}")
    assert "takes over after 15 to 32 s" in cause.remedy
    fleet.thaw(victim)
    fleet.settle()


@pytest.mark.parametrize(("cut", "left"), [(1, "2 of 3 masters, a majority"), (2, "1 of 3 masters, no majority")])
def test_a_network_split_by_freezing_says_what_the_rest_can_do(start: Start, cut: int, left: str) -> None:
    fleet = formed(start)
    away = [of(fleet, shard, master=True) for shard in range(cut)]
    others = [server for server in fleet.servers if server.node != away[0].node]
    away += [one for one in others if one.pod not in masters(fleet).values()][: 2 - cut]
    for server in away:
        fleet.freeze(server)
    (cause,) = causes(fleet)
    assert (cause.code, left in cause.remedy) == ("network-split", True)
    assert [server.pod for server in away if server.pod not in cause.message] == []
    for server in away:
        fleet.thaw(server)
    fleet.settle()


def test_a_stranger_that_has_taken_nothing_is_named_and_forgotten_by_all(start: Start) -> None:
    fleet, other = formed(start), start(view("other"))
    one, stranger = fleet.servers[0], other.servers[0]
    with Connection(fleet.connect(server_pod(fleet, one), PORT), ("", PASSWORD)) as connection:
        connection.call("CLUSTER", "MEET", stranger.address, PORT)
    deadline = time.monotonic() + 20
    while not (found := causes(fleet)):
        assert time.monotonic() < deadline, "the stranger is known"
        time.sleep(0.05)
    assert found[0].code == "foreign-node"
    # It still knows them, and goes on calling: nobody of ours listens.
    fleet.settle()
    assert known(fleet) == {6}
    assert "ForgetStranger" in {reason for reason, _ in fleet.events}


def test_a_stranger_that_took_slots_is_named_and_nothing_is_done(start: Start) -> None:
    fleet, other = formed(start), start(view("other"))
    other.settle()
    # Its epochs win.
    for server in other.servers:
        if server.pod in masters(other).values():
            with Connection(other.connect(server_pod(other, server), PORT), ("", PASSWORD)) as connection:
                connection.call("CLUSTER", "BUMPEPOCH")
    theirs = {server.address for server in other.servers}
    one, stranger = fleet.servers[0], other.servers[0]
    with Connection(fleet.connect(server_pod(fleet, one), PORT), ("", PASSWORD)) as connection:
        connection.call("CLUSTER", "MEET", stranger.address, PORT)
        deadline = time.monotonic() + 20
        while not any(peer.slots for peer in parse_nodes(connection.text("CLUSTER", "NODES")) if peer.ip in theirs):
            assert time.monotonic() < deadline, "strangers have taken slots"
            time.sleep(0.05)
    fleet.events.clear()
    assert codes(fleet) == ["foreign-node"]
    assert fleet.events == []


# --- from what was seen alone -----------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def seen(
    unheard: Mapping[str, str], *, volumes: Mapping[str, str] | None = None, doubts: frozenset[str] = frozenset(),
    persistence: str = "aof", lost: str = "",
) -> tuple[Sight, World]:  # fmt: skip
    """A formed cluster whose shards are led by their members 0, some of them not heard. `doubts`: ids all doubt."""
    cluster = view(persistence=persistence)
    names = [f"orders-s{shard}-{ordinal}" for shard in range(3) for ordinal in range(2)]
    address = {name: f"10.0.0.{number}" for number, name in enumerate(names)}

    def peer(name: str, *, me: str) -> Peer:
        leads = name.endswith("-0")
        flags = {"master" if leads else "slave"} | ({"myself"} if name == me else set())
        flags |= {"fail"} if name in doubts and name != me else set()
        shard = int(name[8])
        slots = ((shard * 5462, min(16383, shard * 5462 + 5461)),) if leads else ()
        return Peer(name, address[name], frozenset(flags), "" if leads else f"{name[:-1]}0", shard, True, slots)

    pods = {
        name: PodView(
            name, name, {LABEL_COMPONENT: "redis", LABEL_SHARD: name[8]}, f"n{(int(name[8]) + int(name[-1])) % 3}", "",
            address[name], "Running", True, True, 0, False, NOW,
        )
        for name in names
    }  # fmt: skip
    nodes = [
        Node(pods[name], int(name[8]), cast(Connection, None), name, {other: peer(other, me=name) for other in names},
             replication={"master_link_status": "up"})
        for name in names if name not in unheard
    ]  # fmt: skip
    sight = Sight(cluster, ("", ""), nodes, list(unheard), unheard=dict(unheard))
    claims = tuple(
        VolumeView(f"data-{name}", (volumes or {}).get(name, "Bound"), "standard", 1, 1, {}) for name in names
    )
    where = tuple(NodeView(f"n{number}", "", f"n{number}" != lost, True) for number in range(3))
    return sight, World(NOW, tuple(pods.values()), claims, (), where)


ON_N1 = {"orders-s1-0": "silent", "orders-s0-1": "silent"}


def test_a_lost_node_comes_before_what_stood_on_it() -> None:
    (cause,) = diagnose(*seen(ON_N1, lost="n1"))
    assert (cause.code, cause.object) == ("node-lost", "node/n1")
    assert "orders-s0-1, orders-s1-0, the master of shard 1" in cause.message
    assert "2 of 3 masters, a majority" in cause.remedy


def test_a_node_of_which_nothing_reacts_is_suspected_before_kubernetes_says_so() -> None:
    (cause,) = diagnose(*seen(ON_N1))
    assert (cause.code, "probably lost" in cause.message) == ("node-lost", True)


def test_what_an_operation_does_by_itself_is_no_fault() -> None:
    sight, world = seen({"orders-s1-0": "refused"})
    assert first(sight, world) == "master-down"
    sight.cluster = replace(sight.cluster, changing=True)
    assert diagnose(sight, world) == ()
    sight, world = seen({"orders-s1-0": "refused"}, lost="n1")
    sight.cluster = replace(sight.cluster, changing=True)
    assert first(sight, world) == "node-lost"


def first(sight: Sight, world: World) -> str:
    return diagnose(sight, world)[0].code


def test_a_master_whose_memory_was_not_on_disk_is_told_to_wait_for_its_replica() -> None:
    refused = {"orders-s1-0": "refused"}
    assert first(*seen(refused, persistence="rdb")) == "master-restarted-without-data"
    assert first(*seen(refused, persistence="aof")) == "master-down"
    assert first(*seen({"orders-s1-1": "refused"}, persistence="rdb")) == "replica-down"


def test_a_lost_volume_comes_before_the_pod_that_waits_for_it() -> None:
    sight, world = seen({"orders-s1-0": "refused"}, volumes={"orders-s1-0": "Lost"})
    (cause,) = diagnose(sight, world)
    assert (cause.code, cause.object) == ("disk-lost", "pvc/data-orders-s1-0")


@pytest.mark.parametrize("back", ["orders-s0-1", "orders-s2-0"])
def test_the_first_member_that_is_back_has_not_lost_its_disk_because_nobody_is_there_who_knows_it(back: str) -> None:
    down = {name: "refused" for name in seen({})[0].ids if name != back}
    assert "disk-lost" not in [cause.code for cause in diagnose(*seen(down))]
    sight, world = seen({name: how for name, how in down.items() if name != "orders-s1-0"})
    assert "disk-lost" not in [cause.code for cause in diagnose(sight, world)]
    for node in sight.nodes:
        node.peers = {node.id: node.peers[node.id]} if node.id == back else node.peers
    found = [cause.object for cause in diagnose(sight, world) if cause.code == "disk-lost"]
    assert found == ([f"pod/{back}"] if back == "orders-s0-1" else []), "but when it knows nobody"


def test_a_replica_that_dials_where_its_master_was_is_sent_to_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, tuple[str | int, ...]]] = []

    def send(node: Node, link: object, reason: str, *words: str | int) -> bool:
        sent.append((node.pod.name, words))
        return True

    monkeypatch.setattr(topology, "send", send)
    sight, _ = seen({})
    heads = {node.shard: node for node in sight.nodes if node.me.slots}
    for node in sight.nodes:
        node.replication = {"master_link_status": "down", "master_host": heads[node.shard].pod.ip}
    topology._act(sight, cast(Link, None))
    assert sent == [], "they dial the right one, and it is busy"
    for name in ("orders-s1-1", "orders-s2-1"):
        (astray,) = [node for node in sight.nodes if node.pod.name == name]
        status = "up" if name == "orders-s2-1" else "down"
        astray.replication = {"master_link_status": status, "master_host": "10.0.0.99"}
    topology._act(sight, cast(Link, None))
    assert sent == [("orders-s1-1", ("CLUSTER", "REPLICATE", heads[1].id))]


def test_members_that_react_and_take_each_other_for_failed_are_split() -> None:
    assert first(*seen({}, doubts=frozenset({"orders-s0-0", "orders-s2-0"}))) == "network-split"
    assert diagnose(*seen({}, doubts=frozenset({"orders-s0-0"}))) == ()


def test_nobody_reacts() -> None:
    sight, world = seen(dict.fromkeys(seen({})[0].ids, "silent"))
    assert first(sight, world) == "cluster-unreachable"


def silent_for(sight: Sight, name: str, seconds: float, *, doubted: bool = True) -> None:
    """All who are heard heard `name` so long before the others."""
    for node in sight.nodes:
        node.peers = {
            key: replace(
                peer, heard=1_000_000 - round(seconds * 1000) * (key == name),
                flags=peer.flags | ({"fail"} if doubted and key == name else set()),
            )
            for key, peer in node.peers.items() if key != node.id or key == name
        } | {node.id: node.peers[node.id]}  # fmt: skip


def test_a_process_that_reacts_to_nobody_for_long_is_ended_when_another_leads_its_shard() -> None:
    sight, world = seen({"orders-s0-1": "silent"})
    assert frozen_for_good(sight, world) is None
    silent_for(sight, "orders-s0-1", FROZEN_SECONDS + 1, doubted=False)
    assert frozen_for_good(sight, world) is None, "somebody still believes in it"
    silent_for(sight, "orders-s0-1", FROZEN_SECONDS - 1)
    assert frozen_for_good(sight, world) is None
    silent_for(sight, "orders-s0-1", FROZEN_SECONDS + 1)
    found = frozen_for_good(sight, world)
    assert (found and found.name) == "orders-s0-1"


@pytest.mark.parametrize("name", ["orders-s0-0", "orders-s0-1"])
def test_a_frozen_process_is_left_alone_when_nobody_else_leads_or_its_node_is_lost(name: str) -> None:
    lost = "" if name == "orders-s0-0" else "n1"
    sight, world = seen({name: "silent"}, lost=lost)
    silent_for(sight, name, 10 * FROZEN_SECONDS)
    assert frozen_for_good(sight, world) is None


def test_a_process_that_is_cut_off_is_not_taken_for_a_frozen_one() -> None:
    sight, world = seen({"orders-s0-1": "unreachable"})
    silent_for(sight, "orders-s0-1", 10 * FROZEN_SECONDS)
    assert frozen_for_good(sight, world) is None
