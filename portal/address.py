"""Where a request comes from, behind proxies too."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """The caller's IP address, None when it is not known (a unix socket, or a proxy that names none).

    X-Forwarded-For is believed only as far as settings.TRUSTED_PROXIES proxies of ours wrote it: each appends the
    address it was called from, so the last entry is the nearest proxy's word, and what the caller sent stands before.
    """
    found = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        named = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        found = named[-settings.TRUSTED_PROXIES] if len(named) >= settings.TRUSTED_PROXIES else ""
    try:
        return str(ipaddress.ip_address(found))
    except ValueError:
        return None
