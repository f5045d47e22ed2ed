"""How the members of a Redis Cluster stand on the nodes, and what makes its masters even again. Pure.

Three invariants: every master has its replicas; no two members of a shard stand on one node; masters per node differ by
as little as the places of the pods allow.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from provisioning.engines.base import LABEL_SHARD, Invariant, NodeShare, Spread, World
from provisioning.engines.redis.placement import hand_overs
from provisioning.engines.redis.sight import Node, Sight, is_wished, ordinal_of, redis_pods


def seen(sight: Sight, world: World) -> Spread:
    """What one look says about it."""
    masters = _masters(sight)
    pods = [
        pod for pod in redis_pods(world)
        if is_wished(sight.cluster, int(pod.labels[LABEL_SHARD]), ordinal_of(pod.name))
    ]  # fmt: skip
    members = Counter(pod.node for pod in pods if pod.node)
    leading = Counter(node.pod.node for node in masters.values())
    zones = {pod.node: pod.zone for pod in pods}
    planned = wanted(sight)
    spec = sight.cluster.spec
    after = spec["spreadRepairMinutes"] * 60 if planned and spec["spreadRepair"] == "automatic" else None
    return Spread(
        (_replicas(sight), _apart(sight, world), _even(sight, leading, members, len(planned))),
        tuple(NodeShare(node, zones[node], leading[node], members[node]) for node in sorted(members)),
        len(planned),
        after,
    )


def wanted(sight: Sight, *, ready: bool = False) -> list[tuple[int, str]]:
    """The hand-overs that make masters even, in order; with `ready` only to replicas that are in step."""
    masters = _masters(sight)
    if len(masters) < sight.cluster.spec["shards"]:
        return []
    candidates = {
        number: [
            (node.pod.name, node.pod.node)
            for node in sight.shard(number)
            if node is head or not ready or (node.follows(head) and node.pod.ready)
        ]
        for number, head in masters.items()
    }
    return hand_overs({number: node.pod.name for number, node in masters.items()}, candidates)


def _masters(sight: Sight) -> dict[int, Node]:
    """Shard to its master, where that is a member that stays."""
    shards = range(sight.cluster.spec["shards"])
    return {number: node for number in shards if (node := sight.master(number)) in sight.nodes and node is not None}


def _replicas(sight: Sight) -> Invariant:
    wish = sight.cluster.spec["replicasPerShard"]
    masters = _masters(sight)
    few = []
    for number, head in masters.items():
        count = sum(node.me.master == head.id for node in sight.shard(number))
        if count != wish:
            few.append(f"shard {number} has {count} of {wish} replicas")
    blind = [number for number in range(sight.cluster.spec["shards"]) if number not in masters]
    if few:
        return Invariant("replicas", False, _sentence(few))
    if blind:
        return Invariant("replicas", None, f"It is not known who leads shard {blind[0]}.")
    return Invariant("replicas", True, f"Every master has {wish} {'replica' if wish == 1 else 'replicas'}.")


def _apart(sight: Sight, world: World) -> Invariant:
    places: dict[tuple[int, str], list[str]] = defaultdict(list)
    unplaced = 0
    for pod in redis_pods(world):
        shard = int(pod.labels[LABEL_SHARD])
        if not is_wished(sight.cluster, shard, ordinal_of(pod.name)):
            continue
        unplaced += not pod.node
        if pod.node:
            places[shard, pod.node].append(pod.name)
    shared = [
        f"{' and '.join(names)} of shard {shard} stand on {node}"
        for (shard, node), names in places.items() if len(names) > 1
    ]  # fmt: skip
    if shared:
        return Invariant("apart", False, _sentence(shared))
    if unplaced or not places:
        return Invariant("apart", None, f"{unplaced or 'All'} pods have no node yet.")
    return Invariant("apart", True, "No two members of a shard stand on one node.")


def _even(sight: Sight, leading: Counter[str], members: Counter[str], left: int) -> Invariant:
    if leading.total() < sight.cluster.spec["shards"]:
        blind = sight.cluster.spec["shards"] - leading.total()
        return Invariant("even", None, f"{blind} of {sight.cluster.spec['shards']} shards have no master now.")
    if not members:
        return Invariant("even", None, "Nobody knows on which nodes the pods run.")
    counts = ", ".join(f"{leading[node]} on {node}" for node in sorted(members))
    if left:
        work = "one hand-over makes" if left == 1 else f"{left} hand-overs make"
        return Invariant("even", False, f"Masters: {counts}; {work} them even.")
    differ = max(leading.values()) - min(leading[node] for node in members) > 1
    return Invariant("even", True, f"Masters: {counts}{', as even as their shards are placed' if differ else ''}.")


def _sentence(parts: list[str]) -> str:
    more = f", and {len(parts) - 3} more" if len(parts) > 3 else ""
    text = "; ".join(parts[:3]) + more + "."
    return text[0].upper() + text[1:]
