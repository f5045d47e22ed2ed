"""An hour of a busy cluster in about a minute: random operations, both services, every invariant at every sweep.

The API server, admission through it, Calico's objects, both services' code and accounts are real. Kubelets are played,
Calico's choice is the sandbox's model, and one clock for all is moved by hand: 30 s for each round.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ipreserve import errors, install, kube, settings, store, sweeper, webhook
from ipreserve.kube import JsonObject
from ipreserve.pool import Plan, Pod
from ipreserve.records import Address, End, State, address
from ipreserve.tests import calico
from ipreserve.tests.conftest import armed
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, World, accounts, ensure, free_port, insist, kubeconfig_of
from sandbox import Sandbox
from sandbox.api import Client
from sandbox.calico import datastore
from sandbox.calico.ipam import NoAddress

ROUND_SECONDS, ROUNDS = 30.0, 120
HOLD, MOST, CANCEL_AFTER = 600.0, 14, 60.0
NODES = ("n1", "n2", "n3")
APPS, ORDINALS = ("red", "blue", "green"), 4


class HandClock(kube.Clock):
    """Stands still until it is moved; what servers say of the time does not count."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = round(at, 3)

    def observe(self, server: float) -> None:
        return

    def now(self) -> float:
        return self.at


@dataclass
class Played:
    """A pod as the played kubelet knows it; `address` is empty while it waits for one."""

    name: str
    uid: str
    node: str
    born: float
    address: str = ""
    deleting: bool = False
    ended: bool = False
    waits: int = 0


