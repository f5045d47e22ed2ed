"""Rules and manifests: pure."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.engines.base import LABEL_SHARD, ClusterView, Effect, Manifest, PodView, TargetView
from provisioning.engines.redis import spec as rules
from provisioning.engines.redis.admin import Connection, Peer
from provisioning.engines.redis.manifests import render
from provisioning.engines.redis.placement import SLOTS, choose_masters, hand_overs, slot_range
from provisioning.engines.redis.settings import wanted
from provisioning.engines.redis.sight import Node, Sight
from provisioning.engines.redis.slots import slot_of
from provisioning.engines.redis.tests.servers import ENGINE, view


def test_persistence_none_with_replicas_is_refused_because_an_empty_master_would_wipe_them() -> None:
    assert [problem.code for problem in rules.check(view(persistence="none").spec)] == ["loses_replicas"]
    assert rules.check(view(persistence="none", replicasPerShard=0).spec) == []


@pytest.mark.parametrize(
    ("spec", "least"),
    [
        ({"memoryGiB": 8}, "storageGiB 12"),
        ({"memoryGiB": 2.5, "maxmemoryPercent": 85, "storageGiB": 4, "persistence": "rdb"}, "storageGiB 5"),
        ({"memoryGiB": 8, "storageGiB": 12}, None),
        ({"memoryGiB": 8, "storageGiB": 1, "persistence": "none", "replicasPerShard": 0}, None),
    ],
)
def test_storage_takes_twice_the_data_memory_may_hold(spec: dict[str, Any], least: str | None) -> None:
    found = [(one.pointer, one.code, one.message) for one in rules.check(view(**spec).spec)]
    assert [one[:2] for one in found] == ([("/memoryGiB", "storage_too_small")] if least else [])
    assert all(str(least) in one[2] for one in found)


@pytest.mark.parametrize(
    ("spec", "pointer", "remedy"),
    [
        ({"config": {"min-replicas-to-write": 2}}, "min-replicas-to-write", "at most 1, or replicasPerShard 2."),
        ({"config": {"min-replicas-to-write": 1}, "replicasPerShard": 0}, "min-replicas-to-write", "at most 0, or"),
        ({"config": {"min-replicas-to-write": 1}}, None, ""),
        ({"config": {"repl-backlog-size": 49 * 2**20}}, "repl-backlog-size", f"at most {48 * 2**20}, or more memory."),
        ({"config": {"repl-backlog-size": 48 * 2**20}}, None, ""),
    ],
)
def test_settings_with_which_every_write_would_be_refused_at_once_or_at_last_are_refused(
    spec: dict[str, Any], pointer: str | None, remedy: str
) -> None:
    found = rules.check(view(**spec).spec)
    assert [(one.pointer, one.code) for one in found] == ([(f"/config/{pointer}", "refuses_writes")] if pointer else [])
    assert all(remedy in one.message for one in found)


def test_a_quiet_master_pings_its_replicas_before_any_repl_timeout_that_may_be_set() -> None:
    for seconds in (5, 29, 30, 60, 3600):
        period = int(wanted(view(config={"repl-timeout": seconds}).spec)["repl-ping-replica-period"])
        assert 1 <= period <= seconds / 3
    assert wanted(view().spec)["repl-ping-replica-period"] == "10", "Redis' default"


@pytest.mark.parametrize(
    ("spec", "risks"),
    [
        ({}, []),
        ({"replicasPerShard": 0}, ["/replicasPerShard"]),
        ({"replicasPerShard": 0, "persistence": "none"}, ["/replicasPerShard", "/persistence"]),
    ],
)
def test_what_an_order_risks_is_a_loss_that_is_said(spec: dict[str, Any], risks: list[str]) -> None:
    found = rules.plan_order(view(**spec).spec)
    assert [(one.pointer, one.effect) for one in found] == [(pointer, Effect.LOSS) for pointer in risks]


NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = TargetView("t", nodes=3, zones=1, storage_classes=("standard", "stiff"), fixed_classes=("stiff",))


@pytest.mark.parametrize(("spread", "codes"), [("hard", ["too_few_nodes"]), ("soft", [])])
def test_more_members_than_nodes_is_refused_under_the_hard_spread_rule(spread: str, codes: list[str]) -> None:
    target = TargetView("t", nodes=2, zones=1, storage_classes=("standard",))
    found = rules.preflight(view(replicasPerShard=2, spread=spread).spec, target)
    assert [problem.code for problem in found] == codes


def sets(cluster: ClusterView) -> list[Manifest]:
    """The shards' StatefulSets, by shard."""
    return [one for one in render(cluster) if one["kind"] == "StatefulSet"]


