"""One cluster shared with a person of another tenant, by django-guardian's object permissions.

read: see the cluster, its events and operations; no secrets. use: also its credentials and snippets. Neither allows a
change. Who may see what is asked in Cluster.objects.visible_to only. Membership ends them: end_grants in the models.
"""

from __future__ import annotations

from django.db import transaction
from guardian.core import ObjectPermissionChecker
from guardian.shortcuts import assign_perm

from provisioning.models import RIGHTS, Cluster, ClusterGrant
from tenants.models import User
from tenants.people import find_person
from tenants.refusals import Conflict, Missing


def may(*, user: User, cluster: Cluster, right: str) -> bool:
    """Whether a grant (or being a platform administrator) gives `user` this right; "use" includes "read"."""
    checker = ObjectPermissionChecker(user)
    enough = [right, "use"] if right == "read" else [right]
    return any(checker.has_perm(RIGHTS[one], cluster) for one in enough)


def share(*, cluster: Cluster, username: str, right: str) -> ClusterGrant:
    """Grant `right` ("read" or "use") in place of what the person had. Raises Invalid, Conflict for a member."""
    person = find_person(username)
    if cluster.tenant.memberships.filter(user=person).exists():
        raise Conflict(
            "already_member", f"{username} is a member of {cluster.tenant.slug} and sees all its clusters.",
            suggestion="Change the role of the member instead.",
        )  # fmt: skip
    with transaction.atomic():
        Cluster.objects.select_for_update(of=("self",)).get(pk=cluster.pk)
        ClusterGrant.objects.filter(content_object=cluster, user=person).delete()
        assign_perm(RIGHTS[right], person, cluster)
        grant: ClusterGrant = ClusterGrant.objects.select_related("user", "permission").get(
            content_object=cluster, user=person
        )
        return grant


def unshare(*, cluster: Cluster, username: str) -> None:
    """Take a grant away; the person's next request finds nothing. Raises Missing."""
    gone, _ = ClusterGrant.objects.filter(content_object=cluster, user__username=username).delete()
    if not gone:
        raise Missing("not_found", f"{cluster.name} is not shared with {username}.")
