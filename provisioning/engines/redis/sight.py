"""What is seen of a Redis Cluster in one look: a connection to every pod that runs, and what each said last."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from provisioning.engines.base import (
    LABEL_COMPONENT,
    LABEL_SHARD,
    READY_GATE,
    ClusterView,
    Link,
    LinkError,
    PodView,
    World,
)
from provisioning.engines.redis import spec as rules
from provisioning.engines.redis import users
from provisioning.engines.redis.admin import Connection, Peer, RedisError, parse_info, parse_nodes
from provisioning.engines.redis.encryption import Channel, Shown, is_on, shown_by
from provisioning.engines.redis.manifests import PORT, VOTES_REACH_AFTER, auth_secret
from provisioning.engines.redis.placement import SLOTS, choose_masters

PARALLEL = 16
# Who says nothing for so long is told as silent. Part of the 5 s within which a cause is named, see apply/pulse.py.
SILENT_SECONDS = 2.0
# A replica this far behind its master is in step: a failover waits for the rest, which takes no time.
IN_STEP_BYTES = 1 << 20


@dataclass
class Node:
    """A pod we speak to, and what it said last."""

    pod: PodView
    shard: int
    connection: Connection
    id: str = ""
    peers: Mapping[str, Peer] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    # INFO replication, server and keyspace.
    replication: Mapping[str, str] = field(default_factory=dict)
    # During this call; the next one may ask again.
    failover_asked: bool = False
    snapshot_asked: bool = False
    # The certificate it serves.
    shown: Shown | None = None

    @property
    def me(self) -> Peer:
        return self.peers[self.id]

    @property
    def is_alone(self) -> bool:
        return len(self.peers) == 1

    @property
    def is_master(self) -> bool:
        return "master" in self.me.flags

    @property
    def slots(self) -> set[int]:
        """The slots it says it serves."""
        return {slot for first, last in self.me.slots for slot in range(first, last + 1)}

    @property
    def is_empty(self) -> bool:
        """Whether it serves no slot, follows nobody and has no key."""
        return not self.me.slots and not self.me.master and "db0" not in self.replication

    def follows(self, master: Node) -> bool:
        """Whether it is a replica of `master` with a link that is up and little left to copy."""
        if self.me.master != master.id or self.replication.get("master_link_status") != "up":
            return False
        if self.replication.get("master_sync_in_progress") == "1":
            return False
        behind = int(master.replication.get("master_repl_offset", 0)) - int(
            self.replication.get("slave_repl_offset", 0)
        )
        return behind < IN_STEP_BYTES

    @property
    def votes_reach(self) -> bool:
        """Whether it has run for long enough to be voted for."""
        return int(self.replication.get("uptime_in_seconds", VOTES_REACH_AFTER)) >= VOTES_REACH_AFTER

    def read(self) -> None:
        """Look. Raises LinkError."""
        nodes, info, replication = self.connection.pipeline(
            [["CLUSTER", "NODES"], ["CLUSTER", "INFO"], ["INFO", "replication", "server", "keyspace"]]
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
    """All that was seen in one look. `nodes` are the members the spec wishes, `leaving` those it does not any more.

    `missing` says what of the wished members does not answer, each beginning with the pod's name; `gone` the pods of
    leaving ones that do not; `unheard` how those fail that run: "silent" (it may take connections, and says nothing),
    "refused", "closed", "unreachable", "untrusted" (its certificate is not for it). `excused` are wished members that
    do not answer and are not waited for, by name, with the address Kubernetes knows ("" for none).
    """

    cluster: ClusterView
    # User and password nodes are to sign in to each other with, MIGRATE too; user "" is the default one.
    account: tuple[str, str]
    nodes: list[Node]
    missing: list[str]
    leaving: list[Node] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unheard: dict[str, str] = field(default_factory=dict)
    # During this call, for evenness.
    handed_over: bool = False
    excused: dict[str, str] = field(default_factory=dict)
    # By which new connections are made, with TLS.
    channel: Channel | None = None
    # Of all the cluster's pods, those included that do not answer or answer with an error, and those that leave.
    addresses: frozenset[str] = frozenset()

    @property
    def ids(self) -> set[str]:
        return {node.id for node in self.nodes}

    @property
    def everyone(self) -> list[Node]:
        """Wished and leaving members that answer."""
        return [*self.nodes, *self.leaving]

    def shard(self, number: int) -> list[Node]:
        """The members of one shard that are to stay."""
        return [node for node in self.nodes if node.shard == number]

    def master(self, number: int) -> Node | None:
        """The member, staying or leaving, that serves the shard's slots; None for none, or (for a moment) two."""
        serving = [node for node in self.everyone if node.shard == number and node.me.slots and node.is_master]
        return serving[0] if len(serving) == 1 else None

    def slots_known(self) -> set[int]:
        """The slots that have an owner, living or dead, in somebody's eyes."""
        return {
            slot
            for node in self.everyone
            for peer in node.peers.values()
            for first, last in peer.slots
            for slot in range(first, last + 1)
        }

    def all_slots_owned(self) -> bool:
        """Whether every slot has an owner."""
        return len(self.slots_known()) == SLOTS

    def heads(self) -> dict[int, Node]:
        """Shard to the member the others follow: its master, or, in a shard that has no slots yet, its master to be."""
        shards = range(self.cluster.spec["shards"])
        found = {number: node for number in shards if (node := self.master(number)) is not None}
        if len(found) == len(shards) or not self.all_slots_owned():
            return found
        candidates: dict[int, list[Node]] = {}
        for number in shards:
            members = self.shard(number)
            if number in found or any(node.me.slots for node in members):
                continue
            followed = {node.me.master for node in members if node.me.master}
            masters = [node for node in members if node.is_master]
            if followed - {node.id for node in masters}:
                # They follow somebody who is away, and hold the shard's data: an empty member must not lead them.
                continue
            candidates[number] = [node for node in masters if node.id in followed] or masters
        placed = {number: [(node.pod.name, node.pod.node) for node in nodes] for number, nodes in candidates.items()}
        fixed = {number: node.pod.name for number, node in found.items()}
        placed |= {number: [(node.pod.name, node.pod.node)] for number, node in found.items()}
        chosen = choose_masters(placed, fixed)
        for number, nodes in candidates.items():
            for node in nodes:
                if node.pod.name == chosen.get(number):
                    found[number] = node
        return found

    def foreign(self) -> list[tuple[Node, Peer]]:
        """Living nodes that ours know and that are at no address of ours. Alive in the eyes of all of ours that know
        them: what a lost disk leaves behind is still linked for a moment, here or there.
        """
        ours = {node.id for node in self.everyone}
        dead = {peer.id for node in self.nodes for peer in node.peers.values() if not peer.alive}
        return [
            (node, peer)
            for node in self.nodes
            for peer in node.peers.values()
            if peer.id not in ours | dead and peer.ip not in self.addresses
        ]