def test_every_pod_fits_the_restricted_pod_security_standard() -> None:
    for manifest in sets(view()):
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_one_stateful_set_and_one_disruption_budget_for_each_shard() -> None:
    kinds = Counter(manifest["kind"] for manifest in render(view(shards=5)))
    assert kinds == {"StatefulSet": 5, "PodDisruptionBudget": 5, "Service": 2, "ConfigMap": 1}


def test_members_of_a_shard_never_share_a_node_under_the_hard_rule_and_prefer_not_to_under_the_soft() -> None:
    for rule, where in (("hard", "requiredDuringSchedulingIgnoredDuringExecution"),
                        ("soft", "preferredDuringSchedulingIgnoredDuringExecution")):  # fmt: skip
        for shard, manifest in enumerate(sets(view(spread=rule))):
            pod = manifest["spec"]["template"]
            affinity = pod["spec"]["affinity"]["podAntiAffinity"]
            assert list(affinity) == [where]
            (term,) = affinity[where]
            term = term.get("podAffinityTerm", term)
            assert term["topologyKey"] == "kubernetes.io/hostname"
            # Of this shard's pods, and of nobody else's.
            wanted = term["labelSelector"]["matchLabels"]
            assert wanted.items() <= pod["metadata"]["labels"].items()
            assert wanted[LABEL_SHARD] == str(shard)


def test_pods_spread_over_nodes_and_zones_and_a_shard_gives_up_one_member_at_a_time() -> None:
    for manifest in sets(view()):
        spread = manifest["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [(one["topologyKey"], one["maxSkew"]) for one in spread] == [
            ("kubernetes.io/hostname", 1), ("topology.kubernetes.io/zone", 1),
        ]  # fmt: skip
    budgets = [one["spec"] for one in render(view()) if one["kind"] == "PodDisruptionBudget"]
    assert [(one["maxUnavailable"], one["selector"]["matchLabels"][LABEL_SHARD]) for one in budgets] == [
        (1, "0"), (1, "1"), (1, "2"),
    ]  # fmt: skip


def test_replicas_do_not_wander_to_other_shards_by_themselves() -> None:
    assert wanted(view().spec)["cluster-allow-replica-migration"] == "no"


def test_a_node_knows_its_id_after_a_restart_also_without_persistence() -> None:
    """nodes.conf lies on the volume, so there always is one: without it a restarted pod would be a stranger."""
    for manifest in sets(view(persistence="none", replicasPerShard=0)):
        assert [one["metadata"]["name"] for one in manifest["spec"]["volumeClaimTemplates"]] == ["data"]
        redis = next(one for one in manifest["spec"]["template"]["spec"]["containers"] if one["name"] == "redis")
        assert {"name": "data", "mountPath": "/data"} in redis["volumeMounts"]


def test_rendering_is_pure_and_holds_no_password() -> None:
    assert json.dumps(render(view())) == json.dumps(render(view()))
    assert "requirepass %s" in json.dumps(render(view()))


def test_a_storage_class_is_fixed_and_shrinking_storage_is_refused() -> None:
    before = view(storageGiB=5).spec
    after = {**before, "storageClass": "fast-ssd", "storageGiB": 4, "shards": 4}
    changes = ENGINE.plan_change(before, after, TARGET)
    assert {change.pointer: change.effect for change in changes} == {
        "/storageClass": Effect.FIXED, "/storageGiB": Effect.FIXED, "/shards": Effect.MOVE,
    }  # fmt: skip


def test_demand_counts_exporters() -> None:
    demand = ENGINE.demand(view(shards=3, replicasPerShard=1, memoryGiB=1, cpu=0.5, storageGiB=2).spec)
    assert (demand.pods, demand.cpu_millicores, demand.memory_mib) == (6, 6 * 520, 6 * (1024 + 48))
    assert demand.storage_mib == {"standard": 6 * 2048}


