"""Principals as the users of an engine, and what reconcile writes down about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from provisioning.engines.base import Access, User, UsersSeen
from provisioning.engines.registry import ENGINES
from provisioning.models import Principal

# Kind of the operations that change users.
KIND = "change-users"
# How often is looked who still uses an old password: every node tells all its connections then.
WATCH_EVERY = timedelta(seconds=60)
# How long nobody must have been seen to use an old password, where that is to end it.
UNUSED_FOR = timedelta(minutes=10)

# What a row says of its old password, when there is none.
NO_OLD_PASSWORD: Mapping[str, Any] = {
    "old_version": None, "old_until": None, "old_until_unused": False, "old_connections": None,
    "old_last_active": None, "old_checked": None, "old_unused_since": None,
}  # fmt: skip


def access_of(principal: Principal) -> Access | None:
    """What a principal may do; None: everything."""
    if principal.access is None:
        return None
    return Access(**{key: tuple(values) for key, values in principal.access.items()})


def old_password_works(principal: Principal) -> bool:
    """Whether its old password is to work now."""
    now = timezone.now()
    if principal.old_version is None or principal.old_until is None or principal.old_until <= now:
        return False
    unused = principal.old_unused_since
    return not (principal.old_until_unused and unused is not None and unused + UNUSED_FOR <= now)


def users_of(engine: str, principals: Sequence[Principal]) -> tuple[User, ...] | None:
    """The users as wished now; None for an engine that has none of its own."""
    if ENGINES[engine].user_rules is None:
        return None
    return tuple(_user(principal) for principal in principals)


def _user(principal: Principal) -> User:
    old = [principal.old_version] if principal.old_version is not None and old_password_works(principal) else []
    settled = principal.settled if principal.settled_version == principal.version else None
    due = principal.old_checked is None or principal.old_checked + WATCH_EVERY <= timezone.now()
    return User(
        principal.name, (principal.version, *old), access_of(principal), principal.enabled, settled,
        watched=bool(old) and settled is not None and due,
    )  # fmt: skip


def has_expired(principals: Sequence[Principal]) -> bool:
    """Whether an old password is still noted though it is not to work any more: nodes may not know that yet."""
    return any(one.old_version is not None and not old_password_works(one) for one in principals)


def next_end(principals: Sequence[Principal]) -> datetime | None:
    """When the next old password ends at the latest."""
    return min((one.old_until for one in principals if one.old_until and old_password_works(one)), default=None)


@dataclass(frozen=True)
class Note:
    """What is to be written down about one principal, and the event that tells it; `reason` "" for none."""

    principal: Principal
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    message: str = ""


def notes(principals: Sequence[Principal], users: Sequence[User], seen: UsersSeen) -> Iterator[Note]:
    """What is new. `principals` and `users` are as they were when the engine looked."""
    if not seen.in_force:
        return
    now = timezone.now()
    for one, user in zip(principals, users, strict=True):
        if one.settled_version != one.version:
            text = f"The password {one.version} of {one.name} works on every node."
            reason = "PasswordWorks" if one.version > 1 else ""
            yield Note(one, {"settled_version": one.version, "settled": now}, reason, text)
        if one.old_version is not None and one.old_version not in user.versions:
            text = f"The old password of {one.name}, {one.old_version}, no longer works anywhere."
            yield Note(one, NO_OLD_PASSWORD, "OldPasswordEnded", text)
        elif one.name in seen.old:
            use = seen.old[one.name]
            unused = None if use.connections else one.old_unused_since or now
            fields = {
                "old_connections": use.connections, "old_checked": now, "old_unused_since": unused,
                "old_last_active": use.last_active or one.old_last_active,
            }  # fmt: skip
            yield Note(one, fields)
