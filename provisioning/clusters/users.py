"""What callers may do to the users of a cluster. Each is an operation that brings it about; no password passes here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from provisioning.clusters import obstacles
from provisioning.clusters.accounts import KIND, NO_OLD_PASSWORD, old_password_works
from provisioning.clusters.services import held_for_change, hint, open_operation
from provisioning.engines.base import Access, Change, Effect, UserRules, as_shown
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, Operation, Principal
from provisioning.operations import steps
from tenants.models import User
from tenants.refusals import Conflict, FieldError, Invalid, Missing, Stale

NAME = re.compile(r"[a-z][a-z0-9_-]{0,28}[a-z0-9]|[a-z]")
OVERLAP_MOST = timedelta(days=30)
# Of every cluster, made with it.
BUILT_IN = "default"


def users_in(cluster: Cluster) -> QuerySet[Principal]:
    """The users of a cluster. Raises Conflict where its engine has none of its own."""
    _rules(cluster)
    return cluster.principals.all()


def find_user(cluster: Cluster, name: str) -> Principal:
    """One user. Raises Missing, and Conflict where the cluster's engine has no users."""
    found = users_in(cluster).filter(name=name).first()
    if found is None:
        raise Missing("not_found", f"There is no user {name[:60]} in {cluster.name}.")
    return found


def _rules(cluster: Cluster) -> UserRules:
    obstacles.raise_any(obstacles.to_users(cluster))
    rules = ENGINES[cluster.engine].user_rules
    assert rules is not None
    return rules


def _checked(cluster: Cluster, name: str, access: Access, more: Sequence[FieldError] = ()) -> None:
    found = [*more, *(FieldError(one.pointer, one.code, one.message)
                      for one in ENGINES[cluster.engine].check_user(name, access))]  # fmt: skip
    if found:
        text = found[0].message if len(found) == 1 else f"{len(found)} fields are wrong."
        raise Invalid("invalid", text, suggestion="Change the fields named in errors.", errors=found)


def add_user(
    *, cluster: Cluster, by: User, name: str, access: Access, expected_revision: int | None = None,
    request_id: str = "",
) -> tuple[Principal, Operation]:  # fmt: skip
    """Make a user with a password of its own; returns it and the operation that tells every node.

    Raises Invalid, Conflict (the name is in use, as many as can be, another operation, no users), Stale, Forbidden.
    """
    with transaction.atomic():
        locked = held_for_change(cluster, by, expected_revision)
        rules = _rules(locked)
        wrong = []
        if not NAME.fullmatch(name):
            text = "Use 1 to 30 lower-case letters, digits, - and _; start with a letter, end with a letter or digit."
            wrong.append(FieldError("/name", "bad_name", text))
        elif name in rules.reserved and name != BUILT_IN:
            wrong.append(FieldError("/name", "reserved", f"{name} is Berth's own user: choose another name."))
        _checked(locked, name, access, wrong)
        names = set(locked.principals.values_list("name", flat=True))
        if name in names:
            raise Conflict(
                "name_taken", f"{locked.name} already has a user {name}.", suggestion="Choose another name.",
                errors=[FieldError("/name", "name_taken", f"The name {name} is in use.")],
            )  # fmt: skip
        if len(names) >= rules.most:
            raise Conflict(
                "too_many_users", f"{locked.name} has {len(names)} users, which is the most there can be.",
                suggestion="Remove one that is not needed, or let several programs share one.",
            )  # fmt: skip
        text = f"{name} is made with a password of its own; every node is told, and nothing restarts."
        changes = [_change("/name", None, name, text)]
        operation = _open(locked, by, request_id, changes, user=name, action="add")
        made = Principal.objects.create(
            cluster=locked, name=name, access=_stored(access), version=locked.generation,
            secret_name=locked.principals.get(name=BUILT_IN).secret_name, secret_key=f"user.{name}",
        )  # fmt: skip
    hint(cluster.pk)
    return made, operation


