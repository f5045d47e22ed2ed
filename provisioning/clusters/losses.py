"""Operations by which people accept that data is gone, so that what held it serves again, empty."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from provisioning.engines.base import Change, Effect, as_shown
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster, Operation
from provisioning.operations import steps
from tenants.models import User

KIND = "accept-loss"


def loss_accepted(cluster: Cluster) -> Change:
    """What accepting does that the cluster has lost what its `loss` says. Wants that there is one."""
    assert cluster.loss is not None
    text = f"{cluster.loss['message']} It is given up for good: what is lost is served again, empty."
    return Change("", None, cluster.loss["extent"], Effect.LOSS, text)


def open_acceptance(cluster: Cluster, change: Change, by: User, request_id: str = "") -> Operation:
    """Open the operation. Wants that no other is open. What it accepts is written down: no more is ever given up."""
    titles = [*ENGINES[cluster.engine].loss_steps(), *steps.DELIVER_AFTER]
    deadline = timezone.now() + timedelta(seconds=settings.OPERATION_DEADLINE_SECONDS)
    return Operation.objects.create(
        cluster=cluster, kind=KIND, generation=cluster.generation, steps=steps.fresh(titles), actor=by,
        request_id=request_id, deadline=deadline,
        params={"extent": change.after, "estimate": None, "changes": [as_shown(change)]},
    )  # fmt: skip


def accepted_by(operation: Operation | None) -> str:
    """The extent of the loss that an operation accepts; "" for none."""
    if operation is None or operation.kind != KIND:
        return ""
    extent: str = operation.params["extent"]
    return extent
