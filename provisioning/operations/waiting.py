"""Waiting without polling: one listening connection per process hands PostgreSQL's notifications to the waiting.

Long polls wait for one operation, streams for every change of clusters and operations. The notifications come from
triggers (migration 0003), so whoever writes need not think of them.
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
OPERATIONS, CLUSTERS = "berth_operations", "berth_clusters"
# A notification is lost only while the listening connection is being made anew; this bounds what that can cost.
LOOK_ANYWAY_SECONDS = 5.0
CLOSES_WITHIN_SECONDS = 1.0


class Subscription:
    """The ids of what changed since it was last asked, by channel. Made by `Listener.subscribe`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._changed: dict[str, set[str]] = defaultdict(set)
        self._missed = False

    def note(self, channel: str, key: str) -> None:
        """Called by the listener for each notification."""
        with self._lock:
            self._changed[channel].add(key)
        self._news.set()

    def note_gap(self) -> None:
        """Called by the listener when notifications may have been lost."""
        with self._lock:
            self._missed = True
        self._news.set()

    def wait(self, seconds: float) -> bool:
        """Wait for news, for at most so long; whether there are any."""
        return self._news.wait(seconds)

    def take(self) -> tuple[bool, dict[str, set[str]]]:
        """Whether something may have been missed, and the ids that changed; then begin anew."""
        with self._lock:
            self._news.clear()
            missed, self._missed = self._missed, False
            changed, self._changed = self._changed, defaultdict(set)
        return missed, changed


class Listener:
    """Wakes those who wait for an operation or for any change. Its thread starts with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._subscriptions: set[Subscription] = set()
        self._listening = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, operation_id: str) -> threading.Event:
        """An event that is set at the operation's next change. Hand it back with `forget`."""
        event = threading.Event()
        with self._lock:
            self._waiting[operation_id].add(event)
            self._start()
        return event

    def forget(self, operation_id: str, event: threading.Event) -> None:
        """Take an event back."""
        with self._lock:
            self._waiting[operation_id].discard(event)
            if not self._waiting[operation_id]:
                del self._waiting[operation_id]

    def subscribe(self) -> Subscription:
        """Everything that changes from now on. Hand it back with `unsubscribe`."""
        subscription = Subscription()
        with self._lock:
            self._subscriptions.add(subscription)
            self._start()
        return subscription

    def await_listening(self, seconds: float) -> bool:
        """Wait until notifications come in, for at most so long; whether they do."""
        return self._listening.wait(seconds)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a subscription back."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End the listening connection for good, as at the end of the process."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="change-listener", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                # Django's own parameters, so that the test database is followed too.
                parameters = connection.get_connection_params()
                parameters.pop("cursor_factory", None)
                parameters.pop("context", None)
                with psycopg.connect(**parameters, autocommit=True) as listening:
                    for channel in (OPERATIONS, CLUSTERS):
                        listening.execute(f"LISTEN {channel}")
                    self._listening.set()
                    self._wake_all()
                    while not self._closed.is_set():
                        for notification in listening.notifies(timeout=CLOSES_WITHIN_SECONDS):
                            self._tell(notification.channel, notification.payload)
            except psycopg.Error as error:
                self._listening.clear()
                log.warning("listening for changes failed, trying again: %s", type(error).__name__)
                time.sleep(1)

    def _tell(self, channel: str, key: str) -> None:
        with self._lock:
            for subscription in self._subscriptions:
                subscription.note(channel, key)
            if channel == OPERATIONS:
                for event in self._waiting.get(key, ()):
                    event.set()

    def _wake_all(self) -> None:
        with self._lock:
            for subscription in self._subscriptions:
                subscription.note_gap()
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
