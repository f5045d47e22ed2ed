"""Slots whose data is gone: what is lost for certain, and giving it to empty members when somebody has accepted that.

A shard without replicas whose disk is lost, or one of which every member lost it, comes back empty. Its old master is a
ghost that owns the slots in the eyes of the others, so they are served by nobody. Nothing takes them away from it by
itself: the disk may turn up again, and only people know.

What is lost is certain when every pod of the cluster answers, and whoever serves nothing holds nothing and copies from
one that is there. A pod that is away, or a replica whose master is gone, may have the data.
"""

from __future__ import annotations

from provisioning.engines.base import Blocked, Link, Loss
from provisioning.engines.redis.placement import SLOTS, as_ranges, choose_masters
from provisioning.engines.redis.sight import Node, Sight
from provisioning.engines.redis.upkeep import send


def seen(sight: Sight) -> Loss | None:
    """What is gone for good; None for nothing, and while that is not certain."""
    lost = _lost(sight)
    if not lost:
        return None
    if len(lost) == SLOTS:
        return Loss(_spoken(lost), f"All data is gone: every member came back empty, and all {SLOTS} slots with it.")
    shards = ", ".join(str(shard) for shard in sorted({node.shard for node in _takers(sight)}))
    return Loss(
        _spoken(lost),
        f"The data of shard {shards} is gone: no member holds slots {_spoken(lost)} ({len(lost)} of {SLOTS}) any more.",
    )


def holds(sight: Sight) -> bool:
    """Whether slots without an owner are to stay so: a shard that had some may have lost them, and nobody has accepted
    that.
    """
    return sight.cluster.formed and bool(_bare(sight)) and not _is_accepted(sight)


def beyond(sight: Sight) -> Blocked | None:
    """What is lost though it is not among what an operation accepts."""
    lost = _lost(sight) if sight.cluster.accepted else set()
    more = lost - _slots(sight.cluster.accepted)
    if not more:
        return None
    return Blocked(
        "more_was_lost", f"More was lost meanwhile than was accepted: slots {_spoken(more)} too.",
        "See `loss` of the cluster, and accept it again if that is still meant.",
    )  # fmt: skip


def accept(sight: Sight, link: Link) -> bool:
    """Have all forget who owned the lost slots, and give them to empty members. True when something was sent.

    Every look finds out anew what is left to do: a worker that was killed in between is followed by one that goes on.
    """
    takers = _takers(sight)
    if not _is_accepted(sight) or not takers or not all(_is_introduced(sight, node) for node in takers):
        return False
    ours = {node.id for node in sight.everyone}
    ghosts = {peer.id for node in sight.everyone for peer in node.peers.values() if peer.slots} - ours
    acted = False
    for ghost in sorted(ghosts):
        # On every node, soon after each other: otherwise those that still know it bring it back.
        for node in sight.everyone:
            if ghost in node.peers:
                acted |= send(node, link, "Forget", "CLUSTER", "FORGET", ghost)
    for node, slots in _shares(sight, takers):
        # Should the old disk come back after all, its claim must be the older one: it would wipe what is written now.
        send(node, link, "LossAccepted", "CLUSTER", "BUMPEPOCH")
        words = [str(end) for pair in as_ranges(slots) for end in pair]
        acted |= send(node, link, "SlotsAssigned", "CLUSTER", "ADDSLOTSRANGE", *words)
    return acted


def _is_accepted(sight: Sight) -> bool:
    lost = _lost(sight) if sight.cluster.accepted else set()
    return bool(lost) and lost <= _slots(sight.cluster.accepted)


def _lost(sight: Sight) -> set[int]:
    """The slots nobody serves, when it is certain that nobody can."""
    if not sight.cluster.formed or sight.missing or sight.gone or sight.excused or not sight.nodes:
        return set()
    ours = {node.id for node in sight.everyone}
    if any(not node.me.slots and not node.is_empty and node.me.master not in ours for node in sight.everyone):
        return set()
    bare = _bare(sight)
    if any(not any(node.is_master and node.is_empty for node in sight.shard(shard)) for shard in bare):
        # Members are read one after another: in a hand-over both may have said that they follow the other.
        return set()
    lost = set(range(SLOTS)).difference(*(node.slots for node in sight.everyone if node.is_master))
    # Slots that somebody took from a living master by hand are unowned too: it has their keys.
    ghosts = any(peer.slots and peer.id not in ours for node in sight.everyone for peer in node.peers.values())
    return lost if ghosts or bare else set()


def _bare(sight: Sight) -> list[int]:
    """Wished shards of which no member serves a slot."""
    serving = {node.shard for node in sight.everyone if node.me.slots}
    return [shard for shard in range(sight.cluster.spec["shards"]) if shard not in serving]


def _takers(sight: Sight) -> list[Node]:
    """Who is to lead each shard that serves nothing; where there is none, those that lead the others."""
    shards = range(sight.cluster.spec["shards"])
    heads = {shard: node for shard in shards if (node := sight.master(shard)) is not None}
    bare: dict[int, list[Node]] = {}
    for shard in _bare(sight):
        masters = [node for node in sight.shard(shard) if node.is_master]
        followed = {node.me.master for node in sight.shard(shard)}
        bare[shard] = [node for node in masters if node.id in followed] or masters
    placed = {shard: [(node.pod.name, node.pod.node) for node in nodes] for shard, nodes in bare.items()}
    placed |= {shard: [(node.pod.name, node.pod.node)] for shard, node in heads.items()}
    chosen = choose_masters(placed, {shard: node.pod.name for shard, node in heads.items()})
    found = [node for shard, nodes in sorted(bare.items()) for node in nodes if node.pod.name == chosen.get(shard)]
    return found or [node for _, node in sorted(heads.items())]


def _is_introduced(sight: Sight, node: Node) -> bool:
    """Whether everybody knows it, and it everybody: before that its epoch says nothing, and it may learn of ghosts."""
    return all(other.id in node.peers and node.id in other.peers for other in sight.everyone)


def _shares(sight: Sight, takers: list[Node]) -> list[tuple[Node, list[int]]]:
    """The lost slots in as many equal parts, but those on their way to somebody who has some of their keys."""
    left = _lost(sight)
    found: list[tuple[Node, list[int]]] = []
    for node in sight.nodes:
        coming = sorted(slot for slot, comes, _ in node.me.moving if comes and slot in left) if node.is_master else []
        left -= set(coming)
        if coming:
            found.append((node, coming))
    slots, count = sorted(left), len(takers)
    parts = [slots[len(slots) * number // count : len(slots) * (number + 1) // count] for number in range(count)]
    return found + [(node, part) for node, part in zip(takers, parts, strict=True) if part]


def _spoken(slots: set[int]) -> str:
    """Slots as "0-5460, 9000"; read back by `_slots`."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in as_ranges(slots))


def _slots(text: str) -> set[int]:
    found: set[int] = set()
    for word in text.split(", ") if text else ():
        first, _, last = word.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
