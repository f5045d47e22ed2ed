"""Hash slots from node to node while clients go on: which ones (pure), and how.

The order of commands is that of the Redis Cluster specification ("Cluster live reconfiguration") and of
redis-cli. Nothing is remembered but by the nodes themselves: a slot on the move is marked on both, so whoever comes
after a worker that died finishes what is marked first, and then plans again from where things stand.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from provisioning.engines.base import Link
from provisioning.engines.redis.admin import RedisError, Reply, parse_info
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.placement import SLOTS
from provisioning.engines.redis.settings import MIB, maxmemory_mib
from provisioning.engines.redis.sight import Node, Sight

# Slots that are on the move together: fewer round trips, and the more redirections for clients.
BATCH_SLOTS = 64
# Keys in one MIGRATE, during which both nodes serve nobody else.
BATCH_KEYS = 10
MIGRATE_TIMEOUT_MS = 5000
# A node that is moving a large key answers late.
REPLY_SECONDS = 8.0
# Of maxmemory: the rest is for writes that come meanwhile.
SAFE_PERCENT = 95

Move = tuple[int, int, int]


def plan_moves(owned: Mapping[int, Sequence[int]], shards: int) -> list[Move]:
    """The fewest (slot, from shard, to shard) after which every shard below `shards` has as many slots as the others,
    to within one, and all others have none. Empty when it is so. Equal inputs give equal results, and each move done
    leaves a plan that is the rest of this one in effect: it may be made anew at any moment.
    """
    base, extra = divmod(SLOTS, shards)
    order = sorted(range(shards), key=lambda shard: (-len(owned.get(shard, ())), shard))
    targets = {shard: base + (place < extra) for place, shard in enumerate(order)}
    spare: list[tuple[int, int]] = []
    for shard in sorted(owned):
        slots = sorted(owned[shard])
        spare += [(slot, shard) for slot in slots[targets.get(shard, 0) :]]
    moves: list[Move] = []
    for shard in order:
        for _ in range(targets[shard] - len(owned.get(shard, ()))):
            slot, source = spare.pop(0)
            moves.append((slot, source, shard))
    return moves


class Stuck(Exception):
    """A node refused; trying again later may help."""


def _owned(sight: Sight) -> dict[int, list[int]]:
    owned: dict[int, list[int]] = defaultdict(list)
    for node in sight.everyone:
        if node.is_master and node.me.slots:
            owned[node.shard] += node.slots
    return owned


def wanted(sight: Sight) -> list[Move]:
    """What is to be moved now.

    For evenness only while an operation runs: who moved slots by hand, for load, keeps them so. A shard without slots
    and a leaving one with some are always put right. Raises Stuck while the nodes do not agree who serves what.
    """
    owned = _owned(sight)
    every = [slot for slots in owned.values() for slot in slots]
    if len(every) != SLOTS or len(set(every)) != SLOTS:
        raise Stuck("the nodes do not agree yet on who serves which slot")
    shards = sight.cluster.spec["shards"]
    must = len([shard for shard in owned if shard < shards]) < shards or any(shard >= shards for shard in owned)
    return plan_moves(owned, shards) if must or sight.cluster.changing else []


def uneven(sight: Sight) -> int:
    """How many slots an operation would move, as far as is known."""
    owned = _owned(sight)
    whole = sum(len(slots) for slots in owned.values()) == SLOTS
    return len(plan_moves(owned, sight.cluster.spec["shards"])) if whole else 0


def is_open(sight: Sight) -> bool:
    """Whether slots are marked as on the move."""
    return any(node.me.moving for node in sight.everyone)


def mark_anew(sight: Sight, link: Link) -> bool:
    """Mark slots on the move between those who lead now, where the giver or the receiver was replaced by a replica.

    Marks are not replicated (up to Redis 8.0). Without them the promoted giver answers for keys that are at the
    receiver already as if there were none, and the receiver, which goes by its mark, never learns of the new giver:
    once the old one is a replica the receiver knows of no owner, and serves nobody (`clusterUpdateSlotsConfigWith`
    and `clusterSetNodeAsSlave` in cluster.c). So this does not wait for anything to be well. True when something
    was sent.
    """
    if not is_open(sight):
        return False
    leaders = {node.id: node for node in sight.everyone if node.is_master}
    owners: dict[int, Node] = {}
    # Who has just come back may not know yet that it was replaced: the newer claim counts.
    for node in sorted(leaders.values(), key=lambda one: one.me.epoch):
        owners |= dict.fromkeys(node.slots, node)
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for node in leaders.values():
        for slot, comes, other in node.me.moving:
            owner = owners.get(slot)
            if comes and owner is not None and owner is not node:
                if owner.id != other or not _takes(node, owner, slot):
                    pairs[owner.id, node.id].append(slot)
            elif not comes and owner is node and other not in leaders:
                heir = _heir(sight, other)
                if heir is not None and heir is not node:
                    pairs[node.id, heir.id].append(slot)
    acted = False
    for (giver, taker), slots in pairs.items():
        source, to = leaders[giver], leaders[taker]
        commands: list[list[str | int]] = []
        for slot in slots:
            commands += [["CLUSTER", "SETSLOT", slot, "NODE", giver], ["CLUSTER", "SETSLOT", slot, "IMPORTING", giver]]
        # Refused while the receiver does not know the giver as a master: the next look tries again.
        refused = any(isinstance(reply, RedisError) for reply in to.connection.pipeline(commands))
        if not refused:
            source.connection.pipeline([["CLUSTER", "SETSLOT", slot, "MIGRATING", taker] for slot in slots])
            text = f"{len(slots)} slots on the move from {source.pod.name} to {to.pod.name} are marked anew"
            link.event("SlotsMarked", text, object=f"pod/{to.pod.name}")
            acted = True
    return acted


def _takes(node: Node, owner: Node, slot: int) -> bool:
    """Whether `node` takes `owner` for the owner of the slot."""
    known = node.peers.get(owner.id)
    return known is not None and any(first <= slot <= last for first, last in known.slots)


def _heir(sight: Sight, lost: str) -> Node | None:
    """The master that took over from the node of the id `lost`, which is a replica now; None when that is not known."""
    followed = next((node.me.master for node in sight.everyone if node.id == lost), "")
    return next((node for node in sight.everyone if node.id == followed and node.is_master), None)


def work(sight: Sight, link: Link, until: float) -> int:
    """Finish what is marked as on the move, then move what is wanted, up to the moment `until` (monotonic).

    Returns how many slots were moved. Raises Stuck, LinkError. Wants a cluster in which everybody agrees.
    """
    heads = sight.heads() | {node.shard: node for node in sight.leaving if node.is_master and node.me.slots}
    for node in heads.values():
        node.connection.wait_up_to(REPLY_SECONDS)
    if is_open(sight):
        return _finish_open(sight, heads)
    batches: dict[tuple[int, int], list[int]] = defaultdict(list)
    for slot, source, to in wanted(sight):
        batches[source, to].append(slot)
    done = 0
    for (source, to), slots in batches.items():
        moved = 0
        while moved < len(slots) and time.monotonic() < until:
            batch = slots[moved : moved + BATCH_SLOTS]
            _move(sight, heads[source], heads[to], batch)
            moved += len(batch)
        if moved:
            text = f"{moved} slots, with their keys, from {heads[source].pod.name} to {heads[to].pod.name}"
            link.event("SlotsMoved", text, object=f"pod/{heads[to].pod.name}")
        done += moved
    return done


def _finish_open(sight: Sight, heads: Mapping[int, Node]) -> int:
    """Slots that somebody began to move go where they were going: their keys may be on both sides."""
    nodes = {node.id: node for node in sight.everyone}
    slots = sorted({slot for node in sight.everyone for slot, _, _ in node.me.moving})
    for slot in slots:
        takers = [node for node in heads.values() if any(s == slot and comes for s, comes, _ in node.me.moving)]
        givers = [node for node in heads.values() if any(s == slot and not comes for s, comes, _ in node.me.moving)]
        owners = [node for node in heads.values() if slot in node.slots]
        to = takers[0] if takers else None
        if to is None and givers:
            other = next(other for s, comes, other in givers[0].me.moving if s == slot and not comes)
            # The receiver may have been replaced by its replica, which knows nothing of the mark but has the keys.
            to = heads.get(nodes[other].shard) if other in nodes else None
        source = next((node for node in owners if node is not to), None)
        if to is not None and source is not None and slot not in to.slots:
            _move(sight, source, to, [slot])
            continue
        if to is not None and source is not None:
            _send(source, [["CLUSTER", "SETSLOT", slot, "NODE", to.id]])
        marked = [
            node for node in sight.everyone if any(s == slot for s, _, _ in node.me.moving) and node is not source
        ]
        for node in marked if owners else []:
            _send(node, [["CLUSTER", "SETSLOT", slot, "STABLE"]])
        if to is None and source is not None:
            _send(source, [["CLUSTER", "SETSLOT", slot, "STABLE"]])
    return len(slots)


def _move(sight: Sight, source: Node, to: Node, slots: Sequence[int]) -> None:
    """1. Mark the slots on the receiver, then on the giver: from now on the giver sends clients whose key it does not
    have to the receiver, so no new key appears behind our back.
    2. Move keys until there are none. 3. Give the slots to the receiver, first there, then on the giver and all others.
    """
    _send(to, [["CLUSTER", "SETSLOT", slot, "IMPORTING", source.id] for slot in slots])
    _send(source, [["CLUSTER", "SETSLOT", slot, "MIGRATING", to.id] for slot in slots])
    left = list(slots)
    while left:
        found = _send(source, [["CLUSTER", "GETKEYSINSLOT", slot, BATCH_KEYS] for slot in left])
        left = [slot for slot, keys in zip(left, found, strict=True) if keys]
        for keys in found:
            if isinstance(keys, list) and keys:
                # REPLACE: a MIGRATE that timed out may have left a copy; the giver's, which serves it, is the newer.
                words: list[str | int] = ["MIGRATE", to.pod.ip, PORT, "", 0, MIGRATE_TIMEOUT_MS, "REPLACE"]
                _send(source, [[*words, *_auth(sight), "KEYS", *(str(key) for key in keys)]])
    for node in (to, source):
        _send(node, [["CLUSTER", "SETSLOT", slot, "NODE", to.id] for slot in slots])
    for node in sight.everyone:
        if node not in (to, source) and node.is_master and to.id in node.peers:
            _send(node, [["CLUSTER", "SETSLOT", slot, "NODE", to.id] for slot in slots])


def _auth(sight: Sight) -> list[str]:
    """How MIGRATE signs in to the receiver."""
    user, password = sight.account
    return ["AUTH2", user, password] if user else ["AUTH", password]


def _send(node: Node, commands: Sequence[Sequence[str | int]]) -> list[Reply]:
    """Send commands; their replies, of which none may be an error. Raises Stuck, which never quotes a password."""
    replies: list[Reply] = []
    for command, reply in zip(commands, node.connection.pipeline(commands), strict=True):
        if isinstance(reply, RedisError):
            shown = " ".join(str(word) for word in command[:4]) if command[0] == "CLUSTER" else str(command[0])
            raise Stuck(f"{node.pod.name} refused {shown}: {reply}")
        replies.append(reply)
    return replies


def too_much(sight: Sight) -> str:
    """Why the data of leaving masters does not fit into the memory of those that stay, shard by shard; "" when it does.

    Where memory may run full by design (`evictionPolicy`), keys that may be dropped count as room. Raises LinkError.
    """
    spec = sight.cluster.spec
    policy = spec["evictionPolicy"]
    if policy.startswith("allkeys-"):
        return ""
    most = maxmemory_mib(spec) * MIB
    owned = _owned(sight)
    leaving: dict[int, int] = {}
    room: dict[int, int] = {}
    for node in sight.everyone:
        if not (node.is_master and node.me.slots):
            continue
        replies = node.connection.pipeline([["INFO", "memory"], ["INFO", "keyspace"]])
        said = {key: value for reply in replies for key, value in parse_info(str(reply)).items()}
        if node.shard >= spec["shards"]:
            leaving[node.shard] = _data(said)
        else:
            room[node.shard] = max(
                0, int(most * SAFE_PERCENT / 100) - int(said["used_memory"]) + droppable(policy, said)
            )
    coming: dict[int, float] = defaultdict(float)
    for _, source, to in plan_moves(owned, spec["shards"]):
        # Of keys nobody knows here how large they are: each slot counts the same.
        coming[to] += leaving.get(source, 0) / len(owned[source])
    for shard, amount in sorted(coming.items()):
        if amount > room.get(shard, 0):
            there = room.get(shard, 0) // MIB
            return f"{amount / MIB:.0f} MiB are to come to shard {shard}, which has room for {there} MiB"
    return ""


def droppable(policy: str, said: Mapping[str, str]) -> int:
    """How many bytes of a node's memory eviction may free, of what its INFO memory and keyspace said: all of it, none,
    or (`volatile-*`) as large a part of the data as keys have an expiry.
    """
    if policy == "noeviction":
        return 0
    if policy.startswith("allkeys-"):
        return int(said["used_memory"])
    return int(_data(said) * _expiring(said.get("db0", "")))


def _data(said: Mapping[str, str]) -> int:
    """Bytes of keys and values: an empty node's own needs stay behind; so does what grew by fragmentation."""
    return max(0, int(said["used_memory"]) - int(said.get("used_memory_overhead", 0)))


def _expiring(keyspace: str) -> float:
    """Which part of the keys may expire, of what INFO says of a database: "keys=9,expires=3,avg_ttl=0"."""
    counts = dict(word.partition("=")[::2] for word in keyspace.split(","))
    return int(counts.get("expires", 0)) / max(1, int(counts.get("keys", 0)))
