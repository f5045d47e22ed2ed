"""The tenants' ResourceQuotas on their targets, brought after the limits.

Each apply of a cluster brings its own namespace's up to date (reconcile.py). This is for the others: after a change of
limits, and every now and then, since what one target has left of an overall limit changes with what others hold.
"""

from __future__ import annotations

import logging

from provisioning.apply import door, errors
from provisioning.clusters.quota import hard_limits
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Target
from tenants.models import Tenant
from tenants.quota import standings

log = logging.getLogger(__name__)


def enforce(tenant_id: str) -> list[str]:
    """Bring the ResourceQuota of every namespace of the tenant up to date; returns the targets where it changed.

    A target that cannot be asked is left for the next time, and logged.
    """
    tenant = Tenant.objects.get(pk=tenant_id)
    changed = []
    for target in Target.objects.filter(clusters__tenant=tenant).distinct().order_by("name"):
        # Read afresh per target: what is asked of Kubernetes should be as young as can be.
        hard = hard_limits(standings(tenant_id), target.name)
        try:
            if door.ensure_quota(client_for(target), namespace_of(tenant.slug), tenant_id, hard):
                changed.append(target.name)
        except errors.Absent:
            continue  # no namespace yet: its first cluster makes it, with the quota
        except errors.DoorError as error:
            log.warning("%s", error.message, extra={"target": target.name, "tenant": tenant.slug, "code": error.code})
    return changed
