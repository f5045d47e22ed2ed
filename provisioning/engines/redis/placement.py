"""Which pod of each shard is its master, masters per node as even as the pods' nodes allow. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

SLOTS = 16384
# Shard to its (pod, node)s that may lead it.
Candidates = Mapping[int, Sequence[tuple[str, str]]]


def slot_range(shard: int, shards: int) -> tuple[int, int]:
    """First and last hash slot of a shard, all ranges equal to within one slot."""
    return SLOTS * shard // shards, SLOTS * (shard + 1) // shards - 1


def as_ranges(slots: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as the fewest ranges, ascending."""
    found: list[tuple[int, int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return found


def choose_masters(candidates: Candidates, fixed: Mapping[int, str] | None = None) -> dict[int, str]:
    """Shard to master. `fixed`: masters that already are, and stay. Equal inputs give equal results."""
    chosen = dict(fixed or {})
    # Who is fixed has no choice, but counts.
    open_ = {
        shard: [one for one in pods if shard not in chosen or one[0] == chosen[shard]]
        for shard, pods in candidates.items()
    }
    taken = Counter(node for shard in chosen for _, node in open_.get(shard, ()))
    for shard in sorted(shard for shard in open_ if shard not in chosen and open_[shard]):
        pod, node = min(open_[shard], key=lambda one: taken[one[1]])
        chosen[shard] = pod
        taken[node] += 1
    for shard, pod in hand_overs(chosen, open_):
        chosen[shard] = pod
    return chosen


def hand_overs(masters: Mapping[int, str], candidates: Candidates) -> list[tuple[int, str]]:
    """What makes `masters` (shard to pod) as even as can be, in the order to do it: (shard, pod that takes over).

    Along the shortest path from a node to another with at least two masters fewer, as long as there is one: the result
    is the best there is for the largest, the smallest and every other count at once (Harvey, Ladner, Lovász, Tamir:
    Semi-matchings for bipartite graphs and load balancing, 2003). Each path is gone from its end, so that no node ever
    has more masters than before; so the rest can be planned anew after each step. Equal inputs give equal results.
    """
    seats = {
        shard: (pod, node) for shard, pod in masters.items() for name, node in candidates.get(shard, ()) if name == pod
    }
    loads = Counter({node: 0 for pods in candidates.values() for _, node in pods})
    loads.update(node for _, node in seats.values())
    done: list[tuple[int, str]] = []
    while path := _shortest_path(seats, candidates, loads):
        for shard, pod, node in reversed(path):
            loads[seats[shard][1]] -= 1
            loads[node] += 1
            seats[shard] = (pod, node)
            done.append((shard, pod))
    return done


def _shortest_path(
    seats: Mapping[int, tuple[str, str]], candidates: Candidates, loads: Mapping[str, int]
) -> list[tuple[int, str, str]]:
    """(shard, pod, node) from a node to one with at least two masters fewer; [] when there is none."""
    best: list[tuple[int, str, str]] = []
    for source in sorted(loads, key=lambda node: (-loads[node], node)):
        paths: dict[str, list[tuple[int, str, str]]] = {source: []}
        queue = deque([source])
        while queue:
            at = queue.popleft()
            if loads[at] <= loads[source] - 2:
                if not best or len(paths[at]) < len(best):
                    best = paths[at]
                break
            for shard in sorted(shard for shard, (_, node) in seats.items() if node == at):
                for pod, node in candidates[shard]:
                    if node not in paths:
                        paths[node] = [*paths[at], (shard, pod, node)]
                        queue.append(node)
    return best
