"""What was found by measuring Redis Cluster, each by name, with real servers.

Elsewhere, beside what they belong to:

- a master without its data restarted inside the node timeout wipes its replicas: test_topology,
  `test_a_master_whose_memory_was_not_on_disk_does_not_wipe_its_replicas_by_a_restart_inside_the_node_timeout`, and
  test_rules, `test_persistence_none_with_replicas_is_refused_because_an_empty_master_would_wipe_them`;
- a lost nodes.conf is a new identity: test_rules, `test_a_node_knows_its_id_after_a_restart_also_without_persistence`,
  and test_topology, `test_a_lost_disk_is_healed_and_its_ghost_forgotten`;
- all pods with new addresses know nobody: test_topology,
  `test_all_nodes_find_each_other_again_when_every_address_changes_at_once`;
- every pod has an address of its own, so addresses say nothing about nodes: test_topology,
  `test_first_masters_stand_on_different_nodes`.
"""

from __future__ import annotations

import time

import pytest
from redis.exceptions import OutOfMemoryError

from provisioning.engines.redis.admin import Connection, parse_info, parse_nodes
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, Server, view
from provisioning.engines.redis.tests.test_changes import client_of, masters, slots, writing


def connection(fleet: Fleet, server: Server) -> Connection:
    pod = next(pod for pod in fleet.world().pods if pod.name == server.pod)
    return Connection(fleet.connect(pod, PORT), ("", PASSWORD))


def known_to(fleet: Fleet, server: Server) -> int:
    """How many nodes a node knows, itself among them, of which none is still shaking hands."""
    with connection(fleet, server) as asked:
        nodes = parse_nodes(asked.text("CLUSTER", "NODES"))
    return sum("handshake" not in node.flags for node in nodes)


def watch(fleet: Fleet, reason: str, monkeypatch: pytest.MonkeyPatch, look: object) -> list[object]:
    """What `look()` says at every event of this reason, right when it is told."""
    found: list[object] = []
    real = fleet.event

    def event(why: str, message: str, *, warning: bool = False, object: str = "") -> None:
        if why == reason:
            found.append(look())  # type: ignore[operator]
        real(why, message, warning=warning, object=object)

    monkeypatch.setattr(fleet, "event", event)
    return found


