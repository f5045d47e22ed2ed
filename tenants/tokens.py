"""Bearer tokens: made, recognised, revoked. Only the SHA-256 is stored.

A plain hash is enough because the secret has 256 random bits: there is nothing to guess, and it lets one indexed
look-up find the token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from tenants.models import ApiToken, Tenant, User

PREFIX = "brt_"
SCOPES = ("read", "write")
DEFAULT_DAYS = 90
MAXIMUM_DAYS = 365
# How exact `last_used` is: one write per token and minute, however many requests there are.
LAST_USED_STEP = timedelta(minutes=1)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_token(
    *, user: User, name: str, scopes: Sequence[str], days: int = DEFAULT_DAYS, tenant: Tenant | None = None
) -> tuple[ApiToken, str]:
    """Make a token valid for `days` (1 to MAXIMUM_DAYS) and return it with its secret, which cannot be read again.

    With `tenant` it reaches that tenant only. `scopes` are of SCOPES; "write" includes "read".
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=secret[:10],
        sha256=_digest(secret),
        tenant=tenant,
        scopes=sorted(set(scopes)),
        expires=timezone.now() + timedelta(days=days),
    )
    return token, secret


def find_token(secret: str) -> ApiToken | None:
    """The usable token with this secret and its user, or None when it is unknown, expired, revoked or its user is off.

    Notes the use in `last_used`, at most once a minute.
    """
    token = ApiToken.objects.select_related("user").filter(sha256=_digest(secret)).first()
    now = timezone.now()
    if token is None or token.revoked is not None or token.expires <= now or not token.user.is_active:
        return None
    if token.last_used is None or token.last_used <= now - LAST_USED_STEP:
        stale = Q(last_used__isnull=True) | Q(last_used__lte=now - LAST_USED_STEP)
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used=now)
    return token


def revoke_token(*, token: ApiToken) -> None:
    """End a token now. Revoking twice keeps the first time."""
    ApiToken.objects.filter(pk=token.pk, revoked__isnull=True).update(revoked=timezone.now())
