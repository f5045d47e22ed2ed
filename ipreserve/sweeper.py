"""The sweeper: every few seconds it follows each barred address, mends what diverged, and ends holds.

`python -m ipreserve sweeper`. Several replicas may run; the one that has the Lease sweeps.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from ipreserve import errors, kube, layout, metrics, pool, records, review, selectors, settings, store
from ipreserve.book import Book, freed_at
from ipreserve.install import LEASE
from ipreserve.kube import JsonObject
from ipreserve.pool import Block, Ipam, Pod, Range, Workload
from ipreserve.records import Address, End, Record, State

log = logging.getLogger("ipreserve.sweeper")

LEASE_SECONDS = 15
ATTEMPTS = 8
# Shards that are written at the same time: each waits for the API server most of the time.
AT_ONCE = 4
DETECT_SECONDS = 30.0
# For how long nothing counts as free because Calico's blocks, which were read before, cannot be read at the moment.
BLIND_SECONDS = 600.0
FIRST_LIST_SECONDS = 60.0
# Nodes come and go far more seldom than there are sweeps.
NODES_SECONDS = 60.0
SHOWN_IN_EVENT = 10


# --- what is read ---------------------------------------------------------------------------------------------------


def pod_row(one: JsonObject) -> Pod | None:
    """A pod as far as addresses go; None for host-network pods, whose addresses are their node's."""
    metadata, spec, status = one["metadata"], one.get("spec") or {}, one.get("status") or {}
    if spec.get("hostNetwork"):
        return None
    return Pod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        node=spec.get("nodeName") or "",
        owner=review.owner(one),
        addresses=review.addresses(one),
        created=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
        deleting=bool(metadata.get("deletionTimestamp")),
        ended=status.get("phase") in ("Succeeded", "Failed"),
        asks=review.asked_for(one),
        pools=review.pools_asked_for(one),
    )


def block_row(one: JsonObject) -> Block | None:
    """A block of Calico's IPAM: `allocations` has one entry per address, null when free; `unallocated` is the queue."""
    spec = one["spec"]
    if spec.get("deleted"):
        return None
    network = records.network(spec["cidr"])
    # A hand may have made the lists longer than the block.
    at = [Address(str(network[number])) for number in range(min(len(spec["allocations"]), network.num_addresses))]
    host = str(spec.get("affinity") or "")
    return Block(
        cidr=str(network),
        host=host.removeprefix("host:") if host.startswith("host:") else "",
        allocated=frozenset(here for here, owner in zip(at, spec["allocations"], strict=False) if owner is not None),
        queue=tuple(at[n] for n in spec.get("unallocated") or () if 0 <= n < len(at)),
    )


# What a pool without `allowedUses` is for.
USES = ("Workload", "Tunnel")


def range_row(one: JsonObject) -> Range:
    """A pool of Calico; /26 and /122 are its own defaults for blocks. Raises ValueError, KeyError."""
    metadata, spec = one.get("metadata") or {}, one["spec"]
    network = records.network(spec["cidr"])
    nodes = str(spec.get("nodeSelector") or "")
    selectors.selector(nodes)
    conditions = (one.get("status") or {}).get("conditions") or ()
    return Range(
        name=str(metadata.get("name") or ""),
        cidr=str(network),
        block=int(spec.get("blockSize") or (26 if network.version == 4 else 122)),
        nodes=nodes,
        disabled=bool(spec.get("disabled"))
        or bool(metadata.get("deletionTimestamp"))
        or "Workload" not in (spec.get("allowedUses") or USES)
        or any(one.get("type") == "Allocatable" and one.get("status") == "False" for one in conditions),
        # Which namespaces a pool is for is not looked at, so the others do not rely on it.
        by_request=spec.get("assignmentMode") == "Manual"
        or (spec.get("namespaceSelector") or selectors.ALL) != selectors.ALL,
    )


def ranges(pools: Iterable[JsonObject]) -> tuple[Range, ...]:
    """All pools that make sense; Calico's schema takes any text as a pool's CIDR, and one must not stop the sweep."""
    found: list[Range] = []
    for one in pools:
        try:
            found.append(range_row(one))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            log.warning("IPPool %s is left out: %s", one.get("metadata", {}).get("name"), error)
    return tuple(found)


@dataclass(frozen=True)
class Node:
    """How many pods it takes, and what pools select it by."""

    name: str
    pods: int
    labels: Mapping[str, str]


