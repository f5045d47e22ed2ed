"""Prefixed ids, never reused and in order of creation: "clu_" and a ULID in lower case.

The layout (48 bits of milliseconds, 80 random bits, base 32) is that of https://github.com/ulid/spec, and so is that
what one process makes is in order also within a millisecond. The order lets a page's cursor be an id.
"""

from __future__ import annotations

import secrets
import threading
import time

# What a tenant's slug looks like: a DNS label short enough that "berth-<slug>" and everything named after it stays one.
SLUG = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?\Z"

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A fresh id such as "clu_01h…", `prefix` without the underscore."""
    global _last
    with _lock:
        number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        # Within a millisecond, or when the clock was set back: the next by a step nobody can guess.
        _last = number = number if number > _last else _last + 1 + secrets.randbits(40)
    return prefix + "_" + "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