# From the Redis Cluster specification and its key-hashing examples.
@pytest.mark.parametrize(("key", "slot"), [("123456789", 12739), ("foo", 12182), ("{foo}bar", 12182), ("", 0)])
def test_slots_are_those_redis_computes(key: str, slot: int) -> None:
    assert slot_of(key) == slot


@given(st.integers(1, 64))
def test_slot_ranges_cover_everything_once(shards: int) -> None:
    ends = [slot_range(shard, shards) for shard in range(shards)]
    assert ends[0][0] == 0
    assert ends[-1][1] == SLOTS - 1
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ends))


@given(st.integers(1, 12), st.integers(2, 6), st.integers(2, 3), st.randoms())
def test_masters_are_as_even_as_a_round_robin_placement_allows(
    shards: int, nodes: int, members: int, random: object
) -> None:
    members = min(members, nodes)
    candidates = {
        shard: [(f"s{shard}-{member}", f"n{(shard + member) % nodes}") for member in range(members)]
        for shard in range(shards)
    }
    chosen = choose_masters(candidates)
    assert sorted(chosen) == list(range(shards))
    where = {pod: node for pods in candidates.values() for pod, node in pods}
    counts = Counter(where[pod] for pod in chosen.values())
    assert max(counts.values()) == -(-shards // nodes)


PLACES = st.dictionaries(
    st.integers(0, 5), st.lists(st.sampled_from(["n0", "n1", "n2", "n3"]), min_size=1, max_size=3, unique=True),
    min_size=1,
)  # fmt: skip


@given(PLACES, st.randoms())
def test_hand_overs_lead_to_the_evenest_masters_there_are_and_never_pile_up_on_the_way(
    places: dict[int, list[str]], random: Random
) -> None:
    candidates = {shard: [(f"s{shard}-{node}", node) for node in nodes] for shard, nodes in places.items()}
    masters = {shard: random.choice(pods)[0] for shard, pods in candidates.items()}
    best = min(sorted(Counter(nodes).values(), reverse=True) for nodes in itertools.product(*places.values()))

    def loads() -> list[int]:
        return sorted(Counter(pod.rpartition("-")[2] for pod in masters.values()).values(), reverse=True)

    most = loads()[0]
    left = hand_overs(masters, candidates)
    while left:
        shard, pod = left[0]
        assert masters[shard] != pod
        masters[shard] = pod
        assert loads()[0] <= most, "no node leads more than before"
        again = hand_overs(masters, candidates)
        assert len(again) < len(left), "planned anew after each step, there is always less to do"
        left = again
    assert loads() == best
    assert choose_masters(candidates, masters) == masters
    chosen = choose_masters(candidates)
    assert sorted(Counter(pod.rpartition("-")[2] for pod in chosen.values()).values(), reverse=True) == best


def test_masters_that_already_are_stay() -> None:
    candidates = {0: [("a", "n1"), ("b", "n2")], 1: [("c", "n1"), ("d", "n2")]}
    assert choose_masters(candidates, {0: "b"}) == {0: "b", 1: "c"}


def effects(before: dict[str, Any], **changes: object) -> dict[str, Effect]:
    """Pointer to effect of changing a small cluster."""
    was = view(**before).spec
    return {change.pointer: change.effect for change in ENGINE.plan_change(was, {**was, **changes}, TARGET)}


@pytest.mark.parametrize(
    ("before", "changes", "expected"),
    [
        ({}, {}, {}),
        ({}, {"evictionPolicy": "allkeys-lru"}, {"/evictionPolicy": Effect.LIVE}),
        ({}, {"memoryGiB": 4, "cpu": 2}, {"/memoryGiB": Effect.ROLL, "/cpu": Effect.ROLL}),
        ({}, {"shards": 5}, {"/shards": Effect.MOVE}),
        ({"shards": 5}, {"shards": 3}, {"/shards": Effect.MOVE}),
        ({}, {"replicasPerShard": 2}, {"/replicasPerShard": Effect.LIVE}),
        ({}, {"replicasPerShard": 0}, {"/replicasPerShard": Effect.LOSS}),
        ({"replicasPerShard": 0}, {"persistence": "none"}, {"/persistence": Effect.LOSS}),
        ({"replicasPerShard": 0, "persistence": "none"}, {"cpu": 2}, {"/cpu": Effect.LOSS}),
        ({"replicasPerShard": 0, "persistence": "none"}, {"persistence": "aof", "cpu": 2},
         {"/persistence": Effect.LIVE, "/cpu": Effect.ROLL}),
        ({}, {"storageGiB": 9}, {"/storageGiB": Effect.LIVE}),
        ({"storageClass": "stiff"}, {"storageGiB": 9}, {"/storageGiB": Effect.FIXED}),
        ({"shards": 5}, {"shards": 4, "memoryGiB": 4}, {"/shards": Effect.FIXED, "/memoryGiB": Effect.ROLL}),
        ({"shards": 5}, {"shards": 4, "memoryGiB": 0.125}, {"/shards": Effect.MOVE}),
        ({"config": {"hz": 20}}, {"config": {}}, {"/config/hz": Effect.LIVE}),
        ({}, {"config": {"hz": 10}}, {}),
        ({}, {"config": {"io-threads": 4, "timeout": 5}},
         {"/config/io-threads": Effect.ROLL, "/config/timeout": Effect.LIVE}),
    ],
)  # fmt: skip
def test_every_change_has_its_effect(
    before: dict[str, Any], changes: dict[str, object], expected: dict[str, Effect]
) -> None:
    assert effects(before, **changes) == expected


def test_an_outage_and_a_loss_are_told_in_words() -> None:
    alone = view(replicasPerShard=0).spec
    (change,) = ENGINE.plan_change(alone, {**alone, "cpu": 2}, TARGET)
    assert "cannot be reached while its pod restarts" in change.message
    assert ENGINE.plan_restart(view(replicasPerShard=0, persistence="none").spec).effect == Effect.LOSS
    assert ENGINE.plan_restart(view().spec).effect == Effect.ROLL


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"evictionPolicy": "allkeys-lru"}, ["config"]),
        ({"cpu": 2}, ["config", "restart"]),
        ({"shards": 4}, ["meet", "replicas", "config", "move"]),
        ({"replicasPerShard": 0}, ["meet", "replicas", "config", "leave"]),
    ],
)
def test_an_operation_has_the_steps_its_changes_need(changes: dict[str, object], keys: list[str]) -> None:
    was = view().spec
    steps = ENGINE.change_steps(ENGINE.plan_change(was, {**was, **changes}, TARGET))
    assert [step.key for step in steps] == keys


