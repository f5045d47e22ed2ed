"""Which shard an address is in, how many shards there are, and how a shard's addresses are listed for Calico. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ipreserve.records import REMEMBERED, Address, canonical, order

# One ledger and one IPReservation are enough below this; the price of a write grows with its length.
SHARD_SIZE = 2000
SHARD_BYTES = 700_000
FIRST_SPLIT = 16
# Two million addresses. A number above it is a slip of somebody's hand, and would be so many requests a sweep.
MOST_SHARDS = 1024
# From here on the list is written as ranges: Calico walks all of it for every pod that starts.
AGGREGATE_FROM = 5000
LARGEST_RANGE = 256
# Neighbours share a shard, so that the addresses of one lost node still join into ranges.
SHARD_BITS = 4


@lru_cache(maxsize=REMEMBERED)
def shard_of(one: Address, shards: int) -> int:
    """The shard of an address, by a hash of its 16 neighbours' common prefix."""
    if shards == 1:
        return 0
    version, number, _ = order(one)
    prefix = (number >> SHARD_BITS << SHARD_BITS).to_bytes(4 if version == 4 else 16, "big")
    # Not a checksum: those are linear, and regular addresses would meet in a few shards.
    return int.from_bytes(hashlib.blake2b(prefix, digest_size=4).digest(), "big") % shards


def is_count(shards: int) -> bool:
    """Whether this service would ever choose so many: 1, 16, 32, 64 … 1024."""
    return shards == 1 or (FIRST_SPLIT <= shards <= MOST_SHARDS and shards & (shards - 1) == 0)


def shards_for(entries: int, now: int, *, largest: int = 0) -> int:
    """How many shards hold so many addresses: 1, 16, 32, 64 … 1024; never fewer than there are now.

    `largest` is the size of the largest ledger in bytes: long names fill a ConfigMap (1 MiB) before the count does.
    """

    def more(than: int) -> int:
        return FIRST_SPLIT if than == 1 else than * 2

    wanted = 1
    while entries > SHARD_SIZE * wanted:
        wanted = more(wanted)
    return min(MOST_SHARDS, max(wanted, more(now) if largest > SHARD_BYTES else now))


def render(addresses: Iterable[Address], *, ranges: Iterable[str] = (), aggregate: bool = False) -> list[str]:
    """The list for Calico: canonical, unique, sorted; whole ranges where `aggregate` is set."""
    if not aggregate:
        return sorted({canonical(one) for one in addresses} | set(ranges), key=order)
    numbers: dict[int, set[int]] = {4: set(), 6: set()}
    for one in addresses:
        version, number, _ = order(one)
        numbers[version].add(number)
    return sorted({*_joined(numbers[4], 4), *_joined(numbers[6], 6), *ranges}, key=order)


def _joined(numbers: set[int], version: int) -> Iterator[str]:
    """The fewest CIDRs that hold exactly these; none longer than what a reader is sure to take apart again."""
    bits, make = (32, ipaddress.IPv4Address) if version == 4 else (128, ipaddress.IPv6Address)
    left = sorted(numbers)
    start = 0
    while start < len(left):
        first = left[start]
        size = 1
        # Twice as many, if the first one is at such a boundary and the last one of them is there.
        while (
            size < LARGEST_RANGE
            and first % (2 * size) == 0
            and start + 2 * size <= len(left)
            and left[start + 2 * size - 1] == first + 2 * size - 1
        ):
            size *= 2
        yield f"{make(first)}/{bits - size.bit_length() + 1}"
        start += size
