"""Answers are the JSON that REST framework writes."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from typing import Any

import pytest
from django.utils.functional import lazystr
from rest_framework.renderers import JSONRenderer

from portal.api.renderers import FastJsonRenderer
from provisioning.models import Phase

NOON = datetime.datetime(2026, 1, 1, 12, 0, 0, 5, datetime.UTC)


@pytest.mark.parametrize(
    "value",
    [
        {"text": "集群 é \\ \" \n", "none": None, "flags": [True, False], "numbers": [0, -1, 2**63, 1.5, 1e300]},
        {2: "a", None: "b", True: "c"}, {"time": NOON, "decimal": decimal.Decimal("1.50")},
        {"id": uuid.UUID(int=1)}, [lazystr("lazy"), Phase.READY, ("a", "b")], {"huge": 2**70}, {}, [], "text",
    ],
)  # fmt: skip
def test_every_value_is_written_as_rest_framework_writes_it(value: Any) -> None:
    assert FastJsonRenderer().render(value) == JSONRenderer().render(value)


def test_separators_of_lines_stay_as_they_are_and_mean_the_same() -> None:
    assert json.loads(FastJsonRenderer().render({"a": "\u2028"})) == {"a": "\u2028"}


def test_nothing_is_no_bytes_and_indenting_is_done_when_asked_for() -> None:
    assert FastJsonRenderer().render(None) == b""
    assert FastJsonRenderer().render({"a": 1}, "application/json; indent=2") == b'{\n  "a": 1\n}'
