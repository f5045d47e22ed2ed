"""The pure decision: single rules by example, all of them together against a machine of random operations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipreserve import layout, pool, records
from ipreserve.book import Book
from ipreserve.pool import Block, Ipam, Picture, Plan, Pod, Range, Rules, Workload, decide
from ipreserve.records import Address, Claim, End, Record, State
from ipreserve.sweeper import range_row, without

A, B, C = Address("10.0.0.1"), Address("10.0.0.2"), Address("10.0.0.3")
RULES = Rules(hold=100, short_hold=10, max_count=10, cancel_after=60)


def record(state: State = State.FREED, *, at: float = 0.0, pod: str = "cache-0", **more: Any) -> Record:
    found = Record(
        namespace="team", pod=pod, node="n1", uid=f"uid-{pod}", owner="StatefulSet/cache", via="delete", state=state,
        first=at, last=at, freed=at if state is State.FREED else None, hold=100 if state is State.FREED else None,
    )  # fmt: skip
    return replace(found, **more)


def pod(name: str, *addresses: Address, uid: str = "", **more: Any) -> Pod:
    found = Pod(
        uid=uid or f"uid-{name}", namespace="team", name=name, node="n1", owner="StatefulSet/cache",
        addresses=addresses, created=0.0,
    )  # fmt: skip
    return replace(found, **more)


def picture(
    known: dict[Address, Record], *pods: Pod, now: float = 1000.0, barred: Iterable[Address] | None = None, **more: Any
) -> Picture:  # fmt: skip
    book = Book.of(known, known if barred is None else barred, at=now)
    return replace(Picture(now=now, book=book, pods=pods, ipam=None, workloads=None), **more)


def ends(known: dict[Address, Record], *pods: Pod, rules: Rules = RULES, **more: Any) -> dict[Address, End | None]:
    plan = decide(picture(known, *pods, **more), rules)
    return {one: plan.records.get(one, known.get(one, record())).end for one in plan.ended}


def test_hold_runs_from_freed_and_not_from_the_claim() -> None:
    assert ends({A: record(at=950.0, first=0.0)}) == {}
    assert ends({A: record(at=899.0, first=0.0)}) == {A: End.EXPIRED}


def test_count_ends_the_oldest_freed_first_and_ties_by_sequence() -> None:
    known = {A: record(at=980.0, seq=3), B: record(at=980.0, seq=2), C: record(at=970.0, seq=9)}
    assert ends(known, rules=replace(RULES, max_count=1)) == {C: End.CROWDED, B: End.CROWDED}


def test_range_that_somebody_bars_by_hand_ends_nobody_s_hold_by_the_count() -> None:
    mine = {A: record(at=960.0), B: record(at=970.0)}
    found = replace(records.unknown(at=950.0), state=State.FREED, freed=950.0)
    by_hand = {Address(f"10.0.1.{number}"): found for number in range(20)}
    assert ends(mine | by_hand, rules=replace(RULES, max_count=2)) == {}
    assert ends(mine | by_hand, rules=replace(RULES, max_count=1)) == {A: End.CROWDED}
    # They too end by time.
    assert set(ends(mine | by_hand, now=1050.0)) == set(by_hand)


def test_namespace_over_its_limit_gives_up_its_own_oldest_and_nobody_else_s() -> None:
    limited = replace(RULES, max_per_namespace=1)
    known = {
        A: record(at=970.0, namespace="other"), B: record(at=980.0), C: record(at=990.0, pod="cache-1"),
        Address("10.0.0.4"): record(State.CLAIMED, at=995.0, pod="cache-2"),
    }  # fmt: skip
    assert ends(known, pod("cache-2", Address("10.0.0.4")), rules=limited) == {B: End.QUOTA}
    # One that is in use does not count and does not go, nor does one that a pod asks for by name.
    both = {B: record(at=980.0), C: record(at=990.0, pod="cache-1")}
    assert ends(both, pod("web-0", B, uid="web"), rules=limited) == {}
    assert ends(both, pod("web-0", asks=(B,)), rules=limited) == {}
    nobody_s = {one: records.unknown(at=900.0) for one in (A, B)}
    assert ends({a: replace(r, state=State.FREED, freed=950.0) for a, r in nobody_s.items()}, rules=limited) == {}


def test_time_then_namespace_then_count() -> None:
    known = {
        A: record(at=890.0), B: record(at=960.0), C: record(at=970.0),
        Address("10.0.0.4"): record(at=950.0, namespace="other"), Address("10.0.0.5"): record(at=980.0),
    }  # fmt: skip
    assert ends(known, rules=replace(RULES, max_per_namespace=2, max_count=2)) == {
        A: End.EXPIRED, B: End.QUOTA, Address("10.0.0.4"): End.CROWDED
    }  # fmt: skip


def test_claims_of_running_pods_do_not_use_up_the_count() -> None:
    known = {A: record(at=980.0), B: record(State.CLAIMED, at=990.0, pod="cache-1")}
    assert ends(known, pod("cache-1", B), rules=replace(RULES, max_count=1)) == {}


def test_refused_eviction_is_cancelled_while_its_pod_lives_on() -> None:
    known = {A: record(State.CLAIMED, at=930.0)}
    assert ends(known, pod("cache-0", A), now=980.0) == {}
    assert ends(known, pod("cache-0", A), now=990.0) == {A: End.CANCELLED}


def test_terminating_pod_is_never_cancelled_however_long_it_takes() -> None:
    plan = decide(picture({A: record(State.CLAIMED, at=0.0)}, pod("cache-0", A, deleting=True)), RULES)
    assert (plan.ended, plan.records[A].state) == ((), State.TERMINATING)


def test_lost_node_s_address_is_not_freed_until_calico_frees_it() -> None:
    ipam = Ipam(blocks=(Block(cidr="10.0.0.0/26", host="n1", allocated=frozenset({A}), queue=(B,)),))
    plan = decide(picture({A: record(State.CLAIMED, at=0.0)}, ipam=ipam), RULES)
    assert plan.records[A].state is State.TERMINATING
    later = decide(picture({A: plan.records[A]}, ipam=replace(ipam, blocks=()), now=5000.0), RULES)
    assert (later.records[A].state, later.records[A].freed) == (State.FREED, 5000.0)


def test_address_counts_as_taken_while_blocks_that_were_readable_a_moment_ago_are_not() -> None:
    blind = decide(picture({A: record(State.CLAIMED, at=0.0)}, blind=True), RULES)
    assert (blind.records[A].state, blind.ended) == (State.TERMINATING, ())
    assert decide(picture({A: blind.records[A]}, blind=True), RULES).records == {}
    assert decide(picture({A: blind.records[A]}), RULES).records[A].state is State.FREED
    # What rests already goes on.
    assert ends({A: record(at=899.0)}, blind=True) == {A: End.EXPIRED}


def test_record_in_terminating_whose_pod_was_not_seen_is_not_dropped_before_a_claim_would_be() -> None:
    known = {A: record(State.TERMINATING, at=900.0, terminating=970.0)}
    assert ends(known, pod("cache-0", A)) == {}
    assert ends(known, pod("cache-0", A), now=1030.0) == {A: End.CANCELLED}


def test_policies_of_a_namespace_that_is_gone_are_those_it_had_at_the_claim() -> None:
    had = record(State.TERMINATING, at=900.0, space={"hold": "2h"})
    assert pool.hold_for(had, picture({}), RULES) == 7200
    assert pool.hold_for(had, picture({}, defaults={"other": {}}), RULES) == 7200
    # One that is there is read live, and a pod's own come first.
    assert pool.hold_for(had, picture({}, defaults={"team": {}}), RULES) == RULES.hold
    assert pool.hold_for(replace(had, policy={"hold": "7"}), picture({}), RULES) == 7


def test_failed_pod_with_an_address_of_somebody_else_bars_nothing() -> None:
    known = {A: record(State.CLAIMED, at=900.0)}
    other = pod("web-1", A, owner="ReplicaSet/web", created=500.0)
    assert ends(known, other) == {A: End.CANCELLED}


def test_failed_pod_s_late_claim_does_not_cost_the_pod_that_has_the_address_and_is_going_its_own() -> None:
    # The other's claim came first and was replaced by this one, of a pod that had only kept the address in its status.
    known = {A: record(State.CLAIMED, at=900.0, policy={"hold": "skip"})}
    other = pod("web-1", A, owner="StatefulSet/web", created=500.0, deleting=True)
    plan = decide(picture(known, other), RULES)
    assert plan.ended == ()
    taken = plan.records[A]
    assert (taken.uid, taken.owner, taken.state) == (other.uid, "StatefulSet/web", State.TERMINATING)
    again = decide(picture({A: taken}, other), RULES)
    assert (again.records, again.ended) == ({}, ())
    rests = decide(picture({A: taken}, now=1100.0), RULES).records[A]
    assert (rests.pod, rests.state, rests.hold) == ("web-1", State.FREED, 100)


def test_late_claim_of_a_failed_pod_is_not_dropped_before_it_is_sure_that_the_address_s_owner_stays() -> None:
    known = {A: record(State.CLAIMED, at=960.0)}
    other = pod("web-1", A, owner="StatefulSet/web", created=500.0)
    # It may have been claimed just before, with its deletion not yet seen here.
    assert decide(picture(known, other), RULES).ended == ()
    going = decide(picture(known, replace(other, deleting=True)), RULES)
    assert (going.records[A].pod, going.records[A].state) == ("web-1", State.TERMINATING)
    gone = decide(picture(known), RULES)
    assert gone.records[A].state is State.FREED
    assert ends(known, other, now=1020.0) == {A: End.CANCELLED}


def test_address_in_use_is_not_released_when_its_time_has_come() -> None:
    stranger = pod("web-1", A, owner="ReplicaSet/web", created=500.0)
    plan = decide(picture({A: record(at=100.0)}, stranger), RULES)
    assert (plan.ended, plan.swaps) == ((), (A,))


def test_address_that_a_pending_pod_asks_for_is_not_released() -> None:
    assert ends({A: record(at=100.0)}, pod("cache-0", uid="new", asks=(A,))) == {}


def test_same_ordinal_with_its_address_again_ends_the_hold() -> None:
    assert ends({A: record(at=950.0)}, pod("cache-0", A, uid="new", created=960.0)) == {A: End.RETURNED}


def test_barred_address_without_a_record_is_adopted_the_second_time_it_is_seen() -> None:
    first = decide(picture({}, barred=frozenset({A})), RULES)
    assert not first.records
    assert first.unrecorded == frozenset({A})
    second = decide(picture({}, barred=frozenset({A}), unrecorded=first.unrecorded), RULES)
    assert (second.adopted, second.records[A].state) == (frozenset({A}), State.FREED)


def test_record_that_is_not_barred_is_barred_again() -> None:
    assert decide(picture({A: record(at=950.0)}, barred=frozenset()), RULES).protect == {A}


def test_times_of_the_future_become_now() -> None:
    plan = decide(picture({A: record(at=9e9)}), RULES)
    assert plan.records[A].freed == 1000.0


def test_scale_down_and_owner_delete_follow_their_own_policies() -> None:
    known = {A: record(State.CLAIMED, pod="cache-2", policy={"on-scale-down": "short", "on-owner-delete": "skip"})}
    kept = decide(picture(known, workloads={("team", "cache"): Workload(replicas=3, deleting=False)}), RULES)
    shrunk = decide(picture(known, workloads={("team", "cache"): Workload(replicas=2, deleting=False)}), RULES)
    gone = decide(picture(known, workloads={}), RULES)
    assert [plan.records[A].hold for plan in (kept, shrunk, gone)] == [100, 10, 0]
    assert gone.records[A].end is End.SKIPPED


def test_annotation_of_the_statefulset_wins_over_the_pod_s_and_the_namespace_s() -> None:
    known = {A: record(State.CLAIMED, policy={"hold": "30s"}), B: record(State.CLAIMED, pod="x-0", owner="Job/x")}
    layered = picture(
        known, defaults={"team": {"hold": "20s"}},
        workloads={("team", "cache"): Workload(replicas=1, deleting=False, annotations={"hold": "5m"})},
    )  # fmt: skip
    plan = decide(layered, RULES)
    assert (plan.records[A].hold, plan.records[B].hold) == (300, 20)


def test_policy_that_makes_no_sense_keeps_the_normal_hold() -> None:
    plan = decide(picture({A: record(State.CLAIMED, policy={"hold": "soon", "on-owner-delete": "maybe"})}), RULES)
    assert plan.records[A].hold == 100


def block(queue: tuple[int, ...], *, host: str = "n1") -> Block:
    at = [Address(f"10.0.0.{n}") for n in range(8)]
    taken = frozenset(at) - {at[n] for n in queue}
    return Block(cidr="10.0.0.0/29", host=host, allocated=taken, queue=tuple(at[n] for n in queue))


def test_pressure_ends_the_oldest_holds_before_a_waiting_pod_would_fail() -> None:
    ipam = Ipam(blocks=(block((1, 2, 3)),), pools=(Range(cidr="10.0.0.0/29", block=29),))
    known = {A: record(at=950.0), B: record(at=940.0), C: record(at=930.0)}
    assert ends(known, ipam=ipam) == {C: End.PRESSURE}
    assert ends(known, pod("new"), ipam=ipam) == {C: End.PRESSURE, B: End.PRESSURE}


def test_pressure_counts_the_block_limit_of_a_host_which_calico_does_not_borrow_past() -> None:
    large = Range(cidr="10.0.0.0/16", block=29)
    ipam = Ipam(blocks=(block((1, 2)),), pools=(large,), blocks_per_host=1)
    known = {A: record(at=950.0), B: record(at=940.0)}
    assert ends(known, ipam=ipam) == {B: End.PRESSURE}
    assert ends(known, ipam=replace(ipam, blocks_per_host=2)) == {}


RACK_A = Range(cidr="10.0.0.0/29", block=29, name="a", nodes="rack == 'a'")
RACK_B = Range(cidr="10.1.0.0/16", block=29, name="b", nodes="rack == 'b'")
RACKS = {"n1": {"rack": "a"}, "n2": {"rack": "b"}}


def test_pool_that_does_not_select_a_node_is_of_no_use_to_it() -> None:
    ipam = Ipam(blocks=(block((1, 2)),), pools=(RACK_A, RACK_B), nodes=RACKS)
    known = {A: record(at=950.0), B: record(at=940.0)}
    plan = decide(picture(known, pod("new"), ipam=ipam), RULES)
    assert {one: plan.records[one].end for one in plan.ended} == {A: End.PRESSURE, B: End.PRESSURE}
    assert plan.shortage == {"node n1 IPv4": 2}
    # The other node's pods do not mind, and a node that is gone has none.
    assert set(ends(known, pod("new", node="n2"), ipam=ipam)) == {B}
    assert ends(known, ipam=replace(ipam, blocks=(block((1, 2, 3), host="gone"),))) == {}
    # Selectors count for nothing where nodes cannot be listed.
    assert ends(known, pod("new"), ipam=replace(ipam, nodes=None)) == {}


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({}, True),
        ({"spec": {"disabled": True}}, False),
        ({"spec": {"allowedUses": ["Tunnel", "LoadBalancer"]}}, False),
        ({"spec": {"allowedUses": ["Workload"]}}, True),
        ({"spec": {"assignmentMode": "Manual"}}, False),
        ({"spec": {"namespaceSelector": "team == 'red'"}}, False),
        ({"spec": {"namespaceSelector": "all()", "nodeSelector": "all()", "assignmentMode": "Automatic"}}, True),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
        ({"status": {"conditions": [{"type": "Allocatable", "status": "False"}]}}, False),
        ({"status": {"conditions": [{"type": "Allocatable", "status": "True"}]}}, True),
    ],
)
def test_only_pools_that_calico_would_choose_by_itself_count_as_room(more: dict[str, Any], counts: bool) -> None:
    raw = {"metadata": {"name": "large"}, **more, "spec": {"cidr": "10.1.0.0/16", **more.get("spec", {})}}
    ipam = Ipam(blocks=(block((1,)),), pools=(Range(cidr="10.0.0.0/29", block=29), range_row(raw)))
    assert (ends({A: record(at=950.0)}, pod("new"), ipam=ipam) == {}) is counts


def test_pod_that_names_a_pool_gets_its_address_there_whatever_the_pool_selects() -> None:
    ipam = Ipam(blocks=(block((1, 2), host="n2"),), pools=(RACK_A, RACK_B), nodes=RACKS, blocks_per_host=1)
    known = {A: record(at=950.0), B: record(at=940.0)}
    one = pod("new", node="n2", pools=((4, "a"), (6, "other")))
    plan = decide(picture(known, one, ipam=ipam), RULES)
    assert plan.shortage["node n2 IPv4 of pools 10.0.0.0/29"] == 2
    assert set(plan.ended) == {A, B}
    by_request = replace(ipam, pools=(replace(RACK_A, by_request=True), RACK_B))
    assert set(ends(known, one, ipam=by_request)) == {A, B}
    assert ends(known, pod("new", node="n2"), ipam=by_request) == {}
    # As Calico, which fails then.
    assert set(ends(known, replace(one, pools=((4, "none"),)), ipam=by_request)) == set()


def six(queue: tuple[int, ...], *, host: str = "n1") -> Block:
    at = [records.address(f"fd00::{n}") for n in range(8)]
    taken = frozenset(at) - {at[n] for n in queue}
    return Block(cidr="fd00::/125", host=host, allocated=taken, queue=tuple(at[n] for n in queue))


def test_free_addresses_of_one_ip_version_do_not_help_the_other() -> None:
    pools = (Range(cidr="10.0.0.0/29", block=29), Range(cidr="fd00::/125", block=125))
    sixth = records.address("fd00::1")
    older = {sixth: record(at=905.0), A: record(at=950.0)}
    ipam = Ipam(blocks=(block((1,)), six((1, 2, 3))), pools=pools)
    assert ends(older, pod("new"), ipam=ipam) == {A: End.PRESSURE}
    ipam = Ipam(blocks=(block((1, 2, 3)), six((1,))), pools=pools)
    assert ends(older, pod("new"), ipam=ipam) == {sixth: End.PRESSURE}
    assert decide(picture(older, pod("new"), ipam=ipam), RULES).shortage == {"node n1 IPv6": 2, "pools fd00::/125": 1}


def test_limit_of_blocks_is_counted_for_each_ip_version_and_over_all_pools_together() -> None:
    both = (block((1,)), six((1, 2, 3)))
    large = (Range(cidr="10.0.0.0/16", block=29), Range(cidr="fd00::/125", block=125))
    # One block of each: a second one may be claimed.
    assert ends({A: record(at=950.0)}, ipam=Ipam(blocks=both, pools=large, blocks_per_host=2)) == {}
    # One more block is one more, in whichever of two pools: 8 addresses for 9 pods.
    two = (Range(cidr="10.0.0.0/28", block=29), Range(cidr="10.1.0.0/29", block=29))
    waiting = [pod(f"new-{n}") for n in range(8)]
    ipam = Ipam(blocks=(block((1,)),), pools=two, blocks_per_host=2)
    assert ends({A: record(at=950.0)}, *waiting[:7], ipam=ipam) == {}
    assert ends({A: record(at=950.0)}, *waiting, ipam=ipam) == {A: End.PRESSURE}


def test_node_borrows_only_when_nothing_is_left_to_claim_and_its_limit_is_not_reached() -> None:
    ours, theirs = block((1,)), Block(
        cidr="10.0.0.8/29", host="n2", allocated=frozenset(), queue=tuple(Address(f"10.0.0.{n}") for n in range(8, 16))
    )  # fmt: skip
    known = {A: record(at=950.0)}
    ipam = Ipam(blocks=(ours, theirs), pools=(Range(cidr="10.0.0.0/28", block=29),), blocks_per_host=2)
    assert ends(known, pod("new"), ipam=ipam) == {}
    for other in (replace(ipam, strict=True), replace(ipam, blocks_per_host=1), replace(ipam, claims_blocks=False)):
        assert ends(known, pod("new"), ipam=other) == {A: End.PRESSURE}
    # The last block that it may claim is wholly barred, so that Calico does not claim it, and borrows.
    wider = replace(ipam, pools=(*ipam.pools, Range(cidr="10.0.0.16/29", block=29)))
    barred = {Address(f"10.0.0.{n}"): record(at=960.0) for n in range(16, 24)} | known
    assert ends(barred, *[pod(f"new-{n}") for n in range(7)], ipam=wider, rules=replace(RULES, max_count=99)) == {}


def test_block_that_is_barred_as_a_whole_is_no_room_for_a_node() -> None:
    known = {Address(f"10.0.0.{n}"): record(at=950.0 - n) for n in (1, *range(8, 16))}
    ipam = Ipam(blocks=(block((1,)),), pools=(Range(cidr="10.0.0.0/28", block=29),))
    rules = replace(RULES, max_count=99)
    assert len(ends(known, pod("new"), rules=rules, ipam=ipam)) == 2
    # Once some of it are open, it may be claimed.
    assert ends({A: known[A]}, pod("new"), rules=rules, ipam=ipam) == {}


def test_what_others_reserve_is_no_room_and_ending_a_hold_there_is_of_no_use() -> None:
    ipam = Ipam(blocks=(block((1, 2, 3)),), pools=(Range(cidr="10.0.0.0/29", block=29),), reserved=frozenset({B, C}))
    known = {A: record(at=950.0), B: record(at=940.0)}
    assert ends(known, ipam=ipam) == {A: End.PRESSURE}
    assert ends(known, ipam=replace(ipam, reserved=frozenset())) == {}


def test_large_range_that_somebody_reserves_is_no_part_of_a_pool() -> None:
    small, large = Range(cidr="10.0.0.0/29", block=29), Range(cidr="10.1.0.0/18", block=26, name="large")
    left = without([small, large], ["10.1.0.0/19", "fd00::/64", "10.9.0.0/16"])
    assert left == (small, replace(large, cidr="10.1.32.0/19", of="10.1.0.0/18"))
    assert without([large], ["10.0.0.0/8"]) == ()
    ipam = Ipam(blocks=(block((1,)),), pools=(small, large))
    known = {A: record(at=950.0)}
    assert ends(known, pod("new"), ipam=ipam) == {}
    assert ends(known, pod("new"), ipam=replace(ipam, pools=without(ipam.pools, ["10.1.0.0/16"]))) == {A: End.PRESSURE}
    # A pod that names the pool still means it.
    by_name = pod("new", pools=((4, "10.1.0.0/18"),))
    assert ends(known, by_name, ipam=replace(ipam, pools=left)) == {}


def test_what_each_of_two_nodes_could_borrow_is_not_counted_twice() -> None:
    full = [Block(cidr=f"10.0.0.{8 * n}/29", host=f"n{n}", allocated=frozenset(), queue=()) for n in (1, 2)]
    ipam = Ipam(
        blocks=(block((1, 2), host="n3"), *full), pools=(Range(cidr="10.0.0.0/29", block=29),), blocks_per_host=9
    )  # fmt: skip
    pods = [pod("new-1", node="n1"), pod("new-2", node="n2")]
    assert ends({A: record(at=950.0)}, pods[0], ipam=ipam) == {A: End.PRESSURE}
    plan = decide(picture({A: record(at=950.0), B: record(at=940.0)}, *pods, ipam=ipam), RULES)
    assert set(plan.ended) == {A, B}


def full(cidr: str, host: str, *free: int) -> Block:
    """A block of 4 whose addresses are taken but for these."""
    first = int(cidr.partition("/")[0].rpartition(".")[2])
    at = [Address(f"10.0.0.{first + n}") for n in range(4)]
    return Block(
        cidr=cidr, host=host, allocated=frozenset(one for n, one in enumerate(at) if n not in free),
        queue=tuple(at[n] for n in free),
    )  # fmt: skip


def test_last_block_is_not_promised_to_two_nodes() -> None:
    blocks = (full("10.0.0.0/30", "n1", 1), full("10.0.0.4/30", "n2", 1))
    ipam = Ipam(blocks=blocks, pools=(Range(cidr="10.0.0.0/28", block=30),), strict=True)
    known = {Address("10.0.0.1"): record(at=950.0), Address("10.0.0.5"): record(at=940.0)}
    # Two blocks are left, one for each.
    assert ends(known, pod("new", node="n1"), ipam=ipam) == {}
    third = replace(ipam, blocks=(*blocks, full("10.0.0.8/30", "n3", 0, 1, 2)))
    # One is left, and each may claim it before the other does: also before anybody waits.
    assert ends(known, ipam=third) == {Address("10.0.0.5"): End.PRESSURE}
    both = (pod("new-1", node="n1"), pod("new-2", node="n2"))
    assert set(ends(known, *both, ipam=third)) == set(known)
    # None is left: each needs what it holds itself.
    taken = replace(ipam, pools=(Range(cidr="10.0.0.0/29", block=30),))
    assert set(ends(known, *both, ipam=taken)) == set(known)


def test_block_that_another_node_has_empty_and_wholly_held_is_opened_for_a_pod_that_has_nowhere_else_to_go() -> None:
    # Calico takes an empty block from its node, once something of it is free.
    blocks = [full("10.0.0.0/30", "n1"), full("10.0.0.4/30", "n2", 0, 1, 2, 3)]
    blocks += [full("10.0.0.8/30", "n3", 0, 1, 2), full("10.0.0.12/30", "n3", 0, 1, 2)]
    ipam = Ipam(blocks=tuple(blocks), pools=(Range(cidr="10.0.0.0/28", block=30),), strict=True)
    known = {Address(f"10.0.0.{n}"): record(at=950.0 - n) for n in (4, 5, 6, 7)}
    # The oldest of them, and as many as pods wait.
    ended = ends(known, pod("new-1", node="n1"), pod("new-2", node="n1"), ipam=ipam)
    assert {Address("10.0.0.7"), Address("10.0.0.6")} <= set(ended)


# The pools of two nodes, of which they share the second.
LEFT, SHARED, RIGHT = (Range(cidr=f"10.0.0.{4 * n}/30", block=30, name=name) for n, name in enumerate(("l", "s", "r")))
SHARING = (replace(LEFT, nodes="side == 'l'"), SHARED, replace(RIGHT, nodes="side == 'r'"))
SIDES = {"n1": {"side": "l"}, "n2": {"side": "r"}}


def test_what_nodes_of_partly_the_same_pools_may_take_from_each_other_is_counted_once() -> None:
    # One free address is left in the pool that they share; each holds one in its own. Calico may serve either first.
    blocks = (full("10.0.0.0/30", "n1", 1), full("10.0.0.4/30", "n3", 1), full("10.0.0.8/30", "n2", 1))
    ipam = Ipam(blocks=blocks, pools=SHARING, nodes=SIDES)
    known = {Address("10.0.0.1"): record(at=950.0), Address("10.0.0.9"): record(at=940.0)}
    assert len(ends(known, pod("new-1", node="n1"), pod("new-2", node="n2"), ipam=ipam)) > 0
    third = (pod("new-1", node="n1"), pod("new-2", node="n2"), pod("new-3", node="n1"))
    assert set(ends(known, *third, ipam=ipam)) == set(known)


def test_hold_ends_in_a_pool_that_a_pod_cannot_use_where_another_would_take_its_only_address_instead() -> None:
    # Both may have the free one in the pool that they share. The other node's own block has one, which rests, and what
    # else is free in that pool it would borrow; but it looks in the shared pool first.
    wide = (*SHARING[:2], replace(SHARING[2], cidr="10.0.0.8/29"))
    blocks = (full("10.0.0.4/30", "n3", 1), full("10.0.0.8/30", "n2", 1), full("10.0.0.12/30", "n3", 1, 2))
    ipam = Ipam(blocks=blocks, pools=wide, nodes=SIDES)
    known = {Address("10.0.0.9"): record(at=950.0)}
    other, named = pod("new-1", node="n2"), pod("new-2", node="n1", pools=((4, "s"),))
    assert ends(known, other, ipam=ipam) == {}
    assert ends(known, other, named, ipam=ipam) == {Address("10.0.0.9"): End.PRESSURE}


def test_nodes_of_partly_the_same_pools_with_room_for_all_end_no_hold() -> None:
    wide = tuple(replace(one, cidr=f"10.{n}.0.0/24") for n, one in enumerate(SHARING))
    ipam = Ipam(blocks=(), pools=wide, nodes=SIDES)
    known = {Address(f"10.{n}.0.{m}"): record(at=950.0 - m) for n in range(3) for m in range(8)}
    waiting = [pod(f"new-{n}", node=node, pools=pools) for n in range(3) for node, pools in (
        ("n1", ()), ("n2", ()), ("n1", ((4, "s"),))
    )]  # fmt: skip
    rules = replace(RULES, max_count=99)
    for strict in (False, True):
        assert ends(known, *waiting, ipam=replace(ipam, strict=strict), rules=rules) == {}


def test_doomed_pod_of_a_pool_that_others_use_too_ends_no_holds_of_theirs() -> None:
    # Nothing rests in the only pool that it names, and nothing is free there.
    blocks = (full("10.0.0.4/30", "n3"), full("10.0.0.0/30", "n1", 0, 1, 2, 3))
    ipam = Ipam(blocks=blocks, pools=SHARING, nodes=SIDES)
    known = {Address("10.0.0.1"): record(at=950.0)}
    named = pod("new-1", node="n1", pools=((4, "s"),))
    assert ends(known, named, pod("new-2", node="n1"), ipam=ipam) == {}


def test_doomed_pod_on_a_node_at_its_limit_ends_no_holds_that_are_of_no_use_to_it() -> None:
    ipam = Ipam(blocks=(full("10.0.0.0/30", "n1"),), pools=(Range(cidr="10.0.0.0/16", block=30),), blocks_per_host=1)
    known = {Address(f"10.0.1.{n}"): record(at=950.0 - n) for n in range(8)}
    assert ends(known, pod("new", node="n1"), ipam=ipam) == {}


def test_address_that_calico_passed_over_for_a_later_one_counts_as_a_prevented_swap() -> None:
    before, after = Ipam(blocks=(block((1, 2, 3)),)), Ipam(blocks=(block((1, 3)),))
    assert pool.spared(before, after, [A, C]) == {A}


def test_advice_names_the_block_limit_that_pods_and_holds_do_not_fit() -> None:
    ipam = Ipam(blocks=(), pools=(Range(cidr="10.0.0.0/16", block=28),))
    found = pool.advise(ipam, cooldown=30.0, pods_per_node=250, rules=replace(RULES, max_count=300))
    assert "at most 20 blocks of /28, 320 addresses" in found[0]
    fits = pool.advise(
        replace(ipam, pools=(Range(cidr="10.0.0.0/16", block=26),)), cooldown=30.0, pods_per_node=250,
        rules=replace(RULES, max_count=300),
    )  # fmt: skip
    assert [one.partition(":")[0] for one in fits] == ["ipCooldownSeconds"]


def test_advice_names_pools_that_are_too_small_for_one_node_s_pods_and_holds() -> None:
    rules = replace(RULES, max_count=132)

    def said(*pools: Range) -> list[str]:
        found = pool.advise(Ipam(blocks=(), pools=pools), cooldown=30.0, pods_per_node=110, rules=rules)
        return [one for one in found if "in all" in one]

    small, large = Range(cidr="10.0.0.0/28", block=28), Range(cidr="10.1.0.0/16", block=26)
    assert said(small) == [
        "pools 10.0.0.0/28: 16 addresses in all, and one node may need 110 for pods and 132 for holds. "
        "Add a pool or enlarge these, or lower max-count."
    ]
    # What is small beside a large one does no harm, unless it is all that a node has.
    assert said(small, large) == []
    assert len(said(small, replace(large, nodes="rack == 'a'"))) == 1
    assert len(said(small, replace(large, disabled=True))) == 1
    assert len(said(small, replace(large, by_request=True))) == 1
    assert len(said(Range(cidr="fd00::/124", block=124), large)) == 1


def test_release_that_was_cut_short_after_the_address_was_opened_goes_on_though_somebody_has_it() -> None:
    # Whose it is now got it after the hold, so that it is no swap.
    going = {A: record(State.RELEASING, end=End.EXPIRED)}
    now_its = pod("web-0", A, uid="other", created=999.0)
    opened = replace(picture(going, now_its), book=Book.of(going, (), at=1000.0))
    plan = decide(opened, RULES)
    assert (plan.ended, plan.protect, plan.swaps) == ((A,), frozenset(), ())
    assert decide(picture(going, now_its), RULES).ended == ()


@pytest.mark.parametrize(
    ("cooldown", "says"),
    [(None, "30 to 60 s also cover what"), (0.0, "30 to 60 s also cover what"), (3600.0, "are enough")],
)
def test_advice_asks_for_a_cooldown_of_calico_s_own_and_for_a_short_one(cooldown: float | None, says: str) -> None:
    found = pool.advise(Ipam(blocks=()), cooldown=cooldown, pods_per_node=110, rules=RULES)
    assert says in found[0]


# --- sets, shards, ranges -------------------------------------------------------------------------------------------


def test_list_is_canonical_sorted_and_unique() -> None:
    assert layout.render([Address("fd00::1"), B, A, B]) == ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"]


def test_ranges_bar_exactly_the_same_addresses() -> None:
    some = [Address(f"10.1.{n // 256}.{n % 256}") for n in range(1000)] + [
        records.address(f"fd00::{n:x}") for n in range(300)
    ]
    listed = layout.render(some, aggregate=True)
    assert len(listed) < 20
    assert records.expand(listed) == (frozenset(some), (), ())


def test_neighbours_share_a_shard_and_a_lost_node_does_not_fill_one() -> None:
    node = [Address(f"10.1.0.{n}") for n in range(256)]
    spread = [layout.shard_of(one, 16) for one in node]
    assert all(len(set(spread[n : n + 16])) == 1 for n in range(0, 256, 16))
    assert len(set(spread)) > 4


def test_shards_grow_with_entries_and_bytes_and_never_shrink() -> None:
    assert [layout.shards_for(n, 1) for n in (0, 2000, 2001, 32_000, 32_001, 100_000)] == [1, 1, 16, 16, 32, 64]
    assert layout.shards_for(10, 16) == 16
    assert layout.shards_for(10, 1, largest=800_000) == 16


# --- what is followed from sweep to sweep ---------------------------------------------------------------------------

FOUR = [Address(f"10.3.{n // 256}.{n % 256}") for n in range(0, 640, 8)]
SIX = [records.address(f"fd00::{n:x}") for n in range(0, 320, 16)]


@st.composite
def shard_contents(draw: st.DrawFn) -> dict[int, tuple[dict[Address, Record], frozenset[Address]]]:
    """Three shards of four; what is in them may belong elsewhere, twice, or be half of a pair."""
    found: dict[int, tuple[dict[Address, Record], frozenset[Address]]] = {}
    for index in draw(st.sets(st.integers(0, 3), max_size=3)):
        some = st.sets(st.sampled_from(FOUR + SIX), max_size=40)
        held = {
            one: record(
                draw(st.sampled_from(list(State))), at=float(draw(st.integers(0, 9))), seq=draw(st.integers(0, 9)),
                namespace=draw(st.sampled_from(["red", "blue"])), hold=draw(st.sampled_from([None, 0.0, 5.0])),
            )
            for one in draw(some)
        }  # fmt: skip
        found[index] = held, frozenset(draw(some))
    return found


def content(book: Book) -> dict[str, object]:
    """All of a book that a decision may look at."""
    return {
        "records": book.records, "barred": book.barred, "moving": book.moving, "resting": book.resting,
        "ahead": book.ahead, "unprotected": book.unprotected, "unrecorded": book.unrecorded, "strays": book.strays,
        "states": +book.states, "by namespace": +book.by_namespace, "queue": book.queue.items,
        "due": book.due.items, "undated": book.undated,
        "numbers": {version: numbers.items for version, numbers in book.numbers.items()},
    }  # fmt: skip


@given(rounds=st.lists(shard_contents(), min_size=2, max_size=4), few=st.sampled_from([0, 5, 500]), kept=st.booleans())
@settings(max_examples=80, deadline=None)
def test_book_that_followed_changes_holds_what_one_made_anew_does(
    rounds: list[dict[int, tuple[dict[Address, Record], frozenset[Address]]]], few: int, kept: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipreserve.book.FEW", few)
        followed = Book(4)
        last: dict[int, tuple[dict[Address, Record], frozenset[Address]]] = {}
        for number, now in enumerate(rounds):
            # Shards that did not change are the very same objects, as the store hands them over.
            last = {**last, **now} if kept else now
            followed.follow(last, at=float(3 + number))
        anew = Book(4)
        anew.follow(last, at=float(2 + len(rounds)))
    # A time that has been passed meanwhile is still looked at, which costs a look and changes nothing.
    followed.ahead &= anew.ahead
    assert content(followed) == content(anew)


# --- everything together --------------------------------------------------------------------------------------------

HOLD = 100.0
HOSTS = [Address(f"10.9.0.{n}") for n in range(1, 9)]


class Cluster(RuleBasedStateMachine):
    """Pods come and go, claims are half-written, people break things; the sweeper sweeps. Calico takes the first free
    address that is not barred, so that every mistake shows at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.uids = itertools.count(1)
        self.pods: dict[str, Pod] = {}
        self.claimed: set[str] = set()
        self.barred: set[Address] = set()
        self.known: dict[Address, Record] = {}
        self.unrecorded: frozenset[Address] = frozenset()
        # One that follows everything; each decision must be that of one made anew.
        self.book = Book()
        self.left: dict[Address, tuple[float, str]] = {}
        self.meddled: set[Address] = set()

    @initialize()
    def begin(self) -> None:
        for app in ("red", "blue"):
            for number in range(2):
                self.start(app, number)

    @rule(app=st.sampled_from(["red", "blue"]), number=st.integers(0, 3))
    def start(self, app: str, number: int) -> None:
        name = f"{app}-{number}"
        used = {one for found in self.pods.values() for one in found.addresses}
        free = [one for one in HOSTS if one not in used and one not in self.barred]
        if name in {found.name for found in self.pods.values()} or not free:
            return
        one = free[0]
        at, owner = self.left.get(one, (-1e9, app))
        assert owner == app or self.now - at >= HOLD or one in self.meddled, f"{one} went from {owner} to {app}"
        uid = f"uid-{next(self.uids)}"
        self.pods[uid] = Pod(
            uid=uid, namespace="team", name=name, node="n1", owner=f"StatefulSet/{app}", addresses=(one,),
            created=self.now,
        )  # fmt: skip

    def _claim(self, found: Pod, *, record: bool) -> None:
        self.claimed.add(found.uid)
        for one in found.addresses:
            self.barred.add(one)
            claim = Claim(
                address=one, namespace=found.namespace, pod=found.name, node=found.node, uid=found.uid,
                owner=found.owner, via="delete", at=self.now,
            )  # fmt: skip
            if record:
                seq = len(self.known) + 1
                self.known[one] = records.claimed(claim, before=self.known.get(one), seq=seq)

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), recorded=st.booleans())
    def delete(self, data: st.DataObject, recorded: bool) -> None:
        """Admission; not `recorded` means killed between the two writes, and then nothing is deleted."""
        found = self.pods[data.draw(st.sampled_from(sorted(self.pods)))]
        self._claim(found, record=recorded)
        if recorded:
            self.pods[found.uid] = replace(found, deleting=True)

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def evict_in_vain(self, data: st.DataObject) -> None:
        self._claim(self.pods[data.draw(st.sampled_from(sorted(self.pods)))], record=True)

    @precondition(lambda self: any(found.deleting for found in self.pods.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        going = sorted(uid for uid, found in self.pods.items() if found.deleting)
        found = self.pods.pop(data.draw(st.sampled_from(going)))
        # Kubelet's last DELETE asks admission once more.
        self._claim(found, record=True)
        for one in found.addresses:
            self.left[one] = self.now, found.owner.partition("/")[2]
            self.meddled.discard(one)

    @rule(data=st.data())
    def somebody_removes_a_reservation(self, data: st.DataObject) -> None:
        if self.barred:
            one = data.draw(st.sampled_from(sorted(self.barred)))
            self.barred.discard(one)
            self.sweep()

    @rule(data=st.data())
    def somebody_removes_a_record(self, data: st.DataObject) -> None:
        if self.known:
            one = data.draw(st.sampled_from(sorted(self.known)))
            del self.known[one]
            # Its pod may live: then it is adopted, and ends as a claim that came to nothing.
            self.meddled.add(one)

    @rule(seconds=st.sampled_from([1.0, 31.0, 90.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        in_use = {one for found in self.pods.values() for one in found.addresses}
        plan = self.decide(self.unrecorded)
        self.unrecorded = plan.unrecorded
        self.known.update(plan.records)
        self.barred |= plan.protect
        for one in plan.ended:
            assert one not in in_use or self.known[one].end in (End.CANCELLED, End.RETURNED)
            self.barred.discard(one)
            del self.known[one]
        assert set(self.known) <= self.barred
        again = self.decide(frozenset())
        assert (again.records, again.ended, again.protect) == ({}, (), frozenset()), "a second sweep changes nothing"

    def decide(self, unrecorded: frozenset[Address]) -> Plan:
        self.book.follow({0: (dict(self.known), frozenset(self.barred))}, at=self.now)
        anew = Book.of(dict(self.known), self.barred, at=self.now)
        first, second = (
            decide(
                Picture(
                    now=self.now, book=book, pods=tuple(self.pods.values()), ipam=None, workloads=None,
                    unrecorded=unrecorded,
                ),
                Rules(hold=HOLD, max_count=100, cancel_after=30),
            )
            for book in (self.book, anew)
        )  # fmt: skip
        assert first == second
        return first

    @invariant()
    def addresses_that_left_are_barred(self) -> None:
        used = {one for found in self.pods.values() for one in found.addresses}
        for one, (at, _) in self.left.items():
            assert one in self.barred or one in used or self.now - at >= HOLD or one in self.meddled

    def teardown(self) -> None:
        """With everything gone and time passing, nothing stays barred."""
        self.pods.clear()
        for _ in range(6):
            self.sweep()
            self.now += HOLD
        assert (self.barred, self.known) == (set(), {})


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
