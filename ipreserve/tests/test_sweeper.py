"""Sweeps on the real API server, under the sweeper's own account."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipreserve import errors, install, kube, layout, records, settings, store
from ipreserve import sweeper as sweeping
from ipreserve.kube import JsonObject
from ipreserve.pool import Pod, Range
from ipreserve.records import Claim, State, address
from ipreserve.sweeper import Sweeper
from ipreserve.tests import calico
from ipreserve.tests.paper import Paper
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World, insist, overwrite

BLOCKS = "/apis/crd.projectcalico.org/v1/ipamblocks"
POOLS = "/apis/crd.projectcalico.org/v1/ippools"


def sees(sweeper: Sweeper, pod: JsonObject, *, deleting: bool | None = None, there: bool = True) -> bool:
    """Whether the sweeper's mirror shows a pod."""
    uid = pod["metadata"]["uid"]
    found = [row for row in sweeper.pods.rows() if row.uid == uid and deleting in (None, row.deleting)]
    return bool(found) == there


def claim(world: World, pod: str, last: int, *, uid: str = "gone", at: float = 0.0) -> Claim:
    return Claim(
        address=address(world.address(last)), namespace=world.namespace, pod=pod, node="n1", uid=uid,
        owner="StatefulSet/cache", via="delete", at=at or world.kube.clock.now(),
    )  # fmt: skip


def reserve(world: World, *claims: Claim, state: State = State.CLAIMED, freed: float | None = None) -> None:
    """As the webhook leaves it; with `state`, as an earlier sweep left it."""
    held = world.store()

    def bar() -> None:
        before = held.read_barred(0)
        held.write_barred(before, before.addresses | {one.address for one in claims})

    def record() -> None:
        ledger = held.read_kept(0)
        after = dict(ledger.ledger.records)
        for number, one in enumerate(claims, start=1):
            found = records.claimed(one, before=None, seq=number)
            after[one.address] = replace(found, state=state, freed=freed, hold=3600.0 if freed is not None else None)
        held.write_kept(ledger, replace(ledger.ledger, records=after))

    # The webhook of other tests writes them too.
    insist(bar)
    insist(record)


def test_pod_s_way_from_claimed_to_released_and_its_history(world: World, sweeper_kubeconfig: Path) -> None:
    one = world.address(1)
    pod = world.pod("cache-0", one, node="n1")
    sweeper = world.sweeper(sweeper_kubeconfig, hold=0.5)
    world.delete("cache-0")
    eventually(lambda: sees(sweeper, pod, deleting=True), "terminating is seen")
    sweeper.sweep()
    assert world.records()[address(one)].state is State.TERMINATING
    world.finish(pod)
    eventually(lambda: sees(sweeper, pod, there=False), "gone is seen")
    sweeper.sweep()
    assert world.records()[address(one)].state is State.FREED
    eventually(lambda: sweeper.sweep().ended, "the hold passes")
    assert (world.barred(), world.records()) == (frozenset(), {})
    (entry,) = world.store().history(address(one))
    assert (entry["pod"], entry["end"], entry["state"]) == ("cache-0", "expired", "releasing")


def test_refused_eviction_is_cancelled_and_its_pod_keeps_running(world: World, sweeper_kubeconfig: Path) -> None:
    pod = world.pod("cache-0", world.address(1), node="n1")
    budget = {
        "metadata": {"name": "cache"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"statefulset.kubernetes.io/pod-name": "cache-0"}}},
    }
    world.kube.request("POST", f"/apis/policy/v1/namespaces/{world.namespace}/poddisruptionbudgets", budget)
    with pytest.raises(errors.ApiError, match="429"):
        world.evict("cache-0")
    assert world.barred() == {address(world.address(1))}
    sweeper = world.sweeper(sweeper_kubeconfig, cancel_after=1.0)
    eventually(lambda: sees(sweeper, pod), "the pod is seen")
    eventually(lambda: sweeper.sweep().ended, "the claim is cancelled")
    assert world.barred() == frozenset()
    assert world.kube.get(world.pods("cache-0"))["metadata"].get("deletionTimestamp") is None


