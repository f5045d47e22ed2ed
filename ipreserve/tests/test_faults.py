"""Killed at every write, lied to, refused: what is left converges, and nothing goes silently."""

from __future__ import annotations

import itertools
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ipreserve import errors, install, kube, layout, records, settings, store
from ipreserve.metrics import WebhookMetrics
from ipreserve.records import State, address
from ipreserve.sweeper import Sweeper
from ipreserve.tests.conftest import armed
from ipreserve.tests.proxy import Dropped, Faults, proxy
from ipreserve.tests.test_sweeper import claim, reserve
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World, insist, kubeconfig_of
from sandbox import Sandbox

RESERVATION, LEDGER = "ipreservations", "configmaps/" + store.NAME


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def crooked(quiet_world: World, faults: Faults) -> Iterator[str]:
    """The URL of a proxy that does what `faults` says."""
    with proxy(quiet_world.kube, faults) as url:
        yield url


@pytest.fixture
def webhook_door(quiet_world: World, crooked: str, control_plane: Sandbox, tmp_path: Path) -> Path:
    """The webhook's kubeconfig, through the proxy."""
    to = tmp_path / "webhook.kubeconfig"
    return kubeconfig_of(
        quiet_world.kube, control_plane.kubeconfig_path, "ipreserve-webhook", to, server=crooked
    )  # fmt: skip


@pytest.fixture
def sweeper_door(quiet_world: World, crooked: str, control_plane: Sandbox, tmp_path: Path) -> Path:
    """The sweeper's kubeconfig, through the proxy."""
    to = tmp_path / "sweeper.kubeconfig"
    return kubeconfig_of(
        quiet_world.kube, control_plane.kubeconfig_path, "ipreserve-sweeper", to, server=crooked
    )  # fmt: skip


@pytest.fixture
def frozen(serving: Service) -> Iterator[None]:
    """The webhook that other tests share stands still: it would arm any configuration that it finds."""
    serving.process.send_signal(signal.SIGSTOP)
    yield
    serving.process.send_signal(signal.SIGCONT)


@pytest.fixture
def webhook(quiet_world: World, webhook_door: Path, tmp_path: Path) -> Iterator[Service]:
    """A webhook of its own behind the proxy, instead of the shared one."""
    service = Service("webhook", webhook_door, tmp_path / "webhook.log", deny_seconds=600, deadline=1.5)
    before = _configuration(quiet_world)
    install.install(quiet_world.kube, namespace=NAMESPACE, url=service.url, give_back=False)
    held = quiet_world.store()
    # Not its first claim: both objects are there.
    insist(lambda: held.write_barred(held.read_barred(0), ()))
    insist(lambda: held.write_kept(held.read_kept(0), records.Ledger()))
    try:
        eventually(lambda: service.is_ready() and armed(quiet_world.kube), "the webhook is armed")
        yield service
    finally:
        install.uninstall(quiet_world.kube, None, namespace=NAMESPACE, purge=False)
        service.stop()
        _restore(quiet_world, before)


def _configuration(world: World) -> kube.JsonObject | None:
    try:
        return world.kube.get(f"{install.VALIDATING}/{install.CONFIGURATION}")
    except errors.NotFound:
        return None


def _with_one(world: World, held: store.Store) -> store.Barred:
    insist(lambda: held.write_barred(held.read_barred(0), [address(world.address(1))]))
    return held.read_barred(0)


def _restore(world: World, before: kube.JsonObject | None) -> None:
    for one in [before] if before is not None else []:
        body = {**one, "metadata": {"name": one["metadata"]["name"], "labels": one["metadata"].get("labels", {})}}
        world.kube.request("POST", install.VALIDATING, body)


def once(action: Callable[[], None], part: str, *, skip: int = 0) -> Callable[[str, str], None]:
    """A hook that acts at the first write whose path has this part, after having let some pass. `?` ends a path."""
    turns = itertools.count()
    lock = threading.Lock()

    def hook(method: str, path: str) -> None:
        with lock:
            if part in path + "?" and next(turns) == skip:
                action()

    return hook


def killed(faults: Faults, service: Service, moment: str, part: str, *, skip: int = 0) -> None:
    """Wait until it has been killed at such a write. Nobody leads afterwards."""
    kill_at(faults, service, moment, part, skip=skip)
    try:
        eventually(lambda: service.process.poll() is not None, f"it is killed at {part}")
    finally:
        service.stop()
    assert service.process.returncode == -9, service.said()


