"""What is done to a Redis Cluster that is formed: settings, slots on the move, members that leave, restarts.

`look_after` takes at most one batch of each call, in this order:

1. settings in force on every node (CONFIG SET), whoever changed them;
2. slots evenly over the wished shards, none left on shards that leave; before that the restarts, when shards leave:
   nodes that are to take over data must be as large as they will be;
3. members that leave: never while they serve a slot; forgotten by all, reset, then handed to the core for removal;
4. restarts of outdated pods, one at a time over the whole cluster: in each shard the replicas, then a restarted replica
   takes over (CLUSTER FAILOVER, which loses nothing: the old master holds back writes until it is in step), then the
   old master, which is a replica by then;
5. masters even over the nodes, when asked for: replicas in step take over, one in each call, so that canceling counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from provisioning.engines.base import (
    HEIR_GATE,
    LABEL_SHARD,
    READY_GATE,
    Blocked,
    Gate,
    Link,
    LinkError,
    PodView,
    Spec,
    StepReport,
    World,
    outdated_pods,
    templates_seen,
)
from provisioning.engines.redis import encryption, moves, settings, spread
from provisioning.engines.redis.admin import RedisError, parse_info
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.sight import Node, Sight, is_wished, ordinal_of, redis_pods

MIB = 2**20
# The node timeout while a cluster forms; below what a spec may wish. See topology._act. With TLS 500 ms are too few on
# a busy machine: who is still shaking hands is taken for failed, and has to begin anew.
FORMING_TIMEOUT_MS, FORMING_TIMEOUT_TLS_MS = 500, 1900
# A process that reacts to nobody for so long is ended, when another does its work.
FROZEN_SECONDS = 60
# A demoted master is linked to its heir again within a second or two; after this long it is not going to be.
STRAY_SECONDS = 10
# How old a snapshot may be for which the append-only file is given up: a look comes within seconds of its end.
SNAPSHOT_SECONDS = 60
# Pods whose settings are told; all of them would mostly say the same.
MOST_TOLD = 3


@dataclass
class Care:
    """The outcome of one look: `complaint` is what is not as wished yet; `acted`: something was sent; `paused`: the
    core is to have a look before there is more.
    """

    complaint: str = ""
    acted: bool = False
    paused: bool = False
    steps: list[StepReport] = field(default_factory=list)
    restart: PodView | None = None
    retired: tuple[tuple[str, str], ...] = ()
    blocked: Blocked | None = None
    gate: Gate | None = None


def look_after(sight: Sight, world: World, link: Link, until: float) -> Care:
    """One round of the above, for a cluster whose members all answer and agree. Raises LinkError."""
    care = Care()
    stages: list[tuple[str, Callable[[], str]]] = [
        ("config", lambda: settle_settings(sight, world, link, care)),
        ("move", lambda: _move(sight, link, until, care)),
        ("restart", lambda: _restart(sight, world, link, care)),
    ]
    if sight.leaving:
        stages[1], stages[2] = stages[2], stages[1]
    stages.append(("leave", lambda: _leave(sight, world, link, care)))
    stages.append(("rebalance", lambda: _rebalance(sight, link, care)))
    for key, stage in stages:
        if care.complaint:
            care.steps.append(StepReport(key, "waiting"))
            continue
        care.complaint = stage()
        care.steps.append(StepReport(key, "running" if care.complaint else "done", care.complaint))
    return care


def forming_timeout_ms(spec: Spec) -> int:
    """The node timeout while a cluster forms."""
    return FORMING_TIMEOUT_TLS_MS if encryption.is_on(spec) else FORMING_TIMEOUT_MS


# --- settings ---------------------------------------------------------------------------------------------------------


def settle_settings(sight: Sight, world: World, link: Link, care: Care) -> str:
    """Have every node use the wished settings; returns what is not so yet. Raises LinkError.

    A pod that is to be restarted into more memory keeps its maxmemory until then.
    """
    spec = sight.cluster.spec
    wish = _wish(spec)
    old = {pod.name for pod in outdated_pods(world)}
    have = {node.pod.name: _read(node, wish) for node in sight.nodes}
    care.blocked = _late(
        _memory_too_small(sight, have, int(wish["maxmemory"])),
        "Or go back to more memory: no node was told yet, and a pod that restarts gets the smaller one.",
    )
    if care.blocked is not None:
        return care.blocked.message
    complaint = ""
    for node in sight.nodes:
        said = have[node.pod.name]
        different = _different(said, _own(node, wish), is_old=node.pod.name in old)
        if said["cluster-node-timeout"] == str(forming_timeout_ms(spec)):
            # Ours, from forming: set back without a word as soon as the node serves.
            different.pop("cluster-node-timeout", None)
            if node.info.get("cluster_state") == "ok":
                node.connection.pipeline([["CONFIG", "SET", "cluster-node-timeout", wish["cluster-node-timeout"]]])
                care.acted = True
        if different.get("appendonly") == "no" and wish["save"] and not _has_snapshot(said):
            # The append-only file is all there is on disk; and a node with save rules whose first snapshot fails
            # (a full disk) refuses writes.
            waits = _take_snapshot(node, said, link, care)
            different = {key: value for key, value in different.items() if key not in ("appendonly", "save")}
            complaint = complaint or waits
        if different:
            complaint = _set(node, said, different, link, drifted=not sight.cluster.changing) or complaint
            care.acted = True
        elif wish["appendonly"] == "yes" and sight.cluster.changing and _writes_first_file(said):
            complaint = complaint or f"{node.pod.name} is writing its append-only file"
    return complaint


def drift(sight: Sight, world: World) -> str | None:
    """Which settings in force are not the wished ones, pod by pod; "" when all are, None when a member does not say."""
    wish = _wish(sight.cluster.spec)
    old = {pod.name for pod in outdated_pods(world)}
    told = []
    for node in sight.nodes:
        try:
            said = _read(node, wish)
        except (LinkError, RedisError):
            return None
        different = _different(said, _own(node, wish), is_old=node.pod.name in old)
        if different:
            values = ", ".join(f"{key} is {said[key] or 'nothing'}, wished is {value or 'nothing'}"
                               for key, value in different.items())  # fmt: skip
            told.append(f"{node.pod.name}: {values}")
    more = f"; and {len(told) - MOST_TOLD} more pods" if len(told) > MOST_TOLD else ""
    return "; ".join(told[:MOST_TOLD]) + more if sight.nodes else None


def _wish(spec: Spec) -> dict[str, str]:
    """What is to be in force on every node, asked for or not."""
    return settings.KEPT | settings.wanted(spec) | encryption.settings(spec, PORT) | {"cluster-announce-ip": ""}


def _own(node: Node, wish: Mapping[str, str]) -> dict[str, str]:
    """The same of one node, with what is its own."""
    return {**wish, "cluster-announce-ip": node.pod.ip}


def _different(said: Mapping[str, str], wish: Mapping[str, str], *, is_old: bool) -> dict[str, str]:
    """What is wished and not in force. A pod that is to restart into more memory keeps its maxmemory until then."""
    different = {key: value for key, value in wish.items() if key in said and said[key] != value}
    if is_old and int(said["maxmemory"]) < int(wish["maxmemory"]):
        different.pop("maxmemory", None)
    return different


def too_small(sight: Sight) -> Blocked | None:
    """Why the data does not fit into what is wished: smaller nodes, or fewer shards. Raises LinkError."""
    wish = settings.wanted(sight.cluster.spec)
    have = {node.pod.name: _read(node, wish) for node in sight.nodes}
    return _memory_too_small(sight, have, int(wish["maxmemory"])) or _shards_too_small(sight)


def _late(blocked: Blocked | None, remedy: str) -> Blocked | None:
    """Of a change that is applied already: what may have been foreseen was not, since a member was away."""
    return None if blocked is None else replace(blocked, remedy=f"{blocked.remedy} {remedy}")


def _memory_too_small(sight: Sight, have: Mapping[str, Mapping[str, str]], most: int) -> Blocked | None:
    for node in sight.nodes:
        why = _data_beyond(node, have[node.pod.name], most, sight.cluster.spec["evictionPolicy"])
        if why:
            return Blocked(
                "data_does_not_fit", f"{node.pod.name}: {why}",
                "Delete keys, or add shards, before nodes get so little memory.",
            )  # fmt: skip
    return None


def _shards_too_small(sight: Sight) -> Blocked | None:
    if not any(node.me.slots and node.shard >= sight.cluster.spec["shards"] for node in sight.leaving):
        return None
    why = moves.too_much(sight)
    return Blocked(
        "data_does_not_fit", f"The shards that stay are too small: {why}.",
        "Delete keys, or give nodes more memory, before shards leave.",
    ) if why else None  # fmt: skip


def _read(node: Node, wish: Mapping[str, str]) -> dict[str, str]:
    """What is in force, and of INFO what bears on it."""
    replies = node.connection.pipeline(
        [["CONFIG", "GET", *wish], ["INFO", "persistence", "memory", "keyspace", "server"]]
    )
    for reply in replies:
        if isinstance(reply, RedisError):
            raise LinkError(f"{node.pod.name} answers {reply}")
    words = replies[0] if isinstance(replies[0], list) else []
    told = [str(word) for word in words]
    return {
        **parse_info(str(replies[1])),
        **dict(zip(told[::2], told[1::2], strict=True)),
    }


def _data_beyond(node: Node, said: Mapping[str, str], most: int, policy: str) -> str:
    """Why a lower maxmemory would make a node refuse writes at once; "" when it would not: what may be dropped by
    `policy` takes no room.
    """
    used = int(said["used_memory"])
    spare = moves.droppable(policy, said)
    lowers = most < int(said["maxmemory"]) or said["maxmemory"] == "0"
    if not lowers or used - spare <= most:
        return ""
    may = f", of which {policy} may drop {spare // MIB} MiB (only keys that expire)" if policy != "noeviction" else ""
    return f"{used // MIB} MiB are in use{may}, and {most // MIB} MiB are wished"


def _writes_first_file(said: Mapping[str, str]) -> bool:
    return (
        said.get("aof_rewrite_in_progress") == "1"
        or said.get("aof_rewrite_scheduled") == "1"
        or said.get("aof_last_bgrewrite_status") != "ok"
    )


def _has_snapshot(said: Mapping[str, str]) -> bool:
    """Whether it has written a snapshot to its disk just now, by its own clock.

    The last save is the start of the process while there was none; `rdb_saves` counts copies sent to replicas, too.
    """
    now, saved = int(said["server_time_usec"]) // 1_000_000, int(said["rdb_last_save_time"])
    since_start = saved > now - int(said["uptime_in_seconds"])
    return since_start and said["rdb_last_bgsave_status"] == "ok" and now - saved <= SNAPSHOT_SECONDS


def _take_snapshot(node: Node, said: Mapping[str, str], link: Link, care: Care) -> str:
    """Have a node write a snapshot, unless it does; returns what is waited for."""
    if said["rdb_bgsave_in_progress"] != "1" and not node.snapshot_asked:
        node.snapshot_asked = True
        care.acted |= send(node, link, "Snapshot", "BGSAVE", "SCHEDULE")
    failed = "; the last one failed, see its log and its disk" if said["rdb_last_bgsave_status"] != "ok" else ""
    return f"{node.pod.name} is writing its first snapshot{failed}"


def _set(
    node: Node, said: Mapping[str, str], different: Mapping[str, str], link: Link, *, drifted: bool
) -> str:  # fmt: skip
    text = ", ".join(f"{key} was {said[key] or 'nothing'}, is {value or 'nothing'}" for key, value in different.items())
    words = [word for pair in different.items() for word in pair]
    try:
        node.connection.call("CONFIG", "SET", *words)
    except RedisError as error:
        link.event("RedisRefused", f"CONFIG SET: {error}", warning=True, object=f"pod/{node.pod.name}")
        return f"{node.pod.name} refuses settings: {error}"
    # Nobody asked for it now: somebody else had changed it, or the node started from an older file.
    reason = "SettingsHealed" if drifted else "SettingsSet"
    link.event(reason, text, warning=drifted, object=f"pod/{node.pod.name}")
    return f"{node.pod.name} is told its settings"


# --- slots ------------------------------------------------------------------------------------------------------------


def _move(sight: Sight, link: Link, until: float, care: Care) -> str:
    leaving_slots = any(node.me.slots and node.shard >= sight.cluster.spec["shards"] for node in sight.leaving)
    try:
        left = len(moves.wanted(sight))
        if not left and not moves.is_open(sight):
            return ""
        if leaving_slots:
            care.blocked = _late(
                _shards_too_small(sight), "Or go back to more shards; what has moved stays moved until then."
            )
            if care.blocked is not None:
                return care.blocked.message
        moved = moves.work(sight, link, until)
    except moves.Stuck as stuck:
        return str(stuck)
    care.acted = moved > 0
    return f"{max(0, left - moved)} slots are still to be moved"


# --- members that leave -----------------------------------------------------------------------------------------------


def _leave(sight: Sight, world: World, link: Link, care: Care) -> str:
    """Let members go that the spec does not wish any more. Their slots have been moved away by now."""
    shards = sight.cluster.spec["shards"]
    for number in range(shards):
        head = sight.master(number)
        if head in sight.leaving and head is not None:
            heirs = [node for node in sight.shard(number) if node.follows(head)]
            if not heirs:
                return f"shard {number}: no member that stays is in step with {head.pod.name}, which leaves"
            care.acted = take_over(heirs[0], link)
            return f"shard {number}: {heirs[0].pod.name} takes over from {head.pod.name}, which leaves"
    for node in sight.leaving:
        if node.me.slots:
            return f"{node.pod.name}, which leaves, still serves slots"
    known = {peer for node in sight.nodes for peer in node.peers}
    for node in sight.leaving:
        if node.id in known:
            for other in sight.nodes:
                if node.id in other.peers:
                    care.acted |= send(other, link, "Forget", "CLUSTER", "FORGET", node.id)
    for node in sight.leaving:
        if not node.is_alone:
            care.acted |= send(node, link, "Reset", "CLUSTER", "RESET", "HARD")
    if care.acted:
        return "members that leave are forgotten"
    care.retired = _to_retire(sight, world)
    if care.retired:
        return f"{care.retired[0][1]} is being removed"
    left = [
        pod.name for pod in redis_pods(world) if not is_wished(sight.cluster, _shard(pod.labels), ordinal_of(pod.name))
    ]
    return f"{left[0]} is ending" if left else ""


def _shard(labels: Mapping[str, str]) -> int:
    return int(labels[LABEL_SHARD])


def _to_retire(sight: Sight, world: World) -> tuple[tuple[str, str], ...]:
    """Workloads that are larger than wished, and volumes nobody uses any more.

    Called only when every slot is served by a member that stays and all agree: so no volume among these holds the only
    copy of anything.
    """
    members = sight.cluster.spec["replicasPerShard"] + 1
    found: list[tuple[str, str]] = []
    replicas: dict[str, int] = {}
    for workload in world.workloads:
        if LABEL_SHARD not in workload.labels:
            continue
        replicas[workload.name] = workload.replicas
        if _shard(workload.labels) >= sight.cluster.spec["shards"]:
            found += [(workload.kind, workload.name), ("PodDisruptionBudget", workload.name)]
        elif workload.replicas > members:
            found.append((workload.kind, workload.name))
    if found:
        return tuple(found)
    pods = {pod.name for pod in world.pods}
    for volume in world.volumes:
        # Named data-<StatefulSet>-<ordinal>, after its pod.
        pod = volume.name.partition("-")[2]
        if LABEL_SHARD not in volume.labels or is_wished(sight.cluster, _shard(volume.labels), ordinal_of(pod)):
            continue
        if pod not in pods and ordinal_of(pod) >= replicas.get(pod.rpartition("-")[0], 0):
            found.append(("PersistentVolumeClaim", volume.name))
    return tuple(found)


# --- restarts ---------------------------------------------------------------------------------------------------------


def outdated_members(sight: Sight, world: World) -> list[PodView]:
    """Wished members that run an older template."""
    return [
        pod
        for pod in outdated_pods(world)
        if pod.labels.get(LABEL_SHARD)
        and is_wished(sight.cluster, _shard(pod.labels), ordinal_of(pod.name))
        and pod.name not in sight.excused
    ]


def ready_gate(sight: Sight, pod: str, message: str, refusal: str = "") -> Gate:
    """The gate of a member that is away or not ready."""
    risk = f"The shard of {pod} has a copy less until {pod} is back; it is brought up to date then."
    return Gate(f"{READY_GATE}{pod}", message, risk, refusal)


def _heir_gate(sight: Sight, head: Node) -> Gate:
    """The gate of a master that is to restart while no replica can take over."""
    refusal = ""
    if sight.cluster.spec["persistence"] == "none":
        refusal = f"The keys of shard {head.shard} are only in the memory of {head.pod.name}: they would be lost."
    return Gate(
        f"{HEIR_GATE}{head.pod.name}", f"no replica is in step with {head.pod.name} yet",
        f"Shard {head.shard} answers nobody while {head.pod.name} restarts, and what a client wrote last may be lost.",
        refusal,
    )  # fmt: skip


def cannot_follow(sight: Sight, world: World) -> PodView | None:
    """An outdated replica that gets no link to a master of the newer template: to be restarted as it is.

    A newer Redis may not be understood by an older one (a full copy is in the newer format), so in an upgrade the old
    master may never get in step before it is upgraded itself. Everybody is there, and the rest of its shard in step.
    """
    if not sight.cluster.changing or sight.missing or not templates_seen(world):
        return None
    old = {pod.name for pod in outdated_members(sight, world)}
    for shard, head in sorted(sight.heads().items()):
        replicas = [node for node in sight.shard(shard) if node is not head]
        stray = [node for node in replicas if not node.follows(head)]
        if head.pod.name in old or len(stray) != 1 or stray[0].pod.name not in old:
            continue
        away = int(stray[0].replication.get("master_link_down_since_seconds", 0))
        if stray[0].me.master == head.id and away >= STRAY_SECONDS:
            return stray[0].pod
    return None


def restart_progress(sight: Sight, outdated: Sequence[PodView], reason: str) -> str:
    """How far the restarts are, and what is waited for."""
    total = sight.cluster.spec["shards"] * (sight.cluster.spec["replicasPerShard"] + 1)
    return f"{total - len(outdated)} of {total} pods are up to date" + (f"; {reason}" if reason else "")


def _restart(sight: Sight, world: World, link: Link, care: Care) -> str:
    if not sight.cluster.changing:
        return ""
    if not templates_seen(world):
        return "Kubernetes has not seen the new template yet"
    outdated = outdated_members(sight, world)
    if not outdated:
        return ""
    overridden = sight.cluster.overridden
    unready = [
        node.pod.name for node in sight.nodes if not node.pod.ready and f"{READY_GATE}{node.pod.name}" not in overridden
    ]
    if unready:
        care.gate = ready_gate(sight, unready[0], f"{unready[0]} is not ready yet")
        return restart_progress(sight, outdated, f"{unready[0]} is not ready yet")
    old = {pod.name for pod in outdated}
    shard = min(_shard(pod.labels) for pod in outdated)
    members = [node for node in sight.shard(shard) if node.pod.name in old]
    head = sight.master(shard)
    replicas = [node for node in members if node is not head]
    if replicas:
        care.restart = replicas[0].pod
        return restart_progress(sight, outdated, f"{replicas[0].pod.name}, a replica, is restarted")
    if head is None:
        return restart_progress(sight, outdated, f"shard {shard} has no master now")
    others = [node for node in sight.shard(shard) if node is not head]
    if not others and not sight.cluster.spec["replicasPerShard"]:
        care.restart = head.pod
        return restart_progress(sight, outdated, f"{head.pod.name}, which has no replica, is restarted")
    heirs = [node for node in others if node.follows(head)]
    if not heirs:
        gate = _heir_gate(sight, head)
        if gate.key in overridden and not gate.refusal:
            care.restart = head.pod
            return restart_progress(sight, outdated, f"{head.pod.name} is restarted without an heir, as was asked for")
        care.gate = gate
        return restart_progress(sight, outdated, f"no replica is in step with {head.pod.name} yet")
    care.acted = take_over(heirs[0], link)
    return restart_progress(sight, outdated, f"{heirs[0].pod.name} takes over from {head.pod.name}")


# --- frozen processes -------------------------------------------------------------------------------------------------


def frozen_for_good(sight: Sight, world: World) -> PodView | None:
    """A member that has reacted to nobody for FROZEN_SECONDS, though its node is well and another leads its shard.

    Kubernetes does not see that: its probes connect, and the kernel takes connections for a frozen process. How long it
    is silent the others tell, each by its own clock: since when it answers no ping, beside whom they heard last.
    """
    well = {node.name for node in world.nodes if node.ready}
    for pod in redis_pods(world):
        if sight.unheard.get(pod.name) != "silent" or pod.node not in well:
            continue
        head = sight.master(_shard(pod.labels))
        if head is None or head.pod.name == pod.name:
            continue
        silent = []
        for node in sight.nodes:
            known = [peer for peer in node.peers.values() if peer.ip == pod.ip and peer.doubted]
            if known:
                silent.append(max(peer.heard for peer in node.peers.values()) - max(peer.heard for peer in known))
        # Everybody who is heard has to say so.
        if silent and len(silent) == len(sight.nodes) and min(silent) > FROZEN_SECONDS * 1000:
            return pod
    return None


# --- evenness ---------------------------------------------------------------------------------------------------------


def _rebalance(sight: Sight, link: Link, care: Care) -> str:
    """Hand one shard over. Everybody is there, agrees and is linked, or nobody would have come here."""
    if not sight.cluster.rebalance:
        return ""
    left = spread.wanted(sight)
    if not left:
        return ""
    if sight.handed_over:
        care.paused = True
        return "one hand-over is left" if len(left) == 1 else f"{len(left)} hand-overs are left"
    unready = [node.pod.name for node in sight.nodes if not node.pod.ready]
    if unready:
        return f"{unready[0]} is not ready yet"
    able = spread.wanted(sight, ready=True)
    if not able:
        return f"{left[0][1]} is not in step with its master yet"
    shard, name = able[0]
    head = sight.master(shard)
    heir = next(node for node in sight.nodes if node.pod.name == name)
    care.acted = sight.handed_over = take_over(heir, link)
    return f"{name} takes over shard {shard}" + (f" from {head.pod.name}, on {head.pod.node}" if head else "")


# --- commands ---------------------------------------------------------------------------------------------------------


def send(node: Node, link: Link, reason: str, *words: str | int) -> bool:
    """Send one command that changes something; what the server refuses is an event, and seen again at the next look."""
    command = " ".join(str(word) for word in words)
    try:
        node.connection.call(*words)
    except RedisError as error:
        link.event("RedisRefused", f"{command}: {error}", warning=True, object=f"pod/{node.pod.name}")
        return False
    link.event(reason, command, object=f"pod/{node.pod.name}")
    return True


def take_over(node: Node, link: Link, how: Literal["", "FORCE", "TAKEOVER"] = "") -> bool:
    """Have a replica that is in step become the master. Sent once while one is under way: asking again begins anew;
    and not yet to a server that has just started, see VOTES_REACH_AFTER.
    FORCE: without its master, which is gone; the other masters vote. TAKEOVER: without anybody's vote.

    Measured: the command answers OK and does nothing while the link is not in step; so callers see the role afterwards.
    """
    if node.failover_asked or not (how or node.votes_reach):
        return False
    node.failover_asked = True
    return send(node, link, "TakeOver", "CLUSTER", "FAILOVER", *([how] if how else []))
