"""Cursor pagination: a page starts after a row, not at a number, so rows that come and go cause no gap or repeat.

The cursor is opaque to clients: the ordering and the last row's sort value and id.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.api.serializers import Query
from portal.problems import invalid
from tenants.refusals import FieldError

DEFAULT_LIMIT = 50
MAXIMUM_LIMIT = 200

M = TypeVar("M", bound=Model)
T = TypeVar("T")


class PageQuery(Query):
    """Parameters of every list."""

    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=MAXIMUM_LIMIT, default=DEFAULT_LIMIT, help_text="Rows per page."
    )
    cursor = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=500,
        help_text="`next` of the page before; leave out for the first page.",
    )


def _encode(order: str, value: str, key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([order, value, key]).encode()).decode().rstrip("=")


def _decode(cursor: str, order: str) -> tuple[str, Any]:
    try:
        made_for, value, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise _wrong_cursor("It is not a cursor of this API.") from error
    if made_for != order or not isinstance(value, str) or not isinstance(key, str | int) or "\0" in f"{value}{key}":
        raise _wrong_cursor("It belongs to a list with another ordering.")
    return value, key


def _wrong_cursor(why: str) -> Exception:
    return invalid([FieldError("?cursor", "invalid", f"{why} Pass `next` of the page before, unchanged.")])


def page(
    request: Request, rows: QuerySet[M], query: dict[str, Any], show: Callable[[list[M]], list[Any]],
    *, order: str = "id",
) -> Response:  # fmt: skip
    """One page of `rows` ordered by the field `order` ("-id" for descending), ties broken by the primary key.

    `query` is a checked PageQuery. `show` turns the rows into their wire form. Raises Invalid for a strange cursor.
    """
    descending, field = order.startswith("-"), order.lstrip("-")
    sign, comparison = ("-", "lt") if descending else ("", "gt")
    if query["cursor"]:
        value, key = _decode(query["cursor"], order)
        after = Q(**{f"pk__{comparison}": key})
        if field != "id":
            after = Q(**{f"{field}__{comparison}": value}) | Q(**{field: value}) & after
        try:
            rows = rows.filter(after)
        except (ValueError, TypeError) as error:
            raise _wrong_cursor("It belongs to another list.") from error
    ordering = [f"{sign}pk"] if field == "id" else [f"{sign}{field}", f"{sign}pk"]
    found = list(rows.order_by(*ordering)[: query["limit"] + 1])
    more, found = len(found) > query["limit"], found[: query["limit"]]
    following = None
    if more:
        last = found[-1]
        following = _encode(order, "" if field == "id" else str(getattr(last, field)), last.pk)
    return Response({"items": show(found), "next": following})


def page_of(
    rows: Sequence[T], query: dict[str, Any], show: Callable[[list[T]], list[Any]],
    *, order: str, key: Callable[[T], tuple[str, str]],
) -> Response:  # fmt: skip
    """One page, last first, of rows that are not in the database.

    `key` gives a row's place: its sort value, and what is unique among equals; both as text. `order` names the sort
    value, so that cursors of other lists are refused. Raises Invalid for a strange cursor.
    """
    found = sorted(rows, key=key, reverse=True)
    if query["cursor"]:
        value, tie = _decode(query["cursor"], order)
        found = [one for one in found if key(one) < (value, str(tie))]
    more, found = len(found) > query["limit"], found[: query["limit"]]
    following = _encode(order, *key(found[-1])) if more else None
    return Response({"items": show(found), "next": following})
