"""Reconcile: make what runs what was wished, one step at a time, from wherever things stand.

1. Claim the cluster: one conditional UPDATE sets a lease and raises the fence. Whoever finds it taken raises `wakes`.
2. Look (the wish, the open operation, Kubernetes), take the next step, write down what was seen. Every write says
   `WHERE fence = mine`: a worker that was frozen and comes back late writes nothing.
3. While steps make quick progress, go on for a few seconds; otherwise say when to look again, and let go.
4. Letting go fails when `wakes` has grown meanwhile; then look once more. So no hint is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from provisioning.apply import certificates, door, errors
from provisioning.apply.client import KubeClient
from provisioning.apply.link import KubeLink
from provisioning.clusters import accounts, losses, quota, rebalance
from provisioning.clusters.diagnosis import causes
from provisioning.clusters.views import client_for, cluster_view, overridden_gates, pause_told
from provisioning.engines.base import READY_GATE, Advance, Blocked, ClusterView, LinkError, Manifest, World
from provisioning.engines.base import Cause as Why
from provisioning.engines.registry import ENGINES
from provisioning.models import TERMINAL_STATES, Cluster, ClusterEvent, Operation, OperationState, Phase, Principal
from provisioning.operations.steps import Progress
from tenants.quota import standings

log = logging.getLogger(__name__)

# How long one task may hold a cluster while its steps make progress.
SLICE_SECONDS = 4.0
# Kubernetes reports changes by itself; these are for when it has nothing to report, or the watcher is away.
BUSY_LOOK_SECONDS = 3.0
STEADY_LOOK_SECONDS = 15.0
APPLY_SECONDS = 60.0
STATUS = {True: "True", False: "False", None: "Unknown"}
EVENT_REPEATS_WITHIN = timedelta(minutes=10)
# For a pod whose process reacts to nothing. Not 0: that would forget the pod before its node has ended it.
HOPELESS_GRACE_SECONDS = 1
# Kinds of operations that change a cluster which is there.
CHANGES = ("update", "restart", "upgrade", rebalance.KIND, accounts.KIND, losses.KIND)
# Those that change no template, and so restart nothing.
QUIET = ("", rebalance.KIND, accounts.KIND, losses.KIND)


class Lost(Exception):
    """Somebody else holds the cluster now; nothing more may be written."""


@dataclass(frozen=True)
class Next:
    """When to look again: in `soon` seconds (None: when Kubernetes reports), after `fallback` at the latest."""

    soon: float | None
    fallback: float


STEADY = Next(None, STEADY_LOOK_SECONDS)


@dataclass
class Claimed:
    """A claimed cluster, and the only way to write to it."""

    cluster: Cluster
    fence: int

    def write(self, **fields: Any) -> None:
        """Write columns of the cluster. Raises Lost when the claim has gone to another."""
        lease = timezone.now() + timedelta(seconds=settings.CLAIM_LEASE_SECONDS)
        rows = Cluster.objects.filter(pk=self.cluster.pk, fence=self.fence).update(claimed_until=lease, **fields)
        if rows == 0:
            raise Lost
        for name, value in fields.items():
            setattr(self.cluster, name, value)

    def save(self, operation: Operation) -> None:
        """Write an operation that is still open. Raises Lost when somebody else ended it or holds the cluster now."""
        fields = ("state", "started", "ended", "steps", "percent", "reason", "proof", "error", "gate")
        open_states = (OperationState.QUEUED, OperationState.RUNNING)
        mine = Operation.objects.filter(pk=operation.pk, state__in=open_states, cluster__fence=self.fence)
        rows = mine.update(revision=F("revision") + 1, **{field: getattr(operation, field) for field in fields})
        if rows == 0:
            raise Lost

    def condition(self, kind: str, status: bool | None, reason: str, message: str = "", **fields: Any) -> None:
        """Set one condition (None: nobody knows), and `fields` with it; `since` moves only when the status does."""
        conditions = [dict(entry) for entry in self.cluster.conditions]
        wished = {"type": kind, "status": STATUS[status], "reason": reason, "message": message}
        for entry in conditions:
            if entry["type"] == kind:
                if all(entry[key] == value for key, value in wished.items()):
                    if fields:
                        self.write(**fields)
                    return
                since = entry["since"] if entry["status"] == wished["status"] else timezone.now().isoformat()
                entry.update(wished, since=since)
                break
        else:
            conditions.append({**wished, "since": timezone.now().isoformat()})
        self.write(conditions=conditions, **fields)

    def event(
        self, reason: str, message: str, *, warning: bool = False, object: str = "", operation: Operation | None = None
    ) -> None:
        """Record something people may want to read; a repeat within minutes is counted instead."""
        now = timezone.now()
        same = ClusterEvent.objects.filter(
            cluster=self.cluster,
            reason=reason,
            message=message,
            object=object,
            last_seen__gt=now - EVENT_REPEATS_WITHIN,
        )
        latest = same.order_by("-id").values_list("pk", flat=True).first()
        if latest is not None:
            ClusterEvent.objects.filter(pk=latest).update(count=F("count") + 1, last_seen=now)
            return
        ClusterEvent.objects.create(
            cluster=self.cluster, operation=operation, reason=reason, message=message, warning=warning, object=object
        )


def claim(cluster_id: str) -> Claimed | None:
    """Take a cluster; None when somebody holds it (who will look once more) or it is gone."""
    now = timezone.now()
    lease = now + timedelta(seconds=settings.CLAIM_LEASE_SECONDS)
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lt=now)
    mine = Cluster.objects.filter(pk=cluster_id).exclude(phase=Phase.DELETED).filter(free)
    if mine.update(claimed_until=lease, fence=F("fence") + 1) == 0:
        Cluster.objects.filter(pk=cluster_id).update(wakes=F("wakes") + 1)
        return None
    cluster = Cluster.objects.select_related("tenant", "target").get(pk=cluster_id)
    return Claimed(cluster, cluster.fence)


def reconcile(cluster_id: str) -> float | None:
    """Take the cluster as far as a few seconds allow; returns in how many seconds to come back (None: when told)."""
    claimed = claim(cluster_id)
    if claimed is None:
        return None
    until = time.monotonic() + SLICE_SECONDS
    try:
        while True:
            # As read after the claim, or again below: hints that came before are answered by this look.
            wakes = claimed.cluster.wakes
            following = look(claimed)
            if following.soon is not None and time.monotonic() + following.soon < until:
                time.sleep(following.soon)
                claimed.write()
                claimed.cluster.wakes = Cluster.objects.values_list("wakes", flat=True).get(pk=cluster_id)
                continue
            if _let_go(claimed, wakes, following):
                return following.soon
            if time.monotonic() > until:
                _let_go(claimed, None, following)
                return 0.0
            claimed.cluster.refresh_from_db()
    except Lost:
        log.info("another worker took over", extra={"cluster_id": cluster_id})
        return None


def _let_go(claimed: Claimed, wakes: int | None, following: Next) -> bool:
    """Give the claim back, unless a hint came meanwhile (`wakes` None: even then)."""
    delay = following.fallback if following.soon is None else min(following.soon, following.fallback)
    mine = Cluster.objects.filter(pk=claimed.cluster.pk, fence=claimed.fence)
    if wakes is not None:
        mine = mine.filter(wakes=wakes)
    given = mine.update(claimed_until=None, next_look=timezone.now() + timedelta(seconds=delay))
    if given == 0 and not Cluster.objects.filter(pk=claimed.cluster.pk, fence=claimed.fence).exists():
        raise Lost
    return given > 0


def look(claimed: Claimed) -> Next:
    """One look and at most one step. Raises Lost."""
    latest = claimed.cluster.operations.order_by("-id").first()
    operation = latest if latest is not None and latest.state not in TERMINAL_STATES else None
    if operation is not None and operation.generation != claimed.cluster.generation:
        # The wish has changed since the row was read: a new operation must not be judged by the old one.
        claimed.cluster.refresh_from_db()
    deletes = operation is not None and operation.kind == "delete"
    watched = claimed.cluster.paused is not None and not deletes
    if operation is not None and operation.deadline <= timezone.now() and not watched:
        _time_out(claimed, operation)
        return STEADY
    try:
        client = client_for(claimed.cluster.target)
        if operation is not None and deletes:
            following = _delete(claimed, operation, client)
        elif claimed.cluster.phase in (Phase.DELETING, Phase.DELETED):
            return STEADY  # a delete that failed waits to be asked again; one that ended may still be hinted at
        elif latest is not None and latest.kind == "create" and latest.state == OperationState.CANCELED:
            return STEADY  # nothing more is made of it until it is retried or deleted
        elif watched:
            following = _watch(claimed, operation, client)
        else:
            _no_longer_paused(claimed)
            following = _deliver(claimed, operation, client)
        if claimed.cluster.phase != Phase.DELETED:
            claimed.condition("TargetReachable", True, "Answers")
    except errors.DoorError as error:
        # What is only watched is not failed: an operation that is held goes on when the cluster is resumed.
        return _door_closed(claimed, None if watched else operation, error)
    return following


def _time_out(claimed: Claimed, operation: Operation) -> None:
    waited = operation.reason or claimed.cluster.reason or "its turn"
    message = f"Not done within its deadline. It was waiting for: {waited}"
    remedy = "Mend the cause and retry the operation, or delete the cluster; nothing else has to be cleaned up."
    if operation.kind in (rebalance.KIND, losses.KIND):
        remedy = "Mend the cause and ask for it again; the cluster is as it was."
    elif operation.kind in CHANGES:
        remedy = "Mend the cause and retry the operation, or change the cluster back."
    elif operation.kind == "delete":
        remedy = "Mend the cause and retry the operation, or delete the cluster again."
    _fail(claimed, operation, "deadline_exceeded", message, remedy)


def _fail(claimed: Claimed, operation: Operation | None, code: str, message: str, remedy: str) -> None:
    # What was to be deleted is never delivered again: a failed deletion waits to be asked for once more.
    is_delete = operation is not None and operation.kind == "delete"
    with transaction.atomic():
        claimed.write(phase=Phase.DELETING if is_delete else Phase.FAILED, reason=f"{message} {remedy}".strip())
        if operation is not None:
            progress = Progress(operation)
            progress.finish(OperationState.FAILED, {"code": code, "message": message, "remedy": remedy})
            claimed.save(operation)
            quota.commit(claimed.cluster, operation)
        claimed.event("Failed", f"{message} {remedy}".strip(), warning=True, operation=operation)


def _door_closed(claimed: Claimed, operation: Operation | None, error: errors.DoorError) -> Next:
    """Kubernetes said no, or nothing: wait with the reason, or fail at once where waiting cures nothing."""
    away = isinstance(error, errors.Unreachable | errors.Unauthorized | errors.NoKubeconfig)
    log.warning("%s", error.message, extra={"cluster_id": claimed.cluster.pk, "code": error.code})
    claimed.condition("TargetReachable" if away else "Applied", False, error.code, f"{error.message} {error.remedy}")
    if operation is None:
        if claimed.cluster.phase == Phase.READY and not away:
            claimed.write(phase=Phase.DEGRADED, reason=f"{error.message} {error.remedy}".strip())
        return Next(None, STEADY_LOOK_SECONDS / 4)
    if not error.retryable:
        _fail(claimed, operation, error.code, error.message, error.remedy)
        return STEADY
    progress = Progress(operation)
    current = next((step["key"] for step in operation.steps if step["state"] != "done"), "")
    progress.step(current, "running", f"{error.message} {error.remedy}".strip())
    if progress.changed:
        claimed.save(operation)
    return Next(None, BUSY_LOOK_SECONDS)


# --- a paused cluster -------------------------------------------------------------------------------------------------


def _watch(claimed: Claimed, operation: Operation | None, client: KubeClient) -> Next:
    """Look, show what is seen, and do nothing about it: people are working on the cluster by hand."""
    cluster = claimed.cluster
    told = pause_told(cluster)
    claimed.condition("Paused", True, "ByRequest", told)
    if operation is not None and operation.reason != told:
        operation.reason = told
        claimed.save(operation)
    view = cluster_view(cluster)
    world = door.observe(client, view)
    link = KubeLink(client, view.namespace, cluster.target.reach)  # type: ignore[arg-type]
    try:
        seen = ENGINES[cluster.engine].observe(view, world, link)
    except LinkError as error:
        seen = Advance(healthy=False, reason=str(error))
    waiting = _kubernetes_steps(world, None)
    _show(claimed, seen, waiting, world)
    if operation is None:
        _judge_health(claimed, seen, waiting)
    return STEADY


def _no_longer_paused(claimed: Claimed) -> None:
    if any(one["type"] == "Paused" and one["status"] == "True" for one in claimed.cluster.conditions):
        claimed.condition("Paused", False, "Resumed")


# --- deliver and keep -------------------------------------------------------------------------------------------------


def _deliver(claimed: Claimed, operation: Operation | None, client: KubeClient) -> Next:
    cluster = claimed.cluster
    kind = operation.kind if operation is not None else ""
    principals = list(cluster.principals.order_by("pk"))
    view = cluster_view(
        cluster, changing=kind not in QUIET, rebalance=kind == rebalance.KIND, overridden=overridden_gates(operation),
        users=accounts.users_of(cluster.engine, principals), accepted=losses.accepted_by(operation),
    )  # fmt: skip
    progress = Progress(operation) if operation is not None else None
    begins = operation is not None and progress is not None and progress.changed
    held_back = None
    if cluster.observed_generation < cluster.generation:
        there = door.observe(client, view) if cluster.observed_generation else None
        held_back = _foreseen(claimed, client, view, there) if there is not None else None
        is_change = operation is not None and operation.kind == "update" and "before" in operation.params
        if held_back is not None and operation is not None and progress is not None and is_change and there is not None:
            _take_back(claimed, operation, progress, held_back, there)
            return STEADY
    if cluster.observed_generation < cluster.generation and held_back is None:
        _apply(claimed, view, client, operation if begins else None, progress, there=there)
        if operation is not None and progress is not None:
            progress.step("schedule", "running", "waiting for the pods to be placed")
            claimed.save(operation)
        # Where only users change Kubernetes has nothing to report.
        return Next(0.0 if kind == accounts.KIND else None, BUSY_LOOK_SECONDS)
    if begins and operation is not None:
        claimed.save(operation)
        claimed.write(phase=_phase_under(operation))
    world = door.observe(client, view)
    # What is held back is that of a change that failed or was canceled before it could be asked about: nobody asks for
    # it any more, and what runs is to stay as it is until the data fits, or the wish is another one.
    if held_back is None and (_workloads_missing(cluster, world) or (operation is None and _is_due_for_apply(claimed))):
        _apply(claimed, view, client, there=world)
        world = door.observe(client, view)
    if operation is not None and progress is not None:
        progress.step("apply", "done")
    waiting = _kubernetes_steps(world, progress, view.overridden)
    if accounts.has_expired(principals):
        claimed.write()
        door.settle_secrets(client, view, ENGINES[cluster.engine].secrets(view))
    link = KubeLink(client, view.namespace, cluster.target.reach)  # type: ignore[arg-type]
    try:
        advance = ENGINES[cluster.engine].advance(view, world, link)
    except LinkError as error:
        advance = Advance(healthy=False, reason=str(error), retry_after=0.5)
    for noted in link.noted:
        claimed.event(noted.reason, noted.message, warning=noted.warning, object=noted.object, operation=operation)
    _show(claimed, advance, waiting, world)
    if advance.users is not None:
        _note_users(claimed, accounts.notes(principals, view.users or (), advance.users), operation)
    _obey(claimed, view, client, world, advance, operation)
    if operation is None or progress is None:
        following = _keep(claimed, view, world, link, advance, waiting)
        return _no_later(following, accounts.next_end(principals))
    for report in advance.steps:
        progress.step(report.key, report.state, report.reason, report.object)
    if advance.blocked is not None:
        blocked = advance.blocked
        _fail(claimed, operation, blocked.code, blocked.message, blocked.remedy)
        return STEADY
    if not advance.healthy or waiting:
        reason = waiting or advance.reason
        operation.reason = operation.reason or reason
        progress.gate(advance.gate if operation.kind in CHANGES else None)
        if progress.changed:
            claimed.save(operation)
        claimed.write(reason=reason)
        return Next(advance.retry_after, BUSY_LOOK_SECONDS)
    return _prove(claimed, operation, progress, view, world, link)


def _foreseen(claimed: Claimed, client: KubeClient, view: ClusterView, there: World) -> Blocked | None:
    """Why the members that run could not become what the spec wishes; None also where none can be asked.

    Asked before any of it is applied, and whoever wished it: a pod that comes back would be given the smaller memory,
    whatever it holds.
    """
    link = KubeLink(client, view.namespace, claimed.cluster.target.reach)  # type: ignore[arg-type]
    try:
        return ENGINES[view.engine].foresee(view, there, link)
    except LinkError:
        return None


def _take_back(
    claimed: Claimed, operation: Operation, progress: Progress, blocked: Blocked, there: World
) -> None:  # fmt: skip
    """Fail a change of which nothing was applied, and wish again what was wished before it."""
    cluster = claimed.cluster
    # A retried one, or one whose worker was killed, may have been applied: then everything is, once more.
    untouched = cluster.phase in (Phase.READY, Phase.DEGRADED)
    remedy = f"{blocked.remedy} The change was taken back: the cluster is to be as before it.".strip()
    message = f"{blocked.message} {remedy}"
    with transaction.atomic():
        # A generation of its own: the operation's is not to be brought about any more.
        wish = {"spec": operation.params["before"], "generation": cluster.generation + 1}
        claimed.write(**wish, **({"observed_generation": cluster.generation + 1} if untouched else
                                 {"phase": Phase.FAILED, "reason": message}))  # fmt: skip
        Cluster.objects.filter(pk=cluster.pk).update(revision=F("revision") + 1)
        error = {"code": blocked.code, "message": blocked.message, "remedy": remedy}
        progress.finish(OperationState.FAILED, error)
        claimed.save(operation)
        if untouched:
            quota.settle_as_wished(cluster, there.volumes, operation)
        else:
            quota.commit(cluster, operation)
        claimed.event("ChangeTakenBack", message, warning=True, operation=operation)


def _no_later(following: Next, moment: datetime | None) -> Next:
    """The same look, or an earlier one when something is due before it."""
    if moment is None or following.soon is not None:
        return following
    left = max(0.0, (moment - timezone.now()).total_seconds())
    return Next(left, following.fallback) if left < following.fallback else following


def _note_users(claimed: Claimed, notes: Iterable[accounts.Note], operation: Operation | None) -> None:
    """Write down how users stand."""
    for note in notes:
        with transaction.atomic():
            claimed.write()
            # Not if somebody asked for another rotation meanwhile.
            mine = Principal.objects.filter(pk=note.principal.pk, version=note.principal.version)
            mine.filter(old_version=note.principal.old_version).update(**note.fields)
            if note.reason:
                claimed.event(note.reason, note.message, operation=operation)


def _apply(
    claimed: Claimed, view: ClusterView, client: KubeClient, begun: Operation | None = None,
    progress: Progress | None = None, *, there: World | None = None, retired: Collection[tuple[str, str]] = (),
) -> None:  # fmt: skip
    """Apply every manifest of the cluster, which is the first step of `progress`; the caller saves that.

    `there`: what runs, when the cluster is no new one. What is wished smaller stays as large as it is until the engine
    has `retired` it, and volumes that are wished larger grow.

    `begun` is an operation that begins with this, and is not written down as begun yet. A caller waits for this, so
    what needs no answer of Kubernetes is done while the namespace is looked at.
    """
    looked = door.look_at_namespace(client, view.namespace)
    cluster = claimed.cluster
    engine = ENGINES[cluster.engine]
    tenant = cluster.tenant
    hard = quota.hard_limits(standings(tenant.pk), cluster.target_id)
    rendered = engine.render(view)
    held: list[dict[str, str]] = []
    if there is not None:
        rendered, held = _no_smaller(rendered, cluster.inventory, there, retired)
    inventory = [
        {"apiVersion": one["apiVersion"], "kind": one["kind"], "namespace": view.namespace,
         "name": one["metadata"]["name"]}
        for one in rendered
    ]  # fmt: skip
    inventory += held
    gone = [entry for entry in cluster.inventory if entry not in inventory]
    door.ensure_namespace(
        client, looked(), namespace=view.namespace, tenant=tenant.slug, tenant_id=tenant.pk, hard=hard
    )
    # Side by side with the fence: if this worker has lost the cluster, the owner object is taken back below.
    owner_wish = door.owner_manifest(view)
    path = door.path_of("ConfigMap", view.namespace, owner_wish["metadata"]["name"])
    owning = client.threads.submit(client.apply, path, owner_wish)
    try:
        # Written before as well: what a crash leaves half-applied must be known to the next one. But after the
        # namespace was looked at, which may take seconds: who has lost the cluster meanwhile must apply nothing.
        with transaction.atomic():
            if begun is not None:
                claimed.save(begun)
            claimed.write(**({"phase": _phase_under(begun)} if begun else {}), inventory=[*inventory, *gone])
        owner = owning.result()
        manifests = door.dressed(
            view, rendered, owner, settings.IMAGE_REGISTRY, reserves_addresses=engine.reserves_addresses
        )
        if there is not None:
            door.grow_volumes(client, view, manifests, there)
        door.apply_all(
            client,
            view,
            engine.secrets(view),
            manifests,
            owner,
            lambda: _keep_certificates(claimed, client, view, owner),
        )
        door.prune(client, view, gone, {(entry["kind"], entry["name"]) for entry in inventory})
        if progress is not None:
            progress.step("apply", "done")
        claimed.condition("Applied", True, "Applied", inventory=inventory, observed_generation=cluster.generation,
                          applied_at=timezone.now())  # fmt: skip
    except Lost:
        # A deletion may have looked for the last time before all this arrived. Its owner takes it along.
        if Cluster.objects.filter(pk=cluster.pk, phase__in=(Phase.DELETING, Phase.DELETED)).exists():
            owner = owning.result()
            door.delete(client, "ConfigMap", view.namespace, owner["metadata"]["name"], uid=owner["metadata"]["uid"])
        raise


def _keep_certificates(claimed: Claimed, client: KubeClient, view: ClusterView, owner: Manifest) -> None:
    """Make and renew what the cluster's servers show their clients. Called in a thread: writes no row."""
    for name in certificates.keep(client, view, ENGINES[view.engine].certificates(view), owner):
        log.info("a certificate was issued", extra={"cluster_id": claimed.cluster.pk, "secret": name})


