"""Which pod of each shard is its first master: masters per node differ by as little as the pods' nodes allow. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SLOTS = 16384


def slot_range(shard: int, shards: int) -> tuple[int, int]:
    """First and last hash slot of a shard, all ranges equal to within one slot."""
    return SLOTS * shard // shards, SLOTS * (shard + 1) // shards - 1


def choose_masters(
    candidates: Mapping[int, Sequence[tuple[str, str]]], fixed: Mapping[int, str] | None = None
) -> dict[int, str]:
    """Shard to master. `candidates`: shard to its (pod, node); `fixed`: masters that already are.

    The smallest cap of masters per node for which a matching of shards to nodes exists is found by trying caps upwards,
    each with augmenting paths. Equal inputs give equal results.
    """
    chosen = dict(fixed or {})
    free = sorted(shard for shard in candidates if shard not in chosen and candidates[shard])
    taken: dict[str, int] = {}
    for shard, pod in chosen.items():
        for name, node in candidates.get(shard, ()):
            if name == pod:
                taken[node] = taken.get(node, 0) + 1
    for cap in range(1, len(candidates) + 1):
        seats: dict[str, list[int]] = {}
        if all(_seat(shard, candidates, seats, taken, cap, set()) for shard in free):
            for node, shards in seats.items():
                for shard in shards:
                    chosen[shard] = next(name for name, where in candidates[shard] if where == node)
            break
    return chosen


def _seat(
    shard: int, candidates: Mapping[int, Sequence[tuple[str, str]]], seats: dict[str, list[int]],
    taken: Mapping[str, int], cap: int, seen: set[str],
) -> bool:  # fmt: skip
    """Give the shard a node, moving others along an augmenting path when its nodes are full."""
    for _, node in candidates[shard]:
        if node in seen:
            continue
        seen.add(node)
        sitting = seats.setdefault(node, [])
        if len(sitting) + taken.get(node, 0) < cap:
            sitting.append(shard)
            return True
        for other in list(sitting):
            if _seat(other, candidates, seats, taken, cap, seen):
                sitting.remove(other)
                sitting.append(shard)
                return True
    return False
