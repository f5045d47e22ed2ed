"""Cursor pagination: a page starts after a row, not at a number, so rows that come and go cause no gap or repeat.

The cursor is opaque to clients: the ordering and the last row's sort value and id.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
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


def position(query: Mapping[str, Any], order: str) -> tuple[str, Any] | None:
    """Where the page of a checked PageQuery begins: after this sort value and key; None for the first page.

    Raises Invalid for a strange cursor.
    """
    return _decode(query["cursor"], order) if query["cursor"] else None


def after(order: str, value: Any, key: Any) -> Q:
    """The rows that come after a position in a list ordered by the field `order`, ties broken by the primary key."""
    field, comparison = order.lstrip("-"), "lt" if order.startswith("-") else "gt"
    later = Q(**{f"pk__{comparison}": key})
    return later if field == "id" else Q(**{f"{field}__{comparison}": value}) | Q(**{field: value}) & later


def ordering(order: str) -> list[str]:
    """What `order_by` takes."""
    sign, field = "-" if order.startswith("-") else "", order.lstrip("-")
    return [f"{sign}pk"] if field == "id" else [f"{sign}{field}", f"{sign}pk"]


def following(order: str, value: Any, key: Any) -> str:
    """The cursor after a row with this sort value and key."""
    return _encode(order, "" if order.lstrip("-") == "id" else str(value), key)


def page(
    request: Request, rows: QuerySet[M], query: dict[str, Any], show: Callable[[list[M]], list[Any]],
    *, order: str = "id",
) -> Response:  # fmt: skip
    """One page of `rows` ordered by the field `order` ("-id" for descending), ties broken by the primary key.

    `query` is a checked PageQuery. `show` turns the rows into their wire form. Raises Invalid for a strange cursor.
    """
    begin = position(query, order)
    if begin is not None:
        try:
            rows = rows.filter(after(order, *begin))
        except (ValueError, TypeError) as error:
            raise _wrong_cursor("It belongs to another list.") from error
    found = list(rows.order_by(*ordering(order))[: query["limit"] + 1])
    more, found = len(found) > query["limit"], found[: query["limit"]]
    field = "pk" if order.lstrip("-") == "id" else order.lstrip("-")
    next_page = following(order, getattr(found[-1], field), found[-1].pk) if more else None
    return Response({"items": show(found), "next": next_page})


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
    next_page = _encode(order, *key(found[-1])) if more else None
    return Response({"items": show(found), "next": next_page})
