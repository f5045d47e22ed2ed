"""The pressure valve against the sandbox's model of how Calico chooses addresses."""

from __future__ import annotations

import copy
import ipaddress
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ipreserve import pool
from ipreserve.book import Book
from ipreserve.pool import Picture, Pod, Rules
from ipreserve.records import Address, Record, State, canonical
from ipreserve.sweeper import block_row, range_row
from sandbox.calico import ipam

NODES = ("n1", "n2", "n3")
NOW = 1000.0
SHAPES = (
    (("10.0.0.0/27", 30),),
    (("10.0.0.0/28", 30),),
    (("10.0.0.0/28", 31),),
    (("10.0.0.0/29", 30), ("10.1.0.0/29", 31)),
    (("10.0.0.0/29", 31), ("10.1.0.0/28", 30)),
)
"""Pools, each with the prefix length of its blocks."""

Acts = list[tuple[str, int]]


def resting(at: float) -> Record:
    return Record(
        namespace="team", pod="cache-0", node="n1", uid="gone", owner="StatefulSet/cache", via="delete",
        state=State.FREED, first=at, last=at, freed=at, hold=9000.0,
    )  # fmt: skip


def lived(
    acts: Acts, pools: tuple[tuple[str, int], ...], *, most: int, strict: bool
) -> tuple[ipam.Ipam, dict[Address, Record]]:
    """Calico after these acts, with a hold on each address that a pod has left."""
    calico = ipam.Ipam(
        [ipam.Pool(ipaddress.ip_network(cidr), block) for cidr, block in pools],
        strict_affinity=strict, max_blocks=most,
    )  # fmt: skip
    held: dict[Address, Record] = {}
    running: list[str] = []
    for number, (act, which) in enumerate(acts):
        node = NODES[which % len(NODES)]
        if act == "start":
            try:
                calico.auto_assign(node, f"pod-{number}")
                running.append(f"pod-{number}")
            except ipam.NoAddress:
                continue
        elif act == "give up":
            calico.release_empty_blocks(node)
        elif running:
            for one in calico.release(running.pop(which % len(running))):
                held[Address(str(one))] = resting(float(number))
        calico.reserved = [ipaddress.ip_network(canonical(one)) for one in held]
    return calico, held


def served(calico: ipam.Ipam, nodes: list[str]) -> int:
    """How many of these pods get an address, one after the other."""
    found = 0
    for number, node in enumerate(nodes):
        try:
            calico.auto_assign(node, f"new-{number}")
            found += 1
        except ipam.NoAddress:
            continue
    return found


def swept(
    calico: ipam.Ipam, held: dict[Address, Record], pools: tuple[tuple[str, int], ...], waiting: list[str]
) -> pool.Plan:
    """One sweep, which knows of these pods."""
    rows = [block_row({"spec": block.spec()}) for block in calico.blocks.values()]
    seen = pool.Ipam(
        blocks=tuple(row for row in rows if row is not None),
        pools=tuple(range_row({"spec": {"cidr": cidr, "blockSize": block}}) for cidr, block in pools),
        strict=calico.strict_affinity,
        blocks_per_host=calico.max_blocks,
    )
    pods = [
        Pod(uid=f"new-{n}", namespace="team", name=f"new-{n}", node=node, owner="", addresses=(), created=NOW)
        for n, node in enumerate(waiting)
    ]
    return pool.decide(
        Picture(now=NOW, book=Book.of(held, held, at=NOW), pods=pods, ipam=seen), Rules(max_count=999)
    )  # fmt: skip


def lacking(
    acts: Acts, pools: tuple[tuple[str, int], ...], waiting: list[str], *, most: int, strict: bool
) -> tuple[int, int]:
    """How many of the pods that wait get no address after the sweep, though they would without holds; and its cost."""
    calico, held = lived(acts, pools, most=most, strict=strict)
    plan = swept(calico, held, pools, waiting)
    unreserved = copy.deepcopy(calico)
    unreserved.reserved = []
    calico.reserved = [ipaddress.ip_network(canonical(one)) for one in held if one not in plan.ended]
    return max(0, served(unreserved, waiting) - served(calico, waiting)), len(plan.ended)