def node_row(one: JsonObject) -> Node:
    """Kubernetes' default where a node does not say how many pods it takes."""
    metadata = one.get("metadata") or {}
    return Node(str(metadata.get("name") or ""), pods_of(one), metadata.get("labels") or {})


def without(pools: Iterable[Range], barred: Iterable[str]) -> tuple[Range, ...]:
    """What is left of pools when these ranges are barred, each larger than a block: one for each piece."""
    found = list(pools)
    for cidr in barred:
        found = [piece for one in found for piece in _pieces(one, cidr)]
    return tuple(found)


def _pieces(one: Range, cidr: str) -> list[Range]:
    network, barred = records.network(one.cidr), records.network(cidr)
    if network.version != barred.version or not network.overlaps(barred):
        return [one]
    if network.subnet_of(barred):  # type: ignore[arg-type]
        return []
    left = sorted(network.address_exclude(barred))  # type: ignore[arg-type]
    return [replace(one, cidr=str(piece), of=one.of or one.cidr) for piece in left]


def workload_row(one: JsonObject) -> Workload:
    """A StatefulSet's policies and size."""
    metadata, spec = one["metadata"], one["spec"]
    return Workload(
        replicas=int(spec.get("replicas", 1)),
        deleting=bool(metadata.get("deletionTimestamp")),
        annotations=review.policies(metadata),
        start=int((spec.get("ordinals") or {}).get("start", 0)),
    )


# --- leading --------------------------------------------------------------------------------------------------------


class Lease:
    """The Lease object. Whoever wrote it last, and still does, leads; times are each reader's own monotonic clock."""

    def __init__(self, door: kube.Kube, namespace: str, identity: str) -> None:
        self._kube, self._identity = door, identity
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._seen: tuple[str, float] = ("", 0.0)
        self._until = 0.0
        self._lock = threading.Lock()

    def holds(self) -> bool:
        """Whether nobody else can lead now."""
        return time.monotonic() < self._until

    def acquire(self) -> bool:
        """Take or renew it; False when somebody else has it. Raises ApiError, Unreachable."""
        began = time.monotonic()
        now = records.iso(self._kube.clock.now())[:-1] + "000Z"
        try:
            raw: JsonObject | None = self._kube.get(f"{self._collection}/{LEASE}")
        except errors.NotFound:
            raw = None
        spec = dict((raw or {}).get("spec") or {})
        holder = spec.get("holderIdentity") or ""
        if raw is not None and holder and holder != self._identity:
            version = raw["metadata"]["resourceVersion"]
            if version != self._seen[0]:
                if self._seen[0]:
                    # Renewed since this replica looked last.
                    self._follow(spec.get("renewTime"))
                self._seen = version, began
            if began - self._seen[1] < float(spec.get("leaseDurationSeconds") or LEASE_SECONDS):
                return False
            log.info("the Lease of %s ran out", holder)
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (raw is not None)}
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        metadata = {"name": LEASE, "labels": store.MANAGED}
        if raw is not None:
            metadata["resourceVersion"] = raw["metadata"]["resourceVersion"]
        try:
            if raw is None:
                self._kube.request("POST", self._collection, {"metadata": metadata, "spec": spec})
            else:
                self._kube.request("PUT", f"{self._collection}/{LEASE}", {"metadata": metadata, "spec": spec})
        except errors.Conflict:
            return False
        # A margin, so that we stop before another may start.
        self._until = began + LEASE_SECONDS * 0.8
        return True

    def _follow(self, renewed: object) -> None:
        """Who leads renews by its own clock. A replica that starts after a jump of the server's knows of none."""
        try:
            self._kube.clock.follow(datetime.fromisoformat(str(renewed)).timestamp())
        except ValueError:
            log.info("the Lease says no time: %s", renewed)

    def keep(self) -> bool:
        """Whether nobody else can have led since `acquire`: renewed in time, so that a sweep may take longer than it.

        A Lease that ran out is renewed as long as it still names us, since then nobody took it. Raises ApiError.
        """
        with self._lock:
            if time.monotonic() < self._until - LEASE_SECONDS * 0.4:
                return True
            raw = self._kube.get(f"{self._collection}/{LEASE}")
            if (raw.get("spec") or {}).get("holderIdentity") != self._identity:
                self._until = 0.0
                return False
            # With the version that was read inside: who comes first wins.
            return self.acquire()

    def give_up(self) -> None:
        """Let another lead at once; at a normal end."""
        if not self.holds():
            return
        self._until = 0.0
        try:
            raw = self._kube.get(f"{self._collection}/{LEASE}")
            if (raw.get("spec") or {}).get("holderIdentity") == self._identity:
                raw["spec"]["holderIdentity"] = ""
                self._kube.request("PUT", f"{self._collection}/{LEASE}", raw)
        except errors.IpreserveError as error:
            log.info("the Lease stays until it runs out: %s", error)