def kill_at(faults: Faults, service: Service, moment: str, part: str, *, skip: int = 0) -> None:
    """Kill a service at such a write: before the API server has seen it, or after, when nobody reads the answer."""

    def kill() -> None:
        service.kill()
        if moment == "before":
            raise Dropped

    setattr(faults, moment, once(kill, part, skip=skip))


@pytest.mark.parametrize("part", [RESERVATION, LEDGER])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_webhook_killed_at_a_write_leaves_what_two_sweeps_mend(
    quiet_world: World, webhook: Service, faults: Faults, sweeper_kubeconfig: Path, part: str, moment: str
) -> None:
    world = quiet_world
    pod = world.pod("cache-0", world.address(1), node="n1")
    kill_at(faults, webhook, moment, part)
    with pytest.raises(errors.ApiError):
        world.delete("cache-0")
    assert webhook.process.wait(10) == -9
    # Whatever the server had taken before nobody read the answer is there, and stays.
    wanted = frozenset() if (part, moment) == (RESERVATION, "before") else {address(world.address(1))}
    assert world.barred() == wanted
    sweeper = world.sweeper(sweeper_kubeconfig, cancel_after=3600.0)
    eventually(lambda: any(row.uid == pod["metadata"]["uid"] for row in sweeper.pods.rows()), "the pod is seen")
    sweeper.sweep()
    sweeper.sweep()
    assert world.barred() == set(world.records()) == wanted
    assert {record.state for record in world.records().values()} <= {State.CLAIMED}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "there"), [("ipreservations?", False), ("configmaps?", False), ("configmaps?", True)],
    ids=["first-reservation", "first-ledger", "history"],
)  # fmt: skip
def test_webhook_killed_at_its_very_first_claim_or_at_a_history_leaves_what_two_sweeps_mend(
    quiet_world: World, webhook: Service, faults: Faults, sweeper_kubeconfig: Path, part: str, there: bool, moment: str
) -> None:
    world, one = quiet_world, address(quiet_world.address(1))
    world.wipe()
    if there:
        # Somebody else's hold, which goes into the history before the claim takes its place.
        reserve(world, claim(world, "web-0", 1), state=State.FREED, freed=_now(world))
    pod = world.pod("cache-0", world.address(1), node="n1")
    kill_at(faults, webhook, moment, part)
    with pytest.raises(errors.ApiError):
        world.delete("cache-0")
    assert webhook.process.wait(10) == -9
    wanted = frozenset() if (part, moment) == ("ipreservations?", "before") else {one}
    assert world.barred() == wanted
    sweeper = world.sweeper(sweeper_kubeconfig, cancel_after=3600.0)
    eventually(lambda: any(row.uid == pod["metadata"]["uid"] for row in sweeper.pods.rows()), "the pod is seen")
    sweeper.sweep()
    sweeper.sweep()
    assert world.barred() == set(world.records()) == wanted
    if there:
        assert world.records()[one].pod == "web-0"


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "skip"), [(LEDGER, 0), (RESERVATION, 0), ("configmaps", 1), (LEDGER, 1)],
    ids=["marking", "opening", "history", "dropping"],
)  # fmt: skip
def test_sweeper_killed_at_a_write_of_a_release_converges_within_two_sweeps(
    quiet_world: World, faults: Faults, sweeper_door: Path, sweeper_kubeconfig: Path, tmp_path: Path, part: str,
    skip: int, moment: str,
) -> None:  # fmt: skip
    world = quiet_world
    now = world.kube.clock.now()
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=now - 7200)
    reserve(world, claim(world, "cache-1", 2), state=State.FREED, freed=now - 10)
    service = Service("sweeper", sweeper_door, tmp_path / "log", period=0.3)
    killed(faults, service, moment, part, skip=skip)
    assert address(world.address(2)) in world.barred() & set(world.records())
    world.free_lease()
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    sweeper.sweep()
    assert world.barred() == set(world.records()) == {address(world.address(2))}
    assert [entry["end"] for entry in world.store().history(address(world.address(1)))] == ["expired"]


def _unbarred(world: World) -> None:
    reserve(world, claim(world, "cache-0", 1), claim(world, "cache-1", 2), state=State.FREED, freed=_now(world))
    (path,) = world.store().reservation_paths()
    world.kube.request("DELETE", path)


def _unrecorded(world: World) -> None:
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=_now(world))
    held = world.store()
    insist(lambda: held.write_barred(held.read_barred(0), [address(world.address(1)), address(world.address(2))]))


