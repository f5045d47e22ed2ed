"""What a member may do in a tenant. Whether somebody may see it at all is `Tenant.objects.visible_to`."""

from __future__ import annotations

from tenants.models import Role, Tenant, User
from tenants.refusals import Forbidden

RANK = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.OWNER: 2}


def at_least(role: Role) -> str:
    """The roles that include `role`, for a sentence: "owner or developer"."""
    enough = [other.value for other in Role if RANK[other] >= RANK[role]]
    return " or ".join(enough)


def require_role(*, tenant: Tenant, user: User, least: Role) -> None:
    """Refuse unless `user` has at least the role `least`. `tenant` must come from a query `with_role_of(user)`.

    Raises Forbidden role_required, naming the role that may. Platform administrators may do everything.
    """
    if user.is_superuser:
        return
    if tenant.my_role is None or RANK[Role(tenant.my_role)] < RANK[least]:
        has = (
            f"Your role in {tenant.slug} is {tenant.my_role}"
            if tenant.my_role
            else f"You have no role in {tenant.slug}"
        )
        raise Forbidden(
            "role_required",
            f"This needs the role {at_least(least)}. {has}.",
            suggestion=f"Ask an owner of {tenant.slug} to do it or to give you the role {least.value}.",
        )


def require_active(*, tenant: Tenant, user: User) -> None:
    """Refuse changes in a suspended tenant, except by platform administrators: they end or mend what is left in it.

    Raises Forbidden tenant_suspended.
    """
    if tenant.suspended and not user.is_superuser:
        raise Forbidden(
            "tenant_suspended",
            f"The tenant {tenant.slug} is suspended: its clusters run on, but nothing can be changed.",
            suggestion="Ask a platform administrator why, and to lift the suspension.",
        )


def hold_active(*, tenant_id: str, user: User) -> None:
    """The same for a change about to be committed, with the tenant's row locked until then: a suspension either comes
    before and refuses it, or waits for it.

    Call it after locking the cluster, so that all take the two locks in one order. Raises Forbidden tenant_suspended.
    """
    require_active(tenant=Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id), user=user)