def redis_pods(world: World) -> list[PodView]:
    """The cluster's Redis pods."""
    return [pod for pod in world.pods if pod.labels.get(LABEL_COMPONENT) == "redis"]


def pod_of(missing: str) -> str:
    """The pod's name of an entry of Sight.missing."""
    return missing.partition(" ")[0]


def ordinal_of(name: str) -> int:
    """Number of a StatefulSet's pod, or of its volume."""
    return int(name.rpartition("-")[2])


def is_wished(cluster: ClusterView, shard: int, ordinal: int) -> bool:
    """Whether the spec has this member."""
    return bool(shard < cluster.spec["shards"] and ordinal <= cluster.spec["replicasPerShard"])


@contextlib.contextmanager
def connected(cluster: ClusterView, world: World, link: Link) -> Iterator[Sight]:
    """Connections to all pods that run, closed at the end."""
    accounts = users.accounts(link.secret(auth_secret(cluster)))
    channel = Channel(cluster, link)

    def wished(pod: PodView) -> bool:
        return is_wished(cluster, int(pod.labels[LABEL_SHARD]), ordinal_of(pod.name))

    pods = redis_pods(world)
    stay = [pod for pod in pods if wished(pod)]
    running = [pod for pod in pods if pod.started and pod.ip and not pod.deleting]
    missing = [pod.name for pod in stay if pod not in running]
    names = {pod.name for pod in stay}
    missing += [f"{name} (no such pod)" for name in rules.pod_names(cluster.name, cluster.spec) if name not in names]

    unheard: dict[str, str] = {}

    def connect(pod: PodView) -> Node | str:
        try:
            connected = channel.to_pod(link.connect(pod, PORT, timeout=SILENT_SECONDS), pod.name)
            shown = shown_by(connected)
            return Node(pod, int(pod.labels[LABEL_SHARD]), Connection(connected, *accounts), shown=shown)
        except (LinkError, RedisError) as error:
            unheard[pod.name] = how(error)
            return f"{pod.name} ({error})"

    with ThreadPoolExecutor(PARALLEL) as pool:
        found = list(zip(running, pool.map(connect, running), strict=True))
    sight = Sight(cluster, accounts[0], [], missing, unheard=unheard, channel=channel if is_on(cluster.spec) else None)
    sight.addresses = frozenset(pod.ip for pod in pods if pod.ip)
    known = {pod.name: pod.ip for pod in stay}
    may_be_away = {key.removeprefix(READY_GATE) for key in cluster.overridden if key.startswith(READY_GATE)}
    sight.excused = {name: known.get(name, "") for name in may_be_away}
    sight.gone = [pod.name for pod in pods if pod not in stay and pod not in running]
    for pod, one in found:
        if isinstance(one, Node):
            (sight.nodes if pod in stay else sight.leaving).append(one)
        else:
            (sight.missing if pod in stay else sight.gone).append(one)
    connections = [node.connection for node in sight.everyone]
    try:
        yield sight
    finally:
        for connection in connections:
            connection.close()


def how(error: LinkError | RedisError) -> str:
    """In what way a pod that runs is not heard, see Sight.unheard."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "silent"
    if isinstance(cause, ConnectionRefusedError):
        return "refused"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "untrusted"
    # Whoever breaks a connection, or says no, is there.
    return "closed" if isinstance(error, RedisError) or isinstance(cause, OSError) else "unreachable"


def read_all(sight: Sight) -> None:
    """Read every node side by side; one that breaks counts as missing."""

    def read(node: Node) -> str:
        try:
            node.read()
        except LinkError as error:
            sight.unheard[node.pod.name] = how(error)
            return f"{node.pod.name} ({error})"
        return ""

    everyone = sight.everyone
    with ThreadPoolExecutor(PARALLEL) as pool:
        broken = dict(zip([node.pod.name for node in everyone], pool.map(read, everyone), strict=True))
    sight.missing += [broken[node.pod.name] for node in sight.nodes if broken[node.pod.name]]
    sight.missing = [text for text in sight.missing if pod_of(text) not in sight.excused]
    sight.gone += [broken[node.pod.name] for node in sight.leaving if broken[node.pod.name]]
    sight.nodes = [node for node in sight.nodes if not broken[node.pod.name]]
    sight.leaving = [node for node in sight.leaving if not broken[node.pod.name]]
    for node in sight.nodes:
        sight.excused.pop(node.pod.name, None)
