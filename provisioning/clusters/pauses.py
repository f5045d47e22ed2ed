"""Pausing the reconcile of one cluster, and resuming it.

A paused cluster runs on as Kubernetes and its own members keep it, and is watched: its members, causes and conditions
are shown as ever. But Berth applies nothing, mends nothing and changes nothing, so that people can work on it by hand.
An operation that has not ended is held where it is; its deadline moves by as long as it was held.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from provisioning.clusters import obstacles
from provisioning.clusters.services import held_cluster, hint
from provisioning.clusters.views import pause_told
from provisioning.models import Cluster, ClusterEvent
from tenants.models import User


def pause_cluster(*, cluster: Cluster, by: User, reason: str, expected_revision: int | None = None) -> Cluster:
    """Have reconcile only watch a cluster from now on; `reason` is shown to everybody who sees it.

    Raises Conflict when it is paused already or is to be deleted, Stale, Missing, Forbidden in a suspended tenant.
    """
    with transaction.atomic():
        locked = held_cluster(cluster, by, expected_revision)
        obstacles.raise_any(obstacles.to_pause(locked))
        locked.paused = {"by": by.get_username(), "reason": reason, "since": timezone.now().isoformat()}
        _write(locked)
        ClusterEvent.objects.create(cluster=locked, warning=True, reason="Paused", message=f"{pause_told(locked)}")
    hint(locked.pk)
    return locked


def resume_cluster(*, cluster: Cluster, by: User, expected_revision: int | None = None) -> Cluster:
    """Have a paused cluster reconciled again, at once: what differs from the wish is put right.

    Raises Conflict when it is not paused, Stale, Missing, Forbidden in a suspended tenant.
    """
    with transaction.atomic():
        locked = held_cluster(cluster, by, expected_revision)
        obstacles.raise_any(obstacles.to_resume(locked))
        assert locked.paused is not None
        now = timezone.now()
        operation = locked.operations.open().select_for_update().first()
        if operation is not None:
            held_since = max(datetime.fromisoformat(locked.paused["since"]), operation.created)
            operation.deadline += now - held_since
            operation.reason = ""
            operation.revision += 1
            operation.save(update_fields=["deadline", "reason", "revision"])
        locked.paused = None
        _write(locked)
        ClusterEvent.objects.create(cluster=locked, reason="Resumed", message=f"{by.get_username()} resumed reconcile.")
    hint(locked.pk)
    return locked


def _write(cluster: Cluster) -> None:
    # Taking the claim away stops a worker that is at it: its next write finds a newer fence.
    cluster.revision += 1
    cluster.next_look = timezone.now()
    cluster.fence += 1
    cluster.claimed_until = None
    cluster.save(update_fields=["paused", "revision", "next_look", "fence", "claimed_until"])
