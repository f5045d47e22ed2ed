"""A model of how Calico chooses addresses: blocks per node, a queue per block, reservations. Pure: no I/O, no clock.

Its rules, as they can be read in Calico's `libcalico-go/lib/ipam`, which this follows and does not copy:

1. A pool is cut into blocks; a block is claimed by a node (its affinity) when the node first needs it.
2. A block's free ordinals wait in a queue, `unallocated`: taken from the head, put back at the tail.
3. A node looks in its own blocks, then claims a block, then borrows from other nodes' blocks unless `strict_affinity`.
   A node that owns `max_blocks` of them gets `BlockLimit` and does not borrow.
4. Reservations are asked for once per request, and only when Calico chooses (`auto_assign`, `ensure_block`): reserved
   ordinals are passed over and keep their places. A wholly reserved block is not claimed. An address that is asked for
   by name (`assign`) and every release ignore them.
5. A block that is given up is deleted when empty, and with it the order of its queue.
6. With no block left to claim, an empty block of another node is reclaimed.

7. A request may be for some pools only: those that the pod names, or that select its node. Blocks of others then do not
   count, neither as the node's own nor for its limit.

Left out: several addresses per request, selectors themselves (the caller says which pools), Windows' reserved
addresses, the native cooldown, and the minute for which Calico leaves a freshly claimed empty block alone. A node's
order of blocks is decided by its name, as Calico's is, but by another hash: the same node starts at another block here
than there.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_MAX_BLOCKS = 20


class NoAddress(Exception):
    """No address can be given; the message says which limit was met."""


class BlockLimit(NoAddress):
    """The node owns as many blocks as a node may; Calico does not borrow past this."""


class Taken(NoAddress):
    """The address that was asked for is in use, or in no enabled pool."""


@dataclass(frozen=True)
class Pool:
    """An enabled or disabled range; `block_size` is the prefix length of its blocks."""

    cidr: Network
    block_size: int
    disabled: bool = False


@dataclass
class Block:
    """One block. `allocations[n]` is an index into `attributes`, None when free; `unallocated` is the queue."""

    cidr: Network
    host: str | None
    allocations: list[int | None]
    unallocated: list[int]
    attributes: list[dict[str, Any]]

    @classmethod
    def new(cls, cidr: Network, host: str | None) -> Block:
        """An empty block whose queue starts at ordinal 0."""
        size = cidr.num_addresses
        return cls(cidr, host, [None] * size, list(range(size)), [])

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Block:
        """From an IPAMBlock's spec. Raises KeyError, ValueError."""
        kind, _, host = spec.get("affinity", "").partition(":")
        return cls(
            ipaddress.ip_network(spec["cidr"]),
            host if kind == "host" else None,
            list(spec["allocations"]),
            list(spec["unallocated"]),
            [dict(one) for one in spec["attributes"]],
        )

    def spec(self) -> dict[str, Any]:
        """An IPAMBlock's spec."""
        return {
            "cidr": str(self.cidr),
            **({"affinity": f"host:{self.host}"} if self.host else {}),
            "allocations": list(self.allocations),
            "unallocated": list(self.unallocated),
            "attributes": [dict(one) for one in self.attributes],
            "deleted": False,
            "strictAffinity": False,
        }

    @property
    def name(self) -> str:
        """The IPAMBlock's name: `10-0-0-0-26`."""
        return str(self.cidr).replace(".", "-").replace(":", "-").replace("/", "-")

    @property
    def empty(self) -> bool:
        """Whether nothing is allocated."""
        return all(one is None for one in self.allocations)

    def address(self, ordinal: int) -> Address:
        """The address of an ordinal."""
        return self.cidr[ordinal]

    def free(self, reserved: Collection[Network]) -> list[int]:
        """Ordinals that Calico may choose, in the order in which it would."""
        return [n for n in self.unallocated if not _covered(self.address(n), reserved)]

    def take(self, ordinal: int, handle: str, about: dict[str, str]) -> None:
        """Allocate a free ordinal."""
        attributes = {"handle_id": handle, "secondary": about}
        if attributes not in self.attributes:
            self.attributes.append(attributes)
        self.allocations[ordinal] = self.attributes.index(attributes)
        self.unallocated.remove(ordinal)

    def release(self, handle: str) -> list[Address]:
        """Free what a handle holds: to the tail of the queue, in order of the ordinals."""
        gone = {n for n, one in enumerate(self.attributes) if one.get("handle_id") == handle}
        freed = [n for n, one in enumerate(self.allocations) if one in gone]
        kept = [n for n in range(len(self.attributes)) if n not in gone]
        places = {old: new for new, old in enumerate(kept)}
        self.allocations = [places.get(one) if one is not None else None for one in self.allocations]
        self.attributes = [self.attributes[n] for n in kept]
        self.unallocated += freed
        return [self.address(n) for n in freed]


