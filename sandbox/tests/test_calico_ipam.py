"""The model of Calico's address management keeps Calico's rules."""

from __future__ import annotations

import ipaddress
import random

import pytest

from sandbox.calico.ipam import Block, BlockLimit, Ipam, NoAddress, Pool, Taken


def model(cidr: str = "10.9.0.0/29", block_size: int = 29, **settings: bool | int) -> Ipam:
    return Ipam([Pool(ipaddress.ip_network(cidr), block_size)], **settings)  # type: ignore[arg-type]


def reserve(ipam: Ipam, *addresses: object) -> None:
    ipam.reserved += [ipaddress.ip_network(str(one)) for one in addresses]


def test_freed_addresses_go_to_the_next_pods_of_somebody_else() -> None:
    # Seven of eight in use; two are freed, three others start: the second and third get exactly those two.
    ipam = model()
    held = [ipam.auto_assign("n1", f"a-{n}") for n in range(7)]
    ipam.release("a-3")
    ipam.release("a-4")
    given = [ipam.auto_assign("n1", f"b-{n}") for n in range(3)]
    assert given[1:] == [held[3], held[4]]


def test_reserved_addresses_are_passed_over_and_keep_their_places() -> None:
    ipam = model()
    for n in range(7):
        ipam.auto_assign("n1", f"a-{n}")
    (first,), (second,) = ipam.release("a-3"), ipam.release("a-4")
    reserve(ipam, first)
    ipam.auto_assign("n1", "b-0")
    assert ipam.auto_assign("n1", "b-1") == second
    with pytest.raises(NoAddress):
        ipam.auto_assign("n1", "b-2")
    ipam.reserved.clear()
    assert ipam.auto_assign("n1", "b-2") == first


def test_address_asked_for_by_name_is_given_though_reserved() -> None:
    ipam = model()
    address = ipaddress.ip_address("10.9.0.5")
    reserve(ipam, address)
    ipam.assign("n1", address, "a")
    with pytest.raises(Taken, match="in use"):
        ipam.assign("n1", address, "b")


def test_reserving_changes_nothing_for_the_holder_nor_for_its_release() -> None:
    ipam = model()
    address = ipam.auto_assign("n1", "a")
    reserve(ipam, address)
    assert ipam.release("a") == [address]
    assert ipam.auto_assign("n1", "b") != address


def test_node_at_its_block_limit_fails_and_does_not_borrow() -> None:
    ipam = model("10.9.0.0/28", 30, max_blocks=2)
    ipam.ensure_block("n2")
    for n in range(8):
        ipam.auto_assign("n1", f"a-{n}")
    with pytest.raises(BlockLimit, match="per host block limit"):
        ipam.auto_assign("n1", "a-8")


def test_nine_pods_and_seventy_one_reservations_reach_the_limit_of_twenty_blocks() -> None:
    ipam = model("10.9.0.0/24", 30)
    for n in range(80):
        ipam.auto_assign("n1", f"a-{n}")
    for n in range(71):
        reserve(ipam, *ipam.release(f"a-{n}"))
    with pytest.raises(BlockLimit):
        ipam.auto_assign("n1", "next")


def full_node_beside_one_with_room(**settings: bool) -> Ipam:
    """n1's only block is full; n2 uses one of the four addresses of the other block."""
    ipam = model("10.9.0.0/29", 30, **settings)
    ipam.auto_assign("n2", "holds-its-block")
    for n in range(4):
        ipam.auto_assign("n1", f"a-{n}")
    return ipam


def test_full_node_borrows_from_another_node_s_block() -> None:
    ipam = full_node_beside_one_with_room()
    borrowed = ipam.auto_assign("n1", "a-4")
    assert [block.host for block in ipam.blocks.values() if borrowed in block.cidr] == ["n2"]


def test_full_node_does_not_borrow_where_affinity_is_strict() -> None:
    with pytest.raises(NoAddress, match="no free address for n1"):
        full_node_beside_one_with_room(strict_affinity=True).auto_assign("n1", "a-4")


