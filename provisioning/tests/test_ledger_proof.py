"""The ledger against a real API server: equal when all is well, every difference reported, nothing mended."""

from __future__ import annotations

import logging
import re
import secrets
from datetime import timedelta
from pathlib import Path

import pytest
from django.db.models import F
from django.utils import timezone

from provisioning.apply import door
from provisioning.apply.client import CLIENTS
from provisioning.clusters.ledger_proof import Difference, prove, prove_all
from provisioning.clusters.quota import amounts_of, commit, settle_as_wished
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.services import create_cluster, delete_cluster, delete_kept_volumes
from provisioning.clusters.views import client_for, cluster_view, namespace_of
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from provisioning.tests.test_quota_enforced import claim, pod
from sandbox import Sandbox
from tenants import quota
from tenants.models import QuotaFinding, QuotaHold, QuotaTotal, Tenant, User
from tenants.refusals import Conflict, Invalid

pytestmark = [pytest.mark.control_plane]
SPEC = {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1}


@pytest.fixture
def ready(live: Target, acme: Tenant, alice: User) -> Cluster:
    """A cluster whose workloads are applied and whose volumes are claimed; that it is proven is written by hand, since
    there are no nodes here."""
    cluster, operation = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    client = client_for(live)
    view = cluster_view(cluster)
    path = door.path_of("PersistentVolumeClaim", view.namespace)
    events = client.watch(path, resource_version="0", selector=f"berth.io/cluster-id={cluster.pk}", seconds=30)
    while len(door.volumes(client, view)) < 6:
        next(events)
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED, ended=timezone.now())
    Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY)
    settle_as_wished(cluster, door.volumes(client, view), operation)
    cluster.refresh_from_db()
    return cluster


def finish_delete(cluster: Cluster, deletion: Operation, control_plane: Sandbox, kinds: str) -> None:
    deadline = timezone.now() + timedelta(seconds=60)
    while deletion.state not in (OperationState.SUCCEEDED, OperationState.FAILED):
        assert timezone.now() < deadline, deletion.reason
        # There is no kubelet here to end pods that were never placed.
        control_plane.kubectl(
            "-n", namespace_of(cluster.tenant.slug), "delete", kinds, "-l", f"berth.io/cluster-id={cluster.pk}",
            "--force", "--grace-period=0",
        )  # fmt: skip
        reconcile(cluster.pk)
        deletion.refresh_from_db()
    assert deletion.state == OperationState.SUCCEEDED


def test_a_cluster_at_rest_requests_exactly_what_it_holds(ready: Cluster, live: Target, acme: Tenant) -> None:
    assert quota.held_by(ready.pk) == amounts_of("redis", ready.spec)
    assert prove(acme, live) == []


