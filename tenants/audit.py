"""The one place that writes the audit. The door calls it (portal/api/base.py); nothing reads it but GET …/audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenants.models import ApiToken, AuditEvent, AuditResult, Tenant, User


def record(
    *, action: str, object: str, result: AuditResult, status: int, by: User | None = None,
    token: ApiToken | None = None, tenant: Tenant | None = None, detail: Mapping[str, Any] | None = None,
    address: str | None = None, code: str = "", operation_id: str = "", request_id: str = "",
) -> AuditEvent:  # fmt: skip
    """Add a row, in the caller's transaction if there is one: a change and its row appear together or not at all.

    `detail` must name facts only; a secret in it could never be removed.
    """
    return AuditEvent.objects.create(
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
