"""Celery tasks of the API itself."""

from __future__ import annotations

import logging

from celery import shared_task

from portal.idempotency import forget_old_keys

log = logging.getLogger(__name__)


@shared_task(name="berth.forget_idempotency_keys")
def forget_idempotency_keys() -> None:
    """Delete the answers nobody may ask for again."""
    log.info("old idempotency keys were deleted", extra={"count": forget_old_keys()})