def test_a_scaled_workload_is_reported_once_with_a_log_line_and_an_event_and_ended_when_gone(
    ready: Cluster, live: Target, acme: Tenant, control_plane: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    workload = ["-n", namespace_of(acme.slug), "scale", f"statefulset/{ready.name}-s0"]
    control_plane.kubectl(*workload, "--replicas=3")
    with caplog.at_level(logging.WARNING):
        prove_all()
        prove_all()
    found = {one.resource: (one.ledger, one.observed) for one in QuotaFinding.objects.filter(ended=None)}
    assert (found["pods"], found["cpu"]) == ((6, 7), (720, 840))
    assert len([one for one in caplog.records if "1 pods" in one.message or "7 pods" in one.message]) == 1
    assert ready.events.filter(reason="QuotaDiffers", object="pods").count() == 1
    assert quota.held_by(ready.pk)["pods"] == 6
    control_plane.kubectl(*workload, "--replicas=2")
    control_plane.kubectl("-n", namespace_of(acme.slug), "delete", "pvc", f"data-{ready.name}-s0-2", "--wait=false")
    prove_all()
    assert not QuotaFinding.objects.filter(ended=None, resource__in=["pods", "cpu", "memory"]).exists()
    assert QuotaFinding.objects.filter(resource="pods").count() == 1


def test_pods_and_volumes_of_nobody_are_reported(ready: Cluster, live: Target, acme: Tenant) -> None:
    client = client_for(live)
    namespace = namespace_of(acme.slug)
    client.request("POST", door.path_of("Pod", namespace), pod("stray", cpu="250m", memory="64Mi"))
    client.request("POST", door.path_of("PersistentVolumeClaim", namespace), claim("stray", "standard", "2Gi"))
    found = {(one.holder, one.resource): (one.ledger, one.observed) for one in prove(acme, live)}
    assert found == {
        ("", "pods"): (0, 1), ("", "cpu"): (0, 250), ("", "memory"): (0, 64), ("", "storage"): (0, 2048),
        ("", "storage:standard"): (0, 2048),
    }  # fmt: skip


def test_a_failed_cluster_may_request_less_than_it_holds_and_never_more(
    ready: Cluster, live: Target, acme: Tenant, control_plane: Sandbox
) -> None:
    Cluster.objects.filter(pk=ready.pk).update(phase=Phase.FAILED)
    workload = ["-n", namespace_of(acme.slug), "scale", f"statefulset/{ready.name}-s0"]
    control_plane.kubectl(*workload, "--replicas=1")
    assert prove(acme, live) == []
    control_plane.kubectl(*workload, "--replicas=3")
    assert Difference in {type(one) for one in prove(acme, live)}


def test_what_stays_reserved_after_its_operation_is_reported(ready: Cluster, live: Target, acme: Tenant) -> None:
    moved = {"used": F("used") - 100, "reserved": F("reserved") + 100}
    QuotaHold.objects.filter(holder=ready.pk, place=live.name, resource="cpu").update(**moved)
    (found,) = prove(acme, live)
    assert (found.holder, found.resource, found.ledger, found.observed) == (ready.pk, "cpu", 100, 0)
    assert "an operation that has ended" in found.note
    open_one = Operation.objects.create(
        cluster=ready, kind="update", generation=2, deadline=timezone.now() + timedelta(minutes=1)
    )
    assert prove(acme, live) == []
    open_one.delete()


def test_a_deleted_cluster_that_still_counts_is_reported(ready: Cluster, live: Target, acme: Tenant) -> None:
    Cluster.objects.filter(pk=ready.pk).update(phase=Phase.DELETED)
    found = {one.resource: one.note for one in prove(acme, live)}
    assert found == {"clusters": "It is deleted, and counts as a cluster all the same."}


def test_a_number_without_entries_is_reported(ready: Cluster, live: Target, acme: Tenant) -> None:
    QuotaHold.objects.filter(holder=ready.pk, resource="clusters").update(used=2)
    (found,) = prove(acme, live)
    assert (found.holder, found.resource, found.ledger, found.observed) == (ready.pk, "clusters", 2, 1)
    assert "sum of the ledger's entries" in found.note


def open_findings() -> set[tuple[str, str, int, int]]:
    return set(QuotaFinding.objects.filter(ended=None).values_list("holder", "resource", "ledger", "observed"))


def test_a_tenant_that_holds_nothing_any_more_is_looked_at_too(ready: Cluster, live: Target, acme: Tenant) -> None:
    # Its cluster is history, and its holds and totals were taken out by hand; what it started runs on.
    Cluster.objects.filter(pk=ready.pk).update(phase=Phase.DELETED)
    QuotaHold.objects.all().delete()
    QuotaTotal.objects.all().delete()
    prove_all()
    found = {(holder, resource): (ledger, observed) for holder, resource, ledger, observed in open_findings()}
    # The entries say 6 pods, the hold and the tenant's total (of nobody) none.
    assert found[ready.pk, "pods"] == (0, 6)
    assert found["", "pods"] == (0, 6)
    assert found[ready.pk, "clusters"] == (0, 1)


def test_strays_of_a_tenant_without_clusters_are_reported(ready: Cluster, live: Target, acme: Tenant) -> None:
    stray = pod("stray", cpu="250m", memory="64Mi")
    client_for(live).request("POST", door.path_of("Pod", namespace_of(acme.slug)), stray)
    Cluster.objects.filter(pk=ready.pk).update(phase=Phase.DELETED)
    quota.settle(tenant_id=acme.pk, holder=ready.pk, cause="op_1", kept={})
    assert not QuotaHold.objects.exists()
    prove_all()
    assert {("", "pods", 0, 1), ("", "cpu", 0, 250), ("", "memory", 0, 64)} <= open_findings()


def test_while_a_target_is_away_the_books_are_proven_and_no_finding_ends(
    ready: Cluster, live: Target, acme: Tenant, targets: Path, control_plane: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    control_plane.kubectl("-n", namespace_of(acme.slug), "scale", f"statefulset/{ready.name}-s0", "--replicas=3")
    prove_all()
    seen = open_findings()
    assert (ready.pk, "pods", 6, 7) in seen
    away = targets / "main.kubeconfig"
    away.write_text(re.sub(r"server: .*", "server: https://127.0.0.1:9", away.read_text()))
    CLIENTS.drop("main")
    QuotaHold.objects.filter(holder=ready.pk, resource="clusters").update(used=2)
    other = Tenant.objects.create(slug=f"other-{secrets.token_hex(3)}", name="Other")
    QuotaHold.objects.create(tenant=other, place=live.name, holder="clu_1", resource="pods", used=2)
    prove_all()
    assert open_findings() == seen | {(ready.pk, "clusters", 2, 1), ("clu_1", "pods", 2, 0)}
    # Once for the target, not for each tenant.
    assert len([one for one in caplog.records if getattr(one, "code", "") == "target_unreachable"]) == 1


def test_a_deletion_releases_all_but_kept_volumes_and_those_once_they_are_deleted(
    ready: Cluster, live: Target, acme: Tenant, alice: User, control_plane: Sandbox
) -> None:
    deletion = delete_cluster(cluster=ready, by=alice)
    assert quota.held_by(ready.pk)["pods"] == 6
    finish_delete(ready, deletion, control_plane, "pods")
    assert quota.held_by(ready.pk) == {"storage": 6144, "storage:standard": 6144}
    assert prove(acme, live) == []
    ready.refresh_from_db()
    with pytest.raises(Invalid):
        delete_kept_volumes(cluster=ready, by=alice, confirm="order")
    removal = delete_kept_volumes(cluster=ready, by=alice, confirm="orders")
    finish_delete(ready, removal, control_plane, "pvc")
    assert quota.held_by(ready.pk) == {}
    assert prove(acme, live) == []
    ready.refresh_from_db()
    assert (ready.phase, ready.volumes_kept) == (Phase.DELETED, False)
    with pytest.raises(Conflict) as refused:
        delete_kept_volumes(cluster=ready, by=alice, confirm="orders")
    assert refused.value.code == "volumes_gone"


def test_a_deletion_that_failed_is_not_delivered_again_and_releases_nothing(
    ready: Cluster, live: Target, acme: Tenant, alice: User, control_plane: Sandbox
) -> None:
    deletion = delete_cluster(cluster=ready, by=alice)
    Operation.objects.filter(pk=deletion.pk).update(deadline=timezone.now())
    reconcile(ready.pk)
    reconcile(ready.pk)
    ready.refresh_from_db()
    deletion.refresh_from_db()
    assert (ready.phase, deletion.state) == (Phase.DELETING, OperationState.FAILED)
    assert quota.held_by(ready.pk)["pods"] == 6
    again = delete_cluster(cluster=ready, by=alice)
    finish_delete(ready, again, control_plane, "pods")
    assert "pods" not in quota.held_by(ready.pk)


def test_a_failed_order_goes_on_counting_until_it_is_deleted(live: Target, acme: Tenant, alice: User) -> None:
    cluster, operation = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    Operation.objects.filter(pk=operation.pk).update(deadline=timezone.now())
    reconcile(cluster.pk)
    hold = QuotaHold.objects.get(holder=cluster.pk, resource="pods")
    assert (hold.used, hold.reserved) == (6, 0)
    commit(cluster, operation)
    assert quota.held_by(cluster.pk) == amounts_of("redis", cluster.spec)
