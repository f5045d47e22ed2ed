"""Reading bodies: strict JSON of limited size, with errors that say where."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from portal.problems import TooLarge


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ParseError(f"The number {text[:40]} is too large.")
    return value


def _constant(text: str) -> float:
    raise ParseError(f"{text} is not JSON. Use a number or null.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParseError(f"The key {twice[:60]!r} is given twice in one object.")
    return found


def decode(raw: bytes) -> Any:
    """`raw` as JSON. Raises ParseError naming line and column, or what the database could not store."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParseError(f"The body is not UTF-8: byte {error.start} is wrong.") from error
    try:
        data = json.loads(text, parse_float=_number, parse_constant=_constant, object_pairs_hook=_object)
        # What \u escapes can smuggle past the decoding above: PostgreSQL stores neither NUL nor half a character.
        packed = json.dumps(data, ensure_ascii=False)
        packed.encode("utf-8")
    except json.JSONDecodeError as error:
        raise ParseError(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.") from error
    except UnicodeEncodeError as error:
        raise ParseError("A text in the body holds half of a character (a lone surrogate).") from error
    except RecursionError as error:
        raise ParseError("The body is nested too deeply.") from error
    except ValueError as error:
        raise ParseError("A number in the body has too many digits.") from error
    if "\\u0000" in packed and _holds_nul(data):
        raise ParseError("A text in the body holds a NUL character.")
    return data


def _holds_nul(data: Any) -> bool:
    if isinstance(data, str):
        return "\0" in data
    if isinstance(data, dict):
        return any(_holds_nul(key) or _holds_nul(value) for key, value in data.items())
    return isinstance(data, list) and any(_holds_nul(value) for value in data)


class JsonParser(BaseParser):
    """application/json."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        raw = stream.read(settings.MAX_BODY_BYTES + 1)
        if len(raw) > settings.MAX_BODY_BYTES:
            raise TooLarge("too_large", f"The body is over {settings.MAX_BODY_BYTES // 1024} KiB.")
        return decode(raw)


class MergePatchParser(JsonParser):
    """application/merge-patch+json (RFC 7396): what is absent stays, null removes."""

    media_type = "application/merge-patch+json"