def _broken(world: World) -> None:
    reserve(world, claim(world, "cache-0", 1), claim(world, "cache-1", 2), state=State.FREED, freed=_now(world))
    path = f"{world.store().configmaps}/{store.NAME}"

    def write() -> None:
        raw = world.kube.get(path)
        broken = {world.address(2): "half", f"{world.address(2)}.json": "{half"}
        world.kube.request("PUT", path, {**raw, "data": {**raw["data"], **broken}})

    insist(write)


def _left(world: World) -> None:
    reserve(world, claim(world, "cache-0", 1), claim(world, "cache-1", 2))


def _now(world: World) -> float:
    return world.kube.clock.now()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("wrong", "part", "unreadable"),
    [
        (_unbarred, RESERVATION, set()),
        (_unrecorded, LEDGER, set()),
        (_broken, LEDGER, {"{half", "half"}),
        (_left, LEDGER, set()),
    ],
    ids=["barring-again", "adopting", "quarantine", "following"],
)  # fmt: skip
def test_sweeper_killed_while_it_mends_converges_within_two_sweeps(
    quiet_world: World, faults: Faults, sweeper_door: Path, sweeper_kubeconfig: Path, tmp_path: Path,
    wrong: Callable[[World], None], part: str, unreadable: set[str], moment: str,
) -> None:  # fmt: skip
    world = quiet_world
    wrong(world)
    killed(faults, Service("sweeper", sweeper_door, tmp_path / "log", period=0.3), moment, part)
    world.free_lease()
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    sweeper.sweep()
    assert world.barred() == set(world.records()) == {address(world.address(1)), address(world.address(2))}
    assert {record.state for record in world.records().values()} == {State.FREED}
    # Nothing of what nobody could read is lost.
    assert set(world.store().read_kept(0).ledger.bad.values()) == unreadable


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "skip"), [(LEDGER, 0), ("v1/ipreservations?", 0), ("v1/ipreservations?", 1), ("/configmaps?", 0),
    ("/configmaps?", 1), (f"{RESERVATION}/{store.NAME}?", 0), (f"{LEDGER}?", 1)],
    ids=["announcing", "barring", "barring-2", "recording", "recording-2", "opening-old", "dropping-old"],
)  # fmt: skip
def test_sweeper_killed_while_shards_grow_converges_within_two_sweeps_and_bars_all_the_while(
    quiet_world: World, faults: Faults, sweeper_door: Path, sweeper_kubeconfig: Path, tmp_path: Path, part: str,
    skip: int, moment: str,
) -> None:  # fmt: skip
    world = quiet_world
    # Long enough for one ledger to be too large.
    long = {"hold": "x" * (layout.SHARD_BYTES // 50)}
    # Four apart: in one shard they would make that one too large as well.
    claims = [replace(claim(world, f"cache-{n}", 4 * n), policy=long) for n in range(1, 61)]
    wanted = {one.address for one in claims}
    reserve(world, *claims, state=State.FREED, freed=_now(world))
    killed(faults, Service("sweeper", sweeper_door, tmp_path / "log", period=0.3), moment, part, skip=skip)
    assert world.barred() == wanted == set(world.records())
    world.free_lease()
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    assert world.barred() == wanted == set(world.records())
    sweeper.sweep()
    kept, barred = world.store().all_kept(), world.store().all_barred()
    assert kept[0].shards == 16
    for index in {*kept, *barred}:
        right = {one for one in wanted if layout.shard_of(one, 16) == index}
        assert set(kept[index].ledger.records) == barred[index].addresses == right


def test_deletion_is_refused_with_a_retry_hint_while_nothing_can_be_written(
    quiet_world: World, webhook: Service, faults: Faults
) -> None:
    world = quiet_world
    world.pod("cache-0", world.address(1), node="n1")
    faults.refuse = lambda method, path: RESERVATION in path
    for act in (world.delete, world.evict):
        with pytest.raises(errors.ApiError, match=r"429 .*could not reserve the pod's address yet"):
            act("cache-0")
    assert world.barred() == frozenset()
    # Were it not ready, nobody would be there to say "try again", and every deletion would fail.
    eventually(lambda: "cannot write: " in webhook.said(), "it has noticed")
    eventually(lambda: webhook.value("ipreserve_webhook_ready") == 0.0, "and tells")
    assert webhook.is_ready()
    faults.refuse = lambda method, path: False
    world.evict("cache-0")
    assert world.barred() == {address(world.address(1))}


def test_calico_s_own_server_is_not_believed_until_it_was_read_back(
    quiet_world: World, crooked: str, faults: Faults, sweeper_door: Path
) -> None:
    world = quiet_world
    direct = kube.detect(world.kube)
    # Where the kinds are served by Calico's API server, which reports success for writes it has given up.
    aggregated = replace(direct, aggregated=True)
    held = store.Store(kube.connect(sweeper_door), NAMESPACE, lambda: aggregated)
    before = _with_one(world, held)
    faults.lie = lambda method, path: RESERVATION in path
    with pytest.raises(errors.NotStored, match="reported success"):
        held.write_barred(before, [address(world.address(1)), address(world.address(2))])


class Unstored(kube.Kube):
    """An API server that answers a write with 200 and the object as it was before."""

    def request(self, method: str, path: str, *arguments: object, **more: object) -> kube.JsonObject:
        if method == "PUT":
            return super().request("GET", path)
        return super().request(method, path, *arguments, **more)  # type: ignore[arg-type]


def test_reservation_that_came_back_without_the_address_fails_the_write_and_the_log_says_so(
    quiet_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = quiet_world
    held = world.store()
    before = _with_one(world, held)
    insist(lambda: held.write_kept(held.read_kept(0), records.Ledger()))
    liar = Unstored.__new__(Unstored)
    liar.__dict__ = world.kube.__dict__
    lying = store.Store(liar, NAMESPACE, lambda: kube.detect(world.kube))
    with pytest.raises(errors.NotStored, match="reported success, and 1 addresses are not in it"):
        lying.write_barred(before, [address(world.address(1)), address(world.address(2))])
    reserver = store.Reserver(lying, gather=0.001, metrics=WebhookMetrics())
    wanted = [claim(world, "cache-0", 3)]
    (future,) = reserver.reserve(wanted, seconds=0.5)
    with pytest.raises(errors.CannotRecord, match="reported success"):
        future.result(5)
    assert reserver.failing_seconds(wanted) > 0
    said = f"IPReservation {store.NAME}: the API server reported success, and 1 addresses are not in it"
    assert f"shard 0: 1 addresses could not be recorded: {said}" in caplog.text
    ledger = world.store().read_kept(0)
    with pytest.raises(errors.NotStored, match=f"ConfigMap {store.NAME}: the API server stored something else"):
        lying.write_kept(ledger, replace(ledger.ledger, records={address(world.address(1)): records.unknown(at=1.0)}))


def test_two_webhooks_that_write_at_the_same_time_lose_nothing(quiet_world: World) -> None:
    world = quiet_world
    replicas = [store.Reserver(world.store(), gather=0.001, metrics=WebhookMetrics()) for _ in range(2)]
    futures = [
        future
        for number in range(1, 101)
        for future in replicas[number % 2].reserve([claim(world, f"cache-{number}", number)], seconds=30.0)
    ]
    assert [future.result(30) for future in futures] == [None] * 100
    wanted = {address(world.address(number)) for number in range(1, 101)}
    assert world.barred() == wanted == set(world.records())
    assert len({record.pod for record in world.records().values()}) == 100


def test_after_the_stated_time_of_failing_deletions_pass_and_are_counted(
    quiet_world: World, webhook_door: Path, faults: Faults, tmp_path: Path
) -> None:
    world = quiet_world
    service = Service("webhook", webhook_door, tmp_path / "log", deny_seconds=0, deadline=0.5)
    before = _configuration(world)
    install.install(world.kube, namespace=NAMESPACE, url=service.url, give_back=False)
    try:
        eventually(lambda: service.is_ready() and armed(world.kube), "armed")
        faults.refuse = lambda method, path: True
        world.pod("cache-0", world.address(1), node="n1")
        world.delete("cache-0")
        assert service.value("ipreserve_unprotected_total") == 1
        assert "goes without a hold" in service.said()
    finally:
        install.uninstall(world.kube, None, namespace=NAMESPACE, purge=False)
        service.stop()
        _restore(world, before)


def test_uninstalling_removes_the_configuration_first_and_then_all_that_was_written(quiet_world: World) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1))
    before = _configuration(world)
    try:
        install.install(world.kube, namespace=NAMESPACE, url="https://127.0.0.1:1", give_back=True)
        done = install.uninstall(world.kube, world.store(), namespace=NAMESPACE, purge=True)
    finally:
        install.uninstall(world.kube, None, namespace=NAMESPACE, purge=False)
        _restore(world, before)
    assert done[0] == "removed validatingwebhookconfigurations ipreserve"
    assert (world.barred(), world.records()) == (frozenset(), {})


def test_installed_but_not_yet_served_blocks_no_deletion(quiet_world: World, frozen: None) -> None:
    world = quiet_world
    before = _configuration(world)
    install.install(world.kube, namespace=NAMESPACE, url="https://127.0.0.1:1", give_back=False)
    try:
        world.pod("cache-0", world.address(1), node="n1")
        world.delete("cache-0")
    finally:
        install.uninstall(world.kube, None, namespace=NAMESPACE, purge=False)
        _restore(world, before)


def test_webhook_that_cannot_write_a_reservation_is_not_ready_and_arms_nothing(
    quiet_world: World, frozen: None, webhook_door: Path, faults: Faults, tmp_path: Path
) -> None:
    world = quiet_world
    faults.refuse = lambda method, path: RESERVATION in path
    service = Service("webhook", webhook_door, tmp_path / "log", deny_seconds=600, deadline=0.5)
    before = _configuration(world)
    install.install(world.kube, namespace=NAMESPACE, url=service.url, give_back=False)
    try:
        eventually(lambda: "probe: " in service.said(), "it has tried")
        assert not service.is_ready()
        assert not armed(world.kube)
        world.pod("cache-0", world.address(1), node="n1")
        world.delete("cache-0")
        faults.refuse = lambda method, path: False
        eventually(lambda: service.is_ready() and armed(world.kube), "ready, then armed")
    finally:
        install.uninstall(world.kube, None, namespace=NAMESPACE, purge=False)
        service.stop()
        _restore(world, before)


def test_shard_that_has_not_changed_is_not_read_again_and_one_that_has_is(quiet_world: World) -> None:
    world = quiet_world
    reader = world.store()
    reserve(world, claim(world, "cache-0", 1))
    kept, barred = reader.all_kept()[0], reader.all_barred()[0]
    assert reader.all_kept()[0] is kept
    assert reader.all_barred()[0] is barred
    # By another process.
    reserve(world, claim(world, "cache-1", 2))
    wanted = {address(world.address(1)), address(world.address(2))}
    assert set(reader.all_kept()[0].ledger.records) == wanted == reader.all_barred()[0].addresses
    world.wipe()
    assert (reader.all_kept()[0].raw, reader.all_barred()[0].raw) == (None, None)


def test_sweeps_without_anything_new_write_nothing(quiet_world: World, sweeper_door: Path, faults: Faults) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now())
    sweeper = world.sweeper(sweeper_door)
    sweeper.sweep()
    faults.seen.clear()
    sweeper.sweep()
    sweeper.sweep()
    assert faults.seen == []