def template(**changes: Any) -> dict[str, Any]:
    """The pod template of shard 0."""
    cluster = replace(view(**changes.pop("spec", {})), **changes)
    found: dict[str, Any] = sets(cluster)[0]["spec"]["template"]
    return found


def test_only_what_needs_a_restart_changes_the_pod_template() -> None:
    plain = template()
    assert template(spec={"evictionPolicy": "allkeys-lru", "config": {"hz": 20}, "nodeTimeoutMs": 9000}) == plain
    assert template(spec={"config": {"io-threads": 2}}) != plain
    assert template(spec={"config": {"io-threads": 1}}) == plain
    assert template(restart=1) != plain
    assert "annotations" not in plain["metadata"], "clusters must not become outdated by themselves"


def test_an_empty_member_never_leads_members_that_follow_somebody_who_is_away() -> None:
    def node(name: str, *, flags: str, master: str = "") -> Node:
        slots = ((0, 16383),)
        peers = [
            Peer(name, "10.0.0.1", frozenset({"myself", flags}), master, 1, True, ()),
            Peer("away", "10.0.0.9", frozenset({"master", "fail"}), "", 1, False, slots),
        ]
        pod = PodView(name, name, {}, f"node-{name}", "", "10.0.0.1", "Running", True, True, 0, False, NOW)
        return Node(pod, 0, cast(Connection, None), name, {peer.id: peer for peer in peers})

    fresh, orphan = node("fresh", flags="master"), node("orphan", flags="slave", master="away")
    assert Sight(view(), ("", ""), [fresh, orphan], []).heads() == {}
    assert Sight(view(), ("", ""), [fresh], []).heads() == {0: fresh}
