"""/changes: one stream per browser that tells what changed, so that a page need not ask again and again.

An event says which thing changed, in a few words; the page reads the rest where it needs it. Rights are asked anew for
every batch: who loses sight of a cluster, is signed out, or whose token ends hears no more.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.db import close_old_connections, connection
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from portal.api.base import ApiView
from portal.api.renderers import FastJsonRenderer
from portal.api.schema import described
from portal.api.serializers import Query, read_query
from provisioning.operations.waiting import CLUSTERS, LISTENER, OPERATIONS
from tenants.refusals import Missing, Unavailable

EVENT_STREAM = "text/event-stream"
# Below the idle time-outs of usual proxies; also how soon a stream of somebody who may no longer listen ends.
HEARTBEAT_SECONDS = 15.0
# Changes come in bursts: what happens within this time is told together.
GATHER_SECONDS = 0.1
RECONNECT_MILLISECONDS = 2000
LISTENING_SECONDS = 5.0
# Each stream holds a thread of the web process, so most of its threads are kept for requests.
STREAMS_PER_PROCESS = 12
STREAMS_PER_USER = 4


class ChangesQuery(Query):
    tenant = serializers.CharField(required=False, max_length=30, help_text="Only this tenant (slug). Default: all.")


class EventStreamRenderer(FastJsonRenderer):
    """Lets `Accept: text/event-stream` through. The stream itself is not rendered; refusals are JSON all the same."""

    media_type = EVENT_STREAM
    format = "event-stream"


class _Places:
    """How many streams this process serves, and to whom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[int] = Counter()

    def take(self, user_id: int) -> bool:
        with self._lock:
            if self._taken.total() >= STREAMS_PER_PROCESS or self._taken[user_id] >= STREAMS_PER_USER:
                return False
            self._taken[user_id] += 1
            return True

    def leave(self, user_id: int) -> None:
        with self._lock:
            self._taken[user_id] -= 1


PLACES = _Places()


def event(kind: str, body: dict[str, Any]) -> str:
    """One event on the wire (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return f"event: {kind}\ndata: {json.dumps(body, cls=JSONEncoder, separators=(',', ':'))}\n\n"


class ChangeStream:
    """The events of one caller, until the connection ends or the caller may no longer listen."""

    def __init__(self, view: ChangesView, tenant: str | None) -> None:
        self.view, self.tenant = view, tenant
        self.user_id = view.user.pk
        self._subscription = LISTENER.subscribe()
        self._events = self._run()
        self._open = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._events)

    def close(self) -> None:
        """Give the place back; called by Django when the connection ends."""
        if self._open:
            self._open = False
            LISTENER.unsubscribe(self._subscription)
            PLACES.leave(self.user_id)

    def __del__(self) -> None:
        self.close()

    def _run(self) -> Iterator[str]:
        yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
        # What happened before, nobody told: the page reads again whatever it shows. From here on nothing is missed.
        LISTENER.await_listening(LISTENING_SECONDS)
        yield event("resync", {})
        while True:
            # The connection goes back while we wait: streams must not use up the database's.
            if not connection.in_atomic_block:
                close_old_connections()
            if self._subscription.wait(HEARTBEAT_SECONDS):
                time.sleep(GATHER_SECONDS)
            missed, changed = self._subscription.take()
            if not self.view.may_still_ask():
                return
            if missed:
                yield event("resync", {})
            told = False
            for line in self._tell(changed):
                told = True
                yield line
            if not told:
                # Not a comment: a browser's script sees only events, and knows a dead stream by their absence.
                yield event("heartbeat", {})

    def _tell(self, changed: dict[str, set[str]]) -> Iterator[str]:
        if ids := changed.get(OPERATIONS):
            operations = self.view.operations().filter(pk__in=ids)
            if self.tenant:
                operations = operations.filter(cluster__tenant__slug=self.tenant)
            for one in operations.order_by("pk"):
                yield event(
                    "operation",
                    {
                        "id": one.pk, "tenant": one.cluster.tenant.slug, "cluster": one.cluster.name, "kind": one.kind,
                        "state": one.state, "percent": one.percent, "revision": one.revision,
                    },
                )  # fmt: skip
        if ids := changed.get(CLUSTERS):
            clusters = self.view.clusters().filter(pk__in=ids).select_related("tenant")
            if self.tenant:
                clusters = clusters.filter(tenant__slug=self.tenant)
            for cluster in clusters.order_by("pk"):
                yield event(
                    "cluster",
                    {
                        "id": cluster.pk, "tenant": cluster.tenant.slug, "name": cluster.name, "phase": cluster.phase,
                        "revision": cluster.revision,
                    },
                )  # fmt: skip


class ChangesView(ApiView):
    renderer_classes = [FastJsonRenderer, EventStreamRenderer]

    @described("streamChanges", tag="Operations", summary="Be told of changes as they happen", query=ChangesQuery,
               answers={(200, EVENT_STREAM): OpenApiTypes.STR}, problems=(404, 503),
               about="Server-sent events: `resync` (read again what you show), `cluster` with `{id, tenant, name, "
               "phase, revision}`, `operation` with `{id, tenant, cluster, kind, state, percent, revision}` and "
               "`heartbeat` after 15 s without any of these. One stream per browser is enough. 503 when there are too "
               "many: then ask now and then.")  # fmt: skip
    def get(self, request: Request) -> StreamingHttpResponse:
        tenant = read_query(ChangesQuery, request).get("tenant")
        if tenant and not self.tenants().filter(slug=tenant).exists():
            raise Missing("not_found", f"There is no tenant {tenant} that you may see.")
        if not PLACES.take(self.user.pk):
            raise Unavailable(
                "too_many_streams",
                "This portal serves as many streams of changes as it can, or you have several open already.",
                suggestion="Close other tabs, or ask now and then instead.",
            )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(ChangeStream(self, tenant), content_type=EVENT_STREAM, headers=headers)