def _phase_under(operation: Operation) -> Phase:
    return Phase.UPDATING if operation.kind in CHANGES else Phase.PROVISIONING


def _no_smaller(
    rendered: Sequence[Manifest], inventory: Sequence[dict[str, str]], there: World,
    retired: Collection[tuple[str, str]],
) -> tuple[list[Manifest], list[dict[str, str]]]:  # fmt: skip
    """The manifests with no workload made smaller, and the entries of the inventory that are not to be removed yet.

    A pod that ends takes what it holds with it: only the engine knows when that is nothing any more.
    """
    running = {(one.kind, one.name): one.replicas for one in there.workloads}
    names = {name for _, name in running}
    manifests = []
    for manifest in rendered:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in running and key not in retired and running[key] > manifest["spec"]["replicas"]:
            manifest = {**manifest, "spec": {**manifest["spec"], "replicas": running[key]}}
        manifests.append(manifest)
    wished = {(one["kind"], one["metadata"]["name"]) for one in rendered}
    held = [
        entry
        for entry in inventory
        if (key := (entry["kind"], entry["name"])) not in wished
        and key not in retired
        and (key in running or (entry["kind"] == "PodDisruptionBudget" and entry["name"] in names))
    ]
    return manifests, held


def _obey(
    claimed: Claimed, view: ClusterView, client: KubeClient, world: World, advance: Advance,
    operation: Operation | None,
) -> None:  # fmt: skip
    """Do what the engine asks of Kubernetes. Each is safe to repeat: by the pod's uid, or because it is gone."""
    if advance.retired:
        names = ", ".join(f"{kind.lower()}/{name}" for kind, name in advance.retired)
        claimed.event("Retired", f"No longer wished, and empty: {names}", operation=operation)
        _apply(claimed, view, client, there=world, retired=advance.retired)
        for kind, name in advance.retired:
            if kind == "PersistentVolumeClaim":
                door.delete(client, kind, view.namespace, name)
    if advance.hopeless is not None:
        pod = advance.hopeless
        text = f"{pod.name} has reacted to nobody for long, and its part is taken over: it is ended, and made anew."
        claimed.event("HopelessEnded", text, warning=True, object=f"pod/{pod.name}", operation=operation)
        claimed.write()
        door.delete(client, "Pod", view.namespace, pod.name, uid=pod.uid, grace_seconds=HOPELESS_GRACE_SECONDS)
    if advance.restart is not None and view.changing:
        pod = advance.restart
        claimed.event("Restart", f"{pod.name} is restarted.", object=f"pod/{pod.name}", operation=operation)
        claimed.write()
        door.delete(client, "Pod", view.namespace, pod.name, uid=pod.uid)


