"""Memberships that groups of the identity provider give and take. Called at each sign-in, in its transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Q

from tenants.access import RANK
from tenants.models import Membership, Role, Tenant, User
from tenants.people import keep_an_owner
from tenants.refusals import Conflict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """A membership that groups changed, or would have: `refusal` is the code of the rule that forbade it, or empty.

    `before` and `after` are roles, empty for no membership.
    """

    tenant: Tenant
    before: str
    after: str
    refusal: str = ""


def follow_groups(*, user: User, wanted: Mapping[str, Role]) -> list[Followed]:
    """Make the memberships of `user` that come from groups those in `wanted` (tenant's slug to role).

    Memberships made by hand are left alone. The last owner stays, and a suspended tenant gives nobody more than they
    had; both come back as refusals and are tried again at the next sign-in. Must run inside a transaction: the tenants
    are locked, in one order, as in tenants/people.py.
    """
    ours = Membership.objects.filter(user=user, from_groups=True)
    concerned = Tenant.objects.filter(Q(slug__in=wanted) | Q(pk__in=ours.values("tenant"))).order_by("pk")
    tenants = list(concerned.select_for_update())
    if missing := sorted(set(wanted) - {tenant.slug for tenant in tenants}):
        log.warning("groups are mapped to tenants that do not exist", extra={"tenants": missing})
    found = [_follow(tenant, user, wanted.get(tenant.slug)) for tenant in tenants]
    return [one for one in found if one is not None]


def _follow(tenant: Tenant, user: User, role: Role | None) -> Followed | None:
    """One locked tenant. None when there is nothing to change."""
    member = Membership.objects.select_related("user").filter(tenant=tenant, user=user).first()
    before, after = (member.role if member else ""), (role.value if role else "")
    if before == after or (member is not None and not member.from_groups):
        return None
    rank_before = RANK[Role(before)] if before else -1
    if tenant.suspended and role is not None and RANK[role] > rank_before:
        return Followed(tenant, before, after, "tenant_suspended")
    if member is None:
        Membership.objects.create(tenant=tenant, user=user, role=after, from_groups=True)
        return Followed(tenant, before, after)
    if role != Role.OWNER:
        try:
            keep_an_owner(tenant, member)
        except Conflict as refusal:
            log.warning("the last owner stays without the group", extra={"tenant": tenant.slug, "user_id": user.pk})
            return Followed(tenant, before, after, refusal.code)
    if role is None:
        member.delete()
    else:
        member.role = role
        member.save(update_fields=["role"])
    return Followed(tenant, before, after)
