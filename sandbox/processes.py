"""Processes that outlive us: started into a sandbox's cgroup, written down with their start time, ended by that record.

A process id alone may have been given to somebody else since; id and start time together may not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.errors import SandboxError

# Kept so that the ended are reaped by us and by nobody else.
_children: list[int] = []


@dataclass(frozen=True)
class Recorded:
    """A process we started: `born` is its start time in clock ticks since boot."""

    name: str
    pid: int
    born: int

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return start_time(self.pid) == self.born


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Fields of proc(5), counted from the third: state is the first here, starttime the 22nd.
    return None if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Record:
    """The processes of one sandbox, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Recorded]:
        """Name to process; empty when there is no record."""
        try:
            entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:  # cut short by a crash of the machine: nothing it names runs any more
            return {}
        return {entry["name"]: Recorded(**entry) for entry in entries}

    def add(self, name: str, pid: int) -> Recorded:
        """Write one process down. Raises SandboxError when it has already ended."""
        born = start_time(pid)
        if born is None:
            raise SandboxError(f"{name} ended as soon as it was started")
        process = Recorded(name, pid, born)
        with _locked(self.path):
            self._write({**self.read(), name: process})
        return process

    def forget(self, names: Sequence[str]) -> None:
        """Drop entries."""
        with _locked(self.path):
            self._write({name: process for name, process in self.read().items() if name not in names})

    def _write(self, entries: Mapping[str, Recorded]) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps([asdict(process) for process in entries.values()], indent=1))
        beside.replace(self.path)


def spawn(
    argv: Sequence[str],
    log: Path,
    *,
    before: str = "",
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Start a process of its own session, output to `log`, after the shell lines `before`; returns its id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{before}exec "$@"', "sh", *argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            pass_fds=pass_fds,
        )
    _children.append(process.pid)
    # It is meant to outlive us, so Popen must not complain that nobody waited for it.
    process.returncode = 0
    return process.pid


def end(processes: Sequence[Recorded], *, patience_seconds: float) -> None:
    """SIGTERM all, SIGKILL what is left after `patience_seconds`; returns when all are gone."""
    alive = [process for process in processes if process.is_alive()]
    for process in alive:
        _signal(process, signal.SIGTERM)
    await_end(alive, patience_seconds)
    for process in alive:
        _signal(process, signal.SIGKILL)
    await_end(alive, 10)


def _signal(process: Recorded, number: signal.Signals) -> None:
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def await_end(processes: Sequence[Recorded], seconds: float) -> bool:
    """Wait until none of them runs; False when some still do after `seconds`."""
    deadline = time.monotonic() + seconds
    while any(process.is_alive() for process in processes):
        reap()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def reap() -> None:
    """Collect those of our own children that have ended, so that they do not stay as zombies."""
    for child in list(_children):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                continue
        _children.remove(child)


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL processes by id, ignoring those already gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
