"""Rules and manifests: pure."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.engines.base import Effect, TargetView
from provisioning.engines.redis import spec as rules
from provisioning.engines.redis.manifests import render
from provisioning.engines.redis.placement import SLOTS, choose_masters, slot_range
from provisioning.engines.redis.slots import slot_of
from provisioning.engines.redis.tests.servers import ENGINE, view


def test_persistence_none_with_replicas_is_refused_because_an_empty_master_would_wipe_them() -> None:
    assert [problem.code for problem in rules.check(view(persistence="none").spec)] == ["loses_replicas"]
    assert rules.check(view(persistence="none", replicasPerShard=0).spec) == []


TARGET = TargetView("t", nodes=3, zones=1, storage_classes=("standard", "stiff"), fixed_classes=("stiff",))


@pytest.mark.parametrize(("spread", "codes"), [("hard", ["too_few_nodes"]), ("soft", [])])
def test_more_members_than_nodes_is_refused_under_the_hard_spread_rule(spread: str, codes: list[str]) -> None:
    target = TargetView("t", nodes=2, zones=1, storage_classes=("standard",))
    found = rules.preflight(view(replicasPerShard=2, spread=spread).spec, target)
    assert [problem.code for problem in found] == codes


def test_every_pod_fits_the_restricted_pod_security_standard() -> None:
    for manifest in render(view()):
        if manifest["kind"] != "StatefulSet":
            continue
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


def test_masters_that_already_are_stay() -> None:
    candidates = {0: [("a", "n1"), ("b", "n2")], 1: [("c", "n1"), ("d", "n2")]}
    assert choose_masters(candidates, {0: "b"}) == {0: "b", 1: "c"}
