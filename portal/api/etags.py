"""ETag and If-Match: the tag is the object's revision, which grows with what people change."""

from __future__ import annotations

import re

from rest_framework.request import Request

from tenants.refusals import Stale

TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*')


def etag(revision: int) -> str:
    """The strong entity tag of a revision."""
    return f'"{revision}"'


def expected_revision(request: Request, current: int) -> int | None:
    """The revision If-Match insists on, None when there is no such header or it is "*".

    `current` is the revision read for this request; the service compares again under its lock. Raises Stale when no
    tag matches; weak ones never do (RFC 9110, 13.1.1).
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    strong = {match[2] for part in header.split(",") if (match := TAG.fullmatch(part)) and not match[1]}
    if str(current) not in strong:
        raise Stale(current)
    return current