def test_request_for_some_pools_counts_only_the_blocks_of_these() -> None:
    first, second = (ipaddress.ip_network(f"10.{n}.0.0/30") for n in (1, 2))
    ipam = Ipam([Pool(first, 31), Pool(second, 31)], max_blocks=1)
    assert ipam.auto_assign("n1", "a-0", pools=[first]) in first
    assert [ipam.auto_assign("n1", f"b-{n}", pools=[second]) in second for n in range(2)] == [True, True]
    # Its one block of the second pool is full, and a free address of the first is none that was asked for.
    with pytest.raises(BlockLimit):
        ipam.auto_assign("n1", "b-2", pools=[second])
    assert ipam.auto_assign("n2", "c-0", pools=[second]) in second


def test_block_that_is_given_up_forgets_its_queue_and_a_reservation_survives_that() -> None:
    ipam = model()
    first = ipam.auto_assign("n1", "a")
    ipam.release("a")
    assert ipam.blocks[ipaddress.ip_network("10.9.0.0/29")].unallocated[-1] == 0
    ipam.release_empty_blocks("n1")
    reserve(ipam, first)
    assert ipam.auto_assign("n1", "b") != first
    ipam.release("b")
    ipam.release_empty_blocks("n1")
    ipam.reserved.clear()
    assert ipam.auto_assign("n1", "c") == first


def test_wholly_reserved_block_is_not_claimed() -> None:
    ipam = model("10.9.0.0/29", 30)
    reserve(ipam, "10.9.0.0/30")
    assert str(ipam.ensure_block("n1")) == "10.9.0.4/30"
    assert str(ipam.ensure_block("n1")) == "10.9.0.4/30"
    ipam.auto_assign("n1", "a")
    with pytest.raises(NoAddress, match="no block is left for n2"):
        ipam.ensure_block("n2")


def test_last_free_block_is_not_claimed_once_single_reservations_cover_it_together() -> None:
    ipam = model("10.9.0.0/29", 30)
    reserve(ipam, *ipaddress.ip_network("10.9.0.0/30"))
    assert str(ipam.auto_assign("n1", "a")) == "10.9.0.4"
    assert [str(cidr) for cidr in ipam.blocks] == ["10.9.0.4/30"]


def test_empty_block_of_another_node_is_reclaimed_when_none_is_left() -> None:
    ipam = model(strict_affinity=True)
    ipam.ensure_block("n1")
    ipam.auto_assign("n2", "a")
    assert [block.host for block in ipam.blocks.values()] == ["n2"]


def test_lost_node_s_addresses_are_freed_at_once_when_its_object_goes() -> None:
    ipam = model()
    address = ipam.auto_assign("n1", "a", {"node": "n1"})
    assert ipam.forget_node("n1") == [address]
    assert ipam.blocks == {}


@pytest.mark.parametrize("seed", range(16))
def test_any_order_of_operations_keeps_every_invariant(seed: int) -> None:
    rng = random.Random(seed)
    ipam = model("10.9.0.0/27", 29, strict_affinity=bool(seed % 2), max_blocks=3)
    live: dict[str, object] = {}

    def start(step: int) -> None:
        handle, before = f"p-{step}", list(ipam.reserved)
        host = rng.choice(["n1", "n2", "n3"])
        try:
            live[handle] = given = ipam.auto_assign(host, handle, {"node": host})
        except NoAddress:
            return
        assert not any(given in one for one in before)

    def stop(_: int) -> None:
        for handle in sorted(live)[:1]:
            assert ipam.release(handle) == [live.pop(handle)]

    def bar(_: int) -> None:
        reserve(ipam, ipam.pools[0].cidr[rng.randrange(32)])

    def unbar(_: int) -> None:
        ipam.reserved = ipam.reserved[1:]

    def tidy(_: int) -> None:
        ipam.release_empty_blocks(rng.choice(["n1", "n2", "n3"]))

    for step in range(300):
        rng.choice([start, start, stop, bar, unbar, tidy])(step)
        assert len(set(live.values())) == len(live)
        in_use = {b.address(n) for b in ipam.blocks.values() for n, one in enumerate(b.allocations) if one is not None}
        assert in_use == set(live.values())
        for block in ipam.blocks.values():
            taken = [n for n, one in enumerate(block.allocations) if one is not None]
            assert sorted(block.unallocated + taken) == list(range(8))
            assert Block.from_spec(block.spec()) == block
        assert all(sum(b.host == host for b in ipam.blocks.values()) <= 3 for host in ("n1", "n2", "n3"))
