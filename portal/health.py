"""/healthz: this process is alive. /readyz: it can do its work (database and broker); targets are listed, not required.

A target that is down must not take the portal out of its load balancer: everything but that target still works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from portal.broker import client_url
from provisioning.models import Target

PATHS = ("/healthz", "/readyz")
BROKER_TIMEOUT_SECONDS = 1.0

log = logging.getLogger(__name__)


def _ask_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_broker() -> None:
    with redis.Redis.from_url(
        client_url(), socket_timeout=BROKER_TIMEOUT_SECONDS, socket_connect_timeout=BROKER_TIMEOUT_SECONDS
    ) as client:
        client.ping()


def _check(name: str, ask: Callable[[], None]) -> dict[str, Any]:
    try:
        ask()
    except (DatabaseError, redis.RedisError, OSError) as error:
        log.warning("readiness: %s does not answer: %s", name, error)
        return {"name": name, "ok": False, "reason": "does not answer; the log says why"}
    return {"name": name, "ok": True, "reason": ""}


def _targets() -> list[dict[str, Any]]:
    return [
        {"name": target.name, "reachable": target.reachable, "checked": target.checked}
        for target in Target.objects.order_by("name").only("name", "reachable", "checked")
    ]


def answer(request: HttpRequest) -> HttpResponse:
    """The answer to a probe of one of PATHS: 200, or 503 when not ready."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    headers = {"Cache-Control": "no-store"}
    if request.path == "/healthz":
        return JsonResponse({"status": "ok"}, headers=headers)
    database, broker = _check("database", _ask_database), _check("broker", _ask_broker)
    ready = database["ok"] and broker["ok"]
    targets = _targets() if database["ok"] else []
    degraded = [target["name"] for target in targets if target["reachable"] is False]
    body = {
        "status": "ok" if ready and not degraded else "degraded" if ready else "unavailable",
        "checks": [database, broker],
        "targets": targets,
        "degraded": degraded,
    }
    return JsonResponse(body, status=200 if ready else 503, headers=headers)