@pytest.mark.parametrize("part", [LEDGER, RESERVATION], ids=["marking", "opening"])
def test_address_claimed_anew_while_its_hold_is_ended_keeps_record_and_protection(
    quiet_world: World, sweeper_door: Path, faults: Faults, part: str
) -> None:
    world = quiet_world
    one = address(world.address(1))
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper = world.sweeper(sweeper_door)
    faults.before = once(lambda: reserve(world, claim(world, "cache-0", 1, uid="new")), part)
    sweeper.sweep()
    assert (world.records()[one].uid, world.records()[one].state) == ("new", State.CLAIMED)
    assert one in world.barred()


def test_a_release_that_had_to_be_tried_again_is_counted_once(
    quiet_world: World, sweeper_door: Path, faults: Faults
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now() - 7200)
    sweeper = world.sweeper(sweeper_door)
    # Somebody else writes the ledger at the moment the record is dropped.
    faults.before = once(lambda: reserve(world, claim(world, "cache-1", 2)), LEDGER, skip=1)
    sweeper.sweep()
    assert sweeper.metrics.registry.get_sample_value("ipreserve_released_total", {"reason": "expired"}) == 1
    assert set(world.records()) == world.barred() == {address(world.address(2))}


def test_errors_never_stretch_the_time_between_sweeps() -> None:
    nowhere = kube.Kube("https://127.0.0.1:1", context=ssl.create_default_context())
    found = Sweeper(settings.Settings(namespace=NAMESPACE, identity="alone", period=1000.0), nowhere)
    ended = Turns(6)
    found.run(ended)
    failed = found.metrics.registry.get_sample_value("ipreserve_sweeps_total", {"outcome": "failed"})
    assert failed == len(ended.waits) == 6
    # Nobody really waits here, so each wait ends one period after the one before, and not later.
    assert all(1000 * turn < seconds <= 1000 * (turn + 1) for turn, seconds in enumerate(ended.waits))


class Turns(threading.Event):
    """Ends a loop after so many turns, and tells how long it would have waited after each."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        (self.set if len(self.waits) >= self.most else self.clear)()
        return self.is_set()
