"""TLS with real servers: everything is encrypted and verified, and certificates change under clients that stay."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException

from provisioning.credentials.certificates import (
    AUTHORITY,
    AUTHORITY_KEY,
    SERVER_LIFE,
    issue,
    make_authority,
    read_pair,
)
from provisioning.engines.base import LinkError, Served
from provisioning.engines.redis.admin import Connection
from provisioning.engines.redis.encryption import Channel, pod_host, service_host, shown_by
from provisioning.engines.redis.manifests import BUS_PORT, GRACE_SECONDS, PORT, STOP
from provisioning.engines.redis.slots import slot_of
from provisioning.engines.redis.tests.conftest import Start
from provisioning.engines.redis.tests.servers import ENGINE, PASSWORD, Fleet, Server, config, view
from provisioning.engines.redis.tests.test_topology import server_pod

HOUR = timedelta(hours=1)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The cluster's DNS: name to address."""
    known: dict[str, str] = {}
    ask = socket.getaddrinfo

    def answer(host: str, *more: Any, **named: Any) -> Any:
        return ask(known.get(host, host), *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


def publish(fleet: Fleet, names: dict[str, str]) -> None:
    """As the headless Service and the client Service do."""
    for pod in fleet.world().pods:
        names[pod_host(fleet.cluster, pod.name)] = pod.ip
    names[service_host(fleet.cluster)] = fleet.world().pods[0].ip


@contextlib.contextmanager
def client(fleet: Fleet, folder: Path, bundle: str | None = None) -> Iterator[Any]:
    """One that believes nobody without a certificate for the name it dials."""
    trusted = folder / "ca.crt"
    trusted.write_text(bundle or fleet.certificate["ca.crt"])
    found: RedisCluster = RedisCluster(
        host=service_host(fleet.cluster), port=PORT, password=PASSWORD, ssl=True, ssl_ca_certs=str(trusted),
        ssl_cert_reqs="required", ssl_check_hostname=True, socket_timeout=5,
    )  # fmt: skip
    try:
        yield found
    finally:
        found.close()


def served(fleet: Fleet) -> set[bytes]:
    """The certificates new connections are shown."""
    found = set()
    for pod in fleet.world().pods:
        connected = Channel(fleet.cluster, fleet).to_pod(fleet.connect(pod, PORT), pod.name)
        shown = shown_by(connected)
        assert shown is not None
        found.add(shown.certificate)
        connected.close()
    return found


def look(fleet: Fleet) -> Served:
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert outcome.served is not None
    return outcome.served


def bring(fleet: Fleet, servers: list[Server]) -> None:
    for server in servers:
        fleet.bring_certificates(server)


def age(fleet: Fleet, by: timedelta) -> None:
    """Have every member serve a certificate that was issued so long ago."""
    signer = read_pair(fleet.authority, AUTHORITY, AUTHORITY_KEY)
    assert signer is not None
    (wanted,) = ENGINE.certificates(fleet.cluster)
    old = issue(signer, wanted.names, datetime.now(UTC) - by)
    fleet.certificate = {**fleet.certificate, "tls.crt": old.pem, "tls.key": old.key_pem}
    bring(fleet, fleet.servers)
    assert look(fleet).newest == 6
    fleet.events.clear()


def test_a_client_that_verifies_every_name_reaches_every_shard_and_a_plain_one_nobody(
    start: Start, names: dict[str, str], tmp_path: Path
) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    publish(fleet, names)
    with client(fleet, tmp_path) as strict:
        reached = {strict.get_node_from_key(f"key-{number}").host for number in range(30)}
        for number in range(30):
            strict.set(f"key-{number}", number)
        assert [int(strict.get(f"key-{number}")) for number in range(30)] == list(range(30))
    assert len(reached) == 3
    assert reached <= set(names), "clients are sent to names"
    proof = ENGINE.prove(fleet.cluster, fleet.world(), fleet)
    assert proof.ok, proof.summary
    for port in (PORT, BUS_PORT):
        with socket.create_connection((fleet.servers[0].address, port), 2) as plain:
            plain.sendall(b"PING\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert not plain.recv(100).startswith((b"+", b"-NOAUTH"))
    stranger = make_authority("stranger", datetime.now(UTC))
    with pytest.raises(RedisClusterException, match="CERTIFICATE_VERIFY_FAILED"), client(fleet, tmp_path, stranger.pem):
        pass


def test_no_pod_mounts_the_authoritys_key() -> None:
    cluster = view(tls="on")
    (wanted,) = ENGINE.certificates(cluster)
    pods = [one["spec"]["template"]["spec"] for one in ENGINE.render(cluster) if one["kind"] == "StatefulSet"]
    assert pods
    for pod in pods:
        assert wanted.authority not in json.dumps(pod)
        (exporter,) = [one for one in pod["containers"] if one["name"] == "exporter"]
        seen = {mount["name"] for mount in exporter["volumeMounts"]}
        (volume,) = [one for one in pod["volumes"] if one["name"] in seen]
        assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"]


def test_a_moved_answer_names_a_host_the_certificate_is_for(start: Start) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    hosts = set()
    for shard in range(3):
        key = next(key for key in map(str, range(100_000)) if slot_of(key) // 5462 == shard)
        for server in fleet.servers:
            said = subprocess.run(
                ["redis-cli", "--tls", "--cacert", str(server.folder / "ca.crt"), "-h", server.address, "get", key],
                env={"REDISCLI_AUTH": PASSWORD, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            if said.startswith("MOVED"):
                hosts.add(said.split()[2].partition(":")[0])
    assert len(hosts) == 3
    assert hosts <= {pod_host(fleet.cluster, server.pod) for server in fleet.servers}


def test_replication_and_the_bus_are_encrypted_and_settings_that_weaken_it_are_set_back(start: Start) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    for key, value in (("tls-replication", "yes"), ("tls-cluster", "yes"), ("port", "0")):
        assert config(fleet, key) == {value}
    pod = fleet.world().pods[0]
    connected = Channel(fleet.cluster, fleet).to_pod(fleet.connect(pod, PORT), pod.name)
    with Connection(connected, ("", PASSWORD)) as connection:
        connection.call("CONFIG", "SET", "port", 7379, "cluster-announce-hostname", "elsewhere.example")
    fleet.settle()
    assert config(fleet, "port") == {"0"}
    assert "elsewhere.example" not in config(fleet, "cluster-announce-hostname")
    assert "SettingsHealed" in {reason for reason, _ in fleet.events}


def test_a_renewed_certificate_is_served_while_a_client_stays_connected(
    start: Start, names: dict[str, str], tmp_path: Path
) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    publish(fleet, names)
    age(fleet, SERVER_LIFE * 2 / 3 + HOUR)
    before = served(fleet)
    with client(fleet, tmp_path) as strict:
        for number in range(30):
            strict.set(f"key-{number}", number)
        ids = {node.name: strict.client_id(target_nodes=node) for node in strict.get_primaries()}
        fleet.keep_certificates()
        assert look(fleet).newest == 0, "the files are still the old ones"
        assert served(fleet) == before
        bring(fleet, fleet.servers[:2])
        assert (look(fleet).newest, look(fleet).total) == (2, 6)
        bring(fleet, fleet.servers)
        after = look(fleet)
        assert after.newest == 6
        assert after.expires > datetime.now(UTC) + SERVER_LIFE - HOUR
        assert not served(fleet) & before
        assert len(served(fleet)) == 1
        assert ids == {node.name: strict.client_id(target_nodes=node) for node in strict.get_primaries()}
        assert [int(strict.get(f"key-{number}")) for number in range(30)] == list(range(30))
    assert [reason for reason, _ in fleet.events].count("CertificateTaken") == 6
    with client(fleet, tmp_path) as another:
        another.set("key", "value")
    fleet.settle()


def test_files_that_do_not_belong_together_change_nothing(start: Start) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    age(fleet, SERVER_LIFE * 2 / 3 + HOUR)
    before = served(fleet)
    fleet.keep_certificates()
    for server in fleet.servers:
        # Half of it has arrived.
        (server.folder / "tls.crt").write_text(fleet.certificate["tls.crt"])
    assert look(fleet).newest == 0
    assert served(fleet) == before
    bring(fleet, fleet.servers)
    assert look(fleet).newest == 6


def test_an_expired_certificate_is_told_and_the_next_one_taken_up(start: Start) -> None:
    fleet = start(view(tls="on"))
    fleet.settle()
    age(fleet, SERVER_LIFE + HOUR)
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert (outcome.healthy, outcome.causes[0].code) == (False, "certificate-expired")
    with pytest.raises(LinkError, match="expired"):
        ENGINE.prove(fleet.cluster, fleet.world(), fleet)
    fleet.keep_certificates()
    bring(fleet, fleet.servers)
    fleet.settle()
    assert ENGINE.prove(fleet.cluster, fleet.world(), fleet).ok


def test_a_member_with_a_foreign_certificate_is_named(start: Start) -> None:
    fleet = start(view(tls="on", nodeTimeoutMs=15000))
    fleet.settle()
    victim = fleet.servers[0]
    fleet.kill(victim)
    stranger = make_authority("stranger", datetime.now(UTC))
    (wanted,) = ENGINE.certificates(fleet.cluster)
    foreign = issue(stranger, wanted.names, datetime.now(UTC))
    mine, fleet.certificate = fleet.certificate, {
        "ca.crt": stranger.pem, "tls.crt": foreign.pem, "tls.key": foreign.key_pem,
    }  # fmt: skip
    fleet.run(victim)
    fleet.certificate = mine
    outcome = ENGINE.advance(fleet.cluster, fleet.world(), fleet)
    assert (outcome.causes[0].code, outcome.causes[0].object) == ("certificate-refused", f"pod/{victim.pod}")


def test_shards_come_and_go_with_their_keys_and_a_client_that_verifies(
    start: Start, names: dict[str, str], tmp_path: Path
) -> None:
    fleet = start(view(tls="on", replicasPerShard=0))
    fleet.settle()
    publish(fleet, names)
    with client(fleet, tmp_path) as strict:
        for number in range(200):
            strict.set(f"key-{number}", number)
        for shards in (4, 3):
            fleet.wish(shards=shards)
            publish(fleet, names)
            fleet.settle()
            assert [int(strict.get(f"key-{number}")) for number in range(200)] == list(range(200))


def end_pod(server: Server) -> None:
    """Run what runs before a pod is ended, for as long as a pod has for it."""
    script = STOP
    for place in ("/etc/redis-tls", "/etc/redis-auth"):
        script = script.replace(place, str(server.folder))
    # In its pod it is at home on localhost.
    script = script.replace('cli="redis-cli', f'cli="redis-cli -h {server.address}')
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=GRACE_SECONDS)


def test_a_master_whose_replica_answers_nothing_ends_within_the_time_a_pod_has(start: Start) -> None:
    fleet = start(view())
    fleet.settle()
    master = next(m for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members if m.role == "master")
    server = next(one for one in fleet.servers if one.pod == master.pod)
    fleet.freeze(next(one for one in fleet.servers if one.shard == server.shard and one is not server))
    end_pod(server)


def test_a_master_that_ends_hands_over_to_a_replica_that_is_in_step_and_not_to_the_first_there_is(
    start: Start,
) -> None:
    fleet = start(view(replicasPerShard=2))
    fleet.settle()
    members = ENGINE.advance(fleet.cluster, fleet.world(), fleet).members
    pod = next(member.pod for member in members if member.role == "master")
    server = next(one for one in fleet.servers if one.pod == pod)

    def asked(one: Server, *words: str) -> str:
        with Connection(fleet.connect(server_pod(fleet, one), PORT), ("", PASSWORD)) as connection:
            return connection.text(*words)

    def in_step(one: Server) -> bool:
        return "master_link_status:up" in asked(one, "INFO", "replication")

    me = asked(server, "CLUSTER", "MYID")
    order = [
        line.split()[1].split(":")[0] for line in asked(server, "CLUSTER", "NODES").splitlines() if me in line[41:]
    ]
    first, second = (next(one for one in fleet.servers if one.address == host) for host in order)
    asked(first, "CONFIG", "SET", "masterauth", "wrong")
    asked(server, "CLIENT", "KILL", "TYPE", "replica")
    deadline = time.monotonic() + 20
    while not in_step(second) or in_step(first):
        assert time.monotonic() < deadline, "only the second is to follow"
        time.sleep(0.02)
    end_pod(server)
    assert "role:master" in asked(second, "INFO", "replication")


def test_a_master_that_ends_hands_over_and_the_scripts_speak_tls(start: Start) -> None:
    """The preStop hook, and the start script of a master whose memory was not on its disk."""
    fleet = start(view(tls="on", persistence="rdb", nodeTimeoutMs=15000))
    fleet.settle()
    master = next(m for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members if m.role == "master")
    server = next(one for one in fleet.servers if one.pod == master.pod)
    fleet.kill(server)
    fleet.run(server)
    log = (server.folder / "log").read_text()
    assert "takes over from this master before it starts" in log
    fleet.settle()
    again = {m.pod: m.role for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members}
    assert again[server.pod] == "replica"
    heir = next(one for one in fleet.servers if one.shard == server.shard and one is not server)
    end_pod(heir)
    after = {m.pod: m.role for m in ENGINE.advance(fleet.cluster, fleet.world(), fleet).members}
    assert after[server.pod] == "master"
