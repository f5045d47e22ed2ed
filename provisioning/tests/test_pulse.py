"""Processes that stop reacting are noticed without Kubernetes: real redis-server processes, frozen and thawed."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from provisioning.apply import pulse
from provisioning.apply.pulse import Patient, Pulses, _reacts
from provisioning.engines.redis import sight
from provisioning.engines.redis.engine import RedisEngine
from provisioning.engines.redis.tests.servers import Fleet, view
from provisioning.management.commands import watch
from provisioning.management.commands.watch import _feel

PULSE = RedisEngine.pulse


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    # A network that no fleet of another test has.
    return Fleet(view(), tmp_path, 250)


def pod(fleet: Fleet, number: int, *, state: str = "running") -> dict[str, object]:
    """What a watch says of one server's pod."""
    server = fleet.servers[number]
    labels = {"app.kubernetes.io/name": "redis", "app.kubernetes.io/component": "redis",
              "berth.io/cluster-id": "clu_1"}  # fmt: skip
    return {
        "metadata": {"name": server.pod, "uid": server.pod, "labels": labels,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "redis"}], "nodeName": server.node},
        "status": {
            "podIP": server.address, "phase": "Running",
            "containerStatuses": [{"name": "redis", "state": {state: {}}}],
        },
    }  # fmt: skip


def test_who_freezes_and_who_reacts_again_is_reported_once(fleet: Fleet) -> None:
    told: list[str] = []
    pulses = Pulses(told.append)
    fleet.start()
    try:
        for number in range(len(fleet.servers)):
            _feel(pod(fleet, number), pulses)
        pulses.feel()
        assert told == [], "all react, though nobody signed in"
        fleet.freeze(fleet.servers[0])
        pulses.feel()
        assert told == ["clu_1"]
        pulses.feel()
        assert told == ["clu_1"]
        fleet.thaw(fleet.servers[0])
        pulses.feel()
        assert told == ["clu_1", "clu_1"]
    finally:
        fleet.stop()


def test_what_kubernetes_reports_by_itself_is_not_reported_again(fleet: Fleet) -> None:
    told: list[str] = []
    pulses = Pulses(told.append)
    fleet.start()
    try:
        for number in range(3):
            _feel(pod(fleet, number), pulses)
        pulses.feel()
        ended, deleted, gone = fleet.servers[:3]
        for server in (ended, deleted, gone):
            fleet.freeze(server)
        _feel(pod(fleet, 0, state="terminated"), pulses)
        _feel(pod(fleet, 1), pulses, gone=True)
        pulses.keep(set(), {gone.pod})
        pulses.feel()
        assert told == []
    finally:
        fleet.stop()


def test_a_process_that_has_never_reacted_is_starting() -> None:
    told: list[str] = []
    pulses = Pulses(told.append)
    # Nobody answers there: documentation addresses (RFC 5737).
    pulses.follow("a", Patient("clu_1", "192.0.2.1", PULSE.port, PULSE.line))
    pulses.feel()
    pulses.feel()
    assert told == []


def test_a_process_that_ends_is_reported_though_no_kubelet_says_so(fleet: Fleet) -> None:
    told: list[str] = []
    pulses = Pulses(told.append)
    fleet.start()
    try:
        _feel(pod(fleet, 0), pulses)
        pulses.feel()
        fleet.kill(fleet.servers[0])
        pulses.feel()
        assert told == ["clu_1"]
        pulses.feel()
        assert told == ["clu_1"]
    finally:
        fleet.stop()


@pytest.mark.parametrize(
    ("code", "reacts"),
    [(errno.ECONNREFUSED, False), (errno.ECONNRESET, True), (errno.EHOSTUNREACH, False), (errno.ENETUNREACH, False)],
)
def test_a_hung_up_connection_is_a_reaction_and_a_router_that_knows_no_way_is_none(
    monkeypatch: pytest.MonkeyPatch, code: int, reacts: bool
) -> None:
    async def fails(*_: object) -> None:
        # Python makes it the error's own class, as for a real one.
        raise OSError(code, "as the kernel says")

    monkeypatch.setattr(asyncio, "open_connection", fails)
    assert asyncio.run(_reacts(Patient("clu_1", "127.0.0.1", 6379, b"PING"))) is reacts


def test_a_process_that_freezes_is_looked_at_and_told_within_5_s_whoever_else_is_silent() -> None:
    """The longest way: felt a moment before, then silent to the pulse, then to the look that the pulse has woken."""
    noticed = pulse.EVERY_SECONDS + pulse.WITHIN_SECONDS
    assert noticed + watch.DEBOUNCE_SECONDS + sight.SILENT_SECONDS < 5


def test_pulses_are_felt_as_often_when_somebody_never_reacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: a round takes as long as it waits for the one who is silent."""
    clock = [0.0]
    begun: list[float] = []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            clock[0] += timeout
            return len(begun) == 3

    def feel(self: Pulses) -> None:
        begun.append(clock[0])
        clock[0] += pulse.WITHIN_SECONDS

    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(Pulses, "feel", feel)
    Pulses(lambda cluster_id: None).run(Stopped())
    assert [later - before for before, later in itertools.pairwise(begun)] == pytest.approx([pulse.EVERY_SECONDS] * 2)
