"""Forms and heals a Redis Cluster with plain commands. Level-triggered: every call looks anew and takes what is next.

1. Connect to every pod that runs; read CLUSTER NODES, CLUSTER INFO and INFO replication of each.
2. A node that belongs to somebody else's cluster is never met: nothing is done, and the reason says so.
3. All fresh: distinct epochs, then each shard's slots to the pod chosen as its first master.
4. MEET wherever one node does not know another, or knows it under an old address (all pods may have new ones).
5. REPLICATE for every member of a shard that is not its master or follows another; FORGET ids that are nobody's.
6. Verified: everybody agrees, every slot is served, every replica is linked. Then, and only then, healthy.

Nodes tell each other their slots and roles at their leisure, about once a second. CLUSTER MEET makes a node send its
own state at once, so after a change everybody meets everybody again ("nudge"): forming takes a fraction of the time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from provisioning.engines.base import (
    LABEL_COMPONENT,
    LABEL_SHARD,
    Advance,
    ClusterView,
    Link,
    LinkError,
    Member,
    PodView,
    StepReport,
    StepTitle,
    World,
)
from provisioning.engines.redis import spec as rules
from provisioning.engines.redis.admin import Connection, Peer, RedisError, parse_info, parse_nodes
from provisioning.engines.redis.manifests import PORT, auth_secret
from provisioning.engines.redis.placement import SLOTS, choose_masters, slot_range

STEPS = (
    StepTitle("meet", "Nodes know each other"),
    StepTitle("slots", "Hash slots assigned"),
    StepTitle("replicas", "Replicas in sync"),
)
# One call stays at it for as long as gossip needs, and no longer.
PATIENCE_SECONDS = 3.0
LOOK_EVERY_SECONDS = 0.03
NUDGE_EVERY_SECONDS = 0.35
# Above this many nodes a nudge costs more than waiting for gossip.
NUDGE_UP_TO = 40
PARALLEL = 16


@dataclass
class Node:
    """A pod we speak to, and what it said last."""

    pod: PodView
    shard: int
    connection: Connection
    id: str = ""
    peers: Mapping[str, Peer] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    replication: Mapping[str, str] = field(default_factory=dict)

    @property
    def me(self) -> Peer:
        return self.peers[self.id]

    @property
    def is_alone(self) -> bool:
        return len(self.peers) == 1

    def read(self) -> None:
        """Look. Raises LinkError."""
        nodes, info, replication = self.connection.pipeline(
            [["CLUSTER", "NODES"], ["CLUSTER", "INFO"], ["INFO", "replication"]]
        )
        for reply in (nodes, info, replication):
            if isinstance(reply, RedisError):
                raise LinkError(f"{self.pod.name} answers {reply}")
        peers = parse_nodes(str(nodes))
        self.id = next(peer.id for peer in peers if "myself" in peer.flags)
        self.peers = {peer.id: peer for peer in peers if "handshake" not in peer.flags}
        self.info, self.replication = parse_info(str(info)), parse_info(str(replication))


@dataclass
class Sight:
    """All that was seen in one look."""

    cluster: ClusterView
    nodes: list[Node]
    missing: list[str]

    @property
    def ids(self) -> set[str]:
        return {node.id for node in self.nodes}

    def shard(self, number: int) -> list[Node]:
        """The members of one shard."""
        return [node for node in self.nodes if node.shard == number]

    def master(self, number: int) -> Node | None:
        """The member that serves the shard's slots; None when there is none, or (for a moment) two."""
        serving = [node for node in self.shard(number) if node.me.slots and "master" in node.me.flags]
        return serving[0] if len(serving) == 1 else None

    def foreign(self) -> list[tuple[Node, Peer]]:
        """Living nodes that ours know and that are not ours."""
        addresses = {node.pod.ip for node in self.nodes}
        return [
            (node, peer)
            for node in self.nodes
            for peer in node.peers.values()
            if peer.id not in self.ids and peer.linked and not peer.failed and peer.ip not in addresses
        ]


def redis_pods(world: World) -> list[PodView]:
    """The cluster's Redis pods."""
    return [pod for pod in world.pods if pod.labels.get(LABEL_COMPONENT) == "redis"]


@contextlib.contextmanager
def _connected(cluster: ClusterView, world: World, link: Link) -> Iterator[Sight]:
    """Connections to all pods that run, closed at the end."""
    password = link.secret(auth_secret(cluster))["password"]
    pods = redis_pods(world)
    running = [pod for pod in pods if pod.started and pod.ip and not pod.deleting]
    missing = [pod.name for pod in pods if pod not in running]
    missing += ["a pod that is not there yet"] * max(0, rules.pods(cluster.spec) - len(pods))

    def connect(pod: PodView) -> Node | str:
        try:
            return Node(pod, int(pod.labels[LABEL_SHARD]), Connection(link.connect(pod, PORT, timeout=2), password))
        except (LinkError, RedisError) as error:
            return f"{pod.name} ({error})"

    with ThreadPoolExecutor(PARALLEL) as pool:
        found = list(pool.map(connect, running))
    nodes = [one for one in found if isinstance(one, Node)]
    try:
        yield Sight(cluster, nodes, missing + [one for one in found if isinstance(one, str)])
    finally:
        for node in nodes:
            node.connection.close()