def _workloads_missing(cluster: Cluster, world: World) -> bool:
    there = {(workload.kind, workload.name) for workload in world.workloads}
    wanted = {(entry["kind"], entry["name"]) for entry in cluster.inventory if entry["kind"] in door.WORKLOADS}
    return not wanted <= there


def _is_due_for_apply(claimed: Claimed) -> bool:
    """About once a minute everything is applied again, so that what somebody changed or deleted comes back."""
    at = claimed.cluster.applied_at
    return at is None or at + timedelta(seconds=APPLY_SECONDS) <= timezone.now()


def _kubernetes_steps(world: World, progress: Progress | None, overridden: Collection[str] = ()) -> str:
    """Settle the core's own steps; returns what is still waited for, "" when all pods run that are waited for."""
    live = [pod for pod in world.pods if not pod.deleting]
    running = {pod.name for pod in live if pod.started}
    excused = {name for key in overridden if (name := key.removeprefix(READY_GATE)) != key} - running
    live = [pod for pod in live if pod.name not in excused]
    wanted = sum(workload.replicas for workload in world.workloads) - len(excused)
    placed = sum(bool(pod.node) for pod in live)
    started = sum(pod.started for pod in live)
    found = causes(world)
    bound = all(volume.phase == "Bound" and volume.capacity_mib >= volume.requested_mib for volume in world.volumes)
    waiting = ""
    for key, count, enough in (("schedule", placed, placed >= wanted and bound), ("start", started, started >= wanted)):
        if enough:
            if progress is not None:
                progress.step(key, "done")
            continue
        cause = next((cause for cause in found if cause.blocks == key), None)
        reason = f"{count} of {wanted} pods" + (f": {cause.reason}" if cause else "")
        waiting = waiting or reason
        if progress is not None:
            progress.step(key, "running", reason, cause.object if cause else "")
    return waiting


