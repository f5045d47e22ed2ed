"""What the processes of test_quota_processes.py do to a tenant's clusters, or to its ledger alone."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable

from django.db import transaction
from django.utils import timezone

from provisioning.clusters import quota as clusters_quota
from provisioning.clusters.services import change_cluster, create_cluster, delete_cluster
from provisioning.models import Cluster, Operation, OperationState, Phase
from tenants import quota
from tenants.models import QuotaHold, Tenant, User
from tenants.quota import QuotaExceeded
from tenants.refusals import Conflict, Invalid, Missing

SHAPES = (
    {"shards": 3}, {"shards": 4}, {"shards": 5, "replicasPerShard": 0}, {"shards": 3, "replicasPerShard": 2},
)  # fmt: skip
SMALL = {"memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1, "spread": "soft"}


class Crowd(ABC):
    """What one process does, over and over: each move is one attempt."""

    def __init__(self, tenant_id: str, user_id: int, choose: random.Random) -> None:
        self.tenant = Tenant.objects.get(pk=tenant_id)
        self.user = User.objects.get(pk=user_id)
        self.choose = choose

    def attempt(self, name: str) -> None:
        """One of create, resize and delete; `name` for a create."""
        move = self.choose.choices(("create", "resize", "delete"), weights=(5, 3, 2))[0]
        {"create": lambda: self.create(name), "resize": self.resize, "delete": self.delete}[move]()

    @abstractmethod
    def create(self, name: str) -> None: ...

    @abstractmethod
    def resize(self) -> None: ...

    @abstractmethod
    def delete(self) -> None: ...

    @abstractmethod
    def finish_one(self) -> None:
        """End something that somebody began."""


class LedgerMoves(Crowd):
    """The ledger alone, as services and reconcile move it: many attempts in little time.

    A holder is at rest, or has something reserved, which stands for its open operation.
    """

    def create(self, name: str) -> None:
        """Reserve for a new holder."""
        self._reserve(f"clu_{name}", f"op_{name}")

    def resize(self) -> None:
        """Reserve another amount for a holder."""
        if holder := self._any():
            self._reserve(holder, f"op_{self.choose.random()}")

    def delete(self) -> None:
        """Release all of a holder."""
        if holder := self._any():
            quota.settle(tenant_id=self.tenant.pk, holder=holder, cause=f"op_{self.choose.random()}", kept={})

    def finish_one(self) -> None:
        """End a holder's operation: as wished, which may be less than it had; or badly."""
        if holder := self._any():
            cause = f"op_{self.choose.random()}"
            if self.choose.random() < 0.9:
                quota.settle(tenant_id=self.tenant.pk, holder=holder, cause=cause, kept=self._amounts())
            else:
                quota.commit(tenant_id=self.tenant.pk, holder=holder, cause=cause)

    def _reserve(self, holder: str, cause: str) -> None:
        try:
            quota.reserve(
                tenant_id=self.tenant.pk,
                holder=holder,
                place="berlin",
                wanted=self._amounts(),
                cause=cause,
                by=self.user,
            )
        except QuotaExceeded:
            return

    def _amounts(self) -> dict[str, int]:
        pods = self.choose.randint(1, 12)
        return {"clusters": 1, "pods": pods, "cpu": 100 * pods, "storage": 1024 * pods}

    def _any(self) -> str | None:
        held = QuotaHold.objects.filter(tenant=self.tenant, resource="clusters").values_list("holder", flat=True)
        found = list(held)
        return self.choose.choice(found) if found else None


class Moves(Crowd):
    """Clusters, by the services themselves. Each does its thing, or is refused, or finds nothing to do it to."""

    def create(self, name: str) -> None:
        """Order a cluster."""
        spec = {**SMALL, **self.choose.choice(SHAPES)}
        try:
            create_cluster(tenant=self.tenant, by=self.user, name=name, engine="redis", spec=spec, confirm=name)
        except QuotaExceeded:
            return

    def resize(self) -> None:
        """Give a cluster at rest another shape: growth is reserved in the transaction that opens the operation."""
        pk = self._any(Cluster.objects.filter(phase=Phase.READY).values_list("pk", flat=True))
        if pk is None:
            return
        cluster = Cluster.objects.select_related("target", "plan").get(pk=pk)
        spec = {"replicasPerShard": 1, **self.choose.choice(SHAPES)}
        try:
            change_cluster(cluster=cluster, by=self.user, spec=spec, confirm=cluster.name)
        except (Conflict, Invalid, Missing):
            # No room (QuotaExceeded is a Conflict), somebody else was faster, or a change Berth does not make.
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
                ("delete", True): lambda: clusters_quota.settle_deleted(cluster, [], operation),
            }
            otherwise = (lambda: clusters_quota.settle_as_wished(cluster, [], operation)) if well else (
                lambda: clusters_quota.commit(cluster, operation)
            )  # fmt: skip
            endings.get((operation.kind, well), otherwise)()

    def _any(self, rows: object) -> str | None:
        found = list(rows[:50])  # type: ignore[index]
        return self.choose.choice(found) if found else None
