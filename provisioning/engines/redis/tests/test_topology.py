"""Forming and healing, with real servers."""

from __future__ import annotations

import contextlib
import socket

import pytest
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException
from redis.exceptions import RedisError as Refusal

from provisioning.engines.base import Cause, PodView
from provisioning.engines.redis.admin import Connection, RedisError, parse_nodes
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.tests.conftest import Start, networks
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Crash, Fleet, Server, config, view
from provisioning.engines.redis.tests.test_changes import client_of


def write(fleet: Fleet, count: int) -> None:
    """Keys through the proof's own client road: one per call, spread over the shards."""
    for _ in range(count):
        assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def roles(fleet: Fleet) -> list[str]:
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    return sorted(f"{member.shard}:{member.role}" for member in members)


def told_first(fleet: Fleet) -> Cause:
    """The likeliest cause at the first look."""
    return ENGINE.advance(fleet.cluster, fleet.world(), fleet).causes[0]


def known(fleet: Fleet) -> set[int]:
    """How many nodes each node lists, those it is shaking hands with aside: one number when they agree."""
    found = set()
    for pod in fleet.world().pods:
        with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
            listed = parse_nodes(connection.text("CLUSTER", "NODES"))
            found.add(sum("handshake" not in peer.flags for peer in listed))
    return found


def server_pod(fleet: Fleet, server: Server) -> PodView:
    return next(pod for pod in fleet.world().pods if pod.name == server.pod)