@dataclass
class Hour:
    """The cluster, what it did so far, and what must be true of it."""

    world: World
    addresses: datastore.Datastore
    clock: HandClock
    sweeper_kubeconfig: Path
    rng: random.Random
    pods: dict[str, Played] = field(default_factory=dict)
    # Pods that the API server no longer has, and whose addresses Calico has not freed yet.
    ghosts: list[Played] = field(default_factory=list)
    left: dict[str, tuple[float, str]] = field(default_factory=dict)
    # Addresses whose hold ended early for a stated reason, or whose record somebody took away.
    excused: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    sweeper: sweeper.Sweeper = field(init=False)

    def __post_init__(self) -> None:
        self.lead()

    # --- what happens -----------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """A sweeper takes over; the one before is gone with all it had in mind."""
        self.world.close()
        self.world.free_lease()
        self.sweeper = self.world.sweeper(
            self.sweeper_kubeconfig, hold=HOLD, max_count=MOST, cancel_after=CANCEL_AFTER, period=ROUND_SECONDS
        )
        self.sweeper.kube.clock = self.clock
        # Begins to watch Calico's blocks.
        self.sweeper.calico()

    def start(self) -> None:
        missing = sorted({f"{app}-{n}" for app in APPS for n in range(ORDINALS)} - {one.name for one in self.present()})
        if not missing:
            return
        name, node = self.rng.choice(missing), self.rng.choice(NODES)
        uid = self.world.pod(name, node=node)["metadata"]["uid"]
        self.pods[uid] = Played(name, uid, node, self.clock.now())
        self.give(self.pods[uid])

    def give(self, pod: Played) -> None:
        """What the CNI plugin does; a pod without an address is tried again in the next round."""
        try:
            found = str(self.addresses.change(lambda ipam: ipam.auto_assign(pod.node, pod.uid, {"node": pod.node})))
        except NoAddress:
            pod.waits += 1
            assert pod.waits <= 2, f"{pod.name} still has no address after two sweeps"
            return
        at, before = self.left.get(found, (-HOLD, ""))
        early = self.clock.now() - at < HOLD and found not in self.excused
        assert before in ("", pod.name) or not early, f"{found} went from {before} to {pod.name}"
        pod.address, pod.waits = found, 0
        self.left.pop(found, None)
        self.world.report(pod.name, found)

    def free(self, pod: Played) -> None:
        """What the CNI plugin does at the end of a sandbox."""
        self.addresses.change(lambda ipam: ipam.release(pod.uid))
        if pod.address:
            self.left[pod.address] = self.clock.now(), pod.name
            self.excused.discard(pod.address)

    def present(self) -> list[Played]:
        return list(self.pods.values())

    def pick(self, *, deleting: bool = False) -> list[Played]:
        """One pod with an address, if there is one."""
        fit = [one for one in self.present() if one.address and one.deleting == deleting and not one.ended]
        return [self.rng.choice(fit)] if fit else []

    def delete(self) -> None:
        for pod in self.pick():
            self.world.delete(pod.name)
            pod.deleting = True

    def drain(self) -> None:
        for pod in self.pick():
            self.world.evict(pod.name)
            pod.deleting = True

    def finish(self) -> None:
        """Kubelet's end of a pod: the network first, the last DELETE after."""
        for pod in self.pick(deleting=True):
            self.free(pod)
            self.last_delete(pod)

    def last_delete(self, pod: Played) -> None:
        self.world.finish({"metadata": {"name": pod.name, "uid": pod.uid}})
        del self.pods[pod.uid]

    def force(self) -> None:
        for pod in self.pick():
            self.take_away(pod)

    def take_away(self, pod: Played) -> None:
        """The object goes at once, the address later."""
        self.world.delete(pod.name, gracePeriodSeconds=0)
        self.ghosts.append(self.pods.pop(pod.uid))

    def lose_node(self) -> None:
        node = self.rng.choice(NODES)
        for pod in [one for one in self.present() if one.node == node and one.address and not one.ended]:
            self.take_away(pod)

    def collect(self) -> None:
        """Calico frees what a lost node or a forced deletion left."""
        for pod in self.ghosts:
            self.free(pod)
        self.ghosts.clear()

    def refuse_eviction(self) -> None:
        """A budget allows no disruption: claimed, and nothing comes of it."""
        for pod in self.pick():
            selector = {"matchLabels": {"statefulset.kubernetes.io/pod-name": pod.name}}
            path = f"/apis/policy/v1/namespaces/{self.world.namespace}/poddisruptionbudgets"
            budget = {"metadata": {"name": "keep"}, "spec": {"minAvailable": 1, "selector": selector}}
            self.world.kube.request("POST", path, budget)
            with pytest.raises(errors.ApiError, match="disruption"):
                self.world.evict(pod.name)
            self.world.kube.request("DELETE", f"{path}/keep")

    def kubelet_evicts(self) -> None:
        """For lack of memory: the network goes, then the pod is reported as failed and stays for a while."""
        for pod in self.pick():
            self.free(pod)
            self.world.report(pod.name, pod.address, phase="Failed")
            pod.ended = True

    def bury(self) -> None:
        """A failed pod's object is deleted, maybe long after its address has gone to somebody else."""
        for pod in [one for one in self.present() if one.ended][:1]:
            self.world.delete(pod.name, gracePeriodSeconds=0)
            del self.pods[pod.uid]

    def move(self) -> None:
        """A sandbox is made anew under another address."""
        for pod in self.pick():
            self.free(pod)
            pod.address = ""
            self.give(pod)

    def meddle_with_bars(self) -> None:
        held = self.world.store()
        gone = frozenset(sorted(held.read_barred(0).addresses)[:1])

        def drop() -> None:
            found = held.read_barred(0)
            held.write_barred(found, found.addresses - gone)

        insist(drop)
        self.sweep()

    def lose_all_bars(self) -> None:
        """Somebody deletes the IPReservation."""
        for path in self.world.store().reservation_paths():
            self.world.kube.request("DELETE", path)
        self.sweep()

    def meddle_with_records(self) -> None:
        held = self.world.store()
        known = sorted(held.read_kept(0).ledger.records)
        for one in [self.rng.choice(known)] if known else []:
            self.excused.add(one)

            def drop(one: Address = one) -> None:
                found = held.read_kept(0)
                rest = {other: r for other, r in found.ledger.records.items() if other != one}
                held.write_kept(found, replace(found.ledger, records=rest))

            insist(drop)

    # --- what must be true ------------------------------------------------------------------------------------------

    def seen(self) -> bool:
        """Whether the sweeper's watches show what there is: the clock stands still until then."""
        rows = {row.uid: (row.deleting, row.ended, row.addresses) for row in self.sweeper.pods.rows()}
        there = {
            one.uid: (one.deleting, one.ended, (address(one.address),) if one.address else ())
            for one in self.present()
        }  # fmt: skip
        taken = {one.address for one in [*self.present(), *self.ghosts] if one.address and not one.ended}
        blocks = self.sweeper._blocks
        return rows == there and blocks is not None and {
            one for block in blocks.rows() for one in block.allocated
        } == taken  # fmt: skip

    def sweep(self) -> Plan:
        eventually(self.seen, "the sweeper has seen everything")
        assert self.sweeper.lease.acquire()
        plan = self.sweeper.sweep()
        now, in_use = self.clock.now(), {one.address for one in self.present() if not one.ended}
        for one in plan.ended:
            end = plan.records[one].end
            self.ends[str(end)] += 1
            assert one not in in_use or end in (End.CANCELLED, End.RETURNED), f"{one} is in use, and ended as {end}"
            if end in (End.CROWDED, End.PRESSURE):
                self.excused.add(one)
        barred, known = self.world.barred(), self.world.records()
        for address_, (at, name) in self.left.items():
            excuse = address_ in self.excused or now - at >= HOLD
            assert address(address_) in barred or excuse, f"{address_} of {name} was freed {now - at} s ago, not barred"
        assert set(known) <= barred
        assert barred - set(known) <= plan.unrecorded
        nobody_s = sum(1 for record in known.values() if record.state is State.FREED and record.is_unknown)
        assert plan.held - nobody_s <= MOST
        assert not plan.swaps
        for one, record in known.items():
            played = self.pods.get(record.uid)
            if played is not None and played.address == one and not played.deleting and not played.ended:
                assert now - record.last <= CANCEL_AFTER, f"{played.name} lives on, and its claim stays"
        return plan

    def round(self) -> None:
        operations = {
            self.start: 9, self.delete: 3, self.finish: 5, self.drain: 2, self.force: 1, self.collect: 2,
            self.refuse_eviction: 1, self.kubelet_evicts: 1, self.bury: 1, self.move: 1, self.meddle_with_bars: 0.3,
            self.lose_all_bars: 0.2, self.meddle_with_records: 0.3, self.lose_node: 0.3, self.lead: 0.2,
        }  # fmt: skip
        for pod in [one for one in self.present() if not one.address]:
            self.give(pod)
        for operation in self.rng.choices(list(operations), list(operations.values()), k=3):
            operation()
            self.done[operation.__name__] += 1
        self.clock.at += ROUND_SECONDS
        self.sweep()

    def end(self) -> None:
        """Everybody goes home, and time passes."""
        for pod in self.present():
            self.world.delete(pod.name, gracePeriodSeconds=0)
            del self.pods[pod.uid]
            self.ghosts += [] if pod.ended else [pod]
        self.collect()
        for _ in range(4):
            self.sweep()
            self.clock.at += HOLD