# --- sweeping -------------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What one sweep read of its own objects; `book` is all of it as one."""

    barred: dict[int, store.Barred]
    kept: dict[int, store.Kept]
    shards: int
    book: Book


class Sweeper:
    """One replica. `sweep` is one pass and can be called by itself."""

    def __init__(self, options: settings.Settings, door: kube.Kube) -> None:
        self.options, self.kube = options, door
        self.metrics = metrics.SweeperMetrics()
        door.clock.on_jump = lambda _: self.metrics.clock_jumps.inc()
        door.clock.local = time.time
        self.live = settings.Live()
        self._problems: tuple[str, ...] = ()
        self._calico: kube.CalicoApi | None = None
        self._detected = -DETECT_SECONDS
        self.store = store.Store(door, options.namespace, self.calico)
        self.lease = Lease(door, options.namespace, options.identity)
        self.pods = kube.Mirror(door, "/api/v1/pods", pod_row)
        self._blocks: kube.Mirror[Block] | None = None
        self._pools_path: str | None = None
        # None until they were listed.
        self._nodes: tuple[Node, ...] | None = None
        self._nodes_listed, self._nodes_problem = -NODES_SECONDS, ""
        self._unrecorded: frozenset[Address] = frozenset()
        # Keys of ledgers that are no address's: told once.
        self._strange: frozenset[tuple[int, str]] = frozenset()
        # Of each history: how many texts in it nobody could read, when it was written last.
        self._bad_history: dict[int, int] = {}
        self._book = Book()
        # When the book was last brought up to date: it has to be made anew when the time goes back.
        self._followed = 0.0
        self._ipam_before: Ipam | None = None
        # When Calico's blocks could be read last.
        self._read_blocks = -BLIND_SECONDS
        self._owners: dict[Address, tuple[tuple[str, str], float]] = {}
        self._shown: dict[str, float] = {}
        self._last = 0.0
        self._started = time.monotonic()

    def calico(self) -> kube.CalicoApi:
        """Calico's API as last seen. Raises NoCalico."""
        if self._calico is None:
            self._detect()
        assert self._calico is not None
        return self._calico

    def _detect(self) -> None:
        if self._calico is not None and time.monotonic() - self._detected < DETECT_SECONDS:
            return
        found = kube.detect(self.kube, self.options.calico_api)
        if found != self._calico:
            log.info("Calico's API: %s (%s)", found.name, found.api_version)
        self._detected, self._calico = time.monotonic(), found
        path = kube.ipam_path(self.kube, found, "ipamblocks")
        self._pools_path = kube.ipam_path(self.kube, found, "ippools")
        if (self._blocks.path if self._blocks is not None else None) != path:
            if self._blocks is not None:
                self._blocks.stop()
            self._blocks = kube.Mirror(self.kube, path, block_row) if path is not None else None
            if self._blocks is not None:
                self._blocks.start()
                self._blocks.wait(FIRST_LIST_SECONDS)

    def start(self) -> None:
        """Begin to watch pods. Raises Unreachable when their first list does not come."""
        self.pods.start()
        if not self.pods.wait(FIRST_LIST_SECONDS):
            raise errors.Unreachable(f"pods cannot be listed: {self.pods.error}")

    def stop(self) -> None:
        """End the watches."""
        self.pods.stop()
        if self._blocks is not None:
            self._blocks.stop()

    def healthy(self) -> bool:
        """Whether the loop goes round, leading or not."""
        return time.monotonic() - max(self._last, self._started) < max(60.0, 6 * self.options.period)

    def rules(self) -> pool.Rules:
        """What applies now: the ConfigMap over the flags; the largest node where no count is set."""
        live, options = self.live, self.options
        count = options.max_count if live.max_count is None else live.max_count
        if count == 0:
            count = self._count_of_nodes()
        return pool.Rules(
            hold=options.hold if live.hold is None else live.hold,
            short_hold=options.short_hold if live.short_hold is None else live.short_hold,
            cancel_after=options.cancel_after if live.cancel_after is None else live.cancel_after,
            max_count=count,
            max_per_namespace=(options.max_per_namespace if live.max_per_namespace is None else live.max_per_namespace),
        )

    def _count_of_nodes(self) -> int:
        """By the largest node; for one of Kubernetes' default size until they were listed."""
        return pool.max_count(node.pods for node in self._all_nodes() or ())

    def _all_nodes(self, *, new: frozenset[str] = frozenset()) -> tuple[Node, ...] | None:
        """What was known last counts while nodes cannot be listed: a sweep can do without. `new` ones must be in it."""
        known = {node.name for node in self._nodes or ()}
        if time.monotonic() - self._nodes_listed < NODES_SECONDS and new <= known:
            return self._nodes
        try:
            found, _ = self.kube.list("/api/v1/nodes")
        except errors.IpreserveError as error:
            if str(error) != self._nodes_problem:
                log.warning("nodes cannot be listed, so what was known of them stays: %s", error)
            self._nodes_problem = str(error)
            return self._nodes
        self._nodes = tuple(map(node_row, found))
        self._nodes_listed, self._nodes_problem = time.monotonic(), ""
        return self._nodes

    def _labels(self, pools: Iterable[Range], pods: Iterable[Pod]) -> dict[str, Mapping[str, str]] | None:
        """The labels of all nodes, where some pool selects by them. None where they are not needed, or not known."""
        if all(one.nodes in ("", selectors.ALL) for one in pools):
            return None
        waiting = frozenset(pod.node for pod in pods if pod.node and not pod.addresses and not pod.ended)
        nodes = self._all_nodes(new=waiting)
        return {node.name: node.labels for node in nodes} if nodes is not None else None

    def reload(self) -> None:
        """Read the ConfigMap of settings. What is wrong in it is told once, and its last good value stays."""
        found = settings.reload(self.store.config(), self.live)
        for problem in found.problems if found.problems != self._problems else ():
            log.error("%s", problem)
        self.live, self._problems = found.live, found.problems

    # --- one sweep --------------------------------------------------------------------------------------------------

    def sweep(self) -> pool.Plan:
        """One pass. Raises ApiError, Unreachable when the picture cannot be taken; what cannot be written is skipped.

        1. Read own objects, pods, blocks, policies. 2. Decide. 3. Write what is new: bar first, record second.
        4. End holds: mark the record, open the address, remember it, drop the record.
        """
        self._detect()
        self.reload()
        rules = self.rules()
        found = self._read()
        pods = self.pods.rows()
        ipam = self._ipam(pods, found.barred.values())
        taken = self._picture(found, pods, ipam)
        plan = pool.decide(taken, rules)
        cancelled = any(end is End.CANCELLED for one in plan.ended if (end := self._end_of(one, plan, found)))
        if cancelled or (plan.ended and (ipam is None or self.pods.error is not None)):
            # Without Calico's word, only a fresh list of pods says that nobody has the address. And that a pod lives on
            # is no news: a watch that died without a word shows the same, and its pod may be going.
            pods = self.pods.fresh()
            taken = self._picture(found, pods, ipam)
            plan = pool.decide(taken, rules)
        self._unrecorded = plan.unrecorded
        changes = dict(plan.records)
        for one in pool.spared(self._ipam_before, ipam, found.book.resting):
            record = changes.get(one, found.book.records[one])
            if not record.spared:
                self.metrics.swaps_prevented.inc()
                changes[one] = replace(record, spared=True)
        self._ipam_before = ipam
        self._write(found, plan, changes)
        self._observe(found, plan, rules, pods, changes, taken.now)
        return plan

    @staticmethod
    def _end_of(one: Address, plan: pool.Plan, found: _Found) -> End | None:
        return (plan.records.get(one) or found.book.records[one]).end

    def _read(self) -> _Found:
        kept = self.store.all_kept()
        strange = frozenset((index, name) for index, shard in kept.items() for name in shard.ledger.strange)
        if fresh := sorted(strange - self._strange):
            some = [f"{store.shard_name(index)}: {name}" for index, name in fresh[:SHOWN_IN_EVENT]]
            log.error("%d keys of ledgers are no address and are left as they are: %s", len(fresh), some)
        self._strange = strange
        # The ledgers first: what is barred and recorded in between is then seen barred only, and is waited for.
        barred = self.store.all_barred()
        largest = max(shard.size for shard in kept.values())
        before = kept[0].shards
        total = sum(len(one.addresses) for one in barred.values())
        if total > layout.SHARD_SIZE * before:
            # What is on its way from one shard to another counts once.
            total = len(frozenset().union(*(one.addresses for one in barred.values())))
        if largest > layout.SHARD_BYTES and _unsettled(kept, before):
            # Already growing: what is in the wrong shard makes one large that will not be.
            largest = 0
        shards = layout.shards_for(total, before, largest=largest)
        now = self.kube.clock.now()
        if shards != self._book.shards or now < self._followed:
            self._book = Book(shards)
        self._followed = now
        self._book.follow(
            {
                index: (
                    kept.get(index, store.Kept(index)).ledger.records,
                    barred.get(index, store.Barred(index)).addresses,
                )
                for index in {*kept, *barred}
            },
            at=now,
        )
        return _Found(barred, kept, shards, self._book)

    def _ipam(self, pods: list[Pod], barred: Iterable[store.Barred] = ()) -> Ipam | None:
        readable = self._blocks is not None and self._blocks.error is None and self._blocks.wait(0)
        self.metrics.ipam.set(1 if readable else 0)
        if readable:
            self._read_blocks = time.monotonic()
        if not readable or self._blocks is None:
            return None
        try:
            pools = self.kube.list(self._pools_path)[0] if self._pools_path is not None else []
            spec = kube.ipam_configuration(self.kube, self.calico())
        except errors.ApiError as error:
            log.warning("Calico's pools cannot be read, so the pressure valve is off: %s", error)
            pools, spec = [], {}
        try:
            single, large, _ = records.expand(self.store.others())
        except errors.ApiError as error:
            log.warning("others' IPReservations cannot be read, so what they bar counts as free: %s", error)
            single, large = frozenset(), ()
        self.metrics.cooldown.set(float(spec.get("ipCooldownSeconds") or 0))
        found = without(ranges(pools), dict.fromkeys([*large, *(cidr for shard in barred for cidr in shard.ranges)]))
        return Ipam(
            blocks=tuple(sorted(self._blocks.rows(), key=lambda block: records.order(block.cidr))),
            pools=found,
            strict=bool(spec.get("strictAffinity")),
            blocks_per_host=int(spec.get("maxBlocksPerHost") or pool.DEFAULT_BLOCKS_PER_HOST),
            claims_blocks=bool(spec.get("autoAllocateBlocks", True)),
            nodes=self._labels(found, pods),
            reserved=single,
        )

    def _picture(self, found: _Found, pods: list[Pod], ipam: Ipam | None) -> pool.Picture:
        workloads: dict[tuple[str, str], Workload] | None = {}
        defaults: dict[str, Mapping[str, str]] = {}
        if any(found.book.states[state] for state in (State.CLAIMED, State.TERMINATING)):
            # Policies count at the moment an address becomes free.
            try:
                sets, _ = self.kube.list("/apis/apps/v1/statefulsets")
                workloads = {(s["metadata"]["namespace"], s["metadata"]["name"]): workload_row(s) for s in sets}
                spaces, _ = self.kube.list("/api/v1/namespaces")
                defaults = {s["metadata"]["name"]: review.policies(s["metadata"]) for s in spaces}
            except errors.ApiError as error:
                log.warning("policies cannot be read, so the normal hold applies: %s", error)
                workloads = None
        return pool.Picture(
            now=self.kube.clock.now(), book=found.book, pods=pods, ipam=ipam, workloads=workloads, defaults=defaults,
            unrecorded=self._unrecorded, blind=ipam is None and time.monotonic() - self._read_blocks < BLIND_SECONDS,
        )  # fmt: skip

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, found: _Found, plan: pool.Plan, changes: Mapping[Address, Record]) -> None:
        """Shard by shard; one that fails is logged, counted, and tried again by the next sweep.

        Only shards with something to write are looked at: what changes, what is not barred, what is in the wrong shard,
        and objects that are missing or not as this service writes them.
        """
        after = ChainMap(dict(changes), found.book.records)
        here: dict[int, set[Address]] = {
            index: set()
            for index in found.kept
            if _needs_care(found.kept[index], found.barred.get(index, store.Barred(index)))
        }
        # Growing shards: what is in the wrong one is written to the right one first, and removed there after.
        for one in set().union(changes, plan.protect, plan.ended, *found.book.strays.values()):
            if one in after:
                here.setdefault(layout.shard_of(one, found.shards), set()).add(one)
        if found.shards != found.kept[0].shards:
            log.info("%d shards from now on", found.shards)
            self._safely("number of shards", lambda: self._announce(found.shards))
        done = self._each("shard", here, lambda index: self._write_shard(found, after, index, here[index]))
        if len(done) == len(here):
            self._each("moving out of shard", found.book.strays, lambda index: self._move_out(found, index))
        ending: dict[int, list[Address]] = {}
        for one in plan.ended:
            ending.setdefault(layout.shard_of(one, found.shards), []).append(one)
        self._each(
            "releasing in shard", [index for index in done if index in ending],
            lambda index: self._release(index, {one: after[one] for one in ending[index]}, found.shards),
        )  # fmt: skip

    def _each(self, what: str, shards: Iterable[int], action: Callable[[int], None]) -> list[int]:
        """Do it for each shard, some at a time; returns those where it was done."""
        indexes = sorted(shards)

        def one(index: int) -> bool:
            return self._safely(f"{what} {index}", lambda: action(index))

        if len(indexes) < 2:
            return [index for index in indexes if one(index)]
        with ThreadPoolExecutor(min(AT_ONCE, len(indexes))) as workers:
            return [index for index, fine in zip(indexes, workers.map(one, indexes), strict=True) if fine]

    def _safely(self, what: str, action: Callable[[], None]) -> bool:
        try:
            if not self.lease.keep():
                raise errors.Unreachable("the Lease was lost meanwhile")
            action()
        except errors.IpreserveError as error:
            log.warning("%s: %s; the next sweep tries again", what, error)
        except Exception:
            # One bad item must not keep the others from being swept.
            log.exception("%s failed", what)
        else:
            return True
        self.metrics.errors.inc()
        return False

    def _announce(self, shards: int) -> None:
        for _ in range(ATTEMPTS):
            ledger = self.store.read_kept(0)
            try:
                self.store.write_kept(ledger, ledger.ledger, shards=shards)
                return
            except errors.Conflict:
                continue
        raise errors.Unreachable("somebody else writes all the time")

    def _write_shard(
        self, found: _Found, after: Mapping[Address, Record], index: int, mine: set[Address]
    ) -> None:  # fmt: skip
        """Bar what is recorded, then record what changed; each record only if it is still what was decided on."""
        recorded = {one for one in mine if after[one].state is not State.RELEASING}
        before = found.barred.get(index, store.Barred(index))
        missing = recorded - before.addresses
        if unprotected := missing - found.book.barred:
            log.warning("%d recorded addresses were not barred, and are again", len(unprotected))
            self.metrics.repaired.labels("protected").inc(len(unprotected))
        if before.raw is not None and not before.is_canonical:
            self.metrics.repaired.labels("rewritten").inc()
        if before.malformed:
            log.error("IPReservation %s: malformed entries removed: %s", store.shard_name(index), before.malformed)
        if missing or before.raw is None or not before.is_canonical:
            self._bar(index, recorded, found.shards)
        kept = found.kept.get(index, store.Kept(index))
        wanted = {
            one: (seen, after[one])
            for one in mine
            if (seen := kept.ledger.records.get(one)) is not after[one] and seen != after[one]
        }
        adopted = sum(1 for one in wanted if one not in found.book.records)
        if adopted:
            log.warning("%d addresses were barred without a record, and have one now", adopted)
            self.metrics.repaired.labels("adopted").inc(adopted)
        broken = set(kept.ledger.broken)
        if broken:
            log.error("ledger %s: unreadable records of %s, kept as .bad", kept.index, sorted(broken)[:SHOWN_IN_EVENT])
            self.metrics.repaired.labels("quarantined").inc(len(broken))
        if not wanted and not broken and kept.raw is not None:
            return
        for attempt in range(ATTEMPTS):
            now = dict(kept.ledger.records)
            for one, (seen, to) in wanted.items():
                if now.get(one) == seen:
                    now[one] = to if to.seq else replace(to, seq=_next(now))
            for one in broken - set(now):
                # Still barred: a record made anew lets its hold end like any other's.
                now[one] = replace(records.unknown(at=self.kube.clock.now()), seq=_next(now))
            if now == kept.ledger.records and not broken and kept.raw is not None:
                return
            try:
                self.store.write_kept(kept, replace(kept.ledger, records=now))
                return
            except errors.Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
                kept = self.store.read_kept(index)
                broken = set(kept.ledger.broken)

    def _bar(
        self, index: int, addresses: Iterable[Address], shards: int, *, drop: frozenset[Address] = frozenset()
    ) -> None:
        """Add and remove addresses of one IPReservation, on what it is now."""
        more = frozenset(addresses)
        for attempt in range(ATTEMPTS):
            before = self.store.barred_now(index)
            wanted = (before.addresses - drop) | more
            if wanted == before.addresses and before.raw is not None and before.is_canonical:
                return
            try:
                self.store.write_barred(before, wanted, aggregate=len(wanted) * shards > layout.AGGREGATE_FROM)
                return
            except errors.Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    def _move_out(self, found: _Found, index: int) -> None:
        """Drop from a shard what belongs, and is, elsewhere."""
        kept = found.kept.get(index)
        out = found.book.strays[index]
        strays = {one for one in out if kept is not None and one in kept.ledger.records}
        barred = found.barred.get(index, store.Barred(index))
        stray_addresses = frozenset(one for one in out if one in barred.addresses and one in found.book.records)
        if stray_addresses:
            self._bar(index, (), found.shards, drop=stray_addresses)
            self.metrics.repaired.labels("moved").inc(len(stray_addresses))
        if strays and kept is not None:
            # The version was read before the copies were made: whoever claimed meanwhile makes this a conflict.
            fresh = self.store.read_kept(index)
            same = {one for one in strays if fresh.ledger.records.get(one) == kept.ledger.records[one]}
            rest = {one: record for one, record in fresh.ledger.records.items() if one not in same}
            self.store.write_kept(fresh, replace(fresh.ledger, records=rest))

    def _release(self, index: int, ending: Mapping[Address, Record], shards: int) -> None:
        """The records say releasing by now. Open the addresses, remember them, drop the records that still say so."""
        kept = self.store.kept_now(index)
        sure = {
            one: kept.ledger.records[one]
            for one in ending
            if one in kept.ledger.records and kept.ledger.records[one].state is State.RELEASING
        }
        if not sure:
            return
        self._bar(index, (), shards, drop=frozenset(sure))
        # Where this fails the records stay, open and in releasing, and the next sweep goes on from there.
        self._bad_history[index] = self.store.add_history(index, sure, at=self.kube.clock.now())
        for attempt in range(ATTEMPTS):
            rest = dict(kept.ledger.records)
            again = {one for one in sure if rest.get(one) != sure[one]}
            if again:
                # Claimed anew between the mark and now: barred again at once, while its pod still has it.
                self._bar(index, again & set(rest), shards)
            for one in sure.keys() - again:
                del rest[one]
            try:
                self.store.write_kept(kept, replace(kept.ledger, records=rest))
                break
            except errors.Conflict:
                if attempt == ATTEMPTS - 1:
                    raise
                kept = self.store.read_kept(index)
        for one, record in sure.items():
            reason = record.end or End.EXPIRED
            self.metrics.released.labels(reason).inc()
            log.info("%s released (%s), was %s/%s", one, reason, record.namespace, record.pod)

    # --- what is told -----------------------------------------------------------------------------------------------

    def _observe(
        self, found: _Found, plan: pool.Plan, rules: pool.Rules, pods: list[Pod], changes: Mapping[Address, Record],
        now: float,
    ) -> None:  # fmt: skip
        book = found.book
        states = Counter(book.states)
        states.subtract(Counter(book.records[one].state for one in changes if one in book.records))
        states.update(Counter(record.state for record in changes.values()))
        for state in State:
            self.metrics.addresses.labels(state).set(states[state])
        freed = [freed_at(record) for record in changes.values() if record.state is State.FREED]
        freed += islice((place.freed for place in book.queue.items if place.address not in changes), 1)
        self.metrics.held.set(plan.held)
        self.metrics.limit.set(rules.max_count)
        self.metrics.oldest.set(now - min(freed, default=now))
        ledgers = [shard.ledger for shard in found.kept.values()]
        bad = sum(len(one.bad) + len(one.broken) for one in ledgers)
        self.metrics.quarantined.set(bad + sum(self._bad_history.values()))
        self.metrics.clock_doubted.set(self.kube.clock.doubts)
        self.metrics.foreign.set(sum(len(one.ranges) for one in found.barred.values()))
        self.metrics.shortage.clear()
        for place, missing in plan.shortage.items():
            self.metrics.shortage.labels(place).set(missing)
        for one in plan.swaps:
            self.metrics.swaps_observed.labels("yes").inc()
            record = changes[one]
            log.error("%s went from %s/%s to another workload while it was held", one, record.namespace, record.pod)
        self._swaps(pods, now, rules.hold, frozenset(plan.swaps))
        ended = {one: changes.get(one) or book.records[one] for one in plan.ended}
        pressed = [one for one, record in ended.items() if record.end is End.PRESSURE]
        if pressed:
            where = ", ".join(f"{place} lacked {missing}" for place, missing in plan.shortage.items())
            self._event("HoldsEndedEarly", f"since pods would lack addresses ({where})", pressed)
        for namespace, more in plan.crowds.items():
            crowd = [one for one, r in ended.items() if r.end is End.QUOTA and r.namespace == namespace]
            limit = f"since {namespace} had {more} more at rest than the {rules.max_per_namespace} of one namespace"
            self._event("NamespaceLimit", limit, crowd)

    def _swaps(self, pods: list[Pod], now: float, window: float, known: frozenset[Address]) -> None:
        """Count addresses that changed their workload within a hold where nothing is protected.

        `known` were held, and are counted as such, whoever led when they were claimed and however long their own hold.
        """
        using: dict[Address, Pod] = {}
        for pod in sorted(pods, key=lambda one: one.created):
            if not pod.ended:
                using.update(dict.fromkeys(pod.addresses, pod))
        for one, pod in using.items():
            before = self._owners.get(one)
            if before is not None and before[0] != pod.workload and now - before[1] < window and one not in known:
                self.metrics.swaps_observed.labels("no").inc()
            self._owners[one] = pod.workload, now
        for one in [one for one, (_, at) in self._owners.items() if now - at >= window]:
            del self._owners[one]

    def _event(self, reason: str, why: str, which: list[Address]) -> None:
        """Say that holds ended early. An Event that cannot be written changes nothing else."""
        some = ", ".join(which[:SHOWN_IN_EVENT]) + (" …" if len(which) > SHOWN_IN_EVENT else "")
        message = f"{len(which)} holds ended early, {why}: {some}"
        log.warning("%s", message)
        stamp = datetime.fromtimestamp(self.kube.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = store.shard_name(0)
        body = {
            "metadata": {"generateName": f"{name}."},
            "involvedObject": {
                "apiVersion": "v1", "kind": "ConfigMap", "namespace": self.options.namespace, "name": name
            },
            "type": "Warning", "reason": reason, "message": message[:1000],
            "source": {"component": "ipreserve"}, "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1,
        }  # fmt: skip
        try:
            self.kube.request("POST", f"/api/v1/namespaces/{self.options.namespace}/events", body)
        except errors.IpreserveError as error:
            log.warning("the Event could not be written: %s", error)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self, ended: threading.Event) -> None:
        """Sweep at every tick while leading. An error never stretches the period; a long sweep skips ticks."""
        tick = time.monotonic()
        while not ended.is_set():
            self.turn()
            self._last = time.monotonic()
            tick += self.options.period * max(1, math.ceil((self._last - tick) / self.options.period))
            ended.wait(max(0.0, tick - time.monotonic()))
        self.lease.give_up()

    def turn(self) -> bool:
        """One tick; whether a sweep was done."""
        began = time.monotonic()
        try:
            if not self.lease.acquire():
                self.metrics.not_leading()
                return False
            self.metrics.leading.set(1)
            self.sweep()
        except errors.IpreserveError as error:
            log.error("no sweep: %s", error)
            self.metrics.sweeps.labels("failed").inc()
            return False
        except Exception:
            # The loop must live: whatever this was, the next sweep may work.
            log.exception("no sweep")
            self.metrics.sweeps.labels("failed").inc()
            return False
        self.metrics.sweeps.labels("done").inc()
        self.metrics.seconds.observe(time.monotonic() - began)
        self.metrics.last.set_to_current_time()
        return True


