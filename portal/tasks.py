"""Celery tasks of the API itself."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from portal.idempotency import forget_old_keys
from tenants import audit

log = logging.getLogger(__name__)


@shared_task(name="berth.forget_idempotency_keys")
def forget_idempotency_keys() -> None:
    """Delete the answers nobody may ask for again."""
    log.info("old idempotency keys were deleted", extra={"count": forget_old_keys()})


@shared_task(name="berth.forget_audit")
def forget_audit() -> None:
    """Once a day: rows of the audit that are older than BERTH_AUDIT_KEEP_DAYS."""
    log.info(
        "old rows of the audit were deleted", extra={"count": audit.forget_old(keep_days=settings.AUDIT_KEEP_DAYS)}
    )
