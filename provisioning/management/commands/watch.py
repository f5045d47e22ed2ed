"""`manage.py watch`: turns what Kubernetes reports, and who stops reacting, into hints. It decides nothing and keeps
nothing.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections

from provisioning import targets, tasks
from provisioning.apply import door, errors
from provisioning.apply.client import CLIENTS, KubeClient
from provisioning.apply.pulse import Patient, Pulses
from provisioning.engines.base import (
    LABEL_CLUSTER_ID,
    LABEL_COMPONENT,
    LABEL_ENGINE,
    LABEL_MANAGED_BY,
    LABEL_TLS,
    MANAGED_BY,
)
from provisioning.engines.registry import ENGINES
from provisioning.models import Target

log = logging.getLogger(__name__)
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
PODS = "/api/v1/pods"
COLLECTIONS = (PODS, "/apis/apps/v1/statefulsets", "/api/v1/persistentvolumeclaims")
# A burst of changes, such as six pods placed at once, becomes one hint.
DEBOUNCE_SECONDS = 0.04
WATCH_SECONDS = 240
RETRY_SECONDS = 1.0
TARGETS_EVERY_SECONDS = 15.0


class Hints:
    """Debounced hints: the first change of a cluster starts a short wait, then one message is sent."""

    def __init__(self) -> None:
        self._pending: dict[str, float] = {}
        self._changed = threading.Condition()

    def add(self, cluster_id: str) -> None:
        """A cluster changed."""
        with self._changed:
            self._pending.setdefault(cluster_id, time.monotonic() + DEBOUNCE_SECONDS)
            self._changed.notify()

    def run(self, stopped: threading.Event) -> None:
        """Send until `stopped`."""
        while not stopped.is_set():
            with self._changed:
                if not self._pending:
                    self._changed.wait(1)
                now = time.monotonic()
                due = [cluster_id for cluster_id, at in self._pending.items() if at <= now]
                for cluster_id in due:
                    del self._pending[cluster_id]
                if not due and self._pending:
                    self._changed.wait(max(0.001, min(self._pending.values()) - now))
            for cluster_id in due:
                try:
                    tasks.reconcile_cluster.delay(cluster_id)
                except tasks.BROKER_ERRORS as error:
                    log.warning("no hint could be sent, beat will find it", extra={"why": str(error)})


def follow(
    name: str, source: str, path: str, hints: Hints, stopped: threading.Event, pulses: Pulses | None = None
) -> None:
    """Watch one collection of one target until `stopped`: list, watch from there, list anew when that is too old.

    `pulses`: whose pulse is felt, of the collection of pods, where their addresses lead to them.
    """
    version = ""
    known: set[str] = set()
    while not stopped.is_set():
        try:
            client = CLIENTS.get(name, source=source, folder=targets.targets_folder())
            if not version:
                version, items = _list(client, path, hints)
                if pulses is not None:
                    there = {_feel(item, pulses) for item in items}
                    pulses.keep(there, known)
                    known = there
            for event in client.watch(path, resource_version=version, selector=SELECTOR, seconds=WATCH_SECONDS):
                metadata = event["object"]["metadata"]
                version = metadata["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    _hint(metadata, hints)
                    if pulses is not None:
                        known.add(_feel(event["object"], pulses, gone=event["type"] == "DELETED"))
        except errors.Expired:
            version = ""
        except errors.DoorError as error:
            log.warning("watching %s of %s failed, trying again: %s", path, name, error.message)
            version = ""
            stopped.wait(RETRY_SECONDS)
    if pulses is not None:
        pulses.keep(set(), known)


def _feel(item: dict[str, Any], pulses: Pulses, *, gone: bool = False) -> str:
    """Have the pulse of a pod felt while it runs; returns its uid."""
    pod = door.pod_view(item, {})
    engine = ENGINES.get(pod.labels.get(LABEL_ENGINE, ""))
    pulse = engine.pulse if engine is not None else None
    cluster_id = pod.labels.get(LABEL_CLUSTER_ID, "")
    if pulse is None or gone or pod.deleting or not pod.started or pod.labels.get(LABEL_COMPONENT) != pulse.component:
        pulses.drop(pod.uid)
    else:
        port = pulse.encrypted_port if pulse.encrypted_port and LABEL_TLS in pod.labels else pulse.port
        pulses.follow(pod.uid, Patient(cluster_id, pod.ip, port, pulse.line))
    return pod.uid


def _list(client: KubeClient, path: str, hints: Hints) -> tuple[str, list[dict[str, Any]]]:
    found = client.get(path, labelSelector=SELECTOR)
    for item in found["items"]:
        _hint(item["metadata"], hints)
    version: str = found["metadata"]["resourceVersion"]
    return version, found["items"]


def _hint(metadata: dict[str, Any], hints: Hints) -> None:
    cluster_id = metadata.get("labels", {}).get(LABEL_CLUSTER_ID)
    if cluster_id:
        hints.add(cluster_id)


class Command(BaseCommand):
    help = "Watch every target and hint the workers."

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda signum, frame: stopped.set())
        hints = Hints()
        pulses = Pulses(hints.add)
        threading.Thread(target=hints.run, args=(stopped,), daemon=True).start()
        threading.Thread(target=pulses.run, args=(stopped,), daemon=True).start()
        followed: dict[str, threading.Event] = {}
        while not stopped.is_set():
            close_old_connections()
            found = {target.name: target for target in Target.objects.all()}
            for name in followed.keys() - found.keys():
                followed.pop(name).set()
            for target in found.values():
                if target.name not in followed:
                    followed[target.name] = threading.Event()
                    for path in COLLECTIONS:
                        # Through a port-forward, a pulse would cost more than a look.
                        felt = pulses if path == PODS and target.reach == "direct" else None
                        arguments = (target.name, target.source, path, hints, followed[target.name], felt)
                        threading.Thread(target=follow, args=arguments, daemon=True).start()
                targets.discover(target)
            stopped.wait(TARGETS_EVERY_SECONDS)
