"""Idempotency-Key: a repeated POST gets the first answer and is not executed again.

How it holds under races, in one transaction around the handler:

1. insert the key's row, or do nothing if it is there. PostgreSQL makes the second of two concurrent inserts wait until
   the first one's transaction ends;
2. inserted -> run the handler, store its answer. There already -> lock the row, compare the fingerprint and replay;
3. commit. The change and the stored answer appear together or not at all, so a crash in between cannot lose the answer.

A refusal (4xx) rolls everything back, the row too: nothing was changed, so a repeat may be executed. A handler must do
nothing that a rollback does not undo; hints to workers go out on commit.

Of an answer that holds a secret (`secret`), all else is stored: a repeat makes nothing twice, and is told what was made
and that the secret was in the first answer only.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.base import ApiView
from portal.api.renderers import FastJsonRenderer
from portal.models import IdempotencyKey
from portal.problems import Malformed
from tenants.refusals import Conflict, Invalid

KEPT_FOR = timedelta(hours=24)
# How long a repeat waits for the first request to end.
WAIT_SECONDS = 30
USABLE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")
STORED_HEADERS = ("Location", "ETag")

# By hand, since the ORM does not tell whether it inserted; a second query would. Two statements in one message: the
# time limit is for the rest of the transaction; what waits longer for any lock is answered 503.
INSERT = f"""
SET LOCAL lock_timeout = '{WAIT_SECONDS}s';
INSERT INTO portal_idempotencykey (caller, key, fingerprint, status, headers, created)
VALUES (%s, %s, %s, 0, '{{}}', %s) ON CONFLICT (caller, key) DO NOTHING RETURNING id
"""

RENDERER = FastJsonRenderer()
STORE = "UPDATE portal_idempotencykey SET status = %s, headers = %s::jsonb, body = %s::jsonb WHERE id = %s"

V = TypeVar("V", bound=ApiView)
Handler = Callable[..., Response]


def _fingerprint(request: Request) -> str:
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()


def _caller(view: ApiView) -> str:
    return f"token:{view.token.pk}" if view.token else f"user:{view.user.pk}"


def _claim(caller: str, key: str, fingerprint: str) -> IdempotencyKey:
    """The locked row of this key, new (status 0) or answered. Raises Conflict when the first request takes too long."""
    try:
        with connection.cursor() as cursor:
            row = None
            while row is None:
                cursor.execute(INSERT, [caller, key, fingerprint, timezone.now()])
                cursor.nextset()
                inserted = cursor.fetchone()
                if inserted is not None:
                    return IdempotencyKey(pk=inserted[0], caller=caller, key=key, fingerprint=fingerprint)
                # None: the row that stood in the way grew too old and was deleted in this moment; the key is free.
                row = IdempotencyKey.objects.select_for_update().filter(caller=caller, key=key).first()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != "55P03":  # lock_not_available
            raise
        raise Conflict(
            "idempotency_in_progress",
            f"The first request with this Idempotency-Key has not ended within {WAIT_SECONDS} s.",
            suggestion="Repeat it in a moment.",
        ) from error
    return row


def _store(row: IdempotencyKey) -> None:
    """Write the answer down. By hand, since Django takes longer to compose it than PostgreSQL to do it."""
    with connection.cursor() as cursor:
        cursor.execute(STORE, [row.status, *(RENDERER.render(one).decode() for one in (row.headers, row.body)), row.pk])


def idempotent(*, required_from_tokens: bool, secret: str = "") -> Callable[[Handler], Handler]:
    """Make a view's `post` honour Idempotency-Key. Handlers without it are listed, with the reason, in a test.

    `secret`: the key of the answer that is never stored; a repeat is refused with the `id` of what was made.
    """

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def post(view: ApiView, request: Request, **kwargs: Any) -> Response:
            # Read first: a body of the wrong kind is refused for that, and not for a missing key.
            request.data  # noqa: B018
            if view.rehearsal:
                # Nothing is made that a repeat could make twice, so no key is needed, and none is used up.
                return handler(view, request, **kwargs)
            key = request.headers.get("Idempotency-Key")
            if key is None:
                if required_from_tokens and view.token:
                    raise Malformed("idempotency_key_required", "Idempotency-Key is missing.")
                return handler(view, request, **kwargs)
            if not USABLE.fullmatch(key):
                raise Malformed("idempotency_key_invalid", "Idempotency-Key must be 1 to 200 printable ASCII letters.")
            fingerprint = _fingerprint(request)
            # Without a savepoint of its own: a refusal goes on to the transaction around this one, and undoes that.
            with transaction.atomic(savepoint=False):
                row = _claim(_caller(view), key, fingerprint)
                if row.status and row.fingerprint != fingerprint:
                    raise Invalid(
                        "idempotency_key_reused",
                        "This Idempotency-Key came with another request before.",
                        suggestion="Use a fresh key for every intended change.",
                    )
                if row.status and secret:
                    made: Any = row.body
                    raise Conflict(
                        "already_made", f"This request was carried out before, and made {made['id']}.",
                        suggestion="Its secret was in the first answer only. If that was lost, revoke or withdraw it, "
                        "and make another with a fresh key.",
                    )  # fmt: skip
                if row.status:
                    headers = {**row.headers, "Idempotency-Replayed": "true"}
                    return Response(row.body, status=row.status, headers=headers)
                response = handler(view, request, **kwargs)
                row.status = response.status_code
                row.body = response.data
                if secret:
                    row.body = {key: value for key, value in response.data.items() if key != secret}
                row.headers = {name: response.headers[name] for name in STORED_HEADERS if name in response.headers}
                _store(row)
                return response

        # For the API's description: whether tokens must send one.
        post.honours_idempotency_key = required_from_tokens  # type: ignore[attr-defined]
        return post

    return decorate


def forget_old_keys() -> int:
    """Delete the keys older than KEPT_FOR; returns how many. Beat calls it, see portal/tasks.py."""
    deleted, _ = IdempotencyKey.objects.filter(created__lt=timezone.now() - KEPT_FOR).delete()
    return deleted