def _stored(access: Access) -> dict[str, list[str]]:
    """Each once, in the order of their names, however they were sent."""
    return {
        "key_prefixes": sorted(set(access.key_prefixes)),
        "channel_prefixes": sorted(set(access.channel_prefixes)),
        "commands": sorted(set(access.commands)),
    }


def _change(pointer: str, before: Any, after: Any, message: str) -> Change:
    """`pointer` is below the request's body. Users never restart anything."""
    return Change(pointer, before, after, Effect.LIVE, message)


def _open(cluster: Cluster, by: User, request_id: str, changes: Sequence[Change], **params: Any) -> Operation:
    """Make it the cluster's new wish, and open the operation."""
    cluster.generation += 1
    cluster.revision += 1
    cluster.next_look = timezone.now()
    cluster.save(update_fields=["generation", "revision", "next_look"])
    titles = [steps.DELIVER_BEFORE[0], *ENGINES[cluster.engine].user_steps(), *steps.DELIVER_AFTER]
    shown = [as_shown(one) for one in changes]
    return open_operation(cluster, KIND, steps.fresh(titles), by, request_id, changes=shown, **params)


def _held(cluster: Cluster, by: User, name: str, expected_revision: int | None) -> tuple[Cluster, Principal]:
    """The cluster and one of its users, locked; `expected_revision` is the user's."""
    locked = held_for_change(cluster, by, None)
    user = find_user(locked, name)
    if expected_revision is not None and user.revision != expected_revision:
        raise Stale(user.revision)
    return locked, user


def edit_user(
    *, cluster: Cluster, by: User, name: str, access: Mapping[str, Sequence[str]] | None = None,
    everything: bool = False, enabled: bool | None = None, expected_revision: int | None = None, request_id: str = "",
) -> Operation | None:  # fmt: skip
    """Change what a user may do: the parts of `access` that are named, or `everything`, which only `default` may.

    Returns the operation, None when all stays as it is. Raises Invalid, Missing, Conflict, Stale, Forbidden.
    """
    with transaction.atomic():
        locked, user = _held(cluster, by, name, expected_revision)
        wished, on = user.access, user.enabled if enabled is None else enabled
        if everything:
            if name != BUILT_IN:
                text = "Only default may do everything: name prefixes and groups of commands."
                raise Invalid("invalid", text, suggestion="Leave it out.",
                              errors=[FieldError("/everything", "only_default", text)])  # fmt: skip
            wished = None
        if access:
            nothing: dict[str, list[str]] = {"key_prefixes": [], "channel_prefixes": [], "commands": []}
            parts = {**(wished or nothing), **access}
            merged = Access(**{key: tuple(values) for key, values in parts.items()})
            _checked(locked, name, merged)
            wished = _stored(merged)
        if (wished, on) == (user.access, user.enabled):
            return None
        changes = _edits(user, wished, on)
        operation = _open(locked, by, request_id, changes, user=name, action="edit")
        user.access, user.enabled = wished, on
        user.revision += 1
        user.save(update_fields=["access", "enabled", "revision"])
    hint(cluster.pk)
    return operation


def _edits(user: Principal, access: Mapping[str, list[str]] | None, enabled: bool) -> list[Change]:
    """What an edit changes, field by field."""
    changes = []
    at_once = "Works at once on every node, for connections that are open, too."
    if access is None and user.access is not None:
        changes.append(_change("/everything", False, True, f"{user.name} may do everything. {at_once}"))
    elif access is not None:
        before = user.access or {}
        changes += [
            _change(f"/{key}", before.get(key), after, at_once)
            for key, after in access.items() if before.get(key) != after
        ]  # fmt: skip
    if enabled != user.enabled:
        text = f"{user.name} can sign in again." if enabled else (
            f"Nobody can sign in as {user.name} any more; connections that are open stay."
        )  # fmt: skip
        changes.append(_change("/enabled", user.enabled, enabled, text))
    return changes


