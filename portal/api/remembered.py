"""Wire forms that were written once, by the version of the rows they were written from.

Writing a cluster's JSON takes many times as long as asking PostgreSQL whether its rows are still those of the last
time, and clusters are read far more often than they change. So a list asks for versions first, and writes what is new.

A row's version is what PostgreSQL itself keeps to tell versions apart: the transaction that wrote it (xmin) and where
it stands (ctid), https://www.postgresql.org/docs/current/ddl-system-columns.html. Every change gives the row a new
pair. A server that took another's place may use the same numbers for something else, so a connection to another server
than before empties the memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import CharField
from django.db.models.expressions import RawSQL

# Of JSON, in each process; a cluster takes 2 to 4 KB.
MOST_BYTES = 32 * 2**20


def row_version(table: str) -> RawSQL:
    """The version of a row of `table`, a table's name or its alias in the query; null where there is no row."""
    return RawSQL(f'"{table}".xmin::text || "{table}".ctid::text', (), output_field=CharField(null=True))


class Memory:
    """JSON by key and version, bounded in bytes: what was not asked for longest goes first. Safe for threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._size = 0
        self._known: OrderedDict[str, tuple[tuple[str | None, ...], bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, version: tuple[str | None, ...]) -> bytes | None:
        """What was written of this version, None when it is not known."""
        with self._lock:
            found = self._known.get(key)
            if found is None or found[0] != version:
                return None
            self._known.move_to_end(key)
            return found[1]

    def put(self, key: str, version: tuple[str | None, ...], text: bytes) -> None:
        """Remember, in place of another version."""
        with self._lock:
            before = self._known.pop(key, None)
            self._known[key] = version, text
            self._size += len(text) - (len(before[1]) if before else 0)
            while self._size > self._most:
                _, (_, gone) = self._known.popitem(last=False)
                self._size -= len(gone)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()
            self._size = 0


CLUSTERS = Memory()


class _Server:
    """Which server the last new connection led to: the time it was started is its own."""

    def __init__(self) -> None:
        self._started: object = None
        self._lock = threading.Lock()

    def look(self, sender: object, connection: BaseDatabaseWrapper, **options: Any) -> None:
        """Forget what was remembered of another server."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time()")
            started = cursor.fetchone()
        with self._lock:
            if started != self._started:
                self._started = started
                CLUSTERS.clear()


_SERVER = _Server()
connection_created.connect(_SERVER.look, dispatch_uid="berth-remembered")
