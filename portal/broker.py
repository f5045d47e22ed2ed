"""The Redis that carries Celery's messages, as the Redis client names it. Also counts requests (rates.py)."""

from __future__ import annotations

from django.conf import settings


def client_url() -> str:
    """BERTH_BROKER_URL for the Redis client, whose name for a unix socket is not Celery's."""
    url: str = settings.CELERY_BROKER_URL
    return url.replace("redis+socket://", "unix://", 1)