class InThread:
    """The webhook of this process, with an event loop in a thread."""

    def __init__(self, options: settings.Settings, clock: HandClock) -> None:
        self.webhook = webhook.Webhook(options, kube.connect(options.kubeconfig, pool=16))
        self.webhook.kube.clock = clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.webhook.start(), self._loop).result(30)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.webhook.stop(), self._loop).result(30)
        # TLS connections say goodbye before they close; a loop that ends earlier leaves them open, with a warning.
        transports: Any = getattr(self._loop, "_transports", {})
        eventually(lambda: all(one._sock is None for one in list(transports.values())), "all connections are closed")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def server() -> Iterator[Sandbox]:
    """An API server of its own, where every address is this test's."""
    sandbox = Sandbox(f"test-hour-{os.getpid()}", control_plane_only=True)
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@pytest.fixture
def hour(server: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hour]:
    door = kube.connect(server.kubeconfig_path)
    accounts(door)
    calico.install(door)
    datastore.set_up(client := Client(server.kubeconfig_path), "3.32", pool="10.9.0.0/27", block_size=29)
    for node in NODES:
        ensure(door, "/api/v1/nodes", {"metadata": {"name": node}})
    clock = HandClock(door.clock.now())
    # These two are measured in real seconds, which the hand-moved clock leaves behind.
    monkeypatch.setattr(store, "REMEMBERED_SECONDS", 0.0)
    monkeypatch.setattr(store, "FRESH_SECONDS", 0.0)
    accounts_of = {
        name: kubeconfig_of(door, server.kubeconfig_path, f"ipreserve-{name}", tmp_path / name)
        for name in ("webhook", "sweeper")
    }
    port = free_port()
    options = settings.Settings(
        kubeconfig=accounts_of["webhook"], namespace=NAMESPACE, listen=("127.0.0.1", port), metrics=None,
        url=f"https://127.0.0.1:{port}",
    )  # fmt: skip
    made = Hour(
        World(door), datastore.Datastore(client), clock, accounts_of["sweeper"], random.Random(5)
    )  # fmt: skip
    # A pod's age by the clock of the test, since the API server's own stands nearly still beside it.
    project = sweeper.pod_row

    def row(one: JsonObject) -> Pod | None:
        found = project(one)
        played = made.pods.get(one["metadata"]["uid"])
        return found if found is None or played is None else replace(found, created=played.born)

    monkeypatch.setattr(sweeper, "pod_row", row)
    made.lead()
    answering = InThread(options, clock)
    install.install(door, namespace=NAMESPACE, url=options.url, give_back=False)
    answering.start()
    try:
        eventually(lambda: armed(door), "the webhook is armed")
        yield made
    finally:
        with contextlib.suppress(errors.IpreserveError):
            install.uninstall(door, None, namespace=NAMESPACE, purge=False)
        answering.stop()
        made.world.close()


def test_an_hour_of_random_operations_breaks_nothing_and_leaves_nothing_barred(hour: Hour) -> None:
    for _ in range(ROUNDS):
        hour.round()
    # It was a busy hour, with every kind of trouble in it.
    assert min(hour.done.values()) >= 1
    assert len(hour.done) == 15
    assert set(hour.ends) >= {End.EXPIRED, End.CANCELLED, End.CROWDED}
    hour.end()
    assert (hour.world.barred(), hour.world.records()) == (frozenset(), {})
    assert hour.addresses.read().pools[0].cidr == ipaddress.ip_network("10.9.0.0/27")
