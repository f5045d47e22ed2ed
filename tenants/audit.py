"""The one place that writes the audit, and in time forgets it. The door calls it (portal/api/base.py); nothing reads it
but GET …/audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from tenants.models import ApiToken, AuditEvent, AuditResult, Tenant, User
from tenants.prepared import insert


def record(
    *, action: str, object: str, result: AuditResult, status: int, by: User | None = None,
    token: ApiToken | None = None, tenant: Tenant | None = None, detail: Mapping[str, Any] | None = None,
    address: str | None = None, code: str = "", operation_id: str = "", request_id: str = "",
) -> AuditEvent:  # fmt: skip
    """Add a row, in the caller's transaction if there is one: a change and its row appear together or not at all.

    `detail` must name facts only; a secret in it could never be removed.
    """
    event = AuditEvent(
        tenant_id=tenant.pk if tenant else "",
        tenant=tenant.slug if tenant else "",
        actor_id=by.pk if by else None,
        actor=by.get_username() if by else "",
        token_id=token.pk if token else "",
        token_prefix=token.prefix if token else "",
        action=action,
        object=object[:300],
        detail=dict(detail or {}),
        address=address,
        result=result,
        status=status,
        code=code,
        operation_id=operation_id,
        request_id=request_id,
    )
    insert(event)
    return event


def record_command(*, command: str, action: str, object: str, detail: Mapping[str, Any] | None = None) -> AuditEvent:
    """Add the row of a change by `manage.py command`: by no user, from no address. See record()."""
    return record(
        action=action, object=object, result=AuditResult.SUCCESS, status=200,
        detail={"command": command, **(detail or {})},
    )  # fmt: skip


# What one statement deletes: rows enough to get on, few enough that nobody waits for it.
BATCH = 5000


def forget_old(*, keep_days: int) -> int:
    """Delete rows older than `keep_days`, and leave a row that says so; returns how many. 0 keeps all for ever.

    The database refuses to delete what is younger than 365 days (migration 0008), whatever is asked.
    """
    if keep_days == 0:
        return 0
    before = timezone.now() - timedelta(days=keep_days)
    count = 0
    while True:
        with transaction.atomic():
            # Ids are in the order of time, so the oldest are found by the primary key.
            oldest = list(AuditEvent.objects.order_by("id").values_list("pk", "created")[:BATCH])
            old = [pk for pk, created in oldest if created < before]
            if not old:
                return count
            gone, _ = AuditEvent.objects.filter(pk__in=old).delete()
            count += gone
            record(
                action="forgetAudit", object="audit", result=AuditResult.SUCCESS, status=200,
                detail={"rows": gone, "before": before.isoformat()},
            )  # fmt: skip
        if len(old) < len(oldest):
            return count
