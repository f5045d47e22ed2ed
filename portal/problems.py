"""Every "no" leaves as application/problem+json (RFC 9457), made here.

`handle_exception` serves the API's views; the other functions are Django's handlers for what never reaches a view.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from portal import logs
from portal.problem_codes import CODES, FIELD_CODES
from tenants.quota import QuotaExceeded, Violation, unit_of
from tenants.refusals import Conflict, FieldError, Invalid, Missing, Refusal, Stale, Unavailable

MEDIA_TYPE = "application/problem+json"

log = logging.getLogger(__name__)


class SessionRequired(Refusal):
    """Not signed in, or not as needed: 401 with a challenge."""

    status = 401


class Malformed(Refusal):
    """The request cannot be understood: 400."""

    status = 400


class TooMany(Refusal):
    """Too many attempts or requests: 429. `wait` is the seconds after which one more is sure to be taken."""

    status = 429

    def __init__(self, detail: str, wait: int) -> None:
        super().__init__("rate_limited", f"{detail} Wait {wait} s.")
        self.wait = wait


class TooLarge(Refusal):
    """The body is over the limit: 413."""

    status = 413


def problem(
    code: str, detail: str, *, instance: str, status: int | None = None, suggestion: str = "",
    errors: Sequence[FieldError] = (), extensions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The body of a problem. Title and, unless given, status and suggestion come from the table of codes."""
    known = CODES.get(code)
    return {
        "type": f"/api/v1/problems/{code}",
        "title": known.title if known else code.replace("_", " ").capitalize(),
        "status": status or (known.status if known else 400),
        "code": code,
        "detail": detail,
        "errors": [{"pointer": error.pointer, "code": error.code, "message": error.message} for error in errors],
        "suggestion": suggestion or (known.remedy if known else ""),
        "request_id": logs.request_id.get(),
        "instance": instance,
        **(extensions or {}),
    }


def pointer_of(path: Sequence[str | int]) -> str:
    """An RFC 6901 JSON pointer: ("spec", "a/b") is "/spec/a~1b"; () is the whole body, ""."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def field_errors(detail: object, path: tuple[str | int, ...] = ()) -> list[FieldError]:
    """The nested detail of a serializer's ValidationError as a flat list with pointers."""
    if isinstance(detail, Mapping):
        found = []
        for key, value in detail.items():
            found += field_errors(value, path if key == "non_field_errors" else (*path, key))
        return found
    if isinstance(detail, Sequence) and not isinstance(detail, str):
        if all(isinstance(part, str) for part in detail):
            return [FieldError(pointer_of(path), str(getattr(part, "code", "invalid")), str(part)) for part in detail]
        found = []
        for index, value in enumerate(detail):
            found += field_errors(value, (*path, index))
        return found
    return [FieldError(pointer_of(path), str(getattr(detail, "code", "invalid")), str(detail))]


def invalid(errors: Sequence[FieldError]) -> Invalid:
    """One refusal for several wrong fields; its detail repeats the first, for people who only read that."""
    first = errors[0]
    where = f"{first.pointer}: " if first.pointer else ""
    more = f" ({len(errors) - 1} more in errors)" if len(errors) > 1 else ""
    return Invalid("invalid", f"{where}{first.message}{more}", errors=errors)


def _translate(error: Exception) -> tuple[Refusal, dict[str, str]] | None:
    """The refusal and headers for an exception, None for one nobody foresaw."""
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, Refusal):
        if isinstance(error, Stale):
            headers["ETag"] = f'"{error.current}"'
        if isinstance(error, TooMany):
            headers["Retry-After"] = str(error.wait)
        if isinstance(error, SessionRequired):
            headers.setdefault("WWW-Authenticate", 'Bearer realm="berth"')
        return error, headers
    if isinstance(error, exceptions.ValidationError):
        return invalid(field_errors(error.detail)), headers
    if isinstance(error, exceptions.ParseError):
        return Malformed("malformed_json", str(error.detail)), headers
    if isinstance(error, Http404 | exceptions.NotFound):
        return Missing("not_found", "There is nothing at this address that you may see."), headers
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return SessionRequired("unauthenticated", str(error.detail)), headers
    if isinstance(error, DjangoPermissionDenied | exceptions.PermissionDenied):
        return _refusal("permission_denied", "You may not do this."), headers
    if isinstance(error, exceptions.MethodNotAllowed):
        return _refusal("method_not_allowed", str(error.detail)), headers
    if isinstance(error, exceptions.NotAcceptable):
        return _refusal("not_acceptable", "The Accept header leaves no room for JSON."), headers
    if isinstance(error, exceptions.UnsupportedMediaType):
        return _refusal("unsupported_media_type", str(error.detail)), headers
    if isinstance(error, IntegrityError) and getattr(error.__cause__, "sqlstate", "") == "23503":
        # References are looked at when the transaction ends: a plan or a target was removed after it had been read.
        detail = "Something this refers to, such as a plan or a target, was removed in this very moment."
        return Conflict("removed_meanwhile", detail), headers
    if isinstance(error, OperationalError | InterfaceError):
        log.error("The database did not answer", exc_info=error)
        return Unavailable("database_unavailable", "The database does not answer right now."), headers
    return None


