"""Feels the pulse of pods: whether their processes still react. For what Kubernetes does not report.

A frozen process, or a node cut off from us, changes nothing in Kubernetes for a long while: the kernel goes on taking
connections. Nor does a process that ends together with its kubelet. So every pod that once reacted is sent one harmless
line again and again, without signing in; any answer will do. Who stops reacting, and who does so again, is reported
once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

# A process that froze is noticed within the sum of both, whoever else does not react. With the watcher's debouncing and
# a look's wait for who is silent that is below 5 s.
EVERY_SECONDS = 1.5
WITHIN_SECONDS = 0.8
AT_ONCE = 200


@dataclass(frozen=True)
class Patient:
    """One pod: `port` answers `line`."""

    cluster_id: str
    address: str
    port: int
    line: bytes


class Pulses:
    """Pods by uid, kept up to date by whoever watches them; `report` is told the cluster of each that changed."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._patients: dict[str, Patient] = {}
        self._reacted: dict[str, bool] = {}
        self._lock = threading.Lock()

    def follow(self, uid: str, patient: Patient) -> None:
        """A pod runs there."""
        with self._lock:
            self._patients[uid] = patient

    def drop(self, uid: str) -> None:
        """A pod does not run (any more): Kubernetes has reported that."""
        with self._lock:
            self._patients.pop(uid, None)
            self._reacted.pop(uid, None)

    def keep(self, uids: Set[str], known: Set[str]) -> None:
        """Of `known` pods only these are left."""
        for uid in known - uids:
            self.drop(uid)

    def feel(self) -> None:
        """Feel all once, side by side."""
        with self._lock:
            patients = dict(self._patients)
        for uid, reacts in asyncio.run(_all(patients)).items():
            with self._lock:
                if uid not in self._patients:
                    continue
                before = self._reacted.get(uid)
                # One that has never reacted is starting.
                if before is not None or reacts:
                    self._reacted[uid] = reacts
            if before is not None and before != reacts:
                self._report(patients[uid].cluster_id)

    def run(self, stopped: threading.Event) -> None:
        """Feel until `stopped`."""
        pause = EVERY_SECONDS
        while not stopped.wait(pause):
            began = time.monotonic()
            self.feel()
            # From one beginning to the next: some pod that never reacts must not make it slower for all.
            pause = max(0.0, EVERY_SECONDS - (time.monotonic() - began))


async def _all(patients: Mapping[str, Patient]) -> dict[str, bool]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(patient: Patient) -> bool:
        async with turn:
            return await _reacts(patient)

    found = await asyncio.gather(*(one(patient) for patient in patients.values()))
    return dict(zip(patients, found, strict=True))


async def _reacts(patient: Patient) -> bool:
    """Whether anything comes back in time, be it the end of the connection: what speaks only TLS hangs up.

    Nobody at the port is no reaction: mostly Kubernetes reports that the process has ended, but not when its node's
    kubelet has ended with it.
    """
    writer = None
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            reader, writer = await asyncio.open_connection(patient.address, patient.port)
            writer.write(patient.line)
            await reader.read(1)
    except ConnectionRefusedError:
        return False
    except ConnectionError:
        return True
    except OSError:  # which a timeout is too
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
    return True