def test_claim_is_not_cancelled_by_what_a_watch_shows_that_died_without_a_word(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    pod = world.pod("cache-0", world.address(1), node="n1")
    sweeper = world.sweeper(sweeper_kubeconfig, cancel_after=60.0)
    eventually(lambda: sees(sweeper, pod), "the pod is seen")
    sweeper.pods.stop()
    world.delete("cache-0")
    reserve(world, claim(world, "cache-0", 1, uid=pod["metadata"]["uid"], at=world.kube.clock.now() - 90))
    assert sees(sweeper, pod, deleting=False)
    assert sweeper.sweep().ended == ()
    assert world.records()[address(world.address(1))].state is State.TERMINATING
    assert world.barred() == {address(world.address(1))}


def test_record_is_dropped_only_after_its_history_is_written(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, one = quiet_world, address(quiet_world.address(1))
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper = world.sweeper(sweeper_kubeconfig)
    request = sweeper.kube.request

    def refused(method: str, path: str, *arguments: Any, **more: Any) -> JsonObject:
        body = arguments[0] if arguments else {}
        if method in ("POST", "PUT") and str(((body or {}).get("metadata") or {}).get("name")).startswith(
            store.HISTORY
        ):
            raise errors.ApiError("no history today", 500)
        return request(method, path, *arguments, **more)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(sweeper.kube, "request", refused)
        sweeper.sweep()
        sweeper.sweep()
    # Nobody has to wait for an address because of that.
    assert world.barred() == frozenset()
    assert world.records()[one].state is State.RELEASING
    assert sweeper.metrics.registry.get_sample_value("ipreserve_sweep_item_errors_total") == 2
    sweeper.sweep()
    assert world.records() == {}
    assert [entry["end"] for entry in world.store().history(one)] == ["expired"]


def test_record_without_protection_is_barred_again(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1))
    (path,) = world.store().reservation_paths()
    world.kube.request("DELETE", path)
    world.sweeper(sweeper_kubeconfig).sweep()
    assert world.barred() == {address(world.address(1))}


def test_protection_without_a_record_is_adopted_within_two_sweeps(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    held = world.store()
    insist(lambda: held.write_barred(held.read_barred(0), [address(world.address(1))]))
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    assert world.records() == {}
    sweeper.sweep()
    assert world.records()[address(world.address(1))].is_unknown
    assert world.barred() == {address(world.address(1))}


def test_one_address_that_comes_and_one_that_goes_in_the_same_sweep_are_both_written(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    # The list is as long afterwards as it was before.
    world = quiet_world
    now = world.kube.clock.now()
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=now - 7200)
    reserve(world, claim(world, "cache-1", 2), state=State.FREED, freed=now)
    held = world.store()
    insist(lambda: held.write_barred(held.read_barred(0), [address(world.address(1))]))
    world.sweeper(sweeper_kubeconfig).sweep()
    assert world.listed() == [f"{world.address(2)}/32"]
    assert set(world.records()) == {address(world.address(2))}


def test_what_the_article_s_service_left_is_taken_over(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world, one = quiet_world, quiet_world.address(1)
    calico.install(world.kube, release="3.31")
    collection = "/apis/crd.projectcalico.org/v1/ipreservations"
    body = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPReservation", "metadata": {"name": store.NAME}}
    try:
        spec = {"reservedCIDRs": ["1.1.1.1", one, one, "nonsense"]}
        overwrite(world, collection, {**body, "spec": spec})
    finally:
        calico.install(world.kube, release="3.32")
    data = {one: f"{world.namespace}_cache-0_n1_2022-12-24-10:00:00"}
    overwrite(world, world.store().configmaps, {"metadata": {"name": store.NAME}, "data": data})
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    assert world.listed() == [f"{one}/32"]
    record = world.records()[address(one)]
    assert (record.pod, record.state) == ("cache-0", State.FREED)
    assert sweeper.metrics.registry.get_sample_value("ipreserve_repaired_total", {"kind": "rewritten"}) == 1


def test_corrupt_records_are_kept_for_people_and_the_address_stays_barred(
    quiet_world: World, sweeper_kubeconfig: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), claim(world, "cache-1", 2))
    key, path = world.address(1), f"{world.store().configmaps}/{store.NAME}"
    data = world.kube.get(path)["data"] | {key + ".json": "{half", "not-an-address": "what?"}
    overwrite(world, world.store().configmaps, {"metadata": {"name": store.NAME}, "data": data})
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    data = world.kube.get(path)["data"]
    assert (data[key + ".bad"], data["not-an-address"]) == ("{half", "what?")
    assert world.barred() == {address(world.address(1)), address(world.address(2))}
    assert world.records()[address(world.address(1))].pod == "cache-0"
    sweeper.sweep()
    assert sweeper.metrics.registry.get_sample_value("ipreserve_quarantined_records") == 2
    assert caplog.text.count("1 keys of ledgers are no address and are left as they are") == 1
    assert caplog.text.count(f"ledger 0: unreadable records of ['{key}'], kept as .bad") == 1


def test_history_that_nobody_can_read_is_counted_for_the_alert(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world, one = quiet_world, quiet_world.address(1)
    overwrite(world, world.store().configmaps, {"metadata": {"name": store.HISTORY}, "data": {one: "[half"}})
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    assert sweeper.metrics.registry.get_sample_value("ipreserve_quarantined_records") == 1
    assert world.kube.get(f"{world.store().configmaps}/{store.HISTORY}")["data"][f"{one}.bad"] == "[half"


def test_count_releases_the_oldest_and_leaves_the_rest(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    now = world.kube.clock.now()
    for number, age in ((1, 50.0), (2, 30.0), (3, 40.0)):
        reserve(world, claim(world, f"cache-{number}", number), state=State.FREED, freed=now - age)
    plan = world.sweeper(sweeper_kubeconfig, max_count=1).sweep()
    assert plan.ended == (address(world.address(1)), address(world.address(3)))
    assert world.barred() == {address(world.address(2))}


def test_namespace_limit_is_told_by_an_event_and_counted(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    now = world.kube.clock.now()
    for number, age in ((1, 50.0), (2, 30.0), (3, 40.0)):
        reserve(world, claim(world, f"cache-{number}", number), state=State.FREED, freed=now - age)
    config = {"metadata": {"name": store.CONFIG}, "data": {"max-per-namespace": "1"}}
    overwrite(world, world.store().configmaps, config)
    sweeper = world.sweeper(sweeper_kubeconfig)
    assert sweeper.sweep().ended == (address(world.address(1)), address(world.address(3)))
    assert world.barred() == {address(world.address(2))}
    assert sweeper.metrics.registry.get_sample_value("ipreserve_released_total", {"reason": "quota"}) == 2
    events = world.kube.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    told = [one["message"] for one in events if one["reason"] == "NamespaceLimit" and world.namespace in one["message"]]
    assert len(told) == 1
    assert world.address(1) in told[0]
    assert world.address(2) not in told[0]


def test_pressure_ends_a_hold_with_an_event_before_the_pool_is_dry(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    net = world.address(0).rpartition(".")[0]
    size, cidr = 8, f"{net}.0/29"
    used = {n: f"handle-{n}" for n in range(size) if n != 1}
    world.kube.request(
        "POST",
        BLOCKS,
        {"apiVersion": "crd.projectcalico.org/v1", **calico.block(cidr, "n1", used=used, queue=[1], size=8)},
    )
    shape = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool"}
    pool = {**shape, "metadata": {"name": world.namespace}, "spec": {"cidr": cidr, "blockSize": 29}}
    world.kube.request("POST", POOLS, pool)
    try:
        now = world.kube.clock.now()
        reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=now - 1)
        plan = world.sweeper(sweeper_kubeconfig).sweep()
    finally:
        world.kube.request("DELETE", f"{POOLS}/{world.namespace}")
        world.kube.request("DELETE", f"{BLOCKS}/{cidr.replace('.', '-').replace('/', '-')}")
    assert plan.ended == (address(world.address(1)),)
    assert world.barred() == frozenset()
    events = world.kube.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    assert any(one["reason"] == "HoldsEndedEarly" and world.address(1) in one["message"] for one in events)


def test_pool_that_makes_no_sense_stops_neither_the_sweep_nor_the_pressure_valve(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    net = world.address(0).rpartition(".")[0]
    shape = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool"}
    names = [f"{world.namespace}-wrong", world.namespace]
    for name, spec in zip(names, ({"cidr": "ten dot zero"}, {"cidr": f"{net}.0/29", "blockSize": 29}), strict=True):
        world.kube.request("POST", POOLS, {**shape, "metadata": {"name": name}, "spec": spec})
    try:
        reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
        sweeper = world.sweeper(sweeper_kubeconfig)
        plan = sweeper.sweep()
        known = sweeper._ipam([])
    finally:
        for name in names:
            world.kube.request("DELETE", f"{POOLS}/{name}")
    assert plan.ended == (address(world.address(1)),)
    assert known is not None
    assert [pool.cidr for pool in known.pools] == [f"{net}.0/29"]


def test_pressure_looks_at_the_pools_that_select_the_node_on_which_a_pod_waits(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    net, node, merge = world.address(0).rpartition(".")[0], f"rack-{world.namespace}", "application/merge-patch+json"
    api = {"apiVersion": "crd.projectcalico.org/v1"}
    pools = {
        f"{world.namespace}-a": {"cidr": f"{net}.0/29", "blockSize": 29, "nodeSelector": "rack == 'a'"},
        # Large, and of no use here.
        f"{world.namespace}-b": {"cidr": "10.64.0.0/16", "blockSize": 26, "nodeSelector": "rack == 'b'"},
        f"{world.namespace}-c": {"cidr": "10.65.0.0/16", "blockSize": 26, "allowedUses": ["Tunnel"]},
    }
    cidr = f"{net}.0/29".replace(".", "-").replace("/", "-")
    used = dict.fromkeys((0, 3, 4, 5, 6, 7), "handle")
    world.kube.request("POST", "/api/v1/nodes", {"metadata": {"name": node, "labels": {"rack": "b"}}})
    world.kube.request("POST", BLOCKS, {**api, **calico.block(f"{net}.0/29", node, used=used, queue=[1, 2], size=8)})
    for name, spec in pools.items():
        world.kube.request("POST", POOLS, {**api, "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
    try:
        now = world.kube.clock.now()
        reserve(world, *(claim(world, f"cache-{n}", n) for n in (1, 2)), state=State.FREED, freed=now)
        sweeper = world.sweeper(sweeper_kubeconfig)
        # Its blocks are of a pool that is not its own, and pool b has room.
        waiting = world.pod("web", node=node, stateful=False, phase="Pending")
        eventually(lambda: sees(sweeper, waiting), "the pod is seen")
        assert f"node {node} IPv4" not in sweeper.sweep().shortage
        ipam = sweeper._ipam([])
        assert ipam is not None
        assert {pool.name.rpartition("-")[2]: pool.disabled for pool in ipam.pools} == {
            "a": False,
            "b": False,
            "c": True,
        }
        world.kube.request(
            "PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": {"rack": "a"}}}, content_type=merge
        )
        sweeper._nodes_listed = -sweeping.NODES_SECONDS
        plan = sweeper.sweep()
        world.delete("web", gracePeriodSeconds=0)
    finally:
        for name in pools:
            world.kube.request("DELETE", f"{POOLS}/{name}")
        world.kube.request("DELETE", f"{BLOCKS}/{cidr}")
        world.kube.request("DELETE", f"/api/v1/nodes/{node}")
    assert plan.shortage[f"node {node} IPv4"] == 2
    assert set(plan.ended) == {address(world.address(1)), address(world.address(2))}
    events = world.kube.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
    assert any(f"node {node} IPv4 lacked 2" in one["message"] for one in events)


def test_pressure_counts_what_others_reserve_as_taken(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    net = world.address(0).rpartition(".")[0]
    api, reservations = {"apiVersion": "crd.projectcalico.org/v1"}, "/apis/crd.projectcalico.org/v1/ipreservations"
    name = f"printers-{world.namespace}"
    theirs = {**api, "kind": "IPReservation", "metadata": {"name": name}, "spec": {"reservedCIDRs": [f"{net}.2/31"]}}
    pool = {**api, "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": f"{net}.0/30", "blockSize": 30}}
    world.kube.request("POST", POOLS, pool)
    try:
        now = world.kube.clock.now()
        reserve(world, claim(world, "cache-0", 0), claim(world, "cache-1", 1), state=State.FREED, freed=now)
        sweeper = world.sweeper(sweeper_kubeconfig)
        assert len(sweeper.sweep().ended) == 0
        world.kube.request("POST", reservations, theirs)
        assert len(sweeper.sweep().ended) == 1
        # Nobody else's is touched.
        assert world.kube.get(f"{reservations}/{name}")["spec"] == theirs["spec"]
    finally:
        world.kube.request("DELETE", f"{POOLS}/{name}")
        world.kube.request("DELETE", f"{reservations}/{name}")


def test_list_is_written_as_ranges_when_it_is_long_and_one_address_of_a_range_is_released_alone(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet_world
    monkeypatch.setattr("ipreserve.layout.AGGREGATE_FROM", 20)
    now = world.kube.clock.now()
    reserve(world, *(claim(world, f"cache-{n}", n) for n in range(64)), state=State.FREED, freed=now)
    sweeper = world.sweeper(sweeper_kubeconfig)
    reserve(world, claim(world, "cache-5", 5), state=State.FREED, freed=now - 7200)
    assert sweeper.sweep().ended == (address(world.address(5)),)
    assert world.listed() == [
        f"{world.address(n)}/{length}" for n, length in [(0, 30), (4, 32), (6, 31), (8, 29), (16, 28), (32, 27)]
    ]
    assert world.barred() == set(world.records()) == {address(world.address(n)) for n in range(64) if n != 5}


def test_count_stays_what_it_was_while_nodes_cannot_be_listed_and_sweeps_go_on(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    monkeypatch.setattr(sweeping, "NODES_SECONDS", 0.0)
    sweeper = world.sweeper(sweeper_kubeconfig, max_count=0)
    nodes = [[{"status": {"allocatable": {"pods": "250"}}}]]
    listed = sweeper.kube.list

    def answer(path: str, **more: str) -> tuple[list[JsonObject], str]:
        if path != "/api/v1/nodes":
            return listed(path, **more)
        if not nodes:
            raise errors.ApiError("no nodes for you", 403)
        return nodes.pop(), ""

    monkeypatch.setattr(sweeper.kube, "list", answer)
    assert sweeper.rules().max_count == 300
    assert sweeper.sweep().ended == (address(world.address(1)),)
    assert sweeper.rules().max_count == 300
    assert caplog.text.count("no nodes for you") == 1
    nodes.append([{"status": {"allocatable": {"pods": "100"}}}])
    assert sweeper.rules().max_count == 120
    # And not again within the time for which that holds.
    monkeypatch.setattr(sweeping, "NODES_SECONDS", 600.0)
    nodes.append([{"status": {"allocatable": {"pods": "10"}}}])
    assert (sweeper.rules().max_count, len(nodes)) == (120, 1)


def test_node_that_joined_since_nodes_were_listed_is_known_when_a_pod_waits_on_it(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    node = f"fresh-{world.namespace}"
    sweeper = world.sweeper(sweeper_kubeconfig)
    pools = [Range(cidr=f"{world.address(0)}/29", block=29, nodes="rack == 'a'")]
    waiting = Pod(uid="1", namespace="team", name="web", node=node, owner="", addresses=(), created=0.0)
    assert node not in (sweeper._labels(pools, []) or {})
    world.kube.request("POST", "/api/v1/nodes", {"metadata": {"name": node, "labels": {"rack": "a"}}})
    try:
        # Nobody waits there, so what was listed a moment ago is good enough.
        assert node not in (sweeper._labels(pools, []) or {})
        assert (sweeper._labels(pools, [waiting]) or {})[node]["rack"] == "a"
    finally:
        world.kube.request("DELETE", f"/api/v1/nodes/{node}")


def test_count_comes_from_the_largest_node_unless_it_is_set(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    node = f"large-{world.namespace}"
    world.kube.request("POST", "/api/v1/nodes", {"metadata": {"name": node}})
    try:
        status = {"status": {"allocatable": {"pods": "250"}, "capacity": {"pods": "250"}}}
        path = f"/api/v1/nodes/{node}/status"
        world.kube.request("PATCH", path, status, content_type="application/merge-patch+json")
        assert world.sweeper(sweeper_kubeconfig, max_count=0).rules().max_count == 300
        world.close()
        assert world.sweeper(sweeper_kubeconfig, max_count=7).rules().max_count == 7
    finally:
        world.kube.request("DELETE", f"/api/v1/nodes/{node}")


def test_lost_node_s_address_waits_for_calico_to_free_it(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    world = quiet_world
    net = world.address(0).rpartition(".")[0]
    name = f"{net}.0/29".replace(".", "-").replace("/", "-")
    shape = {"apiVersion": "crd.projectcalico.org/v1"}
    body = {**shape, **calico.block(f"{net}.0/29", "n1", used={1: "handle"}, queue=[0, 2, 3, 4, 5, 6, 7], size=8)}
    world.kube.request("POST", BLOCKS, body)
    reserve(world, claim(world, "cache-0", 1))
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    assert world.records()[address(world.address(1))].state is State.TERMINATING
    world.kube.request("DELETE", f"{BLOCKS}/{name}")
    eventually(
        lambda: sweeper.sweep().records and world.records()[address(world.address(1))].state is State.FREED, "freed"
    )


def test_swap_in_a_namespace_without_the_label_is_seen_and_counted(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    # Other tests' webhook may be there, and must not be asked here.
    world = replace(quiet_world, namespace=f"{quiet_world.namespace}-open", protected=False)
    sweeper = world.sweeper(sweeper_kubeconfig)
    first = world.pod("cache-0", world.address(1))
    eventually(lambda: sees(sweeper, first), "the first owner is seen")
    sweeper.sweep()
    world.delete("cache-0", gracePeriodSeconds=0)
    eventually(lambda: sees(sweeper, first, there=False), "it is gone")
    other = world.pod("web-0", world.address(1), stateful=False)
    eventually(lambda: sees(sweeper, other), "the second owner is seen")

    def counted() -> float:
        value = sweeper.metrics.registry.get_sample_value("ipreserve_swaps_observed_total", {"protected": "no"})
        return value or 0.0

    before = counted()
    sweeper.sweep()
    sweeper.sweep()
    assert counted() == before + 1
    assert (world.barred(), world.records()) == (frozenset(), {})


def test_hold_does_not_begin_while_calico_s_blocks_cannot_be_read_for_a_moment(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, one = quiet_world, address(quiet_world.address(1))
    reserve(world, claim(world, "cache-0", 1), state=State.TERMINATING)
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper._detect()
    assert sweeper._blocks is not None
    sweeper._ipam([])
    readable = sweeper._ipam
    monkeypatch.setattr(sweeper, "_ipam", lambda *_: None)
    sweeper.sweep()
    assert world.records()[one].state is State.TERMINATING
    # Where they stay unreadable the pods are all there is to go by.
    monkeypatch.setattr(sweeping, "BLIND_SECONDS", 0.0)
    sweeper.sweep()
    assert world.records()[one].state is State.FREED
    assert readable([]) is not None


def test_swap_of_an_address_that_was_held_is_counted_by_a_sweeper_that_never_saw_its_owner(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world, at = quiet_world, quiet_world.kube.clock.now()
    # Its own hold is longer than everybody's.
    reserve(world, claim(world, "cache-0", 1, at=at - 9000), state=State.FREED, freed=at - 9000)
    held = world.store()
    ledger = held.read_kept(0)
    longer = {one: replace(record, hold=86400.0) for one, record in ledger.ledger.records.items()}
    insist(lambda: held.write_kept(held.read_kept(0), replace(ledger.ledger, records=longer)))
    sweeper = world.sweeper(sweeper_kubeconfig)
    other = world.pod("web-0", world.address(1), stateful=False)
    eventually(lambda: sees(sweeper, other), "the second owner is seen")

    def counted(word: str) -> float | None:
        return sweeper.metrics.registry.get_sample_value("ipreserve_swaps_observed_total", {"protected": word})

    sweeper.sweep()
    sweeper.sweep()
    assert (counted("yes"), counted("no")) == (1, 0)


def test_shards_grow_and_every_address_stays_barred_throughout(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet_world
    monkeypatch.setattr("ipreserve.layout.SHARD_SIZE", 40)
    reserve(world, *(claim(world, f"cache-{n}", n) for n in range(1, 101)))
    wanted = {address(world.address(n)) for n in range(1, 101)}
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    sweeper.sweep()
    kept = world.store().all_kept()
    assert kept[0].shards == 16
    assert len(kept) > 1
    assert world.barred() == wanted == set(world.records())
    assert sum(len(shard.ledger.records) for shard in kept.values()) == 100


def test_one_bad_shard_does_not_keep_the_others_from_being_swept(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet_world
    now = world.kube.clock.now()
    bad = address(world.address(1))
    at_fault = layout.shard_of(bad, layout.FIRST_SPLIT)
    elsewhere = (n for n in range(2, 255) if layout.shard_of(address(world.address(n)), layout.FIRST_SPLIT) != at_fault)
    other = next(elsewhere)
    good = address(world.address(other))
    reserve(world, *(claim(world, f"cache-{n}", n) for n in (1, other)), state=State.FREED, freed=now)
    monkeypatch.setattr("ipreserve.layout.SHARD_SIZE", 1)
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    sweeper.sweep()
    for path in world.store().reservation_paths():
        world.kube.request("DELETE", path)
    write = sweeper._write_shard

    def failing(found: Any, after: Any, index: int, mine: Any) -> None:
        if index == at_fault:
            raise RuntimeError("of the test")
        write(found, after, index, mine)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(sweeper, "_write_shard", failing)
        sweeper.sweep()
    assert world.barred() == {good}
    sweeper.sweep()
    assert world.barred() == set(world.records()) == {bad, good}


def test_second_sweeper_waits_for_the_lease_and_takes_it_when_it_is_given_up(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    first = quiet_world.sweeper(sweeper_kubeconfig)
    second = Sweeper(settings.Settings(namespace=NAMESPACE, identity="second"), first.kube)
    assert not second.turn()
    first.lease.give_up()
    assert second.lease.acquire()
    assert not first.lease.acquire()
    second.lease.give_up()


def test_sweeper_that_starts_after_a_jump_of_the_clock_goes_by_the_leader_s_time() -> None:
    leading, fresh = Paper(), Paper()
    fresh.objects, fresh._versions = leading.objects, leading._versions
    leading.clock.observe(1_000_000)
    fresh.clock.observe(1_086_400)
    first, second = sweeping.Lease(leading, NAMESPACE, "first"), sweeping.Lease(fresh, NAMESPACE, "second")
    assert first.acquire()
    # Nobody knows how old this is.
    assert not second.acquire()
    assert fresh.clock.now() >= 1_086_400
    assert first.acquire()
    assert not second.acquire()
    assert abs(fresh.clock.now() - leading.clock.now()) < 30


def test_sweeper_that_starts_and_leads_right_after_a_jump_of_the_clock_ends_no_hold_for_it(
    quiet_world: World, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper = world.sweeper(sweeper_kubeconfig)
    assert sweeper.kube.clock.local is time.time
    # To the machine on which it starts the server is four hours ahead, and the hold begins two hours from now.
    sweeper.kube.clock = kube.Clock()
    sweeper.kube.clock.local = lambda: time.time() - 4 * 3600
    assert sweeper.sweep().ended == ()
    assert world.barred() == {address(world.address(1))}
    assert sweeper.metrics.registry.get_sample_value("ipreserve_clock_doubted") == 1


def test_sweep_that_outlasts_its_lease_goes_on_unless_somebody_else_led_meanwhile(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet_world
    sweeper = world.sweeper(sweeper_kubeconfig)
    read = sweeper._read

    def long_read() -> Any:
        found = read()
        sweeper.lease._until = 0.0
        return found

    def led_by(identity: str) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{install.LEASE}"
        raw = world.kube.get(path)
        world.kube.request("PUT", path, {**raw, "spec": {**raw["spec"], "holderIdentity": identity}})

    monkeypatch.setattr(sweeper, "_read", long_read)
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper.sweep()
    assert world.barred() == frozenset()
    reserve(world, claim(world, "cache-1", 2), state=State.FREED, freed=world.kube.clock.now() - 7200)
    # Somebody else leads, or did and has given it up since.
    for other in ("second", ""):
        led_by(other)
        sweeper.sweep()
        assert world.barred() == {address(world.address(2))}
    assert sweeper.turn()
    assert world.barred() == frozenset()


def test_shards_do_not_grow_again_while_the_last_growth_is_not_done(
    quiet_world: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = quiet_world
    reserve(world, *(claim(world, f"cache-{n}", n) for n in range(1, 101)))
    # The one ledger is too large, and nothing can be moved out of it yet.
    monkeypatch.setattr("ipreserve.layout.SHARD_BYTES", 20_000)
    sweeper = world.sweeper(sweeper_kubeconfig)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(sweeper, "_move_out", lambda *_: None)
        for _ in range(3):
            sweeper.sweep()
            assert world.store().read_kept(0).shards == 16
    sweeper.sweep()
    sweeper.sweep()
    kept = world.store().all_kept()
    assert kept[0].shards == 16
    assert max(shard.size for shard in kept.values()) < 20_000
    assert world.barred() == set(world.records()) == {address(world.address(n)) for n in range(1, 101)}


def test_settings_are_reloaded_and_a_wrong_one_keeps_the_last_good_value(
    quiet_world: World, sweeper_kubeconfig: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = quiet_world
    sweeper = world.sweeper(sweeper_kubeconfig, hold=100.0)
    body = {"metadata": {"name": store.CONFIG}, "data": {"hold": "30m", "max-count": "7"}}
    world.kube.request("POST", world.store().configmaps, body)
    sweeper.sweep()
    assert (sweeper.rules().hold, sweeper.rules().max_count) == (1800.0, 7)
    body["data"] = {"hold": "soon", "max-count": "7", "colour": "red"}
    world.kube.request("PUT", f"{world.store().configmaps}/{store.CONFIG}", body)
    sweeper.sweep()
    assert sweeper.rules().hold == 1800.0
    assert "hold: 'soon' is not a duration" in caplog.text
    assert "colour: no such setting" in caplog.text


def test_the_sweeper_process_sweeps_under_its_own_account(
    quiet_world: World, sweeper_kubeconfig: Path, tmp_path: Path
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    service = Service("sweeper", sweeper_kubeconfig, tmp_path / "log", period=0.3)
    try:
        eventually(lambda: world.barred() == frozenset() or service.process.poll() is not None, "released")
        eventually(lambda: service.value("ipreserve_sweeps_total") >= 1, "sweeps are counted")
    finally:
        service.stop()
    assert "forbidden" not in service.said()
    assert world.barred() == frozenset()
    assert service.process.returncode == 0


def test_a_stopped_sweeper_leaves_no_thread_that_watches(quiet_world: World, sweeper_kubeconfig: Path) -> None:
    before = {one for one in threading.enumerate() if one.name.startswith("mirror ")}
    found = quiet_world.sweeper(sweeper_kubeconfig)
    found.sweep()
    mine = {one for one in threading.enumerate() if one.name.startswith("mirror ")} - before
    assert {one.name for one in mine} == {"mirror /api/v1/pods", "mirror /apis/crd.projectcalico.org/v1/ipamblocks"}
    found.stop()
    assert not any(one.is_alive() for one in mine)
