"""Tenants and the people in them: made, renamed, suspended, invited, promoted, removed.

Every function that could take the last owner away, or let somebody in, locks the tenant's row first: changes of one
tenant's people happen one after the other, so two owners cannot remove each other at the same moment.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError
from django.utils import timezone

from tenants.models import Invitation, Membership, Role, Tenant, User
from tenants.refusals import Conflict, FieldError, Forbidden, Invalid, Missing

INVITATION_PREFIX = "bri_"
INVITATION_DAYS = 7
INVITATION_MAXIMUM_DAYS = 30


def lock_tenant(tenant: Tenant) -> Tenant:
    """The tenant as it is, its row locked until the transaction ends. Raises Missing when it was deleted meanwhile."""
    locked = Tenant.objects.select_for_update().filter(pk=tenant.pk).first()
    if locked is None:
        raise Missing("not_found", f"There is no tenant {tenant.slug} any more.")
    return locked


def keep_an_owner(tenant: Tenant, leaving: Membership) -> None:
    """Refuse when `leaving` is the last person who owns the tenant. Services and people switched off do not count."""
    owners = tenant.memberships.filter(role=Role.OWNER, user__is_active=True, user__service_of=None)
    if leaving.role == Role.OWNER and not owners.exclude(pk=leaving.pk).exists():
        raise Conflict(
            "last_owner",
            f"{leaving.user.get_username()} is the last owner of {tenant.slug}.",
            suggestion="Make somebody else an owner first.",
        )


def create_tenant(*, slug: str, name: str, owner: str | None = None) -> Tenant:
    """Make a tenant, with the user `owner` as its first owner if given. Raises Conflict, Invalid."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                tenant = Tenant.objects.create(slug=slug, name=name)
        except IntegrityError as error:
            raise Conflict(
                "slug_taken", f"There is a tenant {slug} already.", suggestion="Choose another slug.",
                errors=[FieldError("/slug", "name_taken", f"The slug {slug} is in use.")],
            ) from error  # fmt: skip
        if owner is not None:
            Membership.objects.create(tenant=tenant, user=find_person(owner, pointer="/owner"), role=Role.OWNER)
    return tenant


def find_person(username: str, *, pointer: str = "/username") -> User:
    """The active person of that name. Raises Invalid: who may manage people may also know who there is."""
    found = User.objects.filter(username=username, is_active=True, service_of=None).first()
    if found is None:
        raise Invalid(
            "invalid", f"There is no user {username[:60]!r}.",
            errors=[FieldError(pointer, "unknown_user", "There is no such user. Names are exact, upper case too.")],
        )  # fmt: skip
    return found


def rename_tenant(*, tenant: Tenant, name: str) -> None:
    """Change the name people read; the slug never changes."""
    Tenant.objects.filter(pk=tenant.pk).update(name=name)


def set_suspended(*, tenant: Tenant, suspended: bool) -> None:
    """Stop, or allow again, every change in a tenant. Reads stay, clusters run on, nothing is deleted."""
    with transaction.atomic():
        lock_tenant(tenant)
        Tenant.objects.filter(pk=tenant.pk).update(suspended=suspended)


def delete_tenant(*, tenant: Tenant) -> None:
    """Delete a tenant that holds nothing. Raises Conflict while any cluster, even a deleted one, belongs to it."""
    with transaction.atomic():
        try:
            lock_tenant(tenant).delete()
        except ProtectedError as error:
            raise not_empty(tenant) from error


def not_empty(tenant: Tenant) -> Conflict:
    """The refusal to delete a tenant that ever had a cluster."""
    return Conflict(
        "tenant_not_empty", f"{tenant.slug} has clusters, or the history of deleted ones.",
        suggestion="Suspend it: reads stay, changes end. Only tenants that never had a cluster can be deleted.",
    )  # fmt: skip