def _read_all(sight: Sight) -> None:
    """Read every node side by side; one that breaks counts as missing."""

    def read(node: Node) -> str:
        try:
            node.read()
        except LinkError as error:
            return f"{node.pod.name} ({error})"
        return ""

    with ThreadPoolExecutor(PARALLEL) as pool:
        broken = dict(zip([node.pod.name for node in sight.nodes], pool.map(read, sight.nodes), strict=True))
    sight.missing += [text for text in broken.values() if text]
    sight.nodes = [node for node in sight.nodes if not broken[node.pod.name]]


def advance(cluster: ClusterView, world: World, link: Link) -> Advance:
    """See engines.base.Engine.advance."""
    until = time.monotonic() + PATIENCE_SECONDS
    nudged = 0.0
    with _connected(cluster, world, link) as sight:
        while True:
            _read_all(sight)
            outcome = _judge(sight)
            foreign = sight.foreign() if not sight.missing else []
            if foreign:
                node, peer = foreign[0]
                reason = (
                    f"{node.pod.name} knows {peer.id[:8]} at {peer.ip}, which is not of this cluster: nothing is done"
                )
                return _report(sight, outcome, reason, 5.0)
            if outcome.healthy or not sight.nodes:
                return outcome
            acted = _act(sight, link)
            now = time.monotonic()
            if acted or now - nudged > NUDGE_EVERY_SECONDS:
                nudged = now
                _nudge(sight)
            if now > until or (sight.missing and not acted):
                return outcome
            time.sleep(LOOK_EVERY_SECONDS)


# --- acting -----------------------------------------------------------------------------------------------------------


def _send(node: Node, link: Link, reason: str, *words: str | int) -> bool:
    """Send one command that changes something; what the server refuses is an event, and seen again at the next look."""
    command = " ".join(str(word) for word in words)
    try:
        node.connection.call(*words)
    except RedisError as error:
        link.event("RedisRefused", f"{command}: {error}", warning=True, object=f"pod/{node.pod.name}")
        return False
    link.event(reason, command, object=f"pod/{node.pod.name}")
    return True


def _act(sight: Sight, link: Link) -> bool:
    """Take what is next; True when something was sent."""
    spec = sight.cluster.spec
    acted = False
    if not sight.missing:
        if all(node.is_alone and not node.me.slots for node in sight.nodes):
            # Only a node that knows nobody takes an epoch; equal epochs would cost rounds of conflict resolution.
            for number, node in enumerate(sight.nodes, 1):
                with contextlib.suppress(RedisError):
                    node.connection.call("CLUSTER", "SET-CONFIG-EPOCH", number)
        acted = _assign_slots(sight, link)
    for shard in range(spec["shards"]):
        master = sight.master(shard)
        if master is None:
            continue
        for node in sight.shard(shard):
            follows_other = "slave" in node.me.flags and node.me.master != master.id
            serves_nothing = "master" in node.me.flags and not node.me.slots
            knows = master.id in node.peers and not node.peers[master.id].failed
            if node is not master and (follows_other or serves_nothing) and knows:
                acted |= _send(node, link, "Replicate", "CLUSTER", "REPLICATE", master.id)
    if not sight.missing:
        acted |= _forget_ghosts(sight, link)
    return acted


def _assign_slots(sight: Sight, link: Link) -> bool:
    """Give each shard the slots of its range that nobody, living or dead, is known to have."""
    shards = sight.cluster.spec["shards"]
    owned: set[int] = set()
    for node in sight.nodes:
        for peer in node.peers.values():
            for first, last in peer.slots:
                owned.update(range(first, last + 1))
    if len(owned) == SLOTS:
        return False
    fixed = {shard: master.pod.name for shard in range(shards) if (master := sight.master(shard)) is not None}
    candidates = {
        shard: [(node.pod.name, node.pod.node) for node in sight.shard(shard) if "master" in node.me.flags]
        for shard in range(shards)
    }
    chosen = choose_masters(candidates, fixed)
    acted = False
    for node in sight.nodes:
        if chosen.get(node.shard) != node.pod.name:
            continue
        first, last = slot_range(node.shard, shards)
        ranges = _ranges([slot for slot in range(first, last + 1) if slot not in owned])
        if ranges:
            words = [str(end) for pair in ranges for end in pair]
            acted |= _send(node, link, "SlotsAssigned", "CLUSTER", "ADDSLOTSRANGE", *words)
    return acted