def remove_user(
    *, cluster: Cluster, by: User, name: str, expected_revision: int | None = None, request_id: str = ""
) -> Operation:
    """Remove a user, whose connections are cut. Raises Missing, Conflict (also for `default`), Stale, Forbidden."""
    with transaction.atomic():
        locked, user = _held(cluster, by, name, expected_revision)
        if name == BUILT_IN:
            raise Conflict(
                "user_stays", "The user default belongs to the cluster.",
                suggestion="Disable it instead: PATCH it with enabled false.",
            )  # fmt: skip
        text = f"Nobody can sign in as {name} any more, and its connections are cut."
        operation = _open(locked, by, request_id, [_change("", name, None, text)], user=name, action="remove")
        user.delete()
    hint(cluster.pk)
    return operation


def rotate_password(
    *, cluster: Cluster, by: User, name: str, overlap: timedelta, until_unused: bool = False,
    expected_revision: int | None = None, request_id: str = "",
) -> Operation:  # fmt: skip
    """Give a user a new password; the one before works on for `overlap` (none: it ends at once).

    `until_unused`: it ends sooner when nobody has been seen to use it for a while. Raises Missing, Conflict (an older
    one still works; pods that still sign in with it), Stale, Forbidden.
    """
    with transaction.atomic():
        locked, user = _held(cluster, by, name, expected_revision)
        if overlap and user.old_version is not None and old_password_works(user):
            raise Conflict(
                "rotation_under_way",
                f"Of {name} an old password still works, until {user.old_until:%Y-%m-%d %H:%M} UTC.",
                suggestion="End that first (POST …/revoke-old), or rotate without overlap: both end at once then.",
            )  # fmt: skip
        if name == BUILT_IN and _has_outdated_pods(locked):
            raise Conflict(
                "restart_needed",
                f"Pods of {locked.name} run an older template; their exporters may still sign in as default.",
                suggestion="Restart the cluster first (POST …/restart): one pod at a time, clients go on.",
            )
        now = timezone.now()
        text = (
            f"{name} gets a new password; the one before works beside it until {now + overlap:%Y-%m-%d %H:%M} UTC, "
            "when every connection of the user is cut once."
            if overlap else
            f"{name} gets a new password; the one before ends at once, and every connection of the user is cut."
        )  # fmt: skip
        change = _change("/overlap_seconds", None, int(overlap.total_seconds()), text)
        operation = _open(locked, by, request_id, [change], user=name, action="rotate")
        fields: dict[str, Any] = dict(NO_OLD_PASSWORD)
        if overlap:
            fields |= {"old_version": user.version, "old_until": now + overlap, "old_until_unused": until_unused}
        fields |= {"version": locked.generation, "rotated": now, "revision": user.revision + 1}
        Principal.objects.filter(pk=user.pk).update(**fields)
    hint(cluster.pk)
    return operation


def _has_outdated_pods(cluster: Cluster) -> bool:
    return any(one["type"] == "UpToDate" and one["status"] != "True" for one in cluster.conditions)


def revoke_old_password(
    *, cluster: Cluster, by: User, name: str, expected_revision: int | None = None, request_id: str = ""
) -> Operation:
    """End a user's old password now. Raises Missing, Conflict when there is none, Stale, Forbidden."""
    with transaction.atomic():
        locked, user = _held(cluster, by, name, expected_revision)
        if user.old_version is None:
            raise Conflict(
                "no_old_password", f"{name} has no old password.", suggestion="Rotate it to end the present one."
            )
        text = f"The old password of {name} ends at once, and every connection of the user is cut once."
        operation = _open(locked, by, request_id, [_change("", None, None, text)], user=name, action="revoke-old")
        user.old_until = timezone.now()
        user.revision += 1
        user.save(update_fields=["old_until", "revision"])
    hint(cluster.pk)
    return operation
