"""For tests of races: hold a lock here, start the other there, go on once it stands at the lock."""

from __future__ import annotations

import time

from django.db import connection

DEADLINE_SECONDS = 30


def await_a_waiter() -> None:
    """Wait until another connection waits for a lock of this database server."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        with connection.cursor() as cursor:
            # Unlike pg_stat_activity, fresh at every look within one transaction.
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() is not None:
                return
        assert time.monotonic() < deadline, "nobody waits for a lock"
        time.sleep(0.01)