def _show(claimed: Claimed, advance: Advance, waiting: str, world: World) -> None:
    """Members, causes and conditions, written only when they changed."""
    members = [
        {"pod": one.pod, "role": one.role, "node": one.node, "zone": one.zone, "shard": one.shard,
         "healthy": one.healthy, "detail": dict(one.detail)}
        for one in advance.members
    ]  # fmt: skip
    if members != claimed.cluster.members:
        claimed.write(members=members)
    loss = asdict(advance.loss) if advance.loss is not None else None
    if loss != claimed.cluster.loss:
        claimed.write(loss=loss)
        # Who accepts a loss accepts what was seen: with If-Match no other.
        Cluster.objects.filter(pk=claimed.cluster.pk).update(revision=F("revision") + 1)
    spread = _spread_shown(advance)
    if spread != claimed.cluster.spread:
        claimed.write(spread=spread)
    for one in advance.spread.invariants if advance.spread else ():
        name = f"Spread{one.key.capitalize()}"
        word = {True: "Holds", False: "Broken", None: "NotKnown"}[one.holds]
        claimed.condition(name, one.holds, word, one.message)
    claimed.condition("Scheduled", not waiting, "PodsRun" if not waiting else "Waiting", waiting)
    found = _tell(claimed, advance, world)
    word = "AsWished" if advance.healthy else _word(found[0].code) if found else "NotYet"
    said = found[0].message if found else advance.reason
    claimed.condition("TopologyHealthy", advance.healthy, word, "" if advance.healthy else said)
    _show_certificate(claimed, advance, world)
    if advance.drift is not None:
        # Of a cluster that is reconciled what differs is set back by the same look, and told as an event.
        claimed.condition(
            "SettingsInForce", not advance.drift, "Drifted" if advance.drift else "AsWished", advance.drift
        )
    outdated = f"{', '.join(advance.outdated)} run an older template: restart the cluster" if advance.outdated else ""
    claimed.condition("UpToDate", not outdated, "Newest" if not outdated else "RestartNeeded", outdated)


