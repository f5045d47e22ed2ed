"""People as an identity provider knows them. Called by portal/oidc.py, after it has checked what the provider says."""

from __future__ import annotations

import re

from django.db import IntegrityError, transaction

from tenants.models import Identity, User

# What Django's user names may not hold.
UNUSABLE = re.compile(r"[^\w.@+-]+")


def person_of(*, issuer: str, subject: str, username: str, first_name: str, last_name: str) -> User:
    """The user that (issuer, subject) is linked to, made at the first sign-in.

    Nobody is ever found by name: a `username` that is taken here gets a number. The person's own names follow the
    provider. The user may be switched off; that is for the caller to refuse.
    """
    names = {"first_name": first_name[:150], "last_name": last_name[:150]}
    # 1. Known already.
    found = Identity.objects.select_related("user").filter(issuer=issuer, subject=subject).first()
    if found is None:
        try:
            # 2. New. Two first sign-ins at once: the constraint lets one through ...
            with transaction.atomic():
                user = _new_user(username, names)
                Identity.objects.create(user=user, issuer=issuer, subject=subject)
            return user
        except IntegrityError:
            # 3. ... and the other takes what that one made.
            found = Identity.objects.select_related("user").get(issuer=issuer, subject=subject)
    user = found.user
    if {key: getattr(user, key) for key in names} != names:
        user.first_name, user.last_name = names["first_name"], names["last_name"]
        user.save(update_fields=list(names))
    return user


def _new_user(wanted: str, names: dict[str, str]) -> User:
    base = UNUSABLE.sub("-", wanted)[:140].strip("-") or "user"
    # Upper and lower case are different names to Django, not to people.
    taken = {
        name.lower() for name in User.objects.filter(username__istartswith=base).values_list("username", flat=True)
    }
    name, number = base, 2
    while name.lower() in taken:
        name, number = f"{base}-{number}", number + 1
    user = User(username=name, **names)
    user.set_unusable_password()
    # The same name given away at this very moment: try the next one.
    for _ in range(5):
        try:
            with transaction.atomic():
                user.save(force_insert=True)
            return user
        except IntegrityError:
            user.username, number = f"{base}-{number}", number + 1
    user.save(force_insert=True)
    return user
