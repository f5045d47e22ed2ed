"""Long polls without polling: one listening connection per process hands PostgreSQL's notifications to the waiting.

The notifications come from triggers (migration 0003), so whoever writes an operation need not think of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict

import psycopg
from django.db import close_old_connections, connection

from provisioning.models import TERMINAL_STATES, Operation

log = logging.getLogger(__name__)
CHANNEL = "berth_operations"
# A notification is lost only while the listening connection is being made anew; this bounds what that can cost.
LOOK_ANYWAY_SECONDS = 5.0


class Listener:
    """Wakes those who wait for an operation. Its thread starts with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._thread: threading.Thread | None = None

    def register(self, operation_id: str) -> threading.Event:
        """An event that is set at the operation's next change. Hand it back with `forget`."""
        event = threading.Event()
        with self._lock:
            self._waiting[operation_id].add(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="operation-listener", daemon=True)
                self._thread.start()
        return event

    def forget(self, operation_id: str, event: threading.Event) -> None:
        """Take an event back."""
        with self._lock:
            self._waiting[operation_id].discard(event)
            if not self._waiting[operation_id]:
                del self._waiting[operation_id]

    def _run(self) -> None:
        while True:
            try:
                # Django's own parameters, so that the test database is followed too.
                parameters = connection.get_connection_params()
                parameters.pop("cursor_factory", None)
                parameters.pop("context", None)
                with psycopg.connect(**parameters, autocommit=True) as listening:
                    listening.execute(f"LISTEN {CHANNEL}")
                    self._wake_all()
                    for notification in listening.notifies():
                        with self._lock:
                            for event in self._waiting.get(notification.payload, ()):
                                event.set()
            except psycopg.Error as error:
                log.warning("listening for operations failed, trying again: %s", type(error).__name__)
                time.sleep(1)

    def _wake_all(self) -> None:
        with self._lock:
            for events in self._waiting.values():
                for event in events:
                    event.set()


LISTENER = Listener()


def wait_for_operation(operation_id: str, *, revision: int | None, timeout: float) -> Operation:
    """The operation, as soon as it has ended or passed `revision` (None: its present one), after `timeout` s at most.

    Raises Operation.DoesNotExist.
    """
    deadline = time.monotonic() + timeout
    event = LISTENER.register(operation_id)
    try:
        while True:
            event.clear()
            operation = Operation.objects.get(pk=operation_id)
            if revision is None:
                revision = operation.revision
            left = deadline - time.monotonic()
            if operation.state in TERMINAL_STATES or operation.revision > revision or left <= 0:
                return operation
            # The connection goes back while we wait: long polls must not use up the database's.
            if not connection.in_atomic_block:
                close_old_connections()
            event.wait(min(left, LOOK_ANYWAY_SECONDS))
    finally:
        LISTENER.forget(operation_id, event)
