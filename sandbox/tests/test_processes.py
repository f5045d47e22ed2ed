"""Processes that outlive us, and the record of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import SandboxError, processes
from sandbox.processes import Record, Recorded, start_time


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "processes.json")


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_process_given_the_same_number_later_is_not_ours() -> None:
    born = start_time(os.getpid())
    assert born is not None
    assert Recorded("me", os.getpid(), born).is_alive()
    assert not Recorded("me", os.getpid(), born - 1).is_alive()


def test_ended_process_is_never_killed_under_its_old_number(tmp_path: Path) -> None:
    stranger = processes.spawn(["sleep", "60"], tmp_path / "log")
    born = start_time(stranger)
    assert born is not None
    processes.end([Recorded("ours", stranger, born - 1)], patience_seconds=0)
    assert start_time(stranger) == born
    processes.end([Recorded("it", stranger, born)], patience_seconds=5)
    assert start_time(stranger) is None


def test_record_survives_its_writer(record: Record, tmp_path: Path) -> None:
    pid = processes.spawn(["sleep", "60"], tmp_path / "log")
    record.add("sleeper", pid)
    found = Record(record.path).read()["sleeper"]
    assert found.is_alive()
    processes.end([found], patience_seconds=5)
    assert not found.is_alive()


def test_record_cut_short_by_a_crash_names_nothing(record: Record) -> None:
    record.path.write_text('[{"name": "x", "pid"')
    assert record.read() == {}


def test_process_that_ends_at_once_is_an_error_with_its_name(record: Record, tmp_path: Path) -> None:
    pid = processes.spawn(["true"], tmp_path / "log")
    eventually(lambda: start_time(pid) is None)
    with pytest.raises(SandboxError, match="sleeper"):
        record.add("sleeper", pid)
    processes.reap()


def test_process_that_ignores_the_polite_signal_is_ended_all_the_same(record: Record, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = processes.spawn(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"], log)
    process = record.add("stubborn", pid)
    eventually(lambda: "ready" in log.read_text())
    processes.end([process], patience_seconds=0.1)
    assert not process.is_alive()
    # Its child is in the same session and outlived it; in a sandbox the cgroup finds such children.
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid:
            processes.kill_all([int(path.parent.name)])


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    pid = processes.spawn(["sh", "-c", "echo out; echo err >&2"], tmp_path / "deep" / "log")
    eventually(lambda: start_time(pid) is None)
    processes.reap()
    assert sorted((tmp_path / "deep" / "log").read_text().split()) == ["err", "out"]
