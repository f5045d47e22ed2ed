"""The outermost layers of a request: its id, its log line, its security headers, and the health endpoints."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from portal import health, logs

Next = Callable[[HttpRequest], HttpResponse]

# What we take over from a caller: enough for UUIDs and trace ids, nothing that could disturb a log or a header.
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

access_log = logging.getLogger("berth.access")

# The application loads its own files and talks to its own API; nothing else.
CSP_APPLICATION = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Answers of the API are data: if a browser is tricked into showing one, it may load nothing.
CSP_DATA = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class RequestIdMiddleware:
    """Gives each request an id (the caller's, when it is sane), answers with it, and writes one log line."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        sent = request.headers.get("X-Request-Id", "")
        request_id = sent if SANE_REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)
        request_token, user_token = logs.request_id.set(request_id), logs.user_id.set(None)
        started = time.monotonic()
        try:
            response = self.get_response(request)
            response["X-Request-Id"] = request_id
            level = logging.DEBUG if request.path in health.PATHS else logging.INFO
            # The path without its query: a query may hold what nobody meant to write down.
            access_log.log(
                level,
                "%s %s %s",
                request.method,
                request.path,
                response.status_code,
                extra={
                    "method": request.method,
                    "path": request.path,
                    "status": response.status_code,
                    "ms": round((time.monotonic() - started) * 1000, 1),
                },
            )
            return response
        finally:
            logs.request_id.reset(request_token)
            logs.user_id.reset(user_token)


class HealthMiddleware:
    """Answers /healthz and /readyz before the Host header is checked: probes call by address."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path in health.PATHS:
            return health.answer(request)
        return self.get_response(request)


class ContentSecurityMiddleware:
    """A Content-Security-Policy on every answer that has not set its own."""

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        policy = CSP_DATA if request.path.startswith("/api/") else CSP_APPLICATION
        response.headers.setdefault("Content-Security-Policy", policy)
        response.headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
        return response