def _ranges(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges."""
    found: list[tuple[int, int]] = []
    for slot in slots:
        if found and found[-1][1] == slot - 1:
            found[-1] = (found[-1][0], slot)
        else:
            found.append((slot, slot))
    return found


def _forget_ghosts(sight: Sight, link: Link) -> bool:
    """Forget failed ids that are no pod's and serve no slot: what a lost disk leaves behind."""
    ghosts = {
        peer.id
        for node in sight.nodes
        for peer in node.peers.values()
        if peer.id not in sight.ids and peer.failed and not peer.slots
    }
    # A ghost that still serves slots is a master whose replica has not taken over yet.
    ghosts -= {peer.id for node in sight.nodes for peer in node.peers.values() if peer.slots}
    acted = False
    for ghost in sorted(ghosts):
        # On every node, soon after each other: otherwise those that still know it bring it back.
        for node in sight.nodes:
            if ghost in node.peers and node.me.master != ghost:
                acted |= _send(node, link, "Forget", "CLUSTER", "FORGET", ghost)
    return acted


def _nudge(sight: Sight) -> None:
    """Everybody meets everybody who is not known well; with few nodes, everybody."""
    every = len(sight.nodes) <= NUDGE_UP_TO

    def meet(node: Node) -> None:
        words: list[list[str | int]] = []
        for other in sight.nodes:
            if other is node:
                continue
            known = node.peers.get(other.id)
            if every or known is None or known.ip != other.pod.ip or not known.linked or known.failed:
                words.append(["CLUSTER", "MEET", other.pod.ip, PORT])
        with contextlib.suppress(LinkError):
            node.connection.pipeline(words)

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(meet, sight.nodes))


# --- judging ----------------------------------------------------------------------------------------------------------


def _judge(sight: Sight) -> Advance:
    """What is done, what is waited for, whether all is as wished."""
    checks: list[tuple[str, Callable[[Sight], str]]] = [
        ("meet", _unknown), ("slots", _unserved), ("replicas", _unlinked),
    ]  # fmt: skip
    reports = []
    reason = f"{sight.missing[0]} is not there" if sight.missing else ""
    held_up = bool(sight.missing)
    for key, check in checks:
        complaint = check(sight) if sight.nodes else "no node answers yet"
        if complaint or held_up:
            reports.append(StepReport(key, "waiting" if held_up else "running", complaint))
            reason = reason or complaint
            held_up = True
        else:
            reports.append(StepReport(key, "done"))
    healthy = not reason
    return Advance(healthy, reason, tuple(reports), _members(sight), None if healthy else 0.3)


def _report(sight: Sight, outcome: Advance, reason: str, retry_after: float) -> Advance:
    return Advance(False, reason, outcome.steps, outcome.members, retry_after)


def _unknown(sight: Sight) -> str:
    for node in sight.nodes:
        for other in sight.nodes:
            known = node.peers.get(other.id)
            if known is None:
                return f"{node.pod.name} does not know {other.pod.name} yet"
            if known.failed:
                return f"{node.pod.name} takes {other.pod.name} for failed"
            if other is not node and not known.linked:
                return f"{node.pod.name} has no link to {other.pod.name}"
    return ""


def _unserved(sight: Sight) -> str:
    for node in sight.nodes:
        assigned = node.info.get("cluster_slots_assigned", "0")
        if assigned != str(SLOTS):
            return f"{node.pod.name} knows of {assigned} of {SLOTS} slots"
        if node.info.get("cluster_state") != "ok":
            return f"{node.pod.name} says the cluster is not in order yet"
    return ""


def _unlinked(sight: Sight) -> str:
    replicas = sight.cluster.spec["replicasPerShard"]
    for shard in range(sight.cluster.spec["shards"]):
        master = sight.master(shard)
        if master is None:
            return f"shard {shard}: none of its members is its master yet"
        for node in sight.shard(shard):
            if node is master:
                continue
            if node.me.master != master.id:
                return f"shard {shard}: {node.pod.name} does not follow {master.pod.name} yet"
            if node.replication.get("master_link_status") != "up":
                return f"shard {shard}: {node.pod.name} is copying from {master.pod.name}"
        following = sum(
            "slave" in peer.flags and peer.master == master.id for peer in master.peers.values() if not peer.failed
        )
        if following != replicas:
            return f"shard {shard}: {master.pod.name} knows of {following} replicas, {replicas} are wished"
    for node in sight.nodes:
        strangers = [peer for peer in node.peers.values() if peer.id not in sight.ids]
        if strangers:
            return f"{node.pod.name} still lists {strangers[0].id[:8]}, which no pod is"
    return ""


def _members(sight: Sight) -> tuple[Member, ...]:
    members = []
    for node in sorted(sight.nodes, key=lambda node: node.pod.name):
        role = "replica" if "slave" in node.me.flags else "master"
        detail: dict[str, str] = {}
        if node.me.slots:
            detail["slots"] = ", ".join(f"{first}-{last}" for first, last in node.me.slots)
        linked = role == "master" or node.replication.get("master_link_status") == "up"
        if role == "replica":
            detail["link"] = "up" if linked else "down"
        members.append(
            Member(
                node.pod.name, role, node.pod.node, node.pod.zone, str(node.shard), linked and node.pod.started, detail
            )
        )
    return tuple(members)