def _show_certificate(claimed: Claimed, advance: Advance, world: World) -> None:
    """The condition CertificateValid, of clusters that have one."""
    served = advance.served
    if served is None:
        if any(one["type"] == "CertificateValid" for one in claimed.cluster.conditions):
            claimed.condition("CertificateValid", None, "NobodyAsked", "No member could be asked for its certificate.")
        return
    until, renews = (f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (served.expires, served.renews))
    if served.expires <= world.now:
        claimed.condition("CertificateValid", False, "Expired", f"A member's certificate has expired on {until}.")
    elif served.newest < served.total:
        text = (
            f"{served.newest} of {served.total} members serve the newest certificate; one of the others until {until}."
        )
        claimed.condition("CertificateValid", True, "Renewing", text)
    else:
        claimed.condition("CertificateValid", True, "Served", f"Valid until {until}, renewed from {renews}.")


def _tell(claimed: Claimed, advance: Advance, world: World) -> Sequence[Why]:
    """Write down why a cluster that was ready is not well; returns that. A new first cause is an event too, and so is
    what the engine has mended within its one call.
    """
    found: list[Why] = []
    if claimed.cluster.ready_at is not None:
        found = list(advance.causes)
        if not advance.healthy:
            # After the engine's, which know more: a pod that is not placed is why its shard has no master.
            found += [Why(one.code, f"{one.reason}.", "", one.object) for one in causes(world) if one.code]
    told = found if not advance.healthy else []
    before = [one["code"] for one in claimed.cluster.causes[:1]]
    shown = [asdict(one) for one in told]
    if shown != claimed.cluster.causes:
        claimed.write(causes=shown)
    if found and [found[0].code] != before:
        claimed.event(_word(found[0].code), f"{found[0].message} {found[0].remedy}".strip(), warning=True,
                      object=found[0].object)  # fmt: skip
    return told


