"""Every alert of Redis fires for real: real servers with real exporters, broken one way after another, a real
Prometheus with the shipped rules, and a real Alertmanager that tells a webhook; and each ends when all is mended.

Only times are shorter than shipped (dev/watchers.py), and pods are processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from redis.exceptions import RedisError

from dev.monitoring import ENGINES
from dev.services import bound_to_us
from dev.stack import free_port
from dev.watchers import Watchers, read, running_watchers
from provisioning.engines.redis.manifests import EXPORTER_PORT, PORT
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, Server, view
from sandbox import packages
from sandbox.tests.waiting import eventually

FOLDER = ENGINES / "redis" / "monitoring"
ALERTS = {
    rule["alert"] for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]
}
# The third number of its addresses; engines' own tests count theirs from 1.
NETWORK = 201
WHOSE = {"target": "here", "tenant": "acme", "cluster": "orders"}


@dataclass
class Watched:
    """A fleet with an exporter beside each server, and who watches them."""

    fleet: Fleet
    folder: Path
    exporters: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    watchers: Watchers | None = None

    def export(self, server: Server) -> None:
        """Start a server's exporter by what its container would be told."""
        (pod,) = [
            one["spec"]["template"]["spec"]
            for one in ENGINE.render(self.fleet.cluster)
            if one["metadata"]["name"] == server.pod.rpartition("-")[0] and one["kind"] == "StatefulSet"
        ]
        (container,) = [one for one in pod["containers"] if one["name"] == "exporter"]
        told = {one["name"]: self._value(one) for one in container["env"]}
        told["REDIS_ADDR"] = told["REDIS_ADDR"].replace("localhost", server.address)
        environment = {**os.environ, **told, "REDIS_EXPORTER_WEB_LISTEN_ADDRESS": f"{server.address}:{EXPORTER_PORT}"}
        with (self.folder / f"{server.pod}.log").open("ab") as log:
            self.exporters[server.pod] = subprocess.Popen(
                bound_to_us(["prometheus-redis-exporter"]), env=environment, stdout=log, stderr=log
            )

    def _value(self, entry: Mapping[str, Any]) -> str:
        if "value" in entry:
            return str(entry["value"])
        key = entry["valueFrom"]["secretKeyRef"]
        return self.fleet.secret(key["name"])[key["key"]]

    def silence(self, server: Server) -> None:
        """Kill a server's exporter."""
        process = self.exporters.pop(server.pod)
        process.kill()
        process.wait()

    def tell(self, *absent: str) -> None:
        """Write what there is to scrape, as Berth says it (portal/tests/test_monitoring.py)."""
        servers = {server.pod: server for server in self.fleet.servers}
        groups = [
            {
                "targets": [f"{servers[one.pod].address}:{one.port}"],
                "labels": {
                    **WHOSE, "engine": "redis", "namespace": "berth-acme", "shard": one.shard, "pod": one.pod,
                    "node": servers[one.pod].node,
                },
            }
            for one in ENGINE.scrapes(self.fleet.cluster)
            if one.pod not in absent
        ]  # fmt: skip
        new = self.folder / "targets.new"
        new.write_text(json.dumps(groups))
        new.replace(self.folder / "targets.json")

    def of(self, shard: int, role: str) -> Server:
        """The server of a shard with this role, as it says itself."""
        for server in self.fleet.servers:
            if server.shard == shard:
                with contextlib.suppress(RedisError), client(server) as connection:
                    if connection.execute_command("ROLE")[0].decode() == role:
                        return server
        raise AssertionError(f"shard {shard} has no {role}")

    @property
    def looked(self) -> Watchers:
        assert self.watchers is not None
        return self.watchers