def add_member(*, tenant: Tenant, username: str, role: Role) -> Membership:
    """Let a person in. Raises Invalid for an unknown user, Conflict for one who is in."""
    person = find_person(username)
    with transaction.atomic():
        return _join(lock_tenant(tenant), person, role)


def _join(tenant: Tenant, person: User, role: Role) -> Membership:
    member, created = Membership.objects.get_or_create(tenant=tenant, user=person, defaults={"role": role})
    if not created:
        raise Conflict(
            "already_member", f"{person.get_username()} is {member.role} of {tenant.slug} already.",
            suggestion="Change the role of the member instead.",
        )  # fmt: skip
    return member


def find_member(tenant: Tenant, username: str) -> Membership:
    """The membership of a person, services apart. Raises Missing."""
    found = tenant.memberships.select_related("user").filter(user__username=username, user__service_of=None).first()
    if found is None:
        raise Missing("not_found", f"There is no member {username} in {tenant.slug}.")
    return found


def change_role(*, tenant: Tenant, username: str, role: Role) -> tuple[Membership, str]:
    """Give a member another role; returns the membership and the role before. Raises Missing, Conflict last_owner."""
    with transaction.atomic():
        member = find_member(lock_tenant(tenant), username)
        before = member.role
        if role != Role.OWNER:
            keep_an_owner(tenant, member)
        member.role = role
        member.save(update_fields=["role"])
    return member, before


def remove_member(*, tenant: Tenant, username: str) -> None:
    """End a membership: the person's next request sees nothing of the tenant. Raises Missing, Conflict last_owner."""
    with transaction.atomic():
        member = find_member(lock_tenant(tenant), username)
        keep_an_owner(tenant, member)
        member.delete()


# --- invitations ------------------------------------------------------------------------------------------------------


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def invite(
    *, tenant: Tenant, by: User, role: Role, note: str = "", days: int = INVITATION_DAYS
) -> tuple[Invitation, str]:
    """An invitation for one person, and its secret, which is not kept: only its SHA-256 is (256 random bits)."""
    secret = INVITATION_PREFIX + secrets.token_urlsafe(32)
    invitation = Invitation.objects.create(
        tenant=tenant, role=role, note=note, sha256=_digest(secret), invited_by=by,
        expires=timezone.now() + timedelta(days=days),
    )  # fmt: skip
    return invitation, secret


def withdraw(*, invitation: Invitation) -> None:
    """End an invitation nobody has accepted. Withdrawing twice does nothing."""
    Invitation.objects.filter(pk=invitation.pk, accepted=None, withdrawn=None).update(withdrawn=timezone.now())


def accept(*, secret: str, by: User) -> Membership:
    """Join the tenant of an invitation, once. Raises Missing, the same for unknown, used, withdrawn and expired.

    The inviter must still be an owner (or a platform administrator): who was removed cannot come back, or let others
    in, through invitations made before.
    """
    missing = Missing("invitation_unusable", "The invitation is unknown, used, withdrawn or expired.")
    if by.service_of_id:
        raise Forbidden("session_required", "A service cannot accept an invitation.")
    found = Invitation.objects.filter(sha256=_digest(secret)).select_related("tenant").first()
    if found is None:
        raise missing
    with transaction.atomic():
        tenant = lock_tenant(found.tenant)
        invitation = Invitation.objects.select_for_update(of=("self",)).select_related("invited_by").get(pk=found.pk)
        inviter = invitation.invited_by
        if invitation.accepted or invitation.withdrawn or invitation.expires <= timezone.now() or inviter is None:
            raise missing
        owns = tenant.memberships.filter(user=inviter, role=Role.OWNER).exists()
        if not inviter.is_active or not (owns or inviter.is_superuser):
            raise missing
        if tenant.suspended:
            raise Forbidden("tenant_suspended", f"The tenant {tenant.slug} is suspended.")
        member = _join(tenant, by, Role(invitation.role))
        invitation.accepted, invitation.accepted_by = timezone.now(), by
        invitation.save(update_fields=["accepted", "accepted_by"])
    return member
