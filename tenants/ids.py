"""Prefixed ids, never reused and in order of creation: "clu_" and a ULID in lower case.

The layout (48 bits of milliseconds, 80 random bits, base 32) is that of https://github.com/ulid/spec. The order
lets a page's cursor be an id.
"""

from __future__ import annotations

import secrets
import time

# What a tenant's slug looks like: a DNS label short enough that "berth-<slug>" and everything named after it stays one.
SLUG = r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?\Z"

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """A fresh id such as "clu_01h…", `prefix` without the underscore."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return prefix + "_" + "".join(ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
