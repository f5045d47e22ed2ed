"""How often signing in may fail, counted in the database: all replicas see the same numbers, a restart forgets none.

An attempt is counted before the password is looked at, so guesses sent at the same moment count too; success takes it
back. Unknown names count like known ones, so the answer does not tell which exist. The window has a fixed end, which
Retry-After names; waiting that long always helps.
"""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta

from django.db import connection
from django.db.models import F
from django.utils import timezone

from tenants.models import SignInCounter

WINDOW = timedelta(minutes=5)
# Per window. The account's own limit is high, since anybody can use it up and so lock its owner out for a while.
LIMITS = {"account-and-address": 10, "address": 50, "account": 100}

COUNT = """
INSERT INTO tenants_signincounter (key, attempts, ends) VALUES (%(key)s, 1, %(ends)s)
ON CONFLICT (key) DO UPDATE SET
    attempts = CASE WHEN tenants_signincounter.ends <= %(now)s THEN 1 ELSE tenants_signincounter.attempts + 1 END,
    ends = CASE WHEN tenants_signincounter.ends <= %(now)s THEN excluded.ends ELSE tenants_signincounter.ends END
RETURNING attempts, ends
"""


def _keys(username: str, address: str | None) -> dict[str, str]:
    account, where = username.casefold(), address or "unknown"
    named = {"account-and-address": f"{account}\n{where}", "address": where, "account": account}
    # Hashed: somebody may type a password where the name belongs.
    return {kind: hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest() for kind, text in named.items()}


def count_attempt(*, username: str, address: str | None) -> int:
    """Count one attempt to sign in; returns the seconds to wait, 0 when the attempt may go on.

    Not inside a transaction: the count must stay when the attempt is refused.
    """
    now = timezone.now()
    wait = 0
    with connection.cursor() as cursor:
        for kind, key in _keys(username, address).items():
            cursor.execute(COUNT, {"key": key, "now": now, "ends": now + WINDOW})
            attempts, ends = cursor.fetchone()
            if attempts > LIMITS[kind]:
                wait = max(wait, math.ceil((ends - now).total_seconds()))
    return wait


def count_success(*, username: str, address: str | None) -> None:
    """Take a counted attempt back, and forget what ended long ago."""
    keys = _keys(username, address)
    SignInCounter.objects.filter(key=keys["account-and-address"]).delete()
    shared = [keys["address"], keys["account"]]
    SignInCounter.objects.filter(key__in=shared, attempts__gt=0).update(attempts=F("attempts") - 1)
    SignInCounter.objects.filter(ends__lt=timezone.now() - WINDOW).delete()
