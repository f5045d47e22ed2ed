"""Settings nobody can wish: changed by hand on a real server, they are drift like others, and set back. And what is
told when a server refuses, or does not answer in the middle of a look.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provisioning.engines.base import LinkError
from provisioning.engines.redis import settings, topology, upkeep
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.sight import Node
from provisioning.engines.redis.tests.conftest import networks
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, config, view
from provisioning.engines.redis.tests.test_topology import server_pod


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One cluster for all of these: each test ends with it as wished."""
    fleet = Fleet(view(replicasPerShard=0), tmp_path_factory.mktemp("kept"), next(networks))
    fleet.start()
    try:
        fleet.settle()
        yield fleet
    finally:
        fleet.stop()


def other_than(value: str) -> str:
    """Another value of the same kind."""
    flipped = {"yes": "no", "no": "yes", "default": "now", "ignore": "panic", "resetchannels": "allchannels", "": "x"}
    return flipped[value] if value in flipped else str(int(value) + 1)


# What a server without certificates does not take, and what others would reach this one by.
NOT_BY_HAND = {key for key in settings.KEPT if key.startswith(("tls-", "cluster-announce-"))}


@pytest.mark.parametrize("key", sorted(settings.KEPT.keys() - NOT_BY_HAND))
def test_a_default_nobody_can_wish_is_drift_too_and_set_back(shared: Fleet, key: str) -> None:
    wished = settings.KEPT[key]
    other = "normal 1mb 1mb 1" if key == "client-output-buffer-limit" else other_than(wished)
    first = shared.servers[0]
    with Connection(shared.connect(server_pod(shared, first), PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", key, other)
    seen = ENGINE.observe(shared.cluster, shared.world(), shared)
    assert seen.drift is not None
    assert (seen.drift.startswith(f"{first.pod}: {key} is "), seen.drift.count("wished is")) == (True, 1)
    shared.events.clear()
    shared.settle()
    assert config(shared, key) == {wished}
    assert [(reason, text.split()[0]) for reason, text in shared.events] == [("SettingsHealed", key)]


def test_an_address_somebody_had_a_node_announce_is_set_back(shared: Fleet) -> None:
    first = shared.servers[0]
    with Connection(shared.connect(server_pod(shared, first), PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "cluster-announce-ip", "127.0.0.99")
        seen = ENGINE.observe(shared.cluster, shared.world(), shared)
        assert f"cluster-announce-ip is 127.0.0.99, wished is {first.address}" in (seen.drift or "")
        shared.settle()
        assert connection.call("CONFIG", "GET", "cluster-announce-ip") == ["cluster-announce-ip", first.address]


def test_what_a_server_refuses_to_have_set_back_is_told_as_drift(
    shared: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(node: Node, *_: object, **__: object) -> str:
        return f"{node.pod.name} refuses settings: ERR not today"

    first = shared.servers[0]
    with Connection(shared.connect(server_pod(shared, first), PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "cluster-replica-no-failover", "yes")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(upkeep, "_set", refuses)
        seen = ENGINE.advance(shared.cluster, shared.world(), shared)
    assert seen.drift == f"{first.pod} refuses settings: ERR not today"
    shared.settle()
    assert ENGINE.advance(shared.cluster, shared.world(), shared).drift == ""


def test_member_that_goes_in_the_middle_of_a_look_costs_nothing_of_what_was_seen(
    shared: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise LinkError("orders-s0-0 is gone")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(topology, "look_after", gone)
        seen = ENGINE.advance(shared.cluster, shared.world(), shared)
    assert (seen.healthy, seen.reason) == (False, "orders-s0-0 is gone")
    assert {member.pod for member in seen.members} == {server.pod for server in shared.servers}
    assert seen.spread is not None


def test_cluster_that_is_full_and_may_drop_nothing_is_proven_by_reading(shared: Fleet) -> None:
    first = shared.servers[0]
    with Connection(shared.connect(server_pod(shared, first), PORT), ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "maxmemory", "1mb", "maxmemory-policy", "noeviction")
    proof = ENGINE.prove(shared.cluster, shared.world(), shared)
    assert proof.ok, proof
    assert proof.summary.endswith("; 1 of 3 shards are full and refuse writes.")
    shared.settle()
    assert ENGINE.prove(shared.cluster, shared.world(), shared).summary.startswith("Wrote and read 3 keys")