@pytest.mark.parametrize(("shards", "replicas"), [(3, 1), (4, 2)])
def test_every_shard_gets_one_master_and_its_replicas(start: Start, shards: int, replicas: int) -> None:
    fleet = start(view(shards=shards, replicasPerShard=replicas))
    fleet.settle()
    expected = [f"{shard}:master" for shard in range(shards)]
    expected += [f"{shard}:replica" for shard in range(shards) for _ in range(replicas)]
    assert roles(fleet) == sorted(expected)
    assert known(fleet) == {shards * (replicas + 1)}
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_first_masters_stand_on_different_nodes(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    assert len({member.node for member in members if member.role == "master"}) == 3


def test_the_node_timeout_is_short_while_nodes_form_and_as_wished_when_they_serve(start: Start) -> None:
    """A master without any slot known for 2 s takes itself for a minority, and waits as long as its node timeout."""
    fleet = start(view(nodeTimeoutMs=5000))
    fleet.budget = 0
    with contextlib.suppress(Crash):
        fleet.settle()
    assert config(fleet, "cluster-node-timeout") == {"500"}
    fleet.budget = None
    fleet.settle()
    assert config(fleet, "cluster-node-timeout") == {"5000"}
    assert not [reason for reason, _ in fleet.events if reason in ("SettingsHealed", "RedisRefused")]


@pytest.mark.parametrize("commands", [0, 1, 2, 3, 4, 5])
def test_a_worker_killed_after_any_command_leaves_what_the_next_one_finishes(start: Start, commands: int) -> None:
    fleet = start(view())
    fleet.budget = commands
    with contextlib.suppress(Crash):
        fleet.settle()
    fleet.budget = None
    fleet.settle()
    assert roles(fleet) == ["0:master", "0:replica", "1:master", "1:replica", "2:master", "2:replica"]
    assert known(fleet) == {6}


def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    master = next(m for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members if m.role == "master")
    victim = next(server for server in fleet.servers if server.pod == master.pod)
    fleet.kill(victim)
    fleet.run(victim)
    fleet.settle()
    assert roles(fleet) == ["0:master", "0:replica", "1:master", "1:replica", "2:master", "2:replica"]


def test_a_lost_disk_is_healed_and_its_ghost_forgotten(start: Start) -> None:
    fleet = start(view(nodeTimeoutMs=2000))
    fleet.settle()
    replica = next(m for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members if m.role == "replica")
    victim = next(server for server in fleet.servers if server.pod == replica.pod)
    fleet.kill(victim)
    fleet.wipe(victim)
    fleet.run(victim)
    cause = told_first(fleet)
    assert (cause.code, cause.object) == ("disk-lost", f"pod/{victim.pod}"), "told though the same look mends it"
    fleet.settle()
    assert roles(fleet) == ["0:master", "0:replica", "1:master", "1:replica", "2:master", "2:replica"]
    assert known(fleet) == {6}


def test_all_nodes_find_each_other_again_when_every_address_changes_at_once(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    for server in fleet.servers:
        fleet.kill(server)
    network = next(networks)
    for server in fleet.servers:
        fleet.move(server, network)
    cause = told_first(fleet)
    assert (cause.code, "Every pod has a new address" in cause.message) == ("addresses-changed", True)
    fleet.settle()
    assert known(fleet) == {6}
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


@pytest.mark.parametrize("persistence", ["rdb", "none"])
def test_a_master_whose_memory_was_not_on_disk_does_not_wipe_its_replicas_by_a_restart_inside_the_node_timeout(
    start: Start, persistence: str
) -> None:
    fleet = start(view(persistence=persistence, replicasPerShard=2, nodeTimeoutMs=15000))
    fleet.settle()
    client = RedisCluster(host=fleet.servers[0].address, port=PORT, password=PASSWORD)
    for number in range(300):
        client.set(f"key-{number}", number)
    assert client.wait(2, 20_000, target_nodes=RedisCluster.PRIMARIES)
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    victim = next(s for s in fleet.servers if s.pod == next(m.pod for m in members if m.role == "master"))
    fleet.kill(victim)
    fleet.run(victim)
    fleet.settle()
    assert [number for number in range(300) if client.get(f"key-{number}") != str(number).encode()] == []
    client.close()


def test_a_master_killed_while_its_disk_is_slow_does_not_take_back_what_a_replica_has_confirmed(start: Start) -> None:
    """While a sync of the append-only file takes long, Redis answers for up to 2 s what it has not written."""
    fleet = start(view(nodeTimeoutMs=15000))
    fleet.settle()
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    victim = next(s for s in fleet.servers if s.pod == next(m.pod for m in members if m.role == "master"))
    fleet.stall_disk(victim)
    with Connection(fleet.connect(server_pod(fleet, victim), PORT), ("", PASSWORD)) as connection:
        key = next(key for number in range(1000) if (key := f"key-{number}") and _is_served(connection, key))
        number = 0
        while "aof_pending_bio_fsync:1" not in connection.text("INFO", "persistence"):
            number += 1
            connection.call("SET", key, number)
        connection.call("SET", key, "confirmed")
        assert connection.call("WAIT", 1, 5000) == 1
    fleet.kill(victim)
    fleet.run(victim)
    fleet.settle()
    client = RedisCluster(host=fleet.servers[0].address, port=PORT, password=PASSWORD)
    assert client.get(key) == b"confirmed"
    client.close()


def _is_served(connection: Connection, key: str) -> bool:
    with contextlib.suppress(RedisError):
        connection.call("SET", key, "")
        return True
    return False


def test_a_shard_whose_members_all_restart_comes_back_with_what_was_saved_and_does_not_wait_for_itself(
    start: Start,
) -> None:
    fleet = start(view(persistence="rdb", nodeTimeoutMs=60000))
    fleet.settle()
    client = RedisCluster(host=fleet.servers[0].address, port=PORT, password=PASSWORD)
    for number in range(300):
        client.set(f"key-{number}", number)
    shard = [server for server in fleet.servers if server.shard == 0]
    for server in shard:
        with Connection(fleet.connect(server_pod(fleet, server), PORT), ("", PASSWORD)) as connection:
            connection.call("SAVE")
    for server in shard:
        fleet.kill(server)
    for server in shard:
        fleet.launch(server)
    for server in shard:
        fleet.listens(server)
    fleet.settle()
    assert [number for number in range(300) if client.get(f"key-{number}") != str(number).encode()] == []
    client.close()


def test_two_clusters_that_swap_addresses_never_merge(start: Start) -> None:
    first, second = start(view("first")), start(view("second"))
    first.settle()
    second.settle()
    for fleet in (first, second):
        for server in fleet.servers:
            fleet.kill(server)
    mine, other = first.network, second.network
    for fleet, network in ((first, other), (second, mine)):
        for server in fleet.servers:
            fleet.move(server, network)
    assert (told_first(first).code, told_first(second).code) == ("addresses-changed", "addresses-changed")
    first.settle()
    second.settle()
    assert (known(first), known(second)) == ({6}, {6})


def test_a_client_of_one_cluster_gets_nothing_from_another_that_answers_where_its_own_was(start: Start) -> None:
    """Every cluster has a password of its own, so an address that changes hands leads a client to a closed door."""
    first, second = start(view("first")), start(view("second"), password="anothercorrecthorsebattery")
    keys = [f"key-{number}" for number in range(20)]
    clients = []
    for fleet in (first, second):
        fleet.settle()
        clients.append(client_of(fleet))
        for key in keys:
            clients[-1].set(key, fleet.cluster.name)
        assert clients[-1].wait(1, 20_000, target_nodes=RedisCluster.PRIMARIES)
    for fleet in (first, second):
        for server in fleet.servers:
            fleet.kill(server)
    for fleet, network in ((first, second.network), (second, first.network)):
        for server in fleet.servers:
            fleet.move(server, network)
    # They know where their servers were, and nobody has told them that others are there now.
    for client in clients:
        told = []
        for key in keys:
            # AttributeError: redis-py's, for a node that it knows of and has not met.
            with contextlib.suppress(Refusal, RedisClusterException, OSError, AttributeError):
                told.append(client.get(key))
        assert told == []
    for server in second.servers:
        with socket.create_connection((server.address, PORT), 5) as opened:
            opened.sendall(f"AUTH {PASSWORD}\r\nGET key-0\r\n".encode())
            said = b""
            while said.count(b"\r\n") < 2:
                said += opened.recv(4096)
        assert [line.split()[0] for line in said.splitlines()] == [b"-WRONGPASS", b"-NOAUTH"]
    for fleet, client in zip((first, second), clients, strict=True):
        client.close()
        fleet.settle()
        client = client_of(fleet)
        assert {client.get(key) for key in keys} == {fleet.cluster.name.encode()}
        client.close()


def test_observing_shows_settings_that_were_changed_by_hand_and_leaves_them(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    assert ENGINE.observe(fleet.cluster, fleet.world(), fleet).drift == ""
    first = fleet.servers[0]
    with Connection(fleet.connect(server_pod(fleet, first), PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "maxmemory", "1mb", "hz", "20")
    before = len(fleet.events)
    seen = ENGINE.observe(fleet.cluster, fleet.world(), fleet)
    assert seen.drift is not None
    assert seen.drift.startswith(f"{first.pod}: ")
    assert "maxmemory is 1048576, wished is 100663296" in seen.drift
    assert "hz is 20, wished is 10" in seen.drift
    assert (len(fleet.events), config(fleet, "hz")) == (before, {"10", "20"})
    fleet.settle()
    assert ENGINE.advance(fleet.cluster, fleet.world(), fleet).drift == ""
    assert config(fleet, "hz") == {"10"}


def test_observing_shows_what_is_broken_and_mends_nothing(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    assert ENGINE.observe(fleet.cluster, fleet.world(), fleet).healthy
    victim = fleet.servers[-1]
    before = len(fleet.events)
    fleet.kill(victim)
    seen = ENGINE.observe(fleet.cluster, fleet.world(), fleet)
    assert not seen.healthy
    assert victim.pod in seen.reason
    assert victim.pod in {cause.object.removeprefix("pod/") for cause in seen.causes}
    assert seen.restart is None
    assert len(fleet.events) == before
