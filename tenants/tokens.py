"""Bearer tokens: made, recognised, revoked. Only the SHA-256 is stored.

A plain hash is enough because the secret has 256 random bits: there is nothing to guess, and it lets one indexed
look-up find the token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from tenants.models import ApiToken, Membership, Role, Tenant, User
from tenants.prepared import Prepared

PREFIX = "brt_"
# Each includes the ones before it. Who belongs to a tenant, and platform administration, need "admin".
SCOPES = ("read", "write", "admin")
DEFAULT_DAYS = 90
MAXIMUM_DAYS = 365
# How exact `last_used` is: one write per token and minute, however many requests there are.
LAST_USED_STEP = timedelta(minutes=1)


# Every request by a token asks this.
FIND = Prepared(
    lambda digest, now: ApiToken.objects.usable(now).select_related("user").filter(sha256=digest)
)  # fmt: skip


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_token(
    *,
    user: User,
    name: str,
    scopes: Sequence[str],
    days: int = DEFAULT_DAYS,
    tenant: Tenant | None = None,
    created_by: User | None = None,
) -> tuple[ApiToken, str]:
    """Make a token valid for `days` (1 to MAXIMUM_DAYS) and return it with its secret, which cannot be read again.

    With `tenant` it reaches that tenant only. `scopes` are of SCOPES.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=secret[:10],
        sha256=_digest(secret),
        tenant=tenant,
        scopes=sorted(set(scopes)),
        created_by=created_by,
        expires=timezone.now() + timedelta(days=days),
    )
    return token, secret


def create_service_token(
    *, tenant: Tenant, by: User, name: str, role: Role, scopes: Sequence[str], days: int = DEFAULT_DAYS
) -> tuple[ApiToken, str]:
    """A token of the tenant and not of a person: it acts as a service of its own with `role`, and outlives `by`."""
    with transaction.atomic():
        # ":" and "/" are not allowed in names of people, so a service is not taken for one.
        username = f"service:{tenant.slug}/{name}:{secrets.token_hex(3)}"
        service = User(username=username, first_name=name, service_of=tenant)
        service.set_unusable_password()
        service.save()
        Membership.objects.create(tenant=tenant, user=service, role=role)
        return create_token(user=service, name=name, scopes=scopes, days=days, tenant=tenant, created_by=by)


def covers(*, token: ApiToken, scope: str) -> bool:
    """Whether one of the token's scopes is `scope` or includes it."""
    return any(SCOPES.index(has) >= SCOPES.index(scope) for has in token.scopes if has in SCOPES)


def find_token(secret: str) -> ApiToken | None:
    """The usable token with this secret and its user, or None when it is unknown, expired, revoked or its user is off.

    Notes the use in `last_used`, at most once a minute.
    """
    now = timezone.now()
    token = FIND.first(digest=_digest(secret), now=now)
    if token is None:
        return None
    if token.last_used is None or token.last_used <= now - LAST_USED_STEP:
        stale = Q(last_used__isnull=True) | Q(last_used__lte=now - LAST_USED_STEP)
        ApiToken.objects.filter(stale, pk=token.pk).update(last_used=now)
    return token


def revoke_token(*, token: ApiToken) -> None:
    """End a token now. Revoking twice keeps the first time."""
    ApiToken.objects.filter(pk=token.pk, revoked__isnull=True).update(revoked=timezone.now())
