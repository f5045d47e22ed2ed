"""Observes the ensemble, which forms and heals by itself: one leader, everybody else following and in step."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from provisioning.engines.base import (
    Advance,
    Change,
    ClusterView,
    Effect,
    Link,
    LinkError,
    Member,
    PodView,
    Proof,
    StepReport,
    StepTitle,
    World,
    outdated_pods,
    templates_seen,
)
from provisioning.engines.zookeeper import spec as rules
from provisioning.engines.zookeeper.admin import Session, ZooKeeperError, four_letters, parse_mntr
from provisioning.engines.zookeeper.manifests import CLIENT_PORT, PRINCIPAL, auth_secret

STEPS = (StepTitle("quorum", "Leader elected, followers in step"),)
RESTART_STEP = StepTitle("restart", "Servers restarted, one at a time, the leader last")
LEADS = ("leader", "standalone")


def advance(cluster: ClusterView, world: World, link: Link) -> Advance:
    """See engines.base.Engine.advance."""
    running = [pod for pod in world.pods if pod.started and pod.ip and not pod.deleting]
    wanted = rules.servers(cluster.spec)

    def ask(pod: PodView) -> dict[str, str]:
        try:
            return parse_mntr(four_letters(link.connect(pod, CLIENT_PORT, timeout=2), "mntr"))
        except LinkError:
            return {}

    with ThreadPoolExecutor(max(1, len(running))) as pool:
        said = dict(zip([pod.name for pod in running], pool.map(ask, running), strict=True))
    members = tuple(
        Member(
            pod.name, said[pod.name].get("server_state", "starting"), pod.node, pod.zone,
            healthy="server_state" in said[pod.name],
            detail={key: said[pod.name][key] for key in ("znode_count",) if key in said[pod.name]},
        )
        for pod in running
    )  # fmt: skip
    reason = _reason(wanted, members, said)
    quorum = StepReport("quorum", "running" if reason else "done", reason)
    outdated = outdated_pods(world)
    names = tuple(pod.name for pod in outdated)
    restart = None
    if cluster.changing and (outdated or not templates_seen(world)):
        # One at a time, and only while everybody else is in step: the ensemble never loses its majority.
        ready = all(pod.ready for pod in running)
        if not reason and ready and templates_seen(world):
            restart = min(outdated, key=lambda pod: (said[pod.name].get("server_state") in LEADS, pod.name))
        waits = reason or ("" if ready else "a server that just started is not ready yet")
        waits = f"{wanted - len(outdated)} of {wanted} servers are up to date" + (f"; {waits}" if waits else "")
        steps = (quorum, StepReport("restart", "running", waits, f"pod/{restart.name}" if restart else ""))
        return Advance(False, waits, steps, members, 0.5, restart=restart, outdated=names)
    steps = (quorum, StepReport("restart", "waiting" if reason else "done"))
    return Advance(not reason, reason, steps, members, 0.3 if reason else None, outdated=names)


def observe(cluster: ClusterView, world: World, link: Link) -> Advance:
    """See engines.base.Engine.observe: an ensemble that nobody changes is only looked at anyway."""
    return advance(replace(cluster, changing=False), world, link)


def change_steps(changes: Sequence[Change]) -> list[StepTitle]:
    """See engines.base.Engine.change_steps."""
    rolls = any(change.effect == Effect.ROLL for change in changes)
    return [*STEPS, *([RESTART_STEP] if rolls else [])]


def _reason(wanted: int, members: tuple[Member, ...], said: dict[str, dict[str, str]]) -> str:
    if len(members) < wanted:
        return f"{len(members)} of {wanted} servers run"
    silent = [member.pod for member in members if not member.healthy]
    if silent:
        return f"{silent[0]} has not joined the ensemble yet"
    leaders = [member.pod for member in members if member.role in LEADS]
    if len(leaders) != 1:
        return f"{len(leaders)} servers lead; one is wanted"
    synced = said[leaders[0]].get("synced_followers", "0").partition(".")[0]
    if wanted > 1 and synced != str(wanted - 1):
        return f"{synced} of {wanted - 1} followers are in step with {leaders[0]}"
    return ""


def prove(cluster: ClusterView, world: World, link: Link) -> Proof:
    """See engines.base.Engine.prove: written in one session, read in another, which may be on another server."""
    password = link.secret(auth_secret(cluster))["password"]
    path, value = f"/berth-proof-{secrets.token_hex(6)}", secrets.token_bytes(16)
    started = time.monotonic()

    def session() -> Session:
        return Session(link.connect_service(cluster.name, CLIENT_PORT, timeout=5), PRINCIPAL, password)

    try:
        with session() as writer:
            writer.create(path, value, ephemeral=True)
            with session() as reader:
                read = _read(reader, path)
            with contextlib.suppress(ZooKeeperError):
                writer.delete(path)
    except ZooKeeperError as error:
        return Proof(False, f"ZooKeeper refused the proof: {error}.")
    took = round((time.monotonic() - started) * 1000)
    if read != value:
        return Proof(False, "The node did not read back as written.")
    address = f"{cluster.name}.{cluster.namespace}.svc:{CLIENT_PORT}"
    summary = f"Wrote a node in one session and read it in another, through {address}, in {took} ms."
    return Proof(True, summary, {"address": address, "milliseconds": took})


def _read(reader: Session, path: str) -> bytes:
    """Another server may hear of a write a moment later."""
    deadline = time.monotonic() + 2
    while True:
        try:
            return reader.get(path)
        except ZooKeeperError as error:
            if error.code != -101 or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