def _word(code: str) -> str:
    """A cause's code as conditions and events write theirs."""
    return code.title().replace("-", "")


def _spread_shown(advance: Advance) -> dict[str, Any] | None:
    """As stored and shown."""
    if advance.spread is None:
        return None
    return {
        "invariants": [asdict(one) for one in advance.spread.invariants],
        "nodes": [asdict(one) for one in advance.spread.nodes],
        "hand_overs": advance.spread.hand_overs,
    }


def _keep(claimed: Claimed, view: ClusterView, world: World, link: KubeLink, advance: Advance, waiting: str) -> Next:
    """A cluster nobody is changing: ready, or degraded with the reason, and back."""
    cluster = claimed.cluster
    if advance.healthy and not waiting:
        if cluster.phase == Phase.FAILED and not _proof_holds(view, world, link):
            return Next(None, BUSY_LOOK_SECONDS)
        if cluster.phase != Phase.READY:
            with transaction.atomic():
                failed = cluster.phase == Phase.FAILED
                claimed.write(phase=Phase.READY, reason="", ready_at=cluster.ready_at or timezone.now())
                claimed.event("Ready", "The cluster is as wished again.")
                last = cluster.operations.order_by("-id").first() if failed else None
                if last is not None:
                    # What its failed change did not give back at its end.
                    quota.settle_as_wished(cluster, world.volumes, last)
                    _note_left(last, advance)
        return _even_out(claimed, advance)
    _judge_health(claimed, advance, waiting)
    return Next(advance.retry_after, BUSY_LOOK_SECONDS)