def _extensions(refusal: Refusal) -> dict[str, Any]:
    """The members a problem has beyond the common ones (RFC 9457, 3.2)."""
    if isinstance(refusal, QuotaExceeded):
        return {"violations": [violation_body(one) for one in refusal.violations]}
    return {}


def violation_body(violation: Violation) -> dict[str, Any]:
    """A violation on the wire: `target` null means all targets together."""
    return {
        "resource": violation.resource, "target": violation.place or None, "unit": unit_of(violation.resource),
        "limit": violation.limit, "used": violation.used, "reserved": violation.reserved,
        "requested": violation.requested, "short_by": violation.short_by,
    }  # fmt: skip


def _refusal(code: str, detail: str) -> Refusal:
    refusal = Refusal(code, detail)
    refusal.status = CODES[code].status
    return refusal


def handle_exception(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's EXCEPTION_HANDLER. None (Django's handler500 follows) for what nobody foresaw."""
    translated = _translate(error)
    if translated is None:
        return None
    refusal, headers = translated
    request: Request = context["request"]
    if isinstance(error, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(context["view"].allowed_methods)
    body = problem(
        refusal.code, refusal.detail, instance=request.path, status=refusal.status, suggestion=refusal.suggestion,
        errors=refusal.errors, extensions=_extensions(refusal),
    )  # fmt: skip
    return Response(body, status=refusal.status, headers=headers, content_type=MEDIA_TYPE)


def answer(request: HttpRequest, code: str, detail: str) -> HttpResponse:
    """A problem outside the API's views; a plain page outside /api/."""
    status = CODES[code].status
    headers = {"Cache-Control": "no-store"}
    if request.path.startswith("/api/"):
        body = problem(code, detail, instance=request.path)
        return JsonResponse(body, status=status, content_type=MEDIA_TYPE, headers=headers)
    number = logs.request_id.get()
    return HttpResponse(page(CODES[code].title, [detail, f"Request {number}"]), status=status, headers=headers)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW."""
    return answer(request, "csrf_failed", reason)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400: a Host header we do not serve, and other requests that make no sense."""
    return answer(request, "bad_request", "The request does not make sense for this host.")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler403."""
    return answer(request, "permission_denied", "You may not do this.")


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404, and the view of every unknown address below /api/."""
    hint = " Addresses have no slash at the end." if request.path.endswith("/") else ""
    return answer(request, "not_found", f"There is no {request.path} here.{hint}")


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: says nothing about the inside; the traceback is in the log under the same request id."""
    return answer(request, "internal_error", "Berth failed to answer. The log has the cause.")


def page(title: str, paragraphs: Sequence[str]) -> str:
    """A small page without scripts or styles; everything is escaped."""
    body = "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
    name = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{name} · Berth</title></head>'
        f"<body><main><h1>{name}</h1>{body}</main></body></html>"
    )


def code_page(request: HttpRequest, code: str) -> HttpResponse:
    """What a problem's `type` points to."""
    known = CODES.get(code)
    if known is None:
        return not_found(request)
    return HttpResponse(page(known.title, [f"Code {code}, status {known.status}.", known.meaning, known.remedy]))


def code_list(request: HttpRequest) -> HttpResponse:
    """All codes on one page."""
    lines = [f"{code} ({known.status}): {known.meaning} {known.remedy}" for code, known in sorted(CODES.items())]
    fields = [f"{code}: {meaning}" for code, meaning in sorted(FIELD_CODES.items())]
    return HttpResponse(page("Problems", [*lines, "Codes of single fields, in errors[].code:", *fields]))
