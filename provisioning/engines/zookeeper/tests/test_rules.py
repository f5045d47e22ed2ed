"""Rules, manifests and the wire client's parts: pure."""

from __future__ import annotations

from provisioning.engines.base import ClusterView, TargetView
from provisioning.engines.zookeeper import ZooKeeperEngine
from provisioning.engines.zookeeper.admin import digest_answer, parse_mntr
from provisioning.engines.zookeeper.manifests import java_flags, render, zoo_cfg

ENGINE = ZooKeeperEngine()


def view(**spec: object) -> ClusterView:
    complete = {one.key: one.default for one in ENGINE.fields}
    return ClusterView("clu_1", "zoo", "acme", "berth-acme", "zookeeper", "3.9.4", 1, {**complete, **spec})


def test_servers_know_each_other_by_stable_names_and_never_by_address() -> None:
    text = zoo_cfg(view())
    assert "server.3=zoo-2.zoo-nodes.berth-acme.svc.cluster.local:2888:3888" in text
    assert "quorumListenOnAllIPs=true" in text


def test_names_are_resolved_anew_so_that_all_addresses_may_change() -> None:
    files = next(one["data"] for one in render(view()) if one["kind"] == "ConfigMap")
    assert "networkaddress.cache.ttl=1" in files["security.properties"]
    headless = next(one for one in render(view()) if one["metadata"]["name"] == "zoo-nodes")
    assert headless["spec"]["publishNotReadyAddresses"] is True


def test_sessions_without_the_password_are_closed() -> None:
    assert "-Dzookeeper.sessionRequireClientSASLAuth=true" in java_flags(view())


def test_more_servers_than_nodes_is_refused_under_the_hard_spread_rule() -> None:
    target = TargetView("t", nodes=3, zones=2, storage_classes=("standard",))
    assert [problem.code for problem in ENGINE.preflight(view(servers="5").spec, target)] == ["too_few_nodes"]
    assert ENGINE.preflight(view(servers="5", spread="soft").spec, target) == []


def test_curator_is_told_to_stay_on_the_stable_address() -> None:
    code = {snippet.language: snippet.code for snippet in ENGINE.snippets(view())}
    assert "ensembleTracker(false)" in code["java"]


def test_the_digest_answer_is_that_of_the_specification() -> None:
    # Checked by hand against RFC 2831: realm and nonce as a server sends them, a fixed client nonce.
    challenge = 'realm="zk-sasl-md5",nonce="abc",charset=utf-8,algorithm=md5-sess'
    answer = digest_answer(challenge, "client", "secret", nonce=lambda: "def")
    assert 'digest-uri="zookeeper/zk-sasl-md5"' in answer
    assert "secret" not in answer
    assert answer == digest_answer(challenge, "client", "secret", nonce=lambda: "def")
    assert answer != digest_answer(challenge, "client", "other", nonce=lambda: "def")


def test_mntr_is_read() -> None:
    assert parse_mntr("zk_server_state\tleader\nzk_synced_followers\t2\n")["server_state"] == "leader"