def _note_left(operation: Operation, advance: Advance) -> None:
    """Add to the reason of a canceled change what it has left undone. Not known before: whoever cancels one does so
    while a worker is at it, and what was half done then has been brought to its end since.
    """
    if operation.state != OperationState.CANCELED or operation.kind not in CHANGES:
        return
    keys = {step["key"] for step in operation.steps if step["state"] != "done"}
    left = [text for key, text in advance.left.items() if key in keys]
    if operation.kind not in QUIET and advance.outdated:
        left.append(f"{len(advance.outdated)} of {len(advance.members)} pods run an older template")
    if operation.kind == rebalance.KIND and advance.spread is not None and advance.spread.hand_overs:
        left.append(f"hand-overs still to be made: {advance.spread.hand_overs}")
    reason = f"{operation.reason.rstrip('.')}. Left undone: {'; '.join(left) or 'nothing'}."
    Operation.objects.filter(pk=operation.pk).update(reason=reason, revision=F("revision") + 1)


def _judge_health(claimed: Claimed, advance: Advance, waiting: str) -> None:
    """Ready to degraded with the reason, and back; what failed stays so, since that takes a proof."""
    cluster = claimed.cluster
    if advance.healthy and not waiting:
        if cluster.phase == Phase.DEGRADED:
            claimed.write(phase=Phase.READY, reason="")
            claimed.event("Ready", "The cluster is as wished again.")
        return
    reason = advance.reason or waiting
    if cluster.causes:
        reason = f"{cluster.causes[0]['message']} {cluster.causes[0]['remedy']}".strip()
    if cluster.phase == Phase.READY:
        claimed.write(phase=Phase.DEGRADED, reason=reason)
        claimed.event("Degraded", reason, warning=True)
    elif cluster.phase == Phase.DEGRADED and cluster.reason != reason:
        claimed.write(reason=reason)