def test_rebalance_straight_after_a_node_has_joined_waits_for_agreement_and_then_moves_slots(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`redis-cli --cluster rebalance` straight after `add-node` did nothing, and said that all was well."""
    fleet = start(view(replicasPerShard=0))
    fleet.settle()
    fleet.wish(shards=4)
    # It has just joined: one member has met it, and the others have not heard of it.
    joined = fleet.servers[-1]
    with connection(fleet, fleet.servers[0]) as first:
        first.call("CLUSTER", "MEET", joined.address, PORT)
    agreed = watch(fleet, "SlotsMoved", monkeypatch, lambda: {known_to(fleet, server) for server in fleet.servers})
    # Until it says that all is well.
    fleet.settle()
    assert slots(fleet) == {"0": 4096, "1": 4096, "2": 4096, "3": 4096}
    assert agreed
    assert all(one == {4} for one in agreed), "nobody moves slots before everybody knows everybody"


def test_replicas_and_drained_masters_do_not_wander_to_other_shards_when_shards_come_and_go(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `cluster-allow-replica-migration yes`, a new master pulls replicas away, a drained one follows another."""
    fleet = start(view())
    fleet.settle()

    def strays() -> list[str]:
        """Replicas of a master of another shard."""
        owners: dict[str, int] = {}
        follows: list[tuple[Server, str]] = []
        for server in fleet.servers:
            with connection(fleet, server) as asked:
                me = next(node for node in parse_nodes(asked.text("CLUSTER", "NODES")) if "myself" in node.flags)
            owners[me.id] = server.shard
            if "slave" in me.flags:
                follows.append((server, me.master))
        return [server.pod for server, master in follows if owners.get(master, server.shard) != server.shard]

    wandered = watch(fleet, "SlotsMoved", monkeypatch, strays)
    for shards in (4, 3):
        fleet.wish(shards=shards)
        fleet.settle(60)
    assert len(wandered) >= 2
    assert [pods for pods in wandered if pods] == []


def test_cluster_failover_of_a_replica_that_is_resyncing_answers_ok_and_is_not_relied_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says OK and does nothing: so it is asked only when its link is up, and its role is seen afterwards."""
    fleet = start(view())
    fleet.settle()
    before = masters(fleet)
    leader = next(server for server in fleet.servers if server.pod == before["0"])
    heir = next(server for server in fleet.servers if server.shard == 0 and server is not leader)
    with writing(fleet) as writer:
        with connection(fleet, leader) as asked:
            asked.call("CONFIG", "SET", "repl-diskless-sync-delay", 60)
        # Without its data it needs a full copy, which its master does not begin for a while.
        fleet.kill(heir)
        for path in (heir.folder / "appendonlydir").glob("*"):
            path.unlink()
        fleet.run(heir)
        await_link(fleet, heir, "down")
        with connection(fleet, heir) as asked:
            assert asked.call("CLUSTER", "FAILOVER") == "OK"
            assert parse_info(asked.text("INFO", "replication"))["role"] == "slave"
        links = watch(fleet, "TakeOver", monkeypatch, lambda: link_of(fleet, fleet.servers))
        fleet.wish(roll=True, memoryGiB=0.25)
        fleet.settle(90)
        writer.await_writes(100)
        assert writer.stop() == []
    assert links
    assert all("down" not in link.values() for link in links if isinstance(link, dict))
    # Its role was seen: the old master restarted only after somebody else led.
    assert [pod for pod in fleet.restarted if "-s0-" in pod][-1] in {leader.pod, heir.pod}
    assert sorted(fleet.restarted) == sorted(server.pod for server in fleet.servers)


def test_a_failover_takes_longer_than_the_node_timeout_and_what_is_told_says_up_to_twice_of_it(start: Start) -> None:
    """Measured: 5.4 s with a timeout of 3 s. Who is told "after 3 s" takes it for broken, and begins to mend."""
    fleet = start(view(nodeTimeoutMs=3000))
    fleet.settle()
    head = masters(fleet)["0"]
    leader = next(server for server in fleet.servers if server.pod == head)
    heir = next(server for server in fleet.servers if server.shard == 0 and server is not leader)
    fleet.freeze(leader)
    (cause,) = ENGINE.advance(fleet.cluster, fleet.world(), fleet).causes
    assert "A replica takes over after 3 to 8 s" in cause.remedy
    deadline = time.monotonic() + 60
    with connection(fleet, heir) as asked:
        while "role:master" not in asked.text("INFO", "replication"):
            assert time.monotonic() < deadline, "it takes over"
            time.sleep(0.02)
        listed = parse_nodes(asked.text("CLUSTER", "NODES"))
    silent = next(peer for peer in listed if peer.ip == leader.address)
    # By the heir's own clock: it heard others until now.
    assert max(peer.heard for peer in listed) - silent.heard > 3000
    fleet.thaw(leader)
    fleet.settle()


def link_of(fleet: Fleet, servers: list[Server]) -> dict[str, str]:
    """Pod to its link to its master; "" for a master."""
    found = {}
    for server in servers:
        with connection(fleet, server) as asked:
            found[server.pod] = parse_info(asked.text("INFO", "replication")).get("master_link_status", "")
    return found


def await_link(fleet: Fleet, server: Server, status: str) -> None:
    deadline = time.monotonic() + 20
    while link_of(fleet, [server])[server.pod] != status:
        assert time.monotonic() < deadline, f"{server.pod}'s link is {status}"
        time.sleep(0.05)


def test_a_replication_backlog_counts_as_data_and_one_as_large_as_the_memory_ends_all_writes(start: Start) -> None:
    """One key, written over and over; so such a size is refused: test_rules, `refuses_writes`."""
    fleet = start(view(config={"repl-backlog-size": 256 * 2**20}))
    fleet.settle()
    client = client_of(fleet)

    def write() -> None:
        for _ in range(200):
            client.set("one", "x" * 2**20)

    with pytest.raises(OutOfMemoryError):
        write()
    client.close()
