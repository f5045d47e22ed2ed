"""Everybody who can sign in, as platform administrators manage them: seen, switched off and on, made administrators.

Services of tenants are not among them: their owners manage those (tenants/tokens.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.contrib.auth import SESSION_KEY
from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Count, Exists, IntegerField, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from tenants.models import ApiToken, Identity, Membership, Role, Tenant, User
from tenants.refusals import Conflict, FieldError, Invalid, Missing

# Of passwords Berth makes: 120 random bits.
MADE_PASSWORD_BYTES = 15


def _count(rows: QuerySet[Model]) -> Coalesce:
    """How many of `rows` belong to the person of the outer query."""
    own = rows.filter(user=OuterRef("pk")).order_by().values("user").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(own), 0, output_field=IntegerField())


def people() -> QuerySet[User]:
    """All people, with `membership_count`, `token_count` (neither expired nor revoked) and `has_identity` (they
    sign in with an identity provider)."""
    return User.objects.filter(service_of=None).annotate(
        membership_count=_count(Membership.objects.all()),
        token_count=_count(ApiToken.objects.unended()),
        has_identity=Exists(Identity.objects.filter(user=OuterRef("pk"))),
    )


def person(username: str) -> User:
    """One of people(), by the exact user name. Raises Missing."""
    found = people().filter(username=username).first()
    if found is None:
        raise Missing("not_found", f"There is no person {username[:150]}.")
    return found


def create_person(*, username: str, name: str = "") -> tuple[User, str]:
    """Make a person who can sign in at once, and the password to do it with, which is kept as a hash only.

    Upper and lower case make no other name. Raises Invalid for a name that cannot be one, Conflict for one in use.
    """
    user = User(username=username, first_name=name)
    try:
        User.username_validator(username)
    except ValidationError as error:
        text = f"User name: {error.messages[0]}"
        raise Invalid("invalid", text, errors=[FieldError("/username", "bad_name", text)]) from error
    with transaction.atomic():
        # One lock for all new names: two that differ in case only are no two for the constraint.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('berth-new-person'))")
        if User.objects.filter(username__iexact=username).exists():
            raise Conflict(
                "name_taken", f"There is a user {username} already.", suggestion="Choose another user name.",
                errors=[FieldError("/username", "name_taken", f"The user name {username} is in use.")],
            )  # fmt: skip
        password = _set_password(user)
        user.save(force_insert=True)
    return user, password


def reset_password(*, username: str) -> tuple[User, str]:
    """Give a person a new password, which is returned; their sessions end, tokens go on working.

    Raises Missing; Conflict for one who signs in with the identity provider only.
    """
    with transaction.atomic():
        found = person(username)
        if found.has_identity and not found.has_usable_password():  # type: ignore[attr-defined]
            raise Conflict(
                "signs_in_elsewhere", f"{username} signs in with the identity provider, and has no password here.",
                suggestion="Reset it at the identity provider.",
            )  # fmt: skip
        user = User.objects.select_for_update(no_key=True).get(pk=found.pk)
        password = _set_password(user)
        user.save(update_fields=["password"])
        _end_sessions(user)
    return person(username), password


def _set_password(user: User) -> str:
    password = secrets.token_urlsafe(MADE_PASSWORD_BYTES)
    user.set_password(password)
    return password


def change_own_password(*, user: User, new: str) -> None:
    """Set the password of who has just shown the present one; all other sessions of theirs end with it.

    Raises Invalid for a password that is too short, too common or too much like the name.
    """
    try:
        validate_password(new, user)
    except ValidationError as error:
        errors = [FieldError("/new", "bad_password", text) for text in error.messages]
        raise Invalid("invalid", errors[0].message, suggestion="Choose another password.", errors=errors) from error
    user.set_password(new)
    user.save(update_fields=["password"])


def hold_active(user: User) -> User | None:
    """The person as they are now, their row locked until the transaction ends; None when they were switched off.

    For signing in: `change_person` waits for it, and then ends the session that was opened; or it was first.
    """
    return User.objects.select_for_update(no_key=True).filter(pk=user.pk, is_active=True).first()


def ownerless(user: User) -> list[str]:
    """The slugs of the tenants `user` owns that have no active person as their owner, in order."""
    owners = Membership.objects.filter(
        tenant=OuterRef("pk"), role=Role.OWNER, user__is_active=True, user__service_of=None
    )
    owned = Tenant.objects.filter(memberships__user=user, memberships__role=Role.OWNER)
    return list(owned.exclude(Exists(owners)).order_by("slug").values_list("slug", flat=True))


@dataclass(frozen=True)
class Switched:
    """A person after a change, what was `before`, and how many sessions ended with it."""

    person: User
    before: dict[str, bool]
    sessions_ended: int


def change_person(
    *, username: str, by: User, active: bool | None = None, administrator: bool | None = None,
    expect: Callable[[User], None] = lambda user: None,
) -> Switched:  # fmt: skip
    """Switch a person off or on, make or unmake a platform administrator; None leaves it.

    Whoever is switched off is out at once: sessions end for good, tokens are refused until the person is switched on
    again. The last active administrator stays one. `expect` is called with the person's row locked, and raises when the
    person is no longer what the caller read. Raises that; Missing, also when `by` is no active administrator any more;
    Conflict last_administrator, Conflict own_account.
    """
    with transaction.atomic():
        found = person(username)
        # 1. Administrators in one order: two who end each other do so one after the other. No key: memberships that are
        # made meanwhile refer to these rows, and need not wait.
        administrators = Q(is_superuser=True, is_active=True, service_of=None)
        locked = User.objects.select_for_update(no_key=True).filter(Q(pk=found.pk) | administrators).order_by("pk")
        rows = {row.pk: row for row in locked}
        # 2. Then tenants, as at a sign-in with groups: no other owner of theirs leaves while this one is switched off.
        owned = Tenant.objects.filter(memberships__user=found, memberships__role=Role.OWNER)
        list(Tenant.objects.filter(pk__in=owned.values("pk")).order_by("pk").select_for_update())
        caller = rows.get(by.pk)
        if found.pk not in rows or caller is None or not (caller.is_active and caller.is_superuser):
            # Gone; or whoever asks was ended by another in this very moment, and may not see the person any more.
            raise Missing("not_found", f"There is no person {username[:150]}.")
        user = rows[found.pk]
        expect(user)
        before = {"active": user.is_active, "administrator": user.is_superuser}
        user.is_active = user.is_active if active is None else active
        user.is_superuser = user.is_superuser if administrator is None else administrator
        if user.pk == by.pk and not user.is_active:
            raise Conflict(
                "own_account", "Nobody switches themselves off.",
                suggestion="Ask another platform administrator to do it.",
            )  # fmt: skip
        was_one = before["active"] and before["administrator"]
        if was_one and not _administers(rows.values()):
            raise Conflict(
                "last_administrator", f"{username} is the last active platform administrator.",
                suggestion="Make somebody else a platform administrator first.",
            )  # fmt: skip
        user.save(update_fields=["is_active", "is_superuser"])
        ended = _end_sessions(user) if before["active"] and not user.is_active else 0
        return Switched(person(username), before, ended)


def _administers(users: Iterable[User]) -> bool:
    return any(user.is_active and user.is_superuser for user in users)


def _end_sessions(user: User) -> int:
    """Delete the sessions of a person, so that none comes back when the person is switched on again.

    Sessions name their user in what they hold, so all that have not expired are looked into.
    """
    valid = Session.objects.filter(expire_date__gt=timezone.now()).iterator(chunk_size=500)
    own = [session.pk for session in valid if session.get_decoded().get(SESSION_KEY) == str(user.pk)]
    Session.objects.filter(pk__in=own).delete()
    return len(own)
