"""Pods that kubelet evicts for lack of memory or disk: claimed when it announces that, before it ends them.

Nobody is asked before such an eviction, and the API server learns of it only when the address is free already. But
kubelet writes an Event first. Every webhook watches for it; claims are idempotent, so it does not matter who is first.
This is a race and not a guarantee: what comes too late is claimed when the pod is reported as failed. An Event that
announces nothing does no harm: a claim whose pod lives on is dropped by the sweeper.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future

from ipreserve import errors, review
from ipreserve.kube import JsonObject, Kube
from ipreserve.metrics import WebhookMetrics
from ipreserve.settings import Live
from ipreserve.store import Reserver

log = logging.getLogger("ipreserve.evictions")

EVENTS = "/api/v1/events"
FIELDS = "reason=Evicted,involvedObject.kind=Pod"
METRIC = "event evicted"
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0
LOOK_SECONDS = 3.0


class Evictions:
    """Watches in a thread of its own from `start` to `stop`."""

    def __init__(
        self, door: Kube, reserver: Reserver, *, live: Callable[[], Live], metrics: WebhookMetrics, deadline: float,
        wanted: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._kube, self._reserver, self._live, self._wanted = door, reserver, live, wanted
        self._metrics, self._deadline = metrics, deadline
        self._stop = threading.Event()
        self._end_watch: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="evictions", daemon=True)

    def start(self) -> None:
        """Begin. What was announced before is over."""
        self._thread.start()

    def stop(self) -> None:
        """End; the thread may wait for a last answer, and is not waited for."""
        self._stop.set()
        self._shut()

    def _opened(self, end_watch: Callable[[], None]) -> None:
        self._end_watch = end_watch
        if self._stop.is_set():
            self._shut()

    def _shut(self) -> None:
        try:
            self._end_watch()
        except (ValueError, RuntimeError, OSError) as error:
            # It had ended by itself at this moment.
            log.debug("the watch had ended: %s", error)

    def _run(self) -> None:
        pause, version = PAUSE_SECONDS, ""
        while not self._stop.is_set():
            try:
                version = version or self._kube.list(EVENTS, fieldSelector=FIELDS)[1]
                for event in self._kube.watch(EVENTS, version, opened=self._opened, fieldSelector=FIELDS):
                    pause, version = PAUSE_SECONDS, str(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._announced(event["object"])
            except (errors.IpreserveError, KeyError) as error:
                if self._stop.is_set():
                    return
                version = ""
                log.warning("evictions by kubelet are claimed late for now: %s", error)
                self._stop.wait(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _announced(self, event: JsonObject) -> None:
        """Claim what the pod of one Event has. Best effort: what fails is logged."""
        about = event.get("involvedObject") or {}
        try:
            outcome = self._claim(str(about["namespace"]), str(about["name"]), str(about.get("uid") or ""))
        except errors.NotFound:
            outcome = "gone"
        except (errors.IpreserveError, review.BadReview, KeyError) as error:
            outcome = "failed"
            log.warning("the eviction of %s/%s: %s", about.get("namespace"), about.get("name"), error)
        self._metrics.decisions.labels(METRIC, outcome).inc()

    def _claim(self, namespace: str, name: str, uid: str) -> str:
        if not self._wanted():
            return "not_installed"
        pod = self._kube.get(f"/api/v1/namespaces/{namespace}/pods/{name}", timeout=LOOK_SECONDS)
        if uid and pod["metadata"]["uid"] != uid:
            return "gone"
        live = self._live()
        space = self._kube.get(f"/api/v1/namespaces/{namespace}", timeout=LOOK_SECONDS)
        if not live.namespaces.matches(space["metadata"].get("labels") or {}):
            return "not_protected"
        claims = review.claims(pod, via="kubelet", at=self._kube.clock.now(), pods=live.pods)
        futures = self._reserver.reserve(claims, seconds=self._deadline)
        for future in futures:
            future.add_done_callback(_tell)
        log.info("%s/%s is being evicted by kubelet: %d addresses claimed", namespace, name, len(futures))
        return "reserved" if futures else "known" if claims else "no_address"


def _tell(done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("an address of an evicted pod could not be claimed early: %s", error)
