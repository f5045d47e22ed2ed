"""How many requests a caller, and a tenant, may send in a minute, counted in the broker's Redis for all replicas.

A caller is a token, or a person with a session; who is not signed in, or sends a token that does not count, is the
address it comes from. A request to a tenant's resources also counts for the tenant, once it is known that the caller
may see it: many programs of one team do not take the others' turns, and strangers cannot use up a team's. Platform
administrators do not count there, since they are who can help.

The window is fixed: it begins with the first request and ends a minute later, so its end can be told exactly, and
waiting until then always helps. At its edge a caller may send twice the number in a short time.

This is for fairness between callers, not for safety: guessing passwords is slowed by tenants/throttle.py, in the
database. So a Redis that does not answer stops no request: they go on uncounted, and the log says so once.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import redis
from django.conf import settings

from portal.broker import client_url

WINDOW_SECONDS = 60
# A request waits no longer than this for its number.
TIMEOUT_SECONDS = 0.2
# After Redis did not answer, requests go on uncounted for so long before one asks again.
PAUSE_SECONDS = 5.0
PREFIX = "berth-rate"
# Counts and tells when the window ends, in one step and one message: two replicas never read the same number, and no
# key stays without an end.
COUNT = """
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    left = tonumber(ARGV[1])
    redis.call('PEXPIRE', KEYS[1], left)
end
return {count, left}
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Count:
    """How a caller or tenant stands: `remaining` requests for `reset` seconds; `allowed` is this one itself."""

    policy: str
    limit: int
    remaining: int
    reset: int
    allowed: bool


def headers(counts: Sequence[Count]) -> dict[str, str]:
    """RateLimit-Policy and RateLimit, draft-ietf-httpapi-ratelimit-headers-10; none when nothing was counted."""
    if not counts:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{one.policy}";q={one.limit};w={WINDOW_SECONDS}' for one in counts),
        "RateLimit": ", ".join(f'"{one.policy}";r={one.remaining};t={one.reset}' for one in counts),
    }


class Counter:
    """Counts on one Redis. Safe for threads; survives the Redis being away."""

    def __init__(self, url: str) -> None:
        client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
        self._script = client.register_script(COUNT)
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._away = False

    def count(self, policy: str, caller: str, limit: int) -> Count | None:
        """Count one request of `caller` under `policy`; None when Redis does not answer, or lately did not."""
        if time.monotonic() < self._away_until:
            return None
        try:
            number, left = self._script([f"{PREFIX}:{policy}:{caller}"], [WINDOW_SECONDS * 1000])
        except (redis.RedisError, OSError) as error:
            self._note_away(error)
            return None
        self._note_back()
        # Rounded up: who waits as long as told must not come too early.
        return Count(policy, limit, max(0, limit - number), math.ceil(left / 1000), number <= limit)

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            self._away_until = time.monotonic() + PAUSE_SECONDS
            first, self._away = not self._away, True
        if first:
            log.warning("requests go on without rate limits: Redis does not answer", extra={"why": str(error)})

    def _note_back(self) -> None:
        if not self._away:
            return
        with self._lock:
            was, self._away = self._away, False
        if was:
            log.info("requests are counted again: Redis answers")


@functools.cache
def _counter(url: str) -> Counter:
    return Counter(url)


def count_request(*, caller: str | None, address: str | None) -> Count | None:
    """Count one request: for `caller` if there is one ("token:…", "user:…"), otherwise for the address.

    None when the limit is switched off (0), or Redis does not answer: the request goes on.
    """
    return _count(*("caller", caller) if caller else ("address", address or "unknown"))


def count_for_tenant(tenant_id: str) -> Count | None:
    """Count one request to a tenant; None as above."""
    return _count("tenant", tenant_id)


def _count(policy: str, who: str) -> Count | None:
    limit = settings.RATE_LIMITS[policy]
    return _counter(client_url()).count(policy, who, limit) if limit else None