@given(
    acts=st.lists(st.tuples(st.sampled_from(["start", "start", "stop", "give up"]), st.integers(0, 99)), max_size=60),
    pools=st.sampled_from(SHAPES),
    waiting=st.lists(st.sampled_from(NODES), min_size=1, max_size=5),
    most=st.integers(1, 5),
    strict=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_no_pod_that_waits_lacks_an_address_for_the_sake_of_a_hold(
    acts: Acts, pools: tuple[tuple[str, int], ...], waiting: list[str], most: int, strict: bool
) -> None:
    assert lacking(acts, pools, waiting, most=most, strict=strict)[0] == 0


def test_nor_does_one_in_clusters_that_have_been_busy_for_long() -> None:
    # Hypothesis likes short lives, in which nothing becomes scarce.
    chance = random.Random(5)
    for _ in range(400):
        acts = [
            (chance.choice(["start", "start", "start", "stop", "stop", "give up"]), chance.randrange(100))
            for _ in range(chance.randint(20, 70))
        ]
        pools, waiting = chance.choice(SHAPES), chance.choices(NODES, k=chance.randint(1, 5))
        most, strict = chance.randint(1, 6), chance.random() < 0.5
        assert lacking(acts, pools, waiting, most=most, strict=strict)[0] == 0, (acts, pools, waiting, most, strict)


# --- pools that only some nodes or pods may use -----------------------------------------------------------------------

Some = tuple[str, int, str]
"""A pool, the prefix length of its blocks, and the nodes that it selects."""

OVERLAPPING: tuple[tuple[Some, ...], ...] = (
    (("10.0.0.0/29", 30, "n1 n2"), ("10.1.0.0/29", 30, "n2 n3")),
    (("10.0.0.0/29", 31, "n1 n2"), ("10.1.0.0/29", 30, "n2 n3"), ("10.2.0.0/29", 31, "n1 n3")),
    (("10.0.0.0/28", 30, "n1 n2 n3"), ("10.1.0.0/29", 31, "n1")),
    (("10.0.0.0/29", 30, "n1 n2 n3"), ("10.1.0.0/29", 31, "n2 n3"), ("10.2.0.0/30", 31, "n3")),
)
Ask = tuple[str, int]
"""A node, and which pool the pod names, from 1 on; 0 where it names none."""


def usable(pools: tuple[Some, ...], ask: Ask) -> list[ipam.Network]:
    """Of which pools such a pod gets its address: those that it names, whatever they select."""
    node, named = ask
    chosen = [pools[named - 1]] if 0 < named <= len(pools) else [one for one in pools if node in one[2].split()]
    return [ipaddress.ip_network(cidr) for cidr, _, _ in chosen]


def given_by_pools(calico: ipam.Ipam, pools: tuple[Some, ...], asks: list[Ask]) -> int:
    found = 0
    for number, ask in enumerate(asks):
        try:
            calico.auto_assign(ask[0], f"new-{number}", pools=usable(pools, ask))
            found += 1
        except ipam.NoAddress:
            continue
    return found


def lived_in_pools(
    acts: list[tuple[str, int, int]], pools: tuple[Some, ...], *, most: int, strict: bool
) -> tuple[ipam.Ipam, dict[Address, Record]]:
    """As `lived`, where each pod that starts may name a pool."""
    calico = ipam.Ipam(
        [ipam.Pool(ipaddress.ip_network(cidr), block) for cidr, block, _ in pools],
        strict_affinity=strict, max_blocks=most,
    )  # fmt: skip
    held: dict[Address, Record] = {}
    running: list[str] = []
    for number, (act, which, named) in enumerate(acts):
        node = NODES[which % len(NODES)]
        if act == "start":
            try:
                calico.auto_assign(node, f"pod-{number}", pools=usable(pools, (node, named)))
                running.append(f"pod-{number}")
            except ipam.NoAddress:
                continue
        elif act == "give up":
            calico.release_empty_blocks(node)
        elif running:
            for one in calico.release(running.pop(which % len(running))):
                held[Address(str(one))] = resting(float(number))
        calico.reserved = [ipaddress.ip_network(canonical(one)) for one in held]
    return calico, held


def swept_pools(
    calico: ipam.Ipam, held: dict[Address, Record], pools: tuple[Some, ...], asks: list[Ask]
) -> pool.Plan:  # fmt: skip
    rows = [block_row({"spec": block.spec()}) for block in calico.blocks.values()]
    seen = pool.Ipam(
        blocks=tuple(row for row in rows if row is not None),
        pools=tuple(
            range_row({
                "metadata": {"name": f"pool-{number}"},
                "spec": {
                    "cidr": cidr, "blockSize": block,
                    "nodeSelector": " || ".join(f"name == '{node}'" for node in nodes.split()),
                },
            })
            for number, (cidr, block, nodes) in enumerate(pools, 1)
        ),
        strict=calico.strict_affinity,
        blocks_per_host=calico.max_blocks,
        nodes={node: {"name": node} for node in NODES},
    )  # fmt: skip
    pods = [
        Pod(
            uid=f"new-{n}", namespace="team", name=f"new-{n}", node=node, owner="", addresses=(), created=NOW,
            pools=((4, f"pool-{named}"),) if 0 < named <= len(pools) else (),
        )
        for n, (node, named) in enumerate(asks)
    ]  # fmt: skip
    return pool.decide(
        Picture(now=NOW, book=Book.of(held, held, at=NOW), pods=pods, ipam=seen), Rules(max_count=999)
    )  # fmt: skip


def lacking_in_pools(
    acts: list[tuple[str, int, int]], pools: tuple[Some, ...], asks: list[Ask], *, most: int, strict: bool
) -> int:
    calico, held = lived_in_pools(acts, pools, most=most, strict=strict)
    plan = swept_pools(calico, held, pools, asks)
    unreserved = copy.deepcopy(calico)
    unreserved.reserved = []
    calico.reserved = [ipaddress.ip_network(canonical(one)) for one in held if one not in plan.ended]
    return max(0, given_by_pools(unreserved, pools, asks) - given_by_pools(calico, pools, asks))


def test_nor_where_the_pools_of_some_pods_are_partly_those_of_others() -> None:
    chance = random.Random(46)
    for _ in range(600):
        pools = chance.choice(OVERLAPPING)
        acts = [
            (chance.choice(["start", "start", "start", "stop", "stop", "give up"]), chance.randrange(100),
             chance.choice([0, 0, 1, 2, 3]))
            for _ in range(chance.randint(10, 70))
        ]  # fmt: skip
        asks = [(chance.choice(NODES), chance.choice([0, 0, 1, 2, 3])) for _ in range(chance.randint(1, 6))]
        most, strict = chance.randint(1, 6), chance.random() < 0.5
        assert lacking_in_pools(acts, pools, asks, most=most, strict=strict) == 0, (acts, pools, asks, most, strict)
