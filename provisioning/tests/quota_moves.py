"""What the processes of test_quota_processes.py do to a tenant's clusters."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from provisioning.clusters import quota
from provisioning.clusters.services import create_cluster, delete_cluster
from provisioning.models import Cluster, Operation, OperationState, Phase
from tenants.models import Tenant, User
from tenants.quota import QuotaExceeded
from tenants.refusals import Missing

SHAPES = (
    {"shards": 3}, {"shards": 4}, {"shards": 5, "replicasPerShard": 0}, {"shards": 3, "replicasPerShard": 2},
)  # fmt: skip
SMALL = {"memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1, "spread": "soft"}


class Moves:
    """Each move is one attempt: it does its thing, or is refused, or finds nothing to do it to."""

    def __init__(self, tenant_id: str, user_id: int, choose: random.Random) -> None:
        self.tenant = Tenant.objects.get(pk=tenant_id)
        self.user = User.objects.get(pk=user_id)
        self.choose = choose

    def attempt(self, name: str) -> None:
        """One of create, resize and delete; `name` for a create."""
        move = self.choose.choices(("create", "resize", "delete"), weights=(5, 3, 2))[0]
        {"create": lambda: self.create(name), "resize": self.resize, "delete": self.delete}[move]()

    def create(self, name: str) -> None:
        """Order a cluster."""
        spec = {**SMALL, **self.choose.choice(SHAPES)}
        try:
            create_cluster(tenant=self.tenant, by=self.user, name=name, engine="redis", spec=spec)
        except QuotaExceeded:
            return

    def resize(self) -> None:
        """Give a cluster at rest another shape: growth is reserved in the transaction that opens the operation."""
        pk = self._any(Cluster.objects.filter(phase=Phase.READY).values_list("pk", flat=True))
        if pk is None:
            return
        try:
            with transaction.atomic():
                cluster = Cluster.objects.select_for_update().get(pk=pk)
                if cluster.phase != Phase.READY:
                    return
                cluster.spec = {**cluster.spec, "replicasPerShard": 1, **self.choose.choice(SHAPES)}
                cluster.phase = Phase.UPDATING
                cluster.save(update_fields=["spec", "phase"])
                operation = Operation.objects.create(
                    cluster=cluster, kind="update", generation=1, deadline=timezone.now() + timedelta(minutes=10)
                )
                quota.reserve(cluster, operation)
        except QuotaExceeded:
            return

    def delete(self) -> None:
        """Ask for a cluster's deletion, whatever is being done to it."""
        pk = self._any(Cluster.objects.present().values_list("pk", flat=True))
        if pk is None:
            return
        try:
            delete_cluster(cluster=Cluster.objects.get(pk=pk), by=self.user)
        except Missing:
            return

    def finish_one(self) -> None:
        """End one open operation as reconcile does: well, or now and then badly."""
        pk = self._any(Operation.objects.open().values_list("pk", flat=True))
        if pk is not None:
            self.finish(pk, well=self.choose.random() < 0.9)

    def finish(self, pk: str, *, well: bool) -> None:
        """End this operation, unless somebody else has."""
        with transaction.atomic():
            operation = Operation.objects.get(pk=pk)
            cluster = Cluster.objects.select_for_update().get(pk=operation.cluster_id)
            state = OperationState.SUCCEEDED if well else OperationState.FAILED
            ended = Operation.objects.filter(pk=pk).exclude(state__in=("succeeded", "failed", "canceled"))
            if ended.update(state=state, ended=timezone.now()) == 0:
                return
            phases: dict[tuple[str, bool], Phase] = {("delete", True): Phase.DELETED, ("delete", False): Phase.DELETING}
            cluster.phase = phases.get((operation.kind, well), Phase.READY if well else Phase.FAILED)
            cluster.save(update_fields=["phase"])
            endings: dict[tuple[str, bool], Callable[[], None]] = {
                ("delete", True): lambda: quota.settle_deleted(cluster, [], operation),
            }
            otherwise = (lambda: quota.settle_as_wished(cluster, [], operation)) if well else (
                lambda: quota.commit(cluster, operation)
            )  # fmt: skip
            endings.get((operation.kind, well), otherwise)()

    def _any(self, rows: object) -> str | None:
        found = list(rows[:50])  # type: ignore[index]
        return self.choose.choice(found) if found else None
