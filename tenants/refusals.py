"""Answers of "no" that people can act on: one small tree, turned into problem+json at one place (portal/problems.py).

A refusal is raised by a service function before anything was written, or rolls back the transaction it is raised in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One wrong field: `pointer` is an RFC 6901 JSON pointer into the request body."""

    pointer: str
    code: str
    message: str


class Refusal(Exception):
    """`code` is stable and documented, `detail` says what and why, `suggestion` what the caller can do."""

    status = 400

    def __init__(self, code: str, detail: str, *, suggestion: str = "", errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.suggestion = suggestion
        self.errors = tuple(errors)


class Invalid(Refusal):
    """The request is understood but wrong: 422, with the fields."""

    status = 422


class Conflict(Refusal):
    """The request does not fit the present state: 409."""

    status = 409


class Stale(Refusal):
    """If-Match named an older revision: 412. `current` is the present one, or what stands for it."""

    status = 412

    def __init__(self, current: int | str) -> None:
        super().__init__(
            "stale_revision",
            "The object was changed since you read it.",
            suggestion="Read it again, repeat the change on the new state, and send its ETag in If-Match.",
        )
        self.current = current


class Forbidden(Refusal):
    """The caller may see the object but not do this: 403, naming the role that may."""

    status = 403


class Missing(Refusal):
    """There is no such thing, or the caller may not see it: 404, the same for both."""

    status = 404


class Unavailable(Refusal):
    """A piece this request needs does not answer: 503; a repeat can help."""

    status = 503
