"""Another version by a rolling restart, with real servers of both versions under a client that writes."""

from __future__ import annotations

import contextlib
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest

from provisioning.engines.redis import settings
from provisioning.engines.redis.admin import Connection, parse_info
from provisioning.engines.redis.manifests import PORT, render
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Crash, Fleet, config, view
from provisioning.engines.redis.tests.test_changes import masters, writing
from sandbox.images.recipes import redis_packages
from sandbox.images.sources import Workshop
from sandbox.layout import cache_home

OLD, NEW = "7.0.15", "8.0.2"


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the redis-server of the newer version, from the packages the sandbox makes its image of."""

    def never(name: str) -> Path:
        raise AssertionError(name)

    root = redis_packages(Workshop(cache_home() / "images", print, never), "trixie")
    [loader] = root.glob("usr/lib/*/ld-linux-*.so.*")
    folder = tmp_path_factory.mktemp("newer")
    for name in ("redis-server", "redis-cli"):
        argv = [str(loader), "--inhibit-cache", "--library-path", str(loader.parent), str(root / "usr/bin" / name)]
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def versions(fleet: Fleet) -> dict[str, str]:
    """Pod to the version that runs in it."""
    found = {}
    for pod in fleet.world().pods:
        with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
            found[pod.name] = parse_info(str(connection.call("INFO", "server")))["redis_version"]
    return found


def begun(start: Start, newer: Path) -> Fleet:
    fleet = start(view())
    fleet.programs = {NEW: newer}
    fleet.settle()
    assert set(versions(fleet).values()) == {OLD}
    return fleet


def test_replicas_go_first_the_old_master_last_and_nothing_acknowledged_is_lost(start: Start, newer: Path) -> None:
    fleet = begun(start, newer)
    led = masters(fleet)
    with writing(fleet) as writer:
        fleet.wish(roll=True, version=NEW)
        fleet.settle(120)
        writer.await_writes(100)
        assert writer.stop() == []
    assert set(versions(fleet).values()) == {NEW}
    assert len(fleet.restarted) == len(set(fleet.restarted)) == 6
    for shard, master in led.items():
        of_shard = [pod for pod in fleet.restarted if f"-s{shard}-" in pod]
        assert of_shard[-1] == master
        # Shard by shard: none is touched before the one before it is whole again.
        assert fleet.restarted[int(shard) * 2 : int(shard) * 2 + 2] == of_shard


@pytest.mark.parametrize("commands", [1, 5, 12])
def test_a_worker_that_dies_in_an_upgrade_is_followed_by_one_that_finishes_it(
    start: Start, newer: Path, commands: int
) -> None:
    fleet = begun(start, newer)
    fleet.wish(roll=True, version=NEW)
    fleet.budget = commands
    with contextlib.suppress(Crash):
        fleet.settle(120)
    fleet.budget = None
    fleet.settle(120)
    assert set(versions(fleet).values()) == {NEW}
    assert sorted(fleet.restarted) == sorted(versions(fleet))


def test_an_old_master_that_cannot_read_what_its_newer_heir_sends_is_upgraded_all_the_same(
    start: Start, newer: Path
) -> None:
    """A demoted 7.0 that needs a full copy gets it in a format it does not know."""
    fleet = begun(start, newer)
    old_master = next(server for server in fleet.servers if server.pod == masters(fleet)["0"])
    heir = next(server for server in fleet.servers if server.shard == 0 and server is not old_master)
    # As it is when the heir runs the newer version and leads, before the old master restarts.
    fleet.wish(roll=True, version=NEW)
    fleet.end(heir)
    heir.revision, heir.version = fleet.revision, NEW
    fleet.run(heir)
    pod = next(one for one in fleet.world().pods if one.name == heir.pod)
    deadline = time.monotonic() + 30
    with Connection(fleet.connect(pod, PORT), ("", PASSWORD)) as connection:
        while parse_info(str(connection.call("INFO", "replication")))["role"] != "master":
            assert time.monotonic() < deadline, "the heir leads"
            with contextlib.suppress(Exception):
                connection.call("CLUSTER", "FAILOVER")
            time.sleep(0.2)
    # It crashes and is back at once, still the master, with a history of its own: a full copy is what it sends now.
    fleet.kill(heir)
    fleet.run(heir)
    fleet.settle(180)
    log = (old_master.folder / "log").read_text()
    assert "Can't handle RDB format version" in log, "it could not read the copy"
    assert set(versions(fleet).values()) == {NEW}
    assert old_master.pod in fleet.restarted


def test_the_settings_of_the_newer_version_are_the_same_so_that_nothing_drifts(start: Start, newer: Path) -> None:
    fleet = start(view())
    for server in fleet.servers:
        fleet.end(server)
        server.version = NEW
    fleet.programs = {NEW: newer}
    for server in fleet.servers:
        fleet.run(server)
    fleet.settle()
    assert not [event for event in fleet.events if event[0] in ("SettingsSet", "SettingsHealed", "RedisRefused")]
    for one in settings.SETTINGS:
        assert config(fleet, one.key) == {settings._text(one.default)}, one.key
    for key, value in settings.KEPT.items():
        assert config(fleet, key) == {value}, key


def test_the_version_is_the_tag_of_the_image_and_nothing_else_of_the_template() -> None:
    old, new = ([str(one) for one in render(replace(view(), version=version))] for version in (OLD, NEW))
    assert [one.replace(OLD, NEW) for one in old] == new
    assert any(f"docker.io/library/redis:{NEW}" in one for one in new)


def test_what_an_upgrade_does_is_said_and_without_persistence_it_is_a_loss() -> None:
    spec = view().spec
    change = ENGINE.plan_upgrade(spec, OLD, NEW)
    assert (change.effect.value, change.before, change.after) == ("roll", OLD, NEW)
    assert "no way back" in change.message
    bare = ENGINE.plan_upgrade({**spec, "persistence": "none", "replicasPerShard": 0}, OLD, NEW)
    assert bare.effect.value == "loss"
