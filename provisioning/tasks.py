"""Celery tasks: hints to look at something. Losing every message loses no work, since `sweep` finds what is due."""

from __future__ import annotations

import logging

from celery import shared_task
from django.utils import timezone
from kombu.exceptions import OperationalError

from provisioning import targets
from provisioning.clusters.enforcement import enforce
from provisioning.clusters.ledger_proof import prove_all
from provisioning.clusters.reconcile import reconcile
from provisioning.models import Cluster, Target

log = logging.getLogger(__name__)
# What a send raises when the broker is away.
BROKER_ERRORS = (OperationalError, OSError)
# How many due clusters one sweep hands out; the rest comes with the next, two seconds later.
SWEEP_LIMIT = 200


@shared_task(name="berth.reconcile_cluster")
def reconcile_cluster(cluster_id: str) -> None:
    """Look at one cluster, and come back when it says so."""
    again = reconcile(cluster_id)
    if again is not None:
        try:
            reconcile_cluster.apply_async((cluster_id,), countdown=again)
        except BROKER_ERRORS as error:
            log.warning("no hint could be sent, beat will find it", extra={"why": str(error)})


@shared_task(name="berth.sweep")
def sweep() -> None:
    """Hand out every cluster whose time has come and whom nobody holds: after a crash, a flush, a lost message."""
    due = Cluster.objects.present().due().order_by("next_look").values_list("pk", flat=True)[:SWEEP_LIMIT]
    for cluster_id in due:
        reconcile_cluster.delay(cluster_id)


@shared_task(name="berth.enforce_quota")
def enforce_quota(tenant_id: str | None = None) -> None:
    """Bring the ResourceQuotas of one tenant, or of all, after the limits."""
    ids = [tenant_id] if tenant_id else list(Cluster.objects.values_list("tenant_id", flat=True).distinct())
    for one in ids:
        enforce(one)


@shared_task(name="berth.prove_quota")
def prove_quota() -> None:
    """Compare the quota ledger with what Kubernetes really requests, and report differences."""
    prove_all()


@shared_task(name="berth.discover_targets")
def discover_targets() -> None:
    """Look at every target; those nobody has looked at yet first."""
    for target in Target.objects.order_by("checked"):
        was = target.reachable
        if targets.discover(target) and was is False:
            # What waited for it need not wait for its turn.
            Cluster.objects.present().filter(target=target).update(next_look=timezone.now())
