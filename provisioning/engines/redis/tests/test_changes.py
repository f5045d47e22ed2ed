"""Changing a running cluster: settings, restarts, shards and replicas, with real servers and a client that writes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis.cluster import RedisCluster
from redis.exceptions import RedisError

from provisioning.engines.base import Advance, Gate, LinkError
from provisioning.engines.redis import settings
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.moves import plan_moves
from provisioning.engines.redis.placement import slot_range
from provisioning.engines.redis.slots import slot_of
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Crash, Fleet, Server, config, view


def client_of(fleet: Fleet) -> RedisCluster:
    """A cluster client; its host is the first server's, since all use one port."""
    return RedisCluster(host=fleet.servers[0].address, port=PORT, password=fleet.stored["password"])


class Writer:
    """A client that writes numbered keys as fast as it may, one after another, and knows which were acknowledged."""

    def __init__(self, fleet: Fleet) -> None:
        self.client = client_of(fleet)
        self.acknowledged: list[int] = []
        self.refused = 0
        self.longest_gap = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        number, last = 0, time.monotonic()
        while not self._stopped.is_set():
            number += 1
            try:
                self.client.set(f"key-{number}", number)
            except (RedisError, OSError):
                self.refused += 1
                continue
            except AttributeError:
                # redis-py, sent by an ASK to a node that it has not met: that node is None to it.
                self.refused += 1
                self.client.nodes_manager.initialize()
                continue
            self.acknowledged.append(number)
            self.longest_gap = max(self.longest_gap, time.monotonic() - last)
            last = time.monotonic()

    def stop(self) -> list[int]:
        """End, and return the acknowledged writes that cannot be read any more."""
        self._stopped.set()
        self._thread.join()
        return [number for number in self.acknowledged if self.client.get(f"key-{number}") != str(number).encode()]

    def await_writes(self, more: int) -> None:
        """Wait until so many more writes were acknowledged."""
        goal, deadline = len(self.acknowledged) + more, time.monotonic() + 20
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, "the writer writes"
            time.sleep(0.01)


@contextlib.contextmanager
def writing(fleet: Fleet) -> Iterator[Writer]:
    writer = Writer(fleet)
    try:
        writer.await_writes(100)
        yield writer
    finally:
        writer.stop()
        writer.client.close()


def masters(fleet: Fleet) -> dict[str, str]:
    """Shard to its master."""
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    return {member.shard: member.pod for member in members if member.role == "master"}


def slots(fleet: Fleet) -> dict[str, int]:
    """Shard to how many slots it serves."""
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    counts = Counter[str]()
    for member in members:
        for part in member.detail.get("slots", "").split(", "):
            first, _, last = part.partition("-")
            if first:
                counts[member.shard] += int(last or first) - int(first) + 1
    return dict(counts)