@dataclass
class Ipam:
    """The state of one cluster's address management."""

    pools: list[Pool]
    blocks: dict[Network, Block] = field(default_factory=dict)
    reserved: list[Network] = field(default_factory=list)
    strict_affinity: bool = False
    max_blocks: int = DEFAULT_MAX_BLOCKS

    def auto_assign(
        self, host: str, handle: str, about: dict[str, str] | None = None, *, pools: Collection[Network] | None = None
    ) -> Address:
        """An address of Calico's choice for a node, of these pools if any are said. Raises BlockLimit, NoAddress."""
        reserved = list(self.reserved)
        for block in self._of(host, pools):
            if block.free(reserved):
                return self._take_first(block, reserved, handle, about)
        if len(self._of(host, pools)) >= self.max_blocks:
            raise BlockLimit(f"cannot allocate new block due to per host block limit ({self.max_blocks}) of {host}")
        claimed = self._claim(host, reserved, pools)
        if claimed is not None:
            return self._take_first(claimed, reserved, handle, about)
        if not self.strict_affinity:
            for pool in self._enabled(pools):
                for cidr in _candidates(pool, host):
                    other = self.blocks.get(cidr)
                    if other is not None and other.host != host and other.free(reserved):
                        return self._take_first(other, reserved, handle, about)
        raise NoAddress(f"no free address for {host} in {', '.join(str(pool.cidr) for pool in self._enabled(pools))}")

    def assign(self, host: str, address: Address, handle: str, about: dict[str, str] | None = None) -> None:
        """The address that was asked for, reserved or not. Raises Taken."""
        pool = next((one for one in self._enabled() if address in one.cidr), None)
        if pool is None:
            raise Taken(f"{address} is in no enabled pool")
        cidr = ipaddress.ip_network(f"{address}/{pool.block_size}", strict=False)
        block = self.blocks.get(cidr)
        if block is None:
            block = self.blocks[cidr] = Block.new(cidr, host)
        elif self.strict_affinity and block.host != host:
            raise Taken(f"{address} is in the block of {block.host}, and strict affinity forbids borrowing")
        ordinal = int(address) - int(cidr.network_address)
        if block.allocations[ordinal] is not None:
            raise Taken(f"{address} is in use")
        block.take(ordinal, handle, about or {})

    def ensure_block(self, host: str) -> Network:
        """Give a node a block with something to choose from, as at its start. Raises BlockLimit, NoAddress."""
        reserved = list(self.reserved)
        for block in self._of(host):
            if block.free(reserved):
                return block.cidr
        if len(self._of(host)) >= self.max_blocks:
            raise BlockLimit(f"{host} owns {self.max_blocks} blocks, the limit")
        claimed = self._claim(host, reserved)
        if claimed is None:
            raise NoAddress(f"no block is left for {host}")
        return claimed.cidr

    def release(self, handle: str) -> list[Address]:
        """Free what a handle holds, if anything. A block without a node is deleted once empty."""
        freed = [address for block in self.blocks.values() for address in block.release(handle)]
        self.blocks = {cidr: block for cidr, block in self.blocks.items() if block.host is not None or not block.empty}
        return freed

    def release_empty_blocks(self, host: str) -> list[Network]:
        """Give up a node's empty blocks, reserved or not, and with them the order of their queues."""
        gone = [block.cidr for block in self._of(host) if block.empty]
        for cidr in gone:
            del self.blocks[cidr]
        return gone

    def forget_node(self, host: str) -> list[Address]:
        """A Node object is gone: all its addresses are freed at once, and its blocks are given up."""
        freed = []
        for block in list(self.blocks.values()):
            for handle in {one["handle_id"] for one in block.attributes if one["secondary"].get("node") == host}:
                freed += block.release(handle)
            if block.host == host:
                block.host = None
        self.blocks = {cidr: block for cidr, block in self.blocks.items() if block.host is not None or not block.empty}
        return freed

    def _enabled(self, some: Collection[Network] | None = None) -> list[Pool]:
        return [pool for pool in self.pools if not pool.disabled and (some is None or pool.cidr in some)]

    def _of(self, host: str, pools: Collection[Network] | None = None) -> list[Block]:
        enabled = self._enabled(pools)
        mine = [block for block in self.blocks.values() if block.host == host]
        return [block for block in mine if any(block.cidr.network_address in pool.cidr for pool in enabled)]

    def _claim(
        self, host: str, reserved: list[Network], pools: Collection[Network] | None = None
    ) -> Block | None:  # fmt: skip
        empty: list[Block] = []
        for pool in self._enabled(pools):
            for cidr in _candidates(pool, host):
                found = self.blocks.get(cidr)
                if found is None:
                    fresh = Block.new(cidr, host)
                    # Many reservations may cover a block together; Calico's test for that counts them together too.
                    if fresh.free(reserved):
                        self.blocks[cidr] = fresh
                        return fresh
                elif found.empty and found.free(reserved):
                    empty.append(found)
        if not empty:
            return None
        self.blocks[empty[0].cidr] = fresh = Block.new(empty[0].cidr, host)
        return fresh

    def _take_first(self, block: Block, reserved: list[Network], handle: str, about: dict[str, str] | None) -> Address:
        ordinal = block.free(reserved)[0]
        block.take(ordinal, handle, about or {})
        return block.address(ordinal)


def _candidates(pool: Pool, host: str) -> Iterator[Network]:
    """A pool's blocks in a node's own order: from a start that its name decides, around to it again."""
    count = 1 << (pool.block_size - pool.cidr.prefixlen)
    size = 1 << (pool.cidr.max_prefixlen - pool.block_size)
    start = zlib.crc32(host.encode()) % count
    for step in range(count):
        base = pool.cidr[((start + step) % count) * size]
        yield ipaddress.ip_network((base, pool.block_size))


def _covered(address: Address, reserved: Collection[Network]) -> bool:
    return any(address in one for one in reserved)