def _even_out(claimed: Claimed, advance: Advance) -> Next:
    """Open an operation that makes masters even, where the spec wants that and the cluster has been well for long."""
    due = rebalance.due_at(claimed.cluster, advance.spread)
    if due is None:
        return STEADY
    left = (due - timezone.now()).total_seconds()
    if left > 0:
        return Next(None, min(left, STEADY_LOOK_SECONDS))
    try:
        with transaction.atomic():
            claimed.write()
            operation = rebalance.open_rebalance(claimed.cluster, None)
            text = "Masters are made even over the nodes, as spreadRepair says."
            claimed.event("RebalanceDue", text, operation=operation)
    except IntegrityError:
        log.info("somebody opened another operation", extra={"cluster_id": claimed.cluster.pk})
    return Next(0.0, BUSY_LOOK_SECONDS)


def _proof_holds(view: ClusterView, world: World, link: KubeLink) -> bool:
    try:
        return ENGINES[view.engine].prove(view, world, link).ok
    except LinkError:
        return False


def _prove(
    claimed: Claimed, operation: Operation, progress: Progress, view: ClusterView, world: World, link: KubeLink
) -> Next:
    try:
        proof = ENGINES[view.engine].prove(view, world, link)
    except LinkError as error:
        progress.step("proof", "running", str(error))
        claimed.save(operation)
        return Next(0.3, BUSY_LOOK_SECONDS)
    if not proof.ok:
        progress.step("proof", "running", proof.summary)
        claimed.save(operation)
        return Next(0.5, BUSY_LOOK_SECONDS)
    operation.proof = {"ok": True, "summary": proof.summary, "detail": dict(proof.detail)}
    progress.step("proof", "done")
    progress.finish(OperationState.SUCCEEDED)
    with transaction.atomic():
        claimed.condition("Proven", True, "WroteAndRead", proof.summary)
        now = timezone.now()
        # No other apply is due yet: what runs was just proven to be as wished.
        claimed.write(phase=Phase.READY, reason="", ready_at=claimed.cluster.ready_at or now, applied_at=now)
        claimed.save(operation)
        quota.settle_as_wished(claimed.cluster, world.volumes, operation)
        claimed.event("Ready", proof.summary, operation=operation)
    return STEADY


# --- delete -----------------------------------------------------------------------------------------------------------


def _delete(claimed: Claimed, operation: Operation, client: KubeClient) -> Next:
    cluster = claimed.cluster
    view = cluster_view(cluster)
    progress = Progress(operation)
    for key, kinds in (("workloads", door.WORKLOADS), ("objects", door.OWNED)):
        left = _remove(client, view, kinds)
        if key == "workloads":
            left += [name for _, name in door.owned_names(client, view, ["Pod"])]
        if left:
            progress.step(key, "running", f"{len(left)} left, such as {left[0]}", left[0])
            if progress.changed:
                claimed.save(operation)
            return Next(0.3, BUSY_LOOK_SECONDS)
        progress.step(key, "done")
    claims = door.volumes(client, view)
    keep = operation.params.get("volumes") != "delete"
    if claims and not keep:
        _remove(client, view, ["PersistentVolumeClaim"])
        progress.step("volumes", "running", f"{len(claims)} volumes are being deleted", f"pvc/{claims[0].name}")
        if progress.changed:
            claimed.save(operation)
        return Next(0.3, BUSY_LOOK_SECONDS)
    progress.step("volumes", "done")
    progress.finish(OperationState.SUCCEEDED)
    kept = f" {len(claims)} volumes were kept." if claims else ""
    # Together: a deleted cluster is never claimed again, so its operation would stay open.
    with transaction.atomic():
        claimed.event("Deleted", f"The cluster was deleted.{kept}", operation=operation)
        claimed.save(operation)
        claimed.write(
            phase=Phase.DELETED, deleted_at=timezone.now(), volumes_kept=bool(claims), members=[], inventory=[],
            reason="", loss=None,
        )  # fmt: skip
        quota.settle_deleted(cluster, claims, operation)
    return STEADY


def _remove(client: KubeClient, view: ClusterView, kinds: Sequence[str]) -> list[str]:
    """Delete what the cluster owns of these kinds; returns the names found."""
    found = door.owned_names(client, view, kinds)
    for kind, name in found:
        door.delete(client, kind, view.namespace, name)
    return [f"{kind.lower()}/{name}" for kind, name in found]
