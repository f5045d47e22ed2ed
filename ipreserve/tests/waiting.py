"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
DEADLINE_SECONDS = 30.0


def eventually(look: Callable[[], Found], what: str, *, seconds: float = DEADLINE_SECONDS) -> Found:
    """What `look` returns once it is true-ish. Fails with `what` when it does not become so."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
