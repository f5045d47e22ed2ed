"""Forms and heals a Redis Cluster with plain commands. Level-triggered: every call looks anew and takes what is next.

1. Connect to every pod that runs; read CLUSTER NODES, CLUSTER INFO and INFO replication of each.
2. A node that belongs to somebody else's cluster is never met; one that met ours is forgotten, as long as it has taken
   nothing. Otherwise nothing is done, and the reason says so.
3. All fresh: distinct epochs, then each shard's slots to the pod chosen as its first master.
4. MEET wherever one node does not know another, or knows it under an old address (all pods may have new ones).
5. REPLICATE for every member of a shard that is not its master or follows another; FORGET ids that are nobody's.
6. Verified: everybody agrees, every slot is served, every replica is linked. Then the cluster is formed, and looked
   after (upkeep.py); it is healthy when nothing is left to do there.

Nodes tell each other their slots and roles at their leisure, about once a second. CLUSTER MEET makes a node send its
own state at once, so after a change everybody meets everybody again ("nudge"): forming takes a fraction of the time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from provisioning.engines.base import (
    Advance,
    Blocked,
    Change,
    ClusterView,
    Effect,
    Gate,
    Link,
    LinkError,
    Member,
    StepReport,
    StepTitle,
    World,
    outdated_pods,
)
from provisioning.engines.redis import losses, moves, settings, spread
from provisioning.engines.redis import spec as rules
from provisioning.engines.redis.accounts import settle_users
from provisioning.engines.redis.admin import Peer
from provisioning.engines.redis.certificates import served_now, spoken, take_up
from provisioning.engines.redis.diagnosis import diagnose
from provisioning.engines.redis.encryption import is_on
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.placement import SLOTS, as_ranges, choose_masters, slot_range
from provisioning.engines.redis.sight import PARALLEL, Node, Sight, connected, pod_of, read_all
from provisioning.engines.redis.upkeep import (
    Care,
    cannot_follow,
    drift,
    forming_timeout_ms,
    frozen_for_good,
    look_after,
    outdated_members,
    ready_gate,
    restart_progress,
    send,
    settle_settings,
    take_over,
    too_small,
)

STEPS = (
    StepTitle("meet", "Nodes know each other"),
    StepTitle("slots", "Hash slots assigned"),
    StepTitle("replicas", "Replicas in sync"),
)
CONFIG = StepTitle("config", "Settings in force")
MOVE = StepTitle("move", "Slots moved to where they are to be")
USERS = StepTitle("users", "Users known to every node")
LEAVE = StepTitle("leave", "Members that are not wished any more gone")
REBALANCE = (STEPS[2], StepTitle("rebalance", "Masters even over the nodes: replicas take over, one at a time"))
RESTART = StepTitle("restart", "Pods restarted: replicas, then the old masters")
# One call stays at it for as long as gossip needs, and no longer.
PATIENCE_SECONDS = 3.0
LOOK_EVERY_SECONDS = 0.03
NUDGE_EVERY_SECONDS = 0.35
# With TLS a new link costs both sides a handshake, so links that are there are left alone. Measured: else six nodes on
# a busy machine take 8 to 40 s instead of 3, since new links replace those that are still shaking hands.
NUDGE_TLS_EVERY_SECONDS = 1.0
# Above this many nodes a nudge costs more than waiting for gossip.
NUDGE_UP_TO = 40


def change_steps(changes: Sequence[Change]) -> list[StepTitle]:
    """See engines.base.Engine.change_steps."""
    keys = {change.pointer[1:] for change in changes}
    shaped = bool(keys & {"shards", "replicasPerShard"})
    fewer = any(c.pointer in ("/shards", "/replicasPerShard") and c.after < c.before for c in changes)
    # By the field and not by the effect: a restart that loses data is a LOSS, but not every LOSS is a restart.
    rolling = {"", *(one.key for one in rules.FIELDS if one.effect == Effect.ROLL)}
    rolling |= {f"config/{one.key}" for one in settings.SETTINGS if one.effect == Effect.ROLL}
    rolls = bool(keys & rolling)
    return [
        *([STEPS[0], STEPS[2]] if shaped else []),
        CONFIG,
        *([MOVE] if "shards" in keys else []),
        *([LEAVE] if fewer else []),
        *([RESTART] if rolls else []),
    ]


def advance(cluster: ClusterView, world: World, link: Link) -> Advance:
    """See engines.base.Engine.advance."""
    with connected(cluster, world, link) as sight:
        read_all(sight)
        # Before anything is done: what can be mended within this call is told too.
        first = diagnose(sight, world)
        # Before all else, and though members are away: a password that was taken back must not work any longer.
        complaint, users = settle_users(sight, link)
        served = take_up(sight, link)
        outcome = _advance(sight, world, link)
        if users is not None:
            report = StepReport("users", "done" if users.in_force else "running", users.waits)
            outcome = replace(outcome, users=users, steps=(*outcome.steps, report))
            if complaint and outcome.healthy:
                outcome = replace(outcome, healthy=False, reason=complaint, retry_after=0.5)
        if outcome.healthy and served is not None and served.expires <= world.now:
            # Members that are linked stay so, but no client gets in.
            outcome = _report(outcome, f"a certificate has expired on {spoken(served.expires)}", 2.0)
        causes = (() if outcome.healthy else diagnose(sight, world)) or first
        outdated = tuple(pod.name for pod in outdated_pods(world))
        config = next((step for step in outcome.steps if step.key == CONFIG.key), None)
        # What is on its way in a change is no drift.
        in_force = None if config is None or (config.state != "done" and cluster.changing) else config.reason
        return replace(
            outcome, outdated=outdated, spread=spread.seen(sight, world), causes=causes,
            served=served, hopeless=frozen_for_good(sight, world), drift=in_force,
            loss=losses.seen(sight), left=_left(sight),
        )  # fmt: skip


def _left(sight: Sight) -> dict[str, str]:
    """See Advance.left; restarts and hand-overs are told by `outdated` and `spread`."""
    slots = moves.uneven(sight)
    return {MOVE.key: f"{slots} slots are still to be moved"} if slots else {}


def observe(cluster: ClusterView, world: World, link: Link) -> Advance:
    """See engines.base.Engine.observe. Nothing but questions is sent."""
    with connected(cluster, world, link) as sight:
        read_all(sight)
        formed = _judge(sight)
        causes = () if formed.healthy else diagnose(sight, world)
        outdated = tuple(pod.name for pod in outdated_pods(world))
        return replace(formed, outdated=outdated, spread=spread.seen(sight, world), causes=causes,
                       served=served_now(sight), drift=drift(sight, world), loss=losses.seen(sight))  # fmt: skip


def foresee(cluster: ClusterView, world: World, link: Link) -> Blocked | None:
    """See engines.base.Engine.foresee. Nothing but questions is sent."""
    with connected(cluster, world, link) as sight:
        read_all(sight)
        return too_small(sight) if sight.nodes and not sight.missing else None


def _advance(sight: Sight, world: World, link: Link) -> Advance:
    """Take steps from what was read until there is none to take now."""
    until = time.monotonic() + PATIENCE_SECONDS
    nudge_every = NUDGE_TLS_EVERY_SECONDS if is_on(sight.cluster.spec) else NUDGE_EVERY_SECONDS
    nudged, settled = 0.0, False
    while True:
        formed = _judge(sight)
        foreign = sight.foreign() if not sight.missing else []
        if foreign:
            node, peer = foreign[0]
            what = "it is forgotten" if _forget_strangers(sight, foreign, link) else "nothing is done"
            reason = f"{node.pod.name} knows {peer.id[:8]} at {peer.ip}, which is not of this cluster: {what}"
            return _report(formed, reason, 5.0)
        if not sight.nodes:
            return formed
        more = losses.beyond(sight)
        if more is not None:
            return replace(_report(formed, more.message, 1.0), blocked=more)
        if formed.healthy:
            try:
                care = look_after(sight, world, link, until)
            except LinkError as error:
                # It answered a moment ago. What was seen of all of them is still told.
                return _report(formed, str(error), 0.5)
            outcome, acted = _with_care(formed, care), care.acted
            if outcome.healthy or care.restart or care.retired or care.blocked or care.paused:
                return outcome
        else:
            if not settled and sight.all_slots_owned():
                # Settings do not wait for a member that is away.
                settled = True
                with contextlib.suppress(LinkError):
                    settle_settings(sight, world, link, Care())
            acted = _act(sight, link)
            outcome = replace(_with_restarts(formed, sight, world), gate=_gate(sight))
            stray = cannot_follow(sight, world)
            if stray is not None:
                return replace(outcome, restart=stray)
        now = time.monotonic()
        # Nodes that have met take no epoch any more, so a cluster that is still to form meets when all are there.
        # And nobody forms anew, unasked, what has lost everything.
        early = (sight.missing or losses.holds(sight)) and not sight.slots_known()
        if not formed.healthy and not early and (acted or now - nudged > nudge_every):
            nudged = now
            _nudge(sight, every=acted or not sight.all_slots_owned())
        if now > until or (sight.missing and not acted):
            return outcome
        time.sleep(LOOK_EVERY_SECONDS)
        read_all(sight)


def _with_care(formed: Advance, care: Care) -> Advance:
    steps = (*formed.steps, *care.steps)
    if not care.complaint:
        return replace(formed, steps=steps)
    return replace(
        formed, healthy=False, reason=care.complaint, steps=steps, retry_after=0.3, restart=care.restart,
        retired=care.retired, blocked=care.blocked, gate=care.gate,
    )  # fmt: skip


def _gate(sight: Sight) -> Gate | None:
    """What waits for a member that is away, while something is being changed."""
    if not sight.cluster.changing or not sight.missing:
        return None
    shard = int(pod_of(sight.missing[0]).rpartition("-")[0].rpartition("-s")[2])
    refusal = ""
    if sight.master(shard) is None:
        refusal = (
            f"Nobody serves the slots of shard {shard}: first its master has to be back, or a replica to take over."
        )
    return ready_gate(sight, pod_of(sight.missing[0]), f"{sight.missing[0]} is not there", refusal)


def _with_restarts(formed: Advance, sight: Sight, world: World) -> Advance:
    """A pod that is away because it restarts is progress of that step."""
    outdated = outdated_members(sight, world)
    if not sight.cluster.changing or not outdated:
        return formed
    report = StepReport("restart", "running", restart_progress(sight, outdated, formed.reason))
    return replace(formed, steps=(*formed.steps, report))


# --- acting -----------------------------------------------------------------------------------------------------------


def _act(sight: Sight, link: Link) -> bool:
    """Take what is next; True when something was sent."""
    acted = moves.mark_anew(sight, link)
    if not sight.missing and sight.cluster.accepted and sight.slots_known():
        acted |= losses.accept(sight, link)
    elif not sight.missing and not losses.holds(sight):
        if not sight.slots_known():
            # A master that was up for over 2 s without any slot known takes itself for a minority, and serves only when
            # the node timeout has passed since (rejoin_delay in cluster.c, 0.5 to 5 s); settle_settings() sets it back.
            forming = forming_timeout_ms(sight.cluster.spec)
            short: list[str | int] = ["CONFIG", "SET", "cluster-node-timeout", forming]
            # Only a node that knows nobody takes an epoch; equal epochs would cost rounds of conflict resolution.
            for number, node in enumerate(sight.nodes, 1):
                node.connection.pipeline([short, ["CLUSTER", "SET-CONFIG-EPOCH", number]])
        acted |= _assign_slots(sight, link)
    for shard, master in sight.heads().items():
        for node in sight.shard(shard):
            follows_other = "slave" in node.me.flags and node.me.master != master.id
            serves_nothing = "master" in node.me.flags and not node.me.slots
            knows = master.id in node.peers and not node.peers[master.id].failed
            if node is not master and (follows_other or serves_nothing or _dials_elsewhere(node, master)) and knows:
                acted |= send(node, link, "Replicate", "CLUSTER", "REPLICATE", master.id)
    if not sight.missing and not sight.excused:
        acted |= _replace_lost_masters(sight, link)
        acted |= _forget_ghosts(sight, link)
    return acted


def _dials_elsewhere(node: Node, master: Node) -> bool:
    """Whether a replica that knows where its master is now goes on dialling where it was.

    It does when it has learned the new address from others: that path of Redis (clusterProcessGossipSection in
    cluster.c) leaves replication as it was. Whoever has the old address now, it would ask him for ever.
    """
    dials = node.replication.get("master_host", "")
    if node.me.master != master.id or node.replication.get("master_link_status") == "up" or not dials:
        return False
    return dials != master.pod.ip and node.peers[master.id].ip == master.pod.ip


def _replace_lost_masters(sight: Sight, link: Link) -> bool:
    """Have a replica take over from a master that is gone for good: its whole shard answers, and nobody is that id.

    Waiting for the node timeout would be of no use, and where the new node has the old address, no end: whoever answers
    at an address under another id is no longer pinged, and so never taken for failed. Where no majority of the masters
    is left to vote there would be no end either; nobody else can be voted for meanwhile, since every pod answers.
    """
    ids = {node.id for node in sight.everyone}
    slots = {peer.id for node in sight.everyone for peer in node.peers.values() if peer.slots}
    acted = False
    for shard in range(sight.cluster.spec["shards"]):
        members = sight.shard(shard)
        orphans = [node for node in members if node.me.master in slots - ids]
        if orphans and not any(node.me.slots for node in members) and not sight.gone:
            most = max(orphans, key=lambda node: int(node.replication.get("slave_repl_offset", 0)))
            voters = len(slots & ids)
            acted |= take_over(most, link, "FORCE" if voters * 2 > len(slots) else "TAKEOVER")
    return acted


def _assign_slots(sight: Sight, link: Link) -> bool:
    """Give each shard the slots of its range that nobody, living or dead, is known to have."""
    shards = sight.cluster.spec["shards"]
    owned = sight.slots_known()
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
        ranges = as_ranges([slot for slot in range(first, last + 1) if slot not in owned])
        if ranges:
            words = [str(end) for pair in ranges for end in pair]
            acted |= send(node, link, "SlotsAssigned", "CLUSTER", "ADDSLOTSRANGE", *words)
    return acted


def _forget_ghosts(sight: Sight, link: Link) -> bool:
    """Forget ids that are no pod's, serve no slot and do not answer: what a lost disk leaves behind.

    Where every pod has said its id nobody need wait until others are taken for failed.
    """
    ours = {node.id for node in sight.everyone}
    ghosts = {
        peer.id
        for node in sight.nodes
        for peer in node.peers.values()
        if peer.id not in ours and (peer.failed or (not peer.alive and not sight.gone)) and not peer.slots
    }
    # A ghost that still serves slots is a master whose replica has not taken over yet.
    ghosts -= {peer.id for node in sight.nodes for peer in node.peers.values() if peer.slots}
    acted = False
    for ghost in sorted(ghosts):
        # On every node, soon after each other: otherwise those that still know it bring it back.
        for node in sight.everyone:
            if ghost in node.peers and node.me.master != ghost:
                acted |= send(node, link, "Forget", "CLUSTER", "FORGET", ghost)
    return acted


def _forget_strangers(sight: Sight, foreign: Sequence[tuple[Node, Peer]], link: Link) -> bool:
    """Have all of ours forget nodes of somebody else's; whether that was sent.

    A node that has forgotten another refuses what it says, and takes nobody else's word for it for a minute. Only
    strangers that have taken nothing: who serves slots in the eyes of ours, or is followed by one, may hold data that
    nobody else has, such as a pod that Kubernetes was told to forget while it ran on.
    """
    strangers = {peer.id for _, peer in foreign}
    followed = {node.me.master for node in sight.everyone}
    serving = {peer.id for node in sight.everyone for peer in node.peers.values() if peer.slots or peer.moving}
    if strangers & (followed | serving):
        return False
    acted = False
    for node in sight.everyone:
        for stranger in sorted(strangers & node.peers.keys()):
            acted |= send(node, link, "ForgetStranger", "CLUSTER", "FORGET", stranger)
    return acted


def _nudge(sight: Sight, *, every: bool) -> None:
    """Everybody meets everybody who is not known well; with few nodes and `every` (while a cluster forms, and when
    something was sent), everybody.

    A meeting replaces the link between two nodes, and what was on its way is lost. So where a shard has no master, and
    its replicas may be asking for votes, only those meet who do not know each other: measured, an election whose votes
    were lost is held again after four node timeouts. A pod that hands over before it ends does so at any time.
    """
    # Who leaves and has been forgotten is not met again.
    known = {peer for node in sight.nodes for peer in node.peers}
    nodes = [*sight.nodes, *(node for node in sight.leaving if node.id in known)]
    electing = sight.all_slots_owned() and len(sight.heads()) < sight.cluster.spec["shards"]
    every = every and len(nodes) <= NUDGE_UP_TO and not electing and not is_on(sight.cluster.spec)

    def meet(node: Node) -> None:
        words: list[list[str | int]] = []
        for other in nodes:
            if other is node:
                continue
            peer = node.peers.get(other.id)
            if every or peer is None or peer.ip != other.pod.ip or peer.failed or not (peer.linked or electing):
                words.append(["CLUSTER", "MEET", other.pod.ip, PORT])
        with contextlib.suppress(LinkError):
            node.connection.pipeline(words)

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(meet, nodes))


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


def _report(outcome: Advance, reason: str, retry_after: float) -> Advance:
    return replace(outcome, healthy=False, reason=reason, retry_after=retry_after)


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
            if is_on(sight.cluster.spec) and not known.host:
                return f"{node.pod.name} does not know yet by which name clients find {other.pod.name}"
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
    heads = sight.heads()
    for shard in range(sight.cluster.spec["shards"]):
        master = heads.get(shard)
        if master is None:
            return f"shard {shard}: none of its members is its master yet"
        # Of a master that leaves, all that stay are replicas.
        replicas = [node for node in sight.shard(shard) if node is not master]
        for node in replicas:
            if node.me.master != master.id:
                return f"shard {shard}: {node.pod.name} does not follow {master.pod.name} yet"
            if node.replication.get("master_link_status") != "up":
                return f"shard {shard}: {node.pod.name} is copying from {master.pod.name}"
        following = [
            peer.id
            for peer in master.peers.values()
            if "slave" in peer.flags and peer.master == master.id and not peer.failed and peer.id in sight.ids
        ]
        if len(following) != len(replicas):
            return f"shard {shard}: {master.pod.name} knows of {len(following)} replicas, {len(replicas)} are wished"
    # Of a member that is away and not waited for nobody knows the id.
    ours = {node.id for node in sight.everyone}
    for node in sight.nodes if not sight.excused else ():
        strangers = [peer for peer in node.peers.values() if peer.id not in ours]
        if strangers:
            return f"{node.pod.name} still lists {strangers[0].id[:8]}, which no pod is"
    return ""


def _members(sight: Sight) -> tuple[Member, ...]:
    members = []
    for node in sorted(sight.everyone, key=lambda node: node.pod.name):
        role = "replica" if "slave" in node.me.flags else "master"
        detail: dict[str, str] = {}
        if node.me.slots:
            detail["slots"] = ", ".join(f"{first}-{last}" for first, last in node.me.slots)
        linked = role == "master" or node.replication.get("master_link_status") == "up"
        if role == "replica":
            detail["link"] = "up" if linked else "down"
        if node in sight.leaving:
            detail["leaves"] = "yes"
        members.append(
            Member(
                node.pod.name, role, node.pod.node, node.pod.zone, str(node.shard), linked and node.pod.started, detail
            )
        )
    return tuple(members)