def test_defaults_are_those_of_a_running_server_so_that_nothing_drifts_from_the_start(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    assert not [event for event in fleet.events if event[0] in ("SettingsSet", "SettingsHealed", "RedisRefused")]
    for one in settings.SETTINGS:
        assert config(fleet, one.key) == {settings._text(one.default)}, one.key
    for key, value in settings.KEPT.items():
        assert config(fleet, key) == {value}, key


def test_live_settings_are_in_force_everywhere_without_a_restart_and_go_back_when_taken_out(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    fleet.wish(evictionPolicy="allkeys-lru", nodeTimeoutMs=4000, persistence="aof+rdb", config={"hz": 20})
    fleet.settle()
    assert [config(fleet, key) for key in ("maxmemory-policy", "cluster-node-timeout", "hz", "save")] == [
        {"allkeys-lru"}, {"4000"}, {"20"}, {"3600 1 300 100 60 10000"},
    ]  # fmt: skip
    fleet.wish(config={})
    fleet.settle()
    assert config(fleet, "hz") == {"10"}
    assert fleet.restarted == []


def test_what_somebody_changed_by_hand_is_healed_and_told(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    with Connection(fleet.connect(fleet.world().pods[0], PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "maxmemory", "1mb")
    fleet.events.clear()
    fleet.settle()
    assert len(config(fleet, "maxmemory")) == 1
    assert fleet.events == [("SettingsHealed", "maxmemory was 1048576, is 100663296")]


def test_memory_that_the_data_does_not_fit_into_is_refused_before_anything_is_changed(start: Start) -> None:
    fleet = start(view(memoryGiB=0.25))
    fleet.settle()
    with Connection(fleet.connect(fleet.world().pods[0], PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    fleet.wish(roll=True, memoryGiB=0.001)
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert outcome.blocked is not None
    assert outcome.blocked.code == "data_does_not_fit"
    assert outcome.restart is None
    assert config(fleet, "maxmemory") == {str(192 * 2**20)}


def test_a_rolling_restart_takes_replicas_first_and_loses_no_acknowledged_write(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    before = masters(fleet)
    with writing(fleet) as writer:
        fleet.wish(roll=True, memoryGiB=0.25)
        fleet.settle(60)
        writer.await_writes(100)
        assert writer.stop() == []
    assert sorted(fleet.restarted) == sorted(server.pod for server in fleet.servers)
    for shard, old in before.items():
        members = [pod for pod in fleet.restarted if f"-s{shard}-" in pod]
        assert members[-1] == old, "the old master restarts last"
    assert config(fleet, "maxmemory") == {str(192 * 2**20)}


def test_while_a_restarted_member_is_away_none_of_nine_follows_it(start: Start) -> None:
    """A pod takes its time to come back, over several looks, and a shard has two replicas that could go meanwhile."""
    fleet = start(view(replicasPerShard=2))
    fleet.settle()
    before = masters(fleet)
    fleet.wish(roll=True, memoryGiB=0.25)
    deadline = time.monotonic() + 90
    while not (outcome := ENGINE.advance(fleet.cluster, fleet.world(), fleet)).healthy:
        assert time.monotonic() < deadline, outcome.reason
        if outcome.restart is None:
            continue
        server = next(one for one in fleet.servers if one.pod == outcome.restart.name)
        assert all(one.process is not None for one in fleet.servers)
        fleet.restarted.append(server.pod)
        fleet.kill(server)
        for _ in range(3):
            assert ENGINE.advance(fleet.cluster, fleet.world(), fleet).restart is None
        server.revision = fleet.revision
        fleet.run(server)
    assert sorted(fleet.restarted) == sorted(server.pod for server in fleet.servers)
    for shard, old in before.items():
        assert [pod for pod in fleet.restarted if f"-s{shard}-" in pod][-1] == old


def test_nothing_restarts_while_no_operation_asks_for_it(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    fleet.revision = "2"
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert (outcome.healthy, outcome.restart) == (True, None)
    assert len(outcome.outdated) == 6


def waited_at(fleet: Fleet) -> Gate:
    """Advance until a gate is told."""
    deadline = time.monotonic() + 30
    while True:
        outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
        if outcome.gate is not None:
            return outcome.gate
        fleet.obey(outcome)
        assert time.monotonic() < deadline, outcome.reason


def let_pass(fleet: Fleet, gate: Gate) -> None:
    fleet.cluster = replace(fleet.cluster, overridden=fleet.cluster.overridden | {gate.key})


def test_a_roll_waits_at_a_member_that_is_away_and_passes_it_on_somebodys_word(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    master = masters(fleet)["0"]
    away = next(server for server in fleet.servers if server.shard == 0 and server.pod != master)
    fleet.kill(away)
    fleet.wish(roll=True, memoryGiB=0.25)
    gate = waited_at(fleet)
    assert (gate.key, gate.refusal, fleet.restarted) == (f"ready/{away.pod}", "", [])
    let_pass(fleet, gate)
    # Its master has nobody to hand over to, which costs something else and is asked for by itself.
    gate = waited_at(fleet)
    assert (gate.key, gate.refusal) == (f"heir/{master}", "")
    assert master not in fleet.restarted
    let_pass(fleet, gate)
    fleet.settle(60)
    assert sorted(fleet.restarted) == sorted(server.pod for server in fleet.servers if server is not away)
    fleet.cluster = replace(fleet.cluster, overridden=frozenset())
    away.revision = fleet.revision
    fleet.run(away)
    fleet.settle(60)
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_nobody_can_let_a_roll_pass_a_shard_that_is_not_served(start: Start) -> None:
    fleet = start(view(replicasPerShard=0))
    fleet.settle()
    fleet.kill(fleet.servers[0])
    fleet.wish(roll=True, memoryGiB=0.25)
    gate = waited_at(fleet)
    assert "shard 0" in gate.refusal
    let_pass(fleet, gate)
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert (outcome.healthy, outcome.restart) == (False, None)


def test_memory_is_granted_to_redis_only_after_its_pod_has_it(start: Start) -> None:
    fleet = start(view(replicasPerShard=0))
    fleet.settle()
    fleet.wish(roll=True, memoryGiB=0.25)
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert outcome.restart is not None
    assert config(fleet, "maxmemory") == {str(96 * 2**20)}


def test_shards_out_and_in_move_every_key_while_a_client_writes(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    with writing(fleet) as writer:
        fleet.wish(shards=4)
        fleet.settle(60)
        assert slots(fleet) == {"0": 4096, "1": 4096, "2": 4096, "3": 4096}
        writer.await_writes(100)
        fleet.wish(shards=3)
        fleet.settle(60)
        writer.await_writes(100)
        assert writer.stop() == []
    assert sorted(slots(fleet).values()) == [5461, 5461, 5462]
    assert len(fleet.servers) == 6
    assert not [name for name in fleet.volumes if "-s3-" in name]


def test_replicas_up_and_down_never_touch_a_shards_only_copy(start: Start) -> None:
    fleet = start(view(replicasPerShard=1))
    fleet.settle()
    fleet.wish(replicasPerShard=2)
    fleet.settle(60)
    assert Counter(m.role for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members) == {
        "master": 3, "replica": 6,
    }  # fmt: skip
    # The last member of shard 1 leads it: the very one that goes.
    last = next(pod for pod in fleet.world().pods if pod.name.endswith("-s1-2"))
    with Connection(fleet.connect(last, PORT), ("", PASSWORD)) as connection:
        connection.call("CLUSTER", "FAILOVER")
    deadline = time.monotonic() + 20
    while masters(fleet)["1"] != last.name:
        assert time.monotonic() < deadline, "it leads"
        time.sleep(0.05)
    with writing(fleet) as writer:
        fleet.wish(replicasPerShard=1)
        fleet.settle(60)
        writer.await_writes(100)
        assert writer.stop() == []
    assert len(fleet.servers) == 6
    assert len(fleet.volumes) == 6


@pytest.mark.parametrize("shards", [(3, 4), (4, 3)], ids=["growing", "draining"])
@pytest.mark.parametrize("commands", [1, 60, 200])
def test_a_worker_killed_while_slots_move_is_followed_by_one_that_finishes(
    start: Start, monkeypatch: pytest.MonkeyPatch, shards: tuple[int, int], commands: int
) -> None:
    fleet = start(view(replicasPerShard=0, shards=shards[0]))
    fleet.settle()
    client = client_of(fleet)
    names = [f"{{{number}}}-{part}".encode() + b"\xff\xfe" for number in range(300) for part in range(3)]
    for name in names:
        client.set(name, name)
    fleet.wish(shards=shards[1])
    real, left = Connection.pipeline, [commands]

    def pipeline(self: Connection, sent: Any) -> Any:
        moving = [words for words in sent if words[0] == "MIGRATE" or words[1:2] == ["SETSLOT"]]
        if moving:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
        return real(self, sent)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "pipeline", pipeline)
        with pytest.raises(Crash):
            fleet.settle(60)
    fleet.settle(60)
    counts = slots(fleet)
    assert (len(counts), max(counts.values()) - min(counts.values()) <= 1) == (shards[1], True)
    assert sum(counts.values()) == 16384
    assert [name for name in names if client.get(name) != name] == []
    client.close()


def settle_at_last(fleet: Fleet) -> None:
    """As a worker does that meets a node which has just died, and looks again."""
    for _ in range(20):
        with contextlib.suppress(LinkError):
            fleet.settle(60)
            return
    pytest.fail("some node breaks every connection")


@pytest.mark.parametrize("shards", [(3, 4), (4, 3)], ids=["growing", "draining"])
@pytest.mark.parametrize("victim", ["giver", "receiver"])
def test_a_master_killed_while_slots_move_costs_no_key_and_the_move_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, shards: tuple[int, int], victim: str
) -> None:
    fleet = start(view(shards=shards[0], nodeTimeoutMs=2000))
    fleet.settle()
    client = client_of(fleet)
    names = [f"n-{number}" for number in range(2000)]
    for name in names:
        client.set(name, 100)
    client.wait(1, 5000, target_nodes=RedisCluster.PRIMARIES)
    fleet.wish(shards=shards[1])
    real, batches = Connection.pipeline, itertools.count(1)

    def pipeline(self: Connection, sent: Any) -> Any:
        if sent and sent[0][0] == "MIGRATE" and next(batches) == 30:
            address = self._socket.getpeername()[0] if victim == "giver" else sent[0][1]
            server = next(one for one in fleet.servers if one.address == address)
            fleet.kill(server)
            fleet.run(server)
        return real(self, sent)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "pipeline", pipeline)
        settle_at_last(fleet)
    assert next(batches) > 30
    client.close()
    client = client_of(fleet)
    assert [name for name in names if client.get(name) != b"100"] == []
    assert len(slots(fleet)) == shards[1]
    client.close()


def test_what_a_promoted_giver_no_longer_has_is_asked_of_the_receiver_as_soon_as_berth_has_looked(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = start(view(nodeTimeoutMs=2000))
    fleet.settle()
    client = client_of(fleet)
    for number in range(2000):
        client.set(f"n-{number}", 100)
    client.wait(1, 5000, target_nodes=RedisCluster.PRIMARIES)
    fleet.wish(shards=4)
    real, moved, giver = Connection.pipeline, list[str](), list[Server]()

    def pipeline(self: Connection, sent: Any) -> Any:
        replies = real(self, sent)
        if sent and sent[0][0] == "MIGRATE":
            words = [str(word) for word in sent[0]]
            moved.extend(words[words.index("KEYS") + 1 :])
            if len(moved) > 60:
                giver.append(next(one for one in fleet.servers if one.address == self._socket.getpeername()[0]))
                raise Crash
        return replies

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "pipeline", pipeline)
        with pytest.raises(Crash):
            fleet.settle(60)
    fleet.kill(giver[0])
    fleet.run(giver[0])
    # The one look that finds the promoted giver and marks the slots anew; the worker then dies again.
    real_event = fleet.event

    def event(reason: str, message: str, *, warning: bool = False, object: str = "") -> None:
        real_event(reason, message, warning=warning, object=object)
        if reason == "SlotsMarked":
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(fleet, "event", event)
        with pytest.raises(Crash):
            settle_at_last(fleet)
    client.close()
    client = client_of(fleet)
    assert [client.incr(name) for name in moved] == [101] * len(moved)
    fleet.settle(60)
    assert [client.get(name) for name in moved] == [b"101"] * len(moved)
    client.close()


# Of eight members two leave: they are forgotten by six others each, and reset; then three things are removed.
@pytest.mark.parametrize("moment", [1, 4, 8, 12, 13, 15, 16, 17, 18])
def test_a_worker_killed_while_members_leave_is_followed_by_one_that_finishes(
    start: Start, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    fleet = start(view(shards=4))
    fleet.settle()
    fleet.wish(shards=3)
    steps = [moment]
    real_event, real_obey = fleet.event, fleet.obey

    def step() -> None:
        steps[0] -= 1
        if steps[0] == 0:
            raise Crash

    def event(reason: str, message: str, *, warning: bool = False, object: str = "") -> None:
        real_event(reason, message, warning=warning, object=object)
        if reason in ("Forget", "Reset"):
            step()

    def obey(outcome: Advance) -> None:
        real_obey(replace(outcome, retired=()))
        for one in outcome.retired:
            real_obey(replace(outcome, restart=None, retired=(one,)))
            step()

    with monkeypatch.context() as patch:
        patch.setattr(fleet, "event", event)
        patch.setattr(fleet, "obey", obey)
        with pytest.raises(Crash):
            fleet.settle(60)
    fleet.settle(60)
    assert sorted(slots(fleet).values()) == [5461, 5461, 5462]
    assert (len(fleet.servers), len(fleet.volumes), sorted(fleet.sets)) == (6, 6, [0, 1, 2])
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_a_replica_that_leaves_and_answers_with_an_error_for_a_moment_stays_until_its_shard_is_drained(
    start: Start,
) -> None:
    fleet = start(view(shards=4))
    fleet.settle()
    leader = masters(fleet)["3"]
    pod = next(pod for pod in fleet.world().pods if "-s3-" in pod.name and pod.name != leader)
    fleet.wish(shards=3)
    with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "maxclients", 1)
        outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
        assert (outcome.healthy, outcome.retired, "foreign-node" in {one.code for one in outcome.causes}) == (
            False, (), False,
        )  # fmt: skip
        assert {reason for reason, _ in fleet.events} & {"Forget", "ForgetStranger", "SlotsMoved"} == set()
        connection.call("CONFIG", "SET", "maxclients", 10000)
    fleet.settle(60)
    told = [reason for reason, _ in fleet.events]
    assert told.index("SlotsMoved") < told.index("Forget")
    assert "ForgetStranger" not in told


def test_what_moves_is_the_least_and_can_be_planned_anew_at_any_moment() -> None:
    owned = {shard: list(range(slot_range(shard, 3)[0], slot_range(shard, 3)[1] + 1)) for shard in range(3)}
    moves = plan_moves(owned, 5)
    assert len(moves) == 16384 * 2 // 5
    for done, (slot, source, to) in enumerate(moves):
        owned[source].remove(slot)
        owned.setdefault(to, []).append(slot)
        left = plan_moves(owned, 5) if done % 500 == 0 else moves[done + 1 :]
        assert len(left) == len(moves) - done - 1
    assert sorted(len(slots) for slots in owned.values()) == [3276, 3277, 3277, 3277, 3277]
    assert plan_moves(owned, 5) == []
    assert {to for _, _, to in plan_moves(owned, 3)} == {0, 1, 2}
    assert len(plan_moves(owned, 3)) == 3276 + 3277


def test_slots_moved_by_hand_stay_where_they_are_until_somebody_changes_the_cluster(start: Start) -> None:
    fleet = start(view(replicasPerShard=0))
    fleet.settle()
    pods = fleet.world().pods
    with (
        Connection(fleet.connect(pods[0], PORT), ("", PASSWORD)) as source,
        Connection(fleet.connect(pods[1], PORT), ("", PASSWORD)) as to,
    ):
        name = to.text("CLUSTER", "MYID")
        to.call("CLUSTER", "SETSLOT", 0, "IMPORTING", source.text("CLUSTER", "MYID"))
        to.call("CLUSTER", "SETSLOT", 0, "NODE", name)
        source.call("CLUSTER", "SETSLOT", 0, "NODE", name)
    fleet.settle()
    assert slots(fleet) == {"0": 5460, "1": 5462, "2": 5462}
    fleet.wish(evictionPolicy="allkeys-lru")
    fleet.settle()
    assert sorted(slots(fleet).values()) == [5461, 5461, 5462]


def fill(fleet: Fleet, shard: int, mib: int, *, expires: int | None = None) -> None:
    """Put so much data into a shard of four, as keys of one MiB; `expires`: after so many seconds."""
    first, last = slot_range(shard, 4)
    names = (name for number in range(100_000) if first <= slot_of(name := f"large-{number}") <= last)
    client = client_of(fleet)
    for name, _ in zip(names, range(mib), strict=False):
        client.set(name, "x" * (2**20 - 200), ex=expires)
    client.close()


def test_a_shard_that_is_needed_for_its_memory_does_not_leave(start: Start) -> None:
    fleet = start(view(replicasPerShard=0, shards=4))
    fleet.settle()
    # There is room in the others together, and too little in one of them.
    fill(fleet, 0, 80)
    fill(fleet, 3, 60)
    fewer = replace(fleet.cluster, spec={**fleet.cluster.spec, "shards": 3})
    before = len(fleet.events)
    foreseen = ENGINE.foresee(fewer, fleet.world(), fleet)
    assert foreseen is not None
    assert (foreseen.code, len(fleet.events)) == ("data_does_not_fit", before)
    assert "are to come to shard 0, which has room for" in foreseen.message
    fleet.wish(shards=3)
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert outcome.blocked is not None
    assert "are to come to shard 0" in outcome.blocked.message
    assert slots(fleet) == {"0": 4096, "1": 4096, "2": 4096, "3": 4096}


@pytest.mark.parametrize(("policy", "expires"), [("allkeys-lru", None), ("volatile-lru", 3600)])
def test_a_cache_that_is_full_by_design_may_give_a_shard_up(start: Start, policy: str, expires: int | None) -> None:
    fleet = start(view(replicasPerShard=0, shards=4, evictionPolicy=policy))
    fleet.settle()
    fill(fleet, 0, 80, expires=expires)
    fill(fleet, 3, 60, expires=expires)
    fleet.wish(shards=3)
    assert ENGINE.foresee(fleet.cluster, fleet.world(), fleet) is None
    fleet.settle(60)
    assert sorted(slots(fleet).values()) == [5461, 5461, 5462]


def test_keys_that_never_expire_are_not_dropped_to_make_room(start: Start) -> None:
    fleet = start(view(replicasPerShard=0, shards=4, evictionPolicy="volatile-lru"))
    fleet.settle()
    fill(fleet, 0, 80)
    fill(fleet, 3, 60)
    fleet.wish(shards=3)
    foreseen = ENGINE.foresee(fleet.cluster, fleet.world(), fleet)
    assert foreseen is not None
    assert "shard 0" in foreseen.message


def test_memory_that_the_data_does_not_fit_into_is_foreseen(start: Start) -> None:
    fleet = start(view(replicasPerShard=0, memoryGiB=0.25))
    fleet.settle()
    smaller = replace(fleet.cluster, spec={**fleet.cluster.spec, "memoryGiB": 0.001})
    foreseen = ENGINE.foresee(smaller, fleet.world(), fleet)
    assert foreseen is not None
    assert "are in use" in foreseen.message
    assert ENGINE.foresee(fleet.cluster, fleet.world(), fleet) is None


@pytest.mark.parametrize(("expires", "fits"), [(None, False), (3600, True)])
def test_only_keys_that_expire_make_room_for_less_memory_where_only_those_may_be_dropped(
    start: Start, expires: int | None, fits: bool
) -> None:
    fleet = start(view(replicasPerShard=0, shards=4, evictionPolicy="volatile-lru"))
    fleet.settle()
    fill(fleet, 0, 60, expires=expires)
    smaller = replace(fleet.cluster, spec={**fleet.cluster.spec, "memoryGiB": 0.05})
    foreseen = ENGINE.foresee(smaller, fleet.world(), fleet)
    assert (foreseen is None) is fits
    assert foreseen is None or "of which volatile-lru may drop 0 MiB (only keys that expire)" in foreseen.message


@pytest.mark.parametrize("disk", ["well", "full"])
def test_snapshots_in_place_of_an_append_only_file_begin_with_one_that_is_on_disk(start: Start, disk: str) -> None:
    fleet = start(view())
    fleet.settle()
    client = client_of(fleet)
    for number in range(300):
        client.set(f"key-{number}", number)
    hindered = fleet.servers[0].folder / "dump.rdb"
    if disk == "full":
        # A snapshot is renamed into place, which a folder of that name does not let happen.
        (hindered / "in-the-way").mkdir(parents=True)
    fleet.wish(persistence="rdb")
    if disk == "full":
        deadline = time.monotonic() + 20
        while "the last one failed" not in (outcome := ENGINE.advance(fleet.cluster, fleet.world(), fleet)).reason:
            assert time.monotonic() < deadline, outcome.reason
        assert config(fleet, "appendonly") == {"yes", "no"}, "the file is kept, where it is all there is"
        for number in range(300):
            client.set(f"key-{number}", number)
        (hindered / "in-the-way").rmdir()
        hindered.rmdir()
    fleet.settle()
    assert (config(fleet, "appendonly"), config(fleet, "save")) == ({"no"}, {"3600 1 300 100 60 10000"})
    assert all((server.folder / "dump.rdb").is_file() for server in fleet.servers)
    # Whoever is killed now has its keys back from there.
    for server in fleet.servers:
        fleet.kill(server)
    for server in fleet.servers:
        fleet.launch(server)
    fleet.settle(60)
    assert [number for number in range(300) if client.get(f"key-{number}") != str(number).encode()] == []
    client.close()


@pytest.mark.parametrize(("before", "after"), [("aof", "rdb"), ("rdb", "aof"), ("aof", "aof+rdb"), ("aof+rdb", "rdb")])
def test_a_pod_that_restarts_before_the_wished_file_is_written_starts_from_the_one_there_is(
    start: Start, before: str, after: str
) -> None:
    fleet = start(view(replicasPerShard=0, persistence=before))
    fleet.settle()
    client = client_of(fleet)
    for number in range(50):
        client.set(f"key-{number}", number)
    if "aof" not in before:
        client.save(target_nodes=RedisCluster.PRIMARIES)
    client.close()
    for server in fleet.servers:
        fleet.kill(server)
    # Its redis.conf is the new one, and nobody has told the running servers.
    fleet.wish(persistence=after)
    for server in fleet.servers:
        fleet.run(server)
    assert keys_of(fleet) == 50
    fleet.settle()
    assert config(fleet, "appendonly") == {"yes" if "aof" in after else "no"}
    for server in fleet.servers:
        fleet.kill(server)
        fleet.run(server)
    fleet.settle()
    assert keys_of(fleet) == 50, "as is wished they are on the disk now"


def test_an_old_append_only_file_never_comes_before_a_newer_snapshot(start: Start) -> None:
    fleet = start(view(replicasPerShard=0))
    fleet.settle()
    fleet.wish(persistence="rdb")
    fleet.settle()
    client = client_of(fleet)
    for number in range(50):
        client.set(f"key-{number}", number)
    client.close()
    for server in fleet.servers:
        # A snapshot is written when a server is ended, and the append-only file of before stays beside it.
        fleet.end(server)
        assert (server.folder / "appendonlydir" / "appendonly.aof.manifest").exists()
        fleet.run(server)
    assert config(fleet, "appendonly") == {"no"}
    assert keys_of(fleet) == 50


def keys_of(fleet: Fleet) -> int:
    """How many keys there are, over all nodes."""
    found = 0
    for pod in fleet.world().pods:
        with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
            found += int(str(connection.call("DBSIZE")))
    return found


@pytest.mark.parametrize(("shards", "wish"), [(3, ("replicasPerShard", 0)), (4, ("shards", 3))])
def test_a_leaving_replica_that_is_down_is_forgotten_and_goes(start: Start, shards: int, wish: tuple[str, int]) -> None:
    fleet = start(view(shards=shards, nodeTimeoutMs=2000))
    fleet.settle()
    shard = shards - 1
    lead = masters(fleet)[str(shard)]
    # It cannot be the one that is to stay, where its shard stays.
    victim = next(server for server in fleet.servers if server.pod == f"orders-s{shard}-1")
    fleet.kill(victim)
    if lead == victim.pod:
        deadline = time.monotonic() + 40
        while masters(fleet).get(str(shard)) != f"orders-s{shard}-0":
            assert time.monotonic() < deadline
    fleet.wish(**{wish[0]: wish[1]})  # type: ignore[arg-type]
    fleet.settle(90)
    left = {pod.name for pod in fleet.world().pods}
    assert len(left) == 3 * (fleet.cluster.spec["replicasPerShard"] + 1)
    assert victim.pod not in left
    assert fleet.volumes == {f"data-{pod}" for pod in left}
    for pod in fleet.world().pods:
        with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
            assert len(connection.text("CLUSTER", "NODES").splitlines()) == len(left)
