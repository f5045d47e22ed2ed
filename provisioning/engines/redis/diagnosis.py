"""Why a Redis Cluster is not well: the causes one look shows, the likeliest first, each with what can be done. Pure.

What explains much comes before what it explains: a node of Kubernetes that is lost before the shards whose masters were
on it. A member that one cause explains is not named by a later one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from provisioning.engines.base import LABEL_SHARD, Cause, PodView, World
from provisioning.engines.redis import losses
from provisioning.engines.redis.sight import Node, Sight, is_wished, ordinal_of, redis_pods
from provisioning.engines.redis.upkeep import FROZEN_SECONDS

# Consequences of what an operation does by itself: restarts, new members.
EXPECTED = frozenset({"all-pods-down", "shard-down", "master-down", "replica-down", "addresses-changed", "copying"})
UNASKED = (
    "If the old disks are still there, bring them back (their pods start from them). If not, accept the loss (POST "
    "…/accept-loss): the slots are served again, empty. Nothing of this is done without being asked for."
)
# Reaches a member nobody hears; the same words as in Unheard.how.
MUTE = ("silent", "unreachable")


@dataclass
class _Case:
    """One look, sorted by member. `state`: pod to "up" or what it is instead; `explained`: pods a cause has named."""

    sight: Sight
    world: World
    state: dict[str, str] = field(default_factory=dict)
    shard: dict[str, int] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    explained: set[str] = field(default_factory=set)

    def down(self, *states: str) -> list[str]:
        """Pods that are not up (of these states, if any are given) and that no cause has named, by name."""
        return [
            pod for pod, state in sorted(self.state.items())
            if state != "up" and pod not in self.explained and (not states or state in states)
        ]  # fmt: skip

    def node(self, pod: str) -> str:
        return self.pods[pod].node if pod in self.pods else ""

    def led(self, pod: str) -> bool:
        """Whether a member that is not heard leads its shard in the eyes of those that are."""
        shard = self.shard[pod]
        if self.sight.master(shard) is not None:
            return False
        silent = [name for name, number in self.shard.items() if number == shard and self.state[name] != "up"]
        owners = {peer.ip for node in self.sight.nodes for peer in node.peers.values() if peer.slots}
        known = [name for name in silent if name in self.pods and self.pods[name].ip in owners]
        return pod in known if known else len(silent) == 1

    def named(self, pod: str) -> str:
        """A member for people, with what it is to its shard."""
        return f"{pod}, the master of shard {self.shard[pod]}," if self.led(pod) else pod

    def words(self, pod: str) -> str:
        """What is the matter with a member that is not up."""
        one = self.pods.get(pod)
        more = f" ({one.problem})" if one is not None and one.problem else ""
        said = {
            "absent": "its pod is gone", "ending": "its pod is ending", "unplaced": "its pod has no node",
            "node": "its node is lost", "starting": "its container does not run", "refused": "it takes no connections",
            "closed": "it breaks connections", "silent": "it does not react", "unreachable": "it cannot be reached",
            "untrusted": "its certificate is not accepted",
        }  # fmt: skip
        return said[self.state[pod]] + more

    @property
    def wait(self) -> str:
        low, high = failover_seconds(self.sight.cluster.spec["nodeTimeoutMs"])
        return f"{low:g} to {high:g} s"

    def majority(self) -> str:
        """What those that are heard can do."""
        shards = self.sight.cluster.spec["shards"]
        heard = sum(node.is_master and bool(node.me.slots) for node in self.sight.nodes)
        if heard * 2 > shards:
            return f"The rest has {heard} of {shards} masters, a majority: its replicas take over after {self.wait}."
        return f"The rest has {heard} of {shards} masters, no majority: nothing can take over, and clients are refused."


def failover_seconds(node_timeout_ms: int) -> tuple[float, float]:
    """How long it takes until a replica takes over by itself from a master that says nothing: at least, and mostly at
    most. Twice the node timeout, and not it alone:

    - a node is pinged every half of it, and doubted when a ping has had no answer for all of it;
    - who doubts tells the other masters with its own pings, as often;
    - a replica waits 0.5 to 1 s before it asks for votes (clusterCron and clusterHandleSlaveFailover in cluster.c).
    """
    seconds = node_timeout_ms / 1000
    return seconds, 2 * seconds + 2


def diagnose(sight: Sight, world: World) -> tuple[Cause, ...]:
    """All causes of what was seen, ordered. Empty for a cluster that is well, or that was never formed."""
    case = _Case(sight, world)
    _sort(case)
    checks: list[Callable[[_Case], Iterable[Cause]]] = [
        _foreign, _nodes, _certificates, _everything, _losses, _split, _frozen, _disks, _addresses, _shards, _masters,
        _replicas, _copying, _exporters,
    ]  # fmt: skip
    causes = [cause for check in checks for cause in check(case)]
    if sight.cluster.changing:
        causes = [cause for cause in causes if cause.code not in EXPECTED]
    return tuple(causes)


def _sort(case: _Case) -> None:
    sight, cluster = case.sight, case.sight.cluster
    case.pods = {
        pod.name: pod for pod in redis_pods(case.world)
        if is_wished(cluster, int(pod.labels[LABEL_SHARD]), ordinal_of(pod.name))
    }  # fmt: skip
    heard = {node.pod.name for node in sight.nodes}
    healthy = {node.name for node in case.world.nodes if node.ready}
    for shard in range(cluster.spec["shards"]):
        for ordinal in range(cluster.spec["replicasPerShard"] + 1):
            name = f"{cluster.name}-s{shard}-{ordinal}"
            case.shard[name] = shard
            pod = case.pods.get(name)
            if name in heard:
                state = "up"
            elif pod is None:
                state = "absent"
            elif pod.node and case.world.nodes and pod.node not in healthy:
                state = "node"
            elif pod.deleting:
                state = "ending"
            elif not pod.node:
                state = "unplaced"
            elif not pod.started:
                state = "starting"
            else:
                state = sight.unheard.get(name, "unreachable")
            case.state[name] = state


def _foreign(case: _Case) -> Iterable[Cause]:
    for node, peer in case.sight.foreign() if not case.sight.missing else []:
        yield Cause(
            "foreign-node",
            f"{node.pod.name} knows the node {peer.id[:8]} at {peer.ip}, which lives and is not of this cluster.",
            "Berth has every member forget it, unless it has taken slots or members of this cluster: then nothing is "
            "done until both sides have forgotten each other (CLUSTER FORGET on every node). Find whose pod has that "
            "address. ipreserve keeps addresses from changing hands.",
            f"pod/{node.pod.name}",
        )
        return


def _nodes(case: _Case) -> Iterable[Cause]:
    places: dict[str, list[str]] = defaultdict(list)
    for pod in case.shard:
        if case.node(pod):
            places[case.node(pod)].append(pod)
    known = {node.name: node.ready for node in case.world.nodes}
    # Of a process that has ended alone its kubelet says so.
    quiet = (*MUTE, "refused")
    mute = {case.node(pod) for pod in case.down(*quiet)}
    for place, pods in sorted(places.items()):
        away = [pod for pod in pods if case.state[pod] != "up"]
        if not away:
            continue
        if known and not known.get(place, False):
            word = "is not ready" if place in known else "is gone"
        elif len(pods) > 1 and mute == {place} and all(case.state[pod] in quiet for pod in pods):
            word = "is probably lost or cut off: nothing on it reacts"
        else:
            continue
        names = ", ".join(case.named(pod).rstrip(",") for pod in away)
        case.explained.update(away)
        yield Cause(
            "node-lost", f"The node {place} {word}. On it: {names}.",
            f"Bring {place} back. If it is gone for good, delete its Node and the claims of its pods in Kubernetes: "
            f"they come back elsewhere and copy their shard. {case.majority()}",
            f"node/{place}",
        )  # fmt: skip


def _certificates(case: _Case) -> Iterable[Cause]:
    refused = case.down("untrusted")
    if refused:
        case.explained.update(refused)
        names = ", ".join(case.named(pod).rstrip(",") for pod in refused)
        yield Cause(
            "certificate-refused",
            f"{names}: what answers there shows a certificate that this cluster's authority has not signed for it.",
            "See whether it is this cluster's pod that answers, and whether the Secret of the cluster's authority was "
            "replaced. A restarted pod starts with the certificate of the Secret as it is now.",
            f"pod/{refused[0]}",
        )  # fmt: skip
    now = case.world.now
    expired = [node for node in case.sight.nodes if node.shown is not None and node.shown.ends <= now]
    if expired:
        first = expired[0]
        yield Cause(
            "certificate-expired",
            f"{len(expired)} of {len(case.shard)} members serve a certificate that has expired, such as "
            f"{first.pod.name}: clients refuse it, and members no longer connect to each other.",
            "Berth renews certificates long before, so it or this target was away for weeks. They are renewed now: "
            "nodes take the new one up as soon as Kubernetes has brought it into their pods, about a minute.",
            f"pod/{first.pod.name}",
        )  # fmt: skip


def _everything(case: _Case) -> Iterable[Cause]:
    down = case.down()
    if case.sight.nodes:
        lone = [node for node in case.sight.nodes if node.is_alone and not node.me.slots]
        if len(lone) == len(case.shard):
            case.explained.update(case.shard)
            yield Cause(
                "all-disks-lost", "Every member came back empty, under a new id: all data is gone.",
                f"{UNASKED} Bring the data back from elsewhere then; see who removed the disks.",
            )  # fmt: skip
        return
    if not down:
        return
    case.explained.update(down)
    if all(case.state[pod] in MUTE for pod in down):
        yield Cause(
            "cluster-unreachable", f"None of the {len(down)} members reacts.",
            "Their pods run: see whether Berth can reach the pods' network, and whether the processes are frozen.",
        )  # fmt: skip
        return
    yield Cause(
        "all-pods-down", f"All {len(down)} pods are down at once: of {down[0]}, {case.words(down[0])}.",
        "They are started by Kubernetes. Berth introduces them to each other again, whatever their new addresses; what "
        "was on disk is there.",
        f"pod/{down[0]}",
    )  # fmt: skip


def _losses(case: _Case) -> Iterable[Cause]:
    loss = losses.seen(case.sight)
    if loss is None or case.explained.issuperset(case.shard):
        return
    empty = [node for node in sorted(case.sight.nodes, key=lambda one: one.pod.name) if node.is_empty]
    case.explained.update(node.pod.name for node in empty)
    yield Cause(
        "data-lost", f"{loss.message} {_listed([node.pod.name for node in empty])} came back empty, under a new id.",
        UNASKED, f"pod/{empty[0].pod.name}" if empty else "",
    )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "Who held them"


def _split(case: _Case) -> Iterable[Cause]:
    mute = case.down(*MUTE)
    if len({case.node(pod) for pod in mute}) > 1:
        case.explained.update(mute)
        names = ", ".join(f"{case.named(pod)} on {case.node(pod)}" for pod in mute)
        yield Cause(
            "network-split", f"{len(mute)} of {len(case.shard)} members do not react: {names}.",
            f"See the network between the nodes, and whether the processes are frozen. {case.majority()} When they "
            "come back they follow whoever leads then.",
            f"pod/{mute[0]}",
        )  # fmt: skip
        return
    for one in case.sight.nodes:
        for other in case.sight.nodes:
            if one.pod.name < other.pod.name and _takes_for_failed(one, other) and _takes_for_failed(other, one):
                yield Cause(
                    "network-split",
                    f"{one.pod.name} on {one.pod.node} and {other.pod.name} on {other.pod.node} both react, and take "
                    "each other for failed.",
                    "See the network between these nodes: ports 6379 and 16379 between the pods. Berth reaches both.",
                    f"pod/{one.pod.name}",
                )
                return


def _takes_for_failed(one: Node, other: Node) -> bool:
    peer = one.peers.get(other.id)
    return peer is not None and peer.doubted and peer.ip == other.pod.ip


def _frozen(case: _Case) -> Iterable[Cause]:
    for pod in case.down("silent"):
        case.explained.add(pod)
        after = f"A replica takes over after {case.wait}; it" if case.led(pod) else "It"
        yield Cause(
            "process-frozen", f"{case.named(pod)} has a process that does not react, on {case.node(pod)}.",
            f"{after} is frozen, or busy for long: see its node's load and its slow log. "
            f"If it stays so, Berth ends it {FROZEN_SECONDS} s later, and it comes back as a replica."
            if case.sight.cluster.spec["replicasPerShard"] else
            "It is frozen, or busy for long: see its node's load and its slow log. Delete the pod if it stays so.",
            f"pod/{pod}",
        )  # fmt: skip


def _disks(case: _Case) -> Iterable[Cause]:
    phases = {volume.name: volume.phase for volume in case.world.volumes}
    for pod in case.down():
        if phases.get(f"data-{pod}") == "Lost":
            case.explained.add(pod)
            yield Cause(
                "disk-lost", f"The volume of {case.named(pod)} is lost.",
                f"Delete the claim data-{pod} and the pod: it gets a new one, and copies its shard.", f"pvc/data-{pod}",
            )  # fmt: skip
    ids = {node.id for node in case.sight.everyone}
    ghosts = {peer.id for node in case.sight.nodes for peer in node.peers.values() if peer.id not in ids}
    for node in sorted(case.sight.nodes, key=lambda one: one.pod.name):
        others = [other for other in case.sight.nodes if other is not node]
        # Of the first that is back after all were away nobody is there yet to say that.
        unknown = bool(others) and not any(node.id in other.peers for other in others)
        if not ghosts or not (node.is_alone or unknown) or node.me.slots or node.pod.name in case.explained:
            continue
        case.explained.add(node.pod.name)
        leads = case.sight.master(node.shard)
        yield Cause(
            "disk-lost", f"{node.pod.name} came back empty, under a new id: its disk was lost.",
            f"Nothing to do: its old id is forgotten, and it copies shard {node.shard} from {leads.pod.name}."
            if leads is not None else
            f"If a replica of shard {node.shard} is there it takes over at once; otherwise the shard's data is gone.",
            f"pod/{node.pod.name}",
        )  # fmt: skip


def _addresses(case: _Case) -> Iterable[Cause]:
    nodes = case.sight.nodes
    moved = [
        node.pod.name for node in nodes
        if any(peer.ip != node.pod.ip for other in nodes if other is not node and (peer := other.peers.get(node.id)))
    ]  # fmt: skip
    if moved:
        count = "Every pod has" if len(moved) == len(case.shard) else f"{len(moved)} of {len(case.shard)} pods have"
        yield Cause(
            "addresses-changed", f"{count} a new address that others do not know yet: {', '.join(sorted(moved)[:3])}"
            + (" and more." if len(moved) > 3 else "."),
            "Nothing to do: Berth introduces them to each other again.",
            f"pod/{sorted(moved)[0]}",
        )  # fmt: skip


def _shards(case: _Case) -> Iterable[Cause]:
    for shard in range(case.sight.cluster.spec["shards"]):
        members = [pod for pod, number in case.shard.items() if number == shard]
        down = [pod for pod in case.down() if case.shard[pod] == shard]
        if len(members) > 1 and down == members:
            case.explained.update(down)
            told = "; ".join(f"{pod}: {case.words(pod)}" for pod in down)
            yield Cause(
                "shard-down", f"Shard {shard} is down, with all its members. {told}.",
                "Its keys are back when one of them is; nothing can take over. See why they ended together.",
                f"pod/{down[0]}",
            )  # fmt: skip


def _masters(case: _Case) -> Iterable[Cause]:
    spec = case.sight.cluster.spec
    for pod in case.down():
        if not case.led(pod):
            continue
        case.explained.add(pod)
        shard = case.shard[pod]
        if case.state[pod] == "refused" and "aof" not in spec["persistence"] and spec["replicasPerShard"]:
            yield Cause(
                "master-restarted-without-data",
                f"{pod}, the master of shard {shard}, was restarted, and its memory was not on its disk (persistence "
                f"{spec['persistence']}): it waits until a replica leads.",
                "Nothing to do: the replica that has the most takes over first, so that nothing copies emptiness.",
                f"pod/{pod}",
            )
            continue
        heirs = [node.pod.name for node in case.sight.shard(shard)]
        _, most = failover_seconds(spec["nodeTimeoutMs"])
        yield Cause(
            "master-down", f"{pod}, the master of shard {shard}, is down: {case.words(pod)}.",
            f"Nothing to do: {' or '.join(heirs)} takes over within {most:g} s; {pod} comes back as a replica."
            if heirs else f"There is no replica: the keys of shard {shard} are back when {pod} is.",
            f"pod/{pod}",
        )  # fmt: skip


def _replicas(case: _Case) -> Iterable[Cause]:
    for pod in case.down():
        case.explained.add(pod)
        yield Cause(
            "replica-down", f"{pod}, a replica of shard {case.shard[pod]}, is down: {case.words(pod)}.",
            "Clients notice nothing; until it is back the shard has one copy fewer.", f"pod/{pod}",
        )  # fmt: skip


def _exporters(case: _Case) -> Iterable[Cause]:
    """What stands beside Redis in its pod: no reason for anything else that is told."""
    for name, pod in sorted(case.pods.items()):
        if pod.started and pod.problem and not pod.deleting:
            yield Cause(
                "exporter-failing", f"The exporter of {name} does not run: {pod.problem}",
                "Redis serves; its metrics and alerts are missing. See the image and the container's log, or switch "
                "`exporter` off.",
                f"pod/{name}",
            )  # fmt: skip


def _copying(case: _Case) -> Iterable[Cause]:
    for node in sorted(case.sight.nodes, key=lambda one: one.pod.name):
        head = case.sight.master(node.shard)
        if head is None or head is node or node.me.master != head.id or node.pod.name in case.explained:
            continue
        if node.replication.get("master_link_status") != "up":
            yield Cause(
                "copying", f"{node.pod.name} copies shard {node.shard} from {head.pod.name}.",
                "Wait: a large shard takes a while. Until then it cannot take over.", f"pod/{node.pod.name}",
            )  # fmt: skip