def _next(among: Mapping[Address, Record]) -> int:
    return max((record.seq for record in among.values()), default=0) + 1


def _needs_care(kept: store.Kept, barred: store.Barred) -> bool:
    """Whether a shard's objects are missing, or hold something that this service does not write."""
    return kept.raw is None or bool(kept.ledger.broken) or barred.raw is None or not barred.is_canonical


def _unsettled(kept: Mapping[int, store.Kept], shards: int) -> bool:
    """Whether some record is not yet in its shard."""
    return any(layout.shard_of(one, shards) != index for index, shard in kept.items() for one in shard.ledger.records)


def pods_of(node: JsonObject) -> int:
    """How many pods a node takes; Kubernetes' default where it does not say."""
    said = str(((node.get("status") or {}).get("allocatable") or {}).get("pods", ""))
    return int(said) if said.isdecimal() else pool.DEFAULT_MAX_PODS


def main(options: settings.Settings) -> int:
    """Sweep until SIGTERM."""
    log.info("ipreserve sweeper: %s", options.shown())
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    sweeper = Sweeper(options, kube.connect(options.kubeconfig))
    if options.metrics is not None:
        metrics.serve(options.metrics, sweeper.metrics.registry, sweeper.healthy)
    try:
        sweeper.start()
        sweeper.run(ended)
    finally:
        sweeper.stop()
    return 0