def client(server: Server) -> Redis:
    return Redis(host=server.address, port=PORT, password=PASSWORD, socket_timeout=5)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    packages.ensure(["prometheus-redis-exporter"], install=False)
    folder = tmp_path_factory.mktemp("watched")
    (folder / "servers").mkdir()
    fleet = Fleet(view(nodeTimeoutMs=2000), folder / "servers", NETWORK)
    everything = Watched(fleet, folder)
    try:
        fleet.start()
        fleet.settle()
        for server in fleet.servers:
            everything.export(server)
        everything.tell()
        discovery = {"file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}]}
        ports = (free_port(), free_port(), free_port())
        with running_watchers(folder / "watchers", discovery=discovery, ports=ports, hurried=True) as running:
            everything.watchers = running
            yield everything
    finally:
        for process in everything.exporters.values():
            process.kill()
            process.wait()
        fleet.stop()


def settled(watched: Watched) -> None:
    """All is well: the fleet, every exporter, and no alert fires, in the eyes of Prometheus and of the webhook."""
    watched.fleet.settle()
    for shard in range(3):
        # Failovers leave masters uneven, which is an alert of its own.
        take_over(watched, next(server for server in watched.fleet.servers if server.shard == shard))
    eventually(lambda: len(watched.looked.query("redis_up == 1")) == 6, "six exporters answer")
    eventually(lambda: not watched.looked.alerts(), f"nothing fires any more, not {watched.looked.alerts()}")
    eventually(lambda: not open_alerts(watched.looked), f"everything is told to be over: {open_alerts(watched.looked)}")


def take_over(watched: Watched, server: Server) -> None:
    """Have a replica lead its shard; a master goes on."""
    if watched.of(server.shard, "master") is not server:
        with client(server) as connection:
            connection.execute_command("CLUSTER", "FAILOVER")

    def leads() -> bool:
        # In the middle of a hand-over each may say that it follows the other.
        with contextlib.suppress(AssertionError):
            return watched.of(server.shard, "master") is server
        return False

    eventually(leads, f"{server.pod} took over")


def open_alerts(looked: Watchers) -> list[dict[str, str]]:
    """Labels of what the webhook was told of and not yet that it is over."""
    last = {alert["fingerprint"]: alert for alert in looked.told()}
    return [alert["labels"] for alert in last.values() if alert["status"] == "firing"]


# --- how things are broken; what is yielded: alerts with the labels that they must have at least ---

Broken = Iterator[dict[str, dict[str, str]]]


def killed_master(watched: Watched) -> Broken:
    master, replica = watched.of(0, "master"), watched.of(0, "slave")
    watched.fleet.kill(master)
    yield {"RedisNodeDown": {"pod": master.pod}, "RedisMasterWithoutReplica": {"pod": replica.pod, "shard": "0"}}
    watched.fleet.run(master)


def killed_shard(watched: Watched) -> Broken:
    both = [server for server in watched.fleet.servers if server.shard == 1]
    for server in both:
        watched.fleet.kill(server)
    yield {"RedisClusterNotOk": {}, "RedisSlotsNotCovered": {}, "RedisNodeDown": {"pod": both[0].pod}}
    for server in both:
        watched.fleet.run(server)


def killed_cluster(watched: Watched) -> Broken:
    for server in watched.fleet.servers:
        watched.fleet.kill(server)
    yield {"RedisClusterDown": {}}
    for server in watched.fleet.servers:
        watched.fleet.run(server)


def killed_exporter(watched: Watched) -> Broken:
    server = watched.fleet.servers[0]
    watched.silence(server)
    yield {"RedisExporterDown": {"pod": server.pod, "node": server.node}}
    watched.export(server)


def frozen_replica(watched: Watched) -> Broken:
    master, replica = watched.of(2, "master"), watched.of(2, "slave")
    watched.fleet.freeze(replica)
    yield {"RedisExporterDown": {"pod": replica.pod}, "RedisReplicaLagging": {"pod": master.pod, "shard": "2"}}
    watched.fleet.thaw(replica)


def pod_that_nobody_lists(watched: Watched) -> Broken:
    watched.tell(watched.fleet.servers[3].pod)
    yield {"RedisMemberUnwatched": {}}
    watched.tell()


def replica_with_a_wrong_password(watched: Watched) -> Broken:
    replica = watched.of(1, "slave")
    with client(replica) as connection:
        right = connection.config_get("masterauth")["masterauth"]
        connection.config_set("masterauth", "wrong")
        connection.execute_command("CLIENT", "KILL", "TYPE", "master")
        yield {"RedisReplicationBroken": {"pod": replica.pod, "shard": "1"}}
        connection.config_set("masterauth", right)


def memory_that_is_short(watched: Watched) -> Broken:
    master = watched.of(0, "master")
    with client(master) as connection:
        before = connection.config_get("maxmemory")["maxmemory"]
        connection.config_set("maxmemory", int(connection.info("memory")["used_memory"] * 1.02))
        yield {"RedisMemoryNearLimit": {"pod": master.pod}}
        connection.config_set("maxmemory", before)


def keys_that_are_evicted(watched: Watched) -> Broken:
    master = watched.of(0, "master")
    with client(master) as connection:
        before = connection.config_get("maxmemory*")
        # Shard 0 has the first third of the slots.
        own = [
            key for key in (f"key-{number}" for number in range(3000))
            if int(connection.execute_command("CLUSTER", "KEYSLOT", key)) < 5461
        ]  # fmt: skip
        for key in own:
            connection.set(key, "x" * 4000)
        connection.config_set("maxmemory-policy", "allkeys-lru")
        # Part of what is used now are buffers that will be gone: lower the limit until keys have to go.
        used = connection.info("memory")["used_memory"]
        shares = iter(range(95, 40, -5))

        def evicts() -> bool:
            connection.config_set("maxmemory", used * next(shares) // 100)
            return bool(connection.info("stats")["evicted_keys"])

        eventually(evicts, "keys are evicted")
        yield {"RedisEvictingKeys": {}}
        for name in ("maxmemory", "maxmemory-policy"):
            connection.config_set(name, before[name])
        for key in own:
            connection.unlink(key)


def snapshot_that_cannot_be_saved(watched: Watched) -> Broken:
    master = watched.of(0, "master")
    with client(master) as connection:
        place = master.folder / connection.config_get("dbfilename")["dbfilename"]
        place.unlink(missing_ok=True)
        place.mkdir()
        connection.bgsave()
        yield {"RedisPersistenceFailing": {"pod": master.pod}}
        place.rmdir()
        connection.bgsave()


def clients_that_never_close(watched: Watched) -> Broken:
    master = watched.of(0, "master")
    with client(master) as connection, contextlib.ExitStack() as crowd:
        before = connection.config_get("maxclients")["maxclients"]
        for _ in range(30):
            crowd.enter_context(client(master)).ping()
        connection.config_set("maxclients", 48)
        yield {"RedisConnectionsNearLimit": {"pod": master.pod}}
        connection.config_set("maxclients", before)


def masters_on_one_node(watched: Watched) -> Broken:
    # n0 has shard 0's first server and shard 2's second, n2 shard 2's first.
    assert [watched.of(shard, "master").node for shard in range(3)] == ["n0", "n1", "n2"]
    eldest, heir = watched.of(2, "master"), watched.of(2, "slave")
    take_over(watched, heir)
    yield {"RedisMastersUneven": {}}
    take_over(watched, eldest)


# How it is broken, to the alerts that it proves.
WAYS: Mapping[Callable[[Watched], Broken], set[str]] = {
    masters_on_one_node: {"RedisMastersUneven"},
    killed_exporter: {"RedisExporterDown"},
    pod_that_nobody_lists: {"RedisMemberUnwatched"},
    replica_with_a_wrong_password: {"RedisReplicationBroken"},
    memory_that_is_short: {"RedisMemoryNearLimit"},
    keys_that_are_evicted: {"RedisEvictingKeys"},
    snapshot_that_cannot_be_saved: {"RedisPersistenceFailing"},
    clients_that_never_close: {"RedisConnectionsNearLimit"},
    frozen_replica: {"RedisExporterDown", "RedisReplicaLagging"},
    killed_master: {"RedisNodeDown", "RedisMasterWithoutReplica"},
    killed_shard: {"RedisClusterNotOk", "RedisSlotsNotCovered", "RedisNodeDown"},
    killed_cluster: {"RedisClusterDown"},
}


def test_every_alert_is_proven() -> None:
    assert set().union(*WAYS.values()) == ALERTS


def test_a_cluster_that_is_well_fires_nothing(watched: Watched) -> None:
    # While Prometheus starts, it has scraped some and not yet others.
    settled(watched)
    before = len(watched.looked.told())

    def looks() -> float:
        return min(float(one["value"][1]) for one in watched.looked.query("count_over_time(redis_up[1h])"))

    seen = looks()
    eventually(lambda: looks() >= seen + 10, "ten more looks")
    assert watched.looked.told()[before:] == []


@pytest.mark.parametrize("way", list(WAYS), ids=lambda way: way.__name__)
def test_it_is_told_and_it_is_told_when_it_is_over(watched: Watched, way: Callable[[Watched], Broken]) -> None:
    settled(watched)
    before = len(watched.looked.told())
    breaking = way(watched)
    expected = next(breaking)
    assert set(expected) == WAYS[way]

    def arrived(name: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        wanted = {**WHOSE, **labels, "alertname": name}.items()
        new = watched.looked.told()[before:]
        return [one for one in new if one["status"] == "firing" and wanted <= one["labels"].items()]

    for name, labels in expected.items():
        eventually(partial(arrived, name, labels), f"{name} with {labels} reaches the webhook")
        said = arrived(name, labels)[0]["annotations"]
        assert "acme/orders" in said["summary"]
        assert "{{" not in f"{said}"
        assert "<no value>" not in f"{said}"
    assert next(breaking, None) is None
    settled(watched)


def shown(text: str) -> str:
    """A dashboard's query as Grafana sends it."""
    for name, value in {"tenant": "acme", "cluster": "orders", "__rate_interval": "10s"}.items():
        text = text.replace(f"${name}", value)
    return text


BOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in BOARD["panels"] for target in panel["targets"] if panel["title"] != "Alerts"
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_what_a_board_shows_is_there(watched: Watched, query: str) -> None:
    settled(watched)
    eventually(lambda: watched.looked.query(shown(query)), f"{query} has data")


def test_every_metric_that_rules_and_boards_ask_for_is_an_exporters(watched: Watched) -> None:
    settled(watched)
    given = {
        line.split("{")[0].split(" ")[0]
        for server in watched.fleet.servers
        for line in read(f"http://{server.address}:{EXPORTER_PORT}/metrics").decode().splitlines()
        if not line.startswith("#")
    }
    asked = set(re.findall(r"\bredis_[a-z_]+", (FOLDER / "rules.yaml").read_text() + json.dumps(BOARD["panels"])))
    asked |= set(re.findall(r"\bredis_[a-z_]+", json.dumps(BOARD["templating"])))
    assert len(asked) > 30
    assert asked - given == set()
