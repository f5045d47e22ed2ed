"""Every changing request leaves a row in the audit, in the transaction that changes something.

`ApiView` wraps its subclasses' handlers with `audited` by itself, so a resource cannot forget to.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, transaction
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.address import client_address
from tenants.audit import record
from tenants.models import ApiToken, AuditResult, Tenant

if TYPE_CHECKING:  # the base wraps its handlers with what is here
    from portal.api.base import ApiView

log = logging.getLogger(__name__)

CHANGING = ("post", "put", "patch", "delete")
# Refusals worth a row. Not 401 (anybody could fill the disk with rows about nobody), 405, 406, 413, 415, 429.
NOTED = (400, 403, 404, 409, 412, 422, 500, 503)


def changes(handler: object) -> bool:
    """Whether a view's method changes something; `described(changes=False)` says it does not."""
    return bool(getattr(handler, "changes", True))


def rehearses(handler: object) -> bool:
    """Whether a view's method knows dry runs; `described(rehearses=True)` says it does."""
    return bool(getattr(handler, "rehearses", False))


def _object_of(request: Request) -> str:
    """The path below /api/v1, without the tenant, which has columns of its own."""
    parts = request.path.removeprefix("/api/v1/").split("/")
    return "/".join(parts[2:] if parts[0] == "tenants" and len(parts) > 2 else parts).replace("\0", "")


def _write(view: ApiView, request: Request, result: AuditResult, status: int, data: object) -> None:
    known: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    operation = known.get("operation")
    handler = getattr(type(view), (request.method or "").lower(), None)
    tenant: Tenant | None = view.audit_tenant or vars(view).get("tenant")
    record(
        action=getattr(handler, "action", "unknown"),
        object=view.audit_object or _object_of(request),
        result=result,
        status=status,
        by=view.caller,
        token=request.auth if view.caller and isinstance(request.auth, ApiToken) else None,
        tenant=tenant,
        detail=view.audit_detail,
        address=client_address(request._request),
        code=str(known.get("code", "")) if result != AuditResult.SUCCESS else "",
        operation_id=str(operation.get("id", "")) if isinstance(operation, Mapping) else "",
        request_id=logs.request_id.get(),
    )


def audited(handler: Callable[..., Response]) -> Callable[..., Response]:
    """`handler` in a transaction that also holds its row in the audit: without the row, there is no change.

    A dry run leaves neither: all it wrote is rolled back, and then it may finish its answer (`view.after_rehearsal`).
    A view with `in_transaction = False` has its row written before its answer leaves: no row, no answer. When it
    changes something in a transaction of its own, after asking Kubernetes, it calls `note_success` in there.
    """

    @functools.wraps(handler)
    def change(view: ApiView, request: Request, *args: Any, **kwargs: Any) -> Response:
        with transaction.atomic() if view.in_transaction else nullcontext():
            response = handler(view, request, *args, **kwargs)
            if (response.status_code >= 400 or view.rehearsal) and view.in_transaction:
                transaction.set_rollback(True)
            elif response.status_code < 400 and not view.rehearsal:
                if "Idempotency-Replayed" in response.headers:
                    # The first answer again: the change was made, and noted, then.
                    view.audit_detail = {**view.audit_detail, "replayed": True}
                if not view.is_noted:
                    _write(view, request, AuditResult.SUCCESS, response.status_code, response.data)
        if view.rehearsal and response.status_code < 400:
            # Whatever the handler answered was rolled back: only what it left to be said after that is true.
            assert view.after_rehearsal is not None
            return view.after_rehearsal()
        return response

    return change


def note_success(view: ApiView, status: int) -> None:
    """The row of a change, to be answered with `status`, in the transaction that this is called in."""
    _write(view, view.request, AuditResult.SUCCESS, status, None)
    view.is_noted = True


def note_refusal(view: ApiView, request: Request, status: int, data: object) -> None:
    """The row of a request that changed nothing. The answer goes out even if the row cannot be written."""
    if status not in NOTED and not (status == 401 and view.audit_anonymous):
        return
    if not changes(getattr(type(view), (request.method or "").lower(), None)) or view.rehearsal:
        return
    if view.caller is None and not view.audit_anonymous:
        return
    result = AuditResult.FAILED if status >= 500 else AuditResult.REFUSED
    try:
        with transaction.atomic():
            _write(view, request, result, status, data)
    except DatabaseError as error:
        log.error("a refusal could not be noted in the audit", extra={"why": type(error).__name__})
