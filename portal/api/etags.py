"""ETag and If-Match. The tag of a cluster and its users is the revision, which grows with what people change; other
objects have no such number, and the tag is made of what people can change of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from rest_framework.request import Request

from tenants.refusals import Stale

R = TypeVar("R", int, str)
TAG = re.compile(r'\s*(W/)?"([^"]*)"\s*')


def etag(revision: int | str) -> str:
    """The strong entity tag of a revision."""
    return f'"{revision}"'


def content_revision(content: Mapping[str, Any]) -> str:
    """What stands for a revision where none is counted: a digest of what people can change of an object."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def expected_revision(request: Request, current: R) -> R | None:
    """The revision If-Match insists on, None when there is no such header or it is "*".

    `current` is the present one. When the row was locked before it was read, that is all there is to do; otherwise
    the service compares again under its lock. Raises Stale when no tag matches; weak ones never do (RFC 9110, 13.1.1).
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    strong = {match[2] for part in header.split(",") if (match := TAG.fullmatch(part)) and not match[1]}
    if str(current) not in strong:
        raise Stale(current)
    return current
