"""Reconcile against a real API server: claims, refusals of the target, deadlines, deleting."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone
from redis.cluster import RedisCluster

from provisioning.apply import door
from provisioning.apply.client import KubeClient
from provisioning.clusters.interventions import retry_operation
from provisioning.clusters.reconcile import Lost, _obey, claim, look, reconcile
from provisioning.clusters.services import change_cluster, create_cluster, delete_cluster
from provisioning.clusters.views import client_for, cluster_view
from provisioning.engines.base import Advance
from provisioning.engines.base import User as Principal
from provisioning.engines.redis.manifests import PORT
from provisioning.engines.redis.tests.servers import Fleet
from provisioning.models import Cluster, Operation, OperationState, Phase, Target
from sandbox import Sandbox
from tenants.models import Tenant, User
from tenants.quota import standings
from tenants.refusals import Conflict

pytestmark = [pytest.mark.control_plane]


@pytest.fixture
def ordered(acme: Tenant, alice: User, target: Target, request: pytest.FixtureRequest) -> tuple[Cluster, Operation]:
    # Each test its own name: the API server is shared by the run.
    name = f"c-{abs(hash(request.node.name)) % 10**8}"
    return create_cluster(tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev")


def namespace(cluster: Cluster) -> str:
    return f"berth-{cluster.tenant.slug}"


def names(control_plane: Sandbox, kind: str, cluster: Cluster) -> list[str]:
    selector = f"berth.io/cluster-id={cluster.pk}"
    return control_plane.kubectl("-n", namespace(cluster), "get", kind, "-l", selector, "-o", "name").stdout.split()


def test_two_workers_never_hold_a_cluster_and_the_second_ones_hint_is_kept(ordered: tuple[Cluster, Operation]) -> None:
    cluster, _ = ordered
    first = claim(cluster.pk)
    assert first is not None
    assert claim(cluster.pk) is None
    cluster.refresh_from_db()
    assert cluster.wakes == 1


def test_a_worker_that_comes_back_late_writes_nothing(ordered: tuple[Cluster, Operation]) -> None:
    cluster, _ = ordered
    late = claim(cluster.pk)
    assert late is not None
    Cluster.objects.filter(pk=cluster.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert claim(cluster.pk) is not None
    with pytest.raises(Lost):
        late.write(phase=Phase.READY)
    cluster.refresh_from_db()
    assert cluster.phase == Phase.PENDING


def test_all_manifests_are_applied_and_the_operation_says_what_it_waits_for(
    live: Target, ordered: tuple[Cluster, Operation], control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert [step["state"] for step in operation.steps][:2] == ["done", "running"]
    assert "of 6 pods" in operation.reason
    assert len(names(control_plane, "statefulset", cluster)) == 3
    assert len(names(control_plane, "secret", cluster)) == 1
    reconcile(cluster.pk)
    assert len(names(control_plane, "secret", cluster)) == 1


def test_a_secret_that_is_gone_is_not_made_anew_with_passwords_that_no_server_knows(
    live: Target, ordered: tuple[Cluster, Operation], control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    reconcile(cluster.pk)
    secret = f"{cluster.name}-auth"
    kept = control_plane.kubectl("-n", namespace(cluster), "get", "secret", secret, "-o", "json")
    assert control_plane.kubectl("-n", namespace(cluster), "delete", "secret", secret).returncode == 0
    Operation.objects.filter(pk=operation.pk).update(state=OperationState.SUCCEEDED)
    Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY, ready_at=timezone.now(), applied_at=None)
    reconcile(cluster.pk)
    cluster.refresh_from_db()
    assert names(control_plane, "secret", cluster) == []
    assert cluster.phase == Phase.DEGRADED
    assert f"The Secret {secret} is gone" in cluster.reason
    assert "Bring the Secret back" in cluster.reason
    restored = json.loads(kept.stdout)
    restored["metadata"] = {key: restored["metadata"][key] for key in ("name", "namespace", "labels")}
    made = control_plane.kubectl("create", "-f", "-", input=json.dumps(restored))
    assert made.returncode == 0, made.stderr
    reconcile(cluster.pk)
    cluster.refresh_from_db()
    assert "is gone" not in cluster.reason
    assert len(names(control_plane, "statefulset", cluster)) == 3


class Killed(BaseException):
    """The worker was killed before a call."""


@contextmanager
def killed_after(calls: int, *, of: str = "", on: str = "") -> Iterator[None]:
    """A worker that is killed when it has made so many calls of Kubernetes' API (`of` a method, `on` such paths)."""
    real, left = KubeClient.request, [calls]

    def request(self: KubeClient, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        if of in ("", method) and on in path:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return real(self, method, path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KubeClient, "request", request)
        with pytest.raises(Killed):
            yield


def lose_claim(cluster: Cluster) -> None:
    """The killed worker's claim runs out."""
    Cluster.objects.filter(pk=cluster.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 8])
def test_a_worker_that_dies_at_any_call_is_followed_by_one_that_finishes_applying(
    live: Target, ordered: tuple[Cluster, Operation], control_plane: Sandbox, calls: int
) -> None:
    cluster, operation = ordered
    with killed_after(calls):
        reconcile(cluster.pk)
    lose_claim(cluster)
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert operation.steps[0]["state"] == "done"
    assert len(names(control_plane, "statefulset", cluster)) == 3
    assert len(names(control_plane, "secret", cluster)) == 1


def test_an_unreachable_target_is_named_and_the_order_waits(
    ordered: tuple[Cluster, Operation], targets: Path, control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    text = control_plane.kubeconfig_path.read_text()
    lines = ["    server: https://127.0.0.1:1" if "server:" in line else line for line in text.splitlines()]
    (targets / "main.kubeconfig").write_text("\n".join(lines))
    reconcile(cluster.pk)
    operation.refresh_from_db()
    cluster.refresh_from_db()
    assert operation.state == OperationState.RUNNING
    assert "does not answer" in operation.reason
    condition = next(one for one in cluster.conditions if one["type"] == "TargetReachable")
    assert (condition["status"], condition["reason"]) == ("False", "target_unreachable")


def test_a_missing_kubeconfig_names_the_file(ordered: tuple[Cluster, Operation]) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert "main.kubeconfig" in operation.reason


def test_expired_credentials_are_named(
    ordered: tuple[Cluster, Operation], targets: Path, control_plane: Sandbox
) -> None:
    cluster, operation = ordered
    kubeconfig = yaml.safe_load(control_plane.kubeconfig_path.read_text())
    kubeconfig["users"][0]["user"] = {"token": "expired"}
    (targets / "main.kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert "credentials" in operation.reason


def test_a_namespace_of_somebody_else_fails_the_order_with_a_remedy(
    live: Target, alice: User, control_plane: Sandbox
) -> None:
    slug = f"taken-{secrets.token_hex(3)}"
    control_plane.kubectl("create", "namespace", f"berth-{slug}")
    tenant = Tenant.objects.create(slug=slug, name="Taken")
    cluster, operation = create_cluster(tenant=tenant, by=alice, name="orders", engine="redis", plan="redis-dev")
    reconcile(cluster.pk)
    operation.refresh_from_db()
    assert operation.state == OperationState.FAILED
    assert operation.error is not None
    assert operation.error["code"] == "namespace_taken"
    assert "berth.io/tenant-id" in operation.error["remedy"]
    assert names(control_plane, "statefulset", cluster) == []


def test_a_field_that_another_manager_owns_is_never_forced(
    live: Target, ordered: tuple[Cluster, Operation], control_plane: Sandbox
) -> None:
    cluster, _ = ordered
    reconcile(cluster.pk)
    path = f"statefulset/{cluster.name}-s0"
    scaled = control_plane.kubectl("-n", namespace(cluster), "scale", path, "--replicas=5")
    assert scaled.returncode == 0
    Cluster.objects.filter(pk=cluster.pk).update(observed_generation=0)
    reconcile(cluster.pk)
    operation = cluster.operations.get()
    assert operation.state == OperationState.FAILED
    assert operation.error is not None
    assert operation.error["code"] == "field_conflict"
    assert "managedFields" in operation.error["remedy"] or "managed-fields" in operation.error["remedy"]
    kept = control_plane.kubectl("-n", namespace(cluster), "get", path, "-o", "jsonpath={.spec.replicas}")
    assert kept.stdout == "5"


def test_at_its_deadline_an_operation_fails_with_what_it_waited_for(
    live: Target, ordered: tuple[Cluster, Operation]
) -> None:
    cluster, operation = ordered
    reconcile(cluster.pk)
    reconcile(cluster.pk)
    Operation.objects.filter(pk=operation.pk).update(deadline=timezone.now())
    reconcile(cluster.pk)
    operation.refresh_from_db()
    cluster.refresh_from_db()
    assert (operation.state, cluster.phase) == (OperationState.FAILED, Phase.FAILED)
    assert operation.error is not None
    assert "of 6 pods" in operation.error["message"]


def test_a_deleted_cluster_leaves_nothing_behind(
    live: Target, ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox
) -> None:
    cluster, _ = ordered
    reconcile(cluster.pk)
    deletion = delete_cluster(cluster=cluster, by=alice, volumes="delete", confirm=cluster.name)
    deadline = timezone.now() + timedelta(seconds=60)
    while deletion.state not in (OperationState.SUCCEEDED, OperationState.FAILED):
        assert timezone.now() < deadline, deletion.reason
        # There is no kubelet here to end pods that were never placed.
        selector = f"berth.io/cluster-id={cluster.pk}"
        control_plane.kubectl(
            "-n", namespace(cluster), "delete", "pods,pvc", "-l", selector, "--force", "--grace-period=0"
        )
        reconcile(cluster.pk)
        deletion.refresh_from_db()
    assert deletion.state == OperationState.SUCCEEDED
    cluster.refresh_from_db()
    assert (cluster.phase, cluster.volumes_kept) == (Phase.DELETED, False)
    assert names(control_plane, "all,configmap,secret,pdb,pvc", cluster) == []


def delete_wholly(cluster: Cluster, by: User) -> None:
    """As another worker would, while this one is held up."""
    delete_cluster(cluster=cluster, by=by, volumes="delete", confirm=cluster.name)
    deadline = time.monotonic() + 60
    while Cluster.objects.get(pk=cluster.pk).phase != Phase.DELETED:
        assert time.monotonic() < deadline, "the cluster is deleted"
        reconcile(cluster.pk)


@pytest.mark.parametrize("moment", ["owner_manifest", "apply_all"])
@pytest.mark.usefixtures("live")
def test_what_a_slow_worker_applies_after_the_deletion_does_not_stay(
    ordered: tuple[Cluster, Operation],
    alice: User,
    control_plane: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:  # fmt: skip
    cluster, _ = ordered
    slow = getattr(door, moment)

    def held_up(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(door, moment, slow)
        delete_wholly(cluster, alice)
        return slow(*arguments, **options)

    monkeypatch.setattr(door, moment, held_up)
    claimed = claim(cluster.pk)
    assert claimed is not None
    with pytest.raises(Lost):
        look(claimed)
    deadline = time.monotonic() + 60
    while names(control_plane, "statefulset,pod,service,configmap,poddisruptionbudget", cluster):
        assert time.monotonic() < deadline, "Kubernetes has removed what came too late"
        time.sleep(0.1)


@pytest.mark.usefixtures("live")
def test_a_hint_during_the_last_look_of_a_deletion_does_not_deliver_the_cluster_again(
    ordered: tuple[Cluster, Operation], alice: User, control_plane: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, _ = ordered
    volumes = door.volumes

    def hinted(*arguments: Any) -> Any:
        # As the watcher's news of the pods' end, in the moment before the worker lets go.
        assert claim(cluster.pk) is None
        return volumes(*arguments)

    monkeypatch.setattr(door, "volumes", hinted)
    delete_wholly(cluster, alice)
    assert names(control_plane, "statefulset,pod,service,configmap,poddisruptionbudget", cluster) == []
    cluster.refresh_from_db()
    assert (cluster.phase, cluster.inventory, cluster.claimed_until) == (Phase.DELETED, [], None)


def delivered(cluster: Cluster) -> Cluster:
    """As if its pods had come and its order had ended well: there is no kubelet here."""
    reconcile(cluster.pk)
    cluster.operations.update(state=OperationState.SUCCEEDED)
    Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY)
    cluster.refresh_from_db()
    return cluster


@pytest.mark.usefixtures("live")
def test_nothing_is_made_smaller_before_its_engine_says_that_it_is_empty(
    acme: Tenant, alice: User, control_plane: Sandbox
) -> None:
    name = f"c-{secrets.token_hex(4)}"
    ordered, _ = create_cluster(
        tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev", spec={"shards": 4, "replicasPerShard": 2}
    )
    cluster = delivered(ordered)
    change_cluster(cluster=cluster, by=alice, spec={"shards": 3, "replicasPerShard": 1})
    for _ in range(3):
        reconcile(cluster.pk)
    cluster.refresh_from_db()
    assert (cluster.observed_generation, cluster.phase) == (2, Phase.UPDATING)
    assert len(names(control_plane, "statefulset", cluster)) == 4
    assert len(names(control_plane, "poddisruptionbudget", cluster)) == 4
    selector = f"berth.io/cluster-id={cluster.pk}"
    path = "jsonpath={.items[*].spec.replicas}"
    found = control_plane.kubectl("-n", namespace(cluster), "get", "statefulset", "-l", selector, "-o", path)
    assert found.stdout.split() == ["3"] * 4
    assert {entry["name"] for entry in cluster.inventory if entry["kind"] == "StatefulSet"} == {
        f"{name}-s{shard}" for shard in range(4)
    }


@pytest.mark.usefixtures("live")
def test_a_worker_that_read_the_cluster_before_a_change_does_not_judge_the_change_by_the_old_wish(
    ordered: tuple[Cluster, Operation], alice: User
) -> None:
    cluster = delivered(ordered[0])
    claimed = claim(cluster.pk)
    assert claimed is not None
    operation = change_cluster(cluster=cluster, by=alice, spec={"nodeTimeoutMs": 7000})
    assert operation is not None
    look(claimed)
    cluster.refresh_from_db()
    operation.refresh_from_db()
    assert (cluster.observed_generation, operation.steps[0]["state"]) == (2, "done")


def bring_to_life(control_plane: Sandbox, cluster: Cluster, fleet: Fleet) -> None:
    """Servers for the cluster's pods: there is no kubelet here that would start them and say so."""
    found = door.read_secret(client_for(cluster.target), namespace(cluster), f"{cluster.name}-auth")
    fleet.stored = dict(found)
    fleet.start()
    fleet.settle()
    for server in fleet.servers:
        running = {"state": {"running": {}}, "ready": True, "restartCount": 0, "image": "", "imageID": ""}
        status = {
            "phase": "Running", "podIP": server.address, "podIPs": [{"ip": server.address}],
            "containerStatuses": [{"name": "redis", **running}],
        }  # fmt: skip
        words = ["patch", "pod", server.pod, "--subresource=status", "--type=merge", "-p"]
        deadline = time.monotonic() + 30
        while (
            patched := control_plane.kubectl("-n", namespace(cluster), *words, json.dumps({"status": status}))
        ).returncode:
            assert time.monotonic() < deadline, patched.stderr
            time.sleep(0.1)


@pytest.mark.usefixtures("live")
def test_a_change_that_the_data_does_not_fit_into_is_taken_back_before_anything_of_it_is_applied(
    acme: Tenant, alice: User, control_plane: Sandbox, tmp_path: Path
) -> None:
    name = f"c-{secrets.token_hex(4)}"
    spec = {"memoryGiB": 0.25, "replicasPerShard": 0, "exporter": False, "storageGiB": 1}
    cluster, _ = create_cluster(
        tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev", spec=spec, confirm=name
    )
    delivered(cluster)
    fleet = Fleet(replace(cluster_view(cluster), users=(Principal("default", (1,)),)), tmp_path, 200)
    try:
        bring_to_life(control_plane, cluster, fleet)
        with RedisCluster(host=fleet.servers[0].address, port=PORT, password=fleet.stored["password"]) as client:
            client.setrange("large", 120 * 2**20, "x")
        Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY)
        objects = applied(control_plane, cluster)
        operation = change_cluster(cluster=cluster, by=alice, spec={"memoryGiB": 0.125, "storageGiB": 2})
        assert operation is not None
        reconcile(cluster.pk)
    finally:
        fleet.stop()
    operation.refresh_from_db()
    assert operation.error is not None
    assert (operation.state, operation.error["code"]) == (OperationState.FAILED, "data_does_not_fit")
    assert "taken back" in operation.error["remedy"]
    before = cluster.spec
    cluster.refresh_from_db()
    assert (cluster.spec, cluster.phase, cluster.observed_generation) == (before, Phase.READY, cluster.generation)
    assert applied(control_plane, cluster) == objects
    amounts = {one.resource: (one.used, one.reserved) for one in standings(acme.pk) if one.place == cluster.target_id}
    assert (amounts["memory"], amounts["storage"]) == ((3 * 256, 0), (3 * 1024, 0)), "nothing is held for it"
    with pytest.raises(Conflict, match="taken back"):
        retry_operation(operation=operation, by=alice)


@pytest.mark.usefixtures("live")
def test_a_change_that_failed_before_it_could_be_asked_about_is_not_applied_later_unless_the_data_fits(
    acme: Tenant, alice: User, control_plane: Sandbox, tmp_path: Path
) -> None:
    name = f"c-{secrets.token_hex(4)}"
    spec = {"memoryGiB": 0.25, "replicasPerShard": 0, "exporter": False, "storageGiB": 1}
    cluster, _ = create_cluster(
        tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev", spec=spec, confirm=name
    )
    delivered(cluster)
    fleet = Fleet(replace(cluster_view(cluster), users=(Principal("default", (1,)),)), tmp_path, 201)
    try:
        bring_to_life(control_plane, cluster, fleet)
        client = RedisCluster(host=fleet.servers[0].address, port=PORT, password=fleet.stored["password"])
        client.setrange("large", 120 * 2**20, "x")
        Cluster.objects.filter(pk=cluster.pk).update(phase=Phase.READY)
        objects = applied(control_plane, cluster)
        operation = change_cluster(cluster=cluster, by=alice, spec={"memoryGiB": 0.125})
        assert operation is not None
        # Its deadline passed while the target was away.
        Operation.objects.filter(pk=operation.pk).update(state=OperationState.FAILED)
        reconcile(cluster.pk)
        assert applied(control_plane, cluster) == objects
        client.delete("large")
        client.close()
        reconcile(cluster.pk)
        assert applied(control_plane, cluster) != objects
    finally:
        fleet.stop()


def applied(control_plane: Sandbox, cluster: Cluster) -> dict[str, Any]:
    """What pods are made from: name to specs of StatefulSets and contents of ConfigMaps."""
    selector = f"berth.io/cluster-id={cluster.pk}"
    found = control_plane.kubectl("-n", namespace(cluster), "get", "statefulset,cm", "-l", selector, "-o", "json")
    return {item["metadata"]["name"]: item.get("spec", item.get("data")) for item in json.loads(found.stdout)["items"]}


GROWS = {
    "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "standard"},
    "provisioner": "kubernetes.io/no-provisioner", "allowVolumeExpansion": True,
}  # fmt: skip


def claims(control_plane: Sandbox, cluster: Cluster) -> dict[str, Any]:
    """Name to each volume claim of the cluster."""
    selector = f"berth.io/cluster-id={cluster.pk}"
    found = control_plane.kubectl("-n", namespace(cluster), "get", "pvc", "-l", selector, "-o", "json").stdout
    return {item["metadata"]["name"]: item for item in json.loads(found)["items"]}


@pytest.fixture
def bind(control_plane: Sandbox) -> Iterator[Callable[[Cluster, int], None]]:
    """Waits for a cluster's claims, and gives each a volume: there is no provisioner here."""
    made: list[dict[str, Any]] = [GROWS]

    def wait(cluster: Cluster, count: int) -> None:
        deadline = time.monotonic() + 30
        while len(found := claims(control_plane, cluster)) < count:
            assert time.monotonic() < deadline, "the claims are made"
            time.sleep(0.1)
        made.extend(_volume(namespace(cluster), claim) for claim in found.values())
        applied = control_plane.kubectl("apply", "-f", "-", input=json.dumps(_list(made)))
        assert applied.returncode == 0, applied.stderr
        while {claim["status"]["phase"] for claim in claims(control_plane, cluster).values()} != {"Bound"}:
            assert time.monotonic() < deadline, "the claims are bound"
            time.sleep(0.1)

    yield wait
    # Others share the API server: to them a class that is there is the only one there is.
    control_plane.kubectl("delete", "--wait=false", "-f", "-", input=json.dumps(_list(made)))


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _volume(namespace: str, claim: dict[str, Any]) -> dict[str, Any]:
    """One that no other claim can take."""
    name, uid = claim["metadata"]["name"], claim["metadata"]["uid"]
    reference = {
        "namespace": namespace, "name": name, "uid": uid, "apiVersion": "v1", "kind": "PersistentVolumeClaim"
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"pv-{uid}"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
            "hostPath": {"path": "/nowhere"}, "claimRef": reference,
        },
    }  # fmt: skip


def pod_uids(control_plane: Sandbox, cluster: Cluster) -> set[str]:
    selector = f"berth.io/cluster-id={cluster.pk}"
    path = "jsonpath={.items[*].metadata.uid}"
    found = control_plane.kubectl("-n", namespace(cluster), "get", "pods", "-l", selector, "-o", path)
    return set(found.stdout.split())


# Each claim is told to ask for more, then the set is deleted without its pods and made anew: shard by shard.
@pytest.mark.parametrize(
    ("calls", "method", "path"),
    [(0, "PATCH", "claims/data-"), (3, "PATCH", "claims/data-"), (0, "DELETE", "/statefulsets/"),
     (2, "DELETE", "/statefulsets/"), (0, "PATCH", "/statefulsets/"), (2, "PATCH", "/statefulsets/")],
)  # fmt: skip
@pytest.mark.usefixtures("live")
def test_a_worker_killed_while_volumes_grow_is_followed_by_one_that_finishes(
    acme: Tenant, alice: User, control_plane: Sandbox, bind: Callable[[Cluster, int], None], calls: int, method: str,
    path: str,
) -> None:  # fmt: skip
    name = f"c-{secrets.token_hex(4)}"
    cluster = delivered(create_cluster(tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev")[0])
    bind(cluster, 6)
    pods = pod_uids(control_plane, cluster)
    change_cluster(cluster=cluster, by=alice, spec={"storageGiB": 2})
    with killed_after(calls, of=method, on=path):
        reconcile(cluster.pk)
    lose_claim(cluster)
    for _ in range(3):
        reconcile(cluster.pk)
    asked = {claim["spec"]["resources"]["requests"]["storage"] for claim in claims(control_plane, cluster).values()}
    assert asked == {"2Gi"}
    selector = f"berth.io/cluster-id={cluster.pk}"
    wanted = "jsonpath={.items[*].spec.volumeClaimTemplates[0].spec.resources.requests.storage}"
    sets = control_plane.kubectl("-n", namespace(cluster), "get", "statefulset", "-l", selector, "-o", wanted)
    assert sets.stdout.split() == ["2Gi"] * 3
    assert pod_uids(control_plane, cluster) == pods, "none was ended for it"


@pytest.mark.parametrize("calls", range(4))
@pytest.mark.usefixtures("live")
def test_a_worker_killed_while_members_are_removed_is_followed_by_one_that_finishes(
    acme: Tenant, alice: User, control_plane: Sandbox, bind: Callable[[Cluster, int], None], calls: int
) -> None:
    name = f"c-{secrets.token_hex(4)}"
    ordered, _ = create_cluster(tenant=acme, by=alice, name=name, engine="redis", plan="redis-dev", spec={"shards": 4})
    cluster = delivered(ordered)
    bind(cluster, 8)
    change_cluster(cluster=cluster, by=alice, spec={"shards": 3})
    reconcile(cluster.pk)
    empty = [("StatefulSet", f"{name}-s3"), ("PodDisruptionBudget", f"{name}-s3")]
    volumes = [("PersistentVolumeClaim", f"data-{name}-s3-{ordinal}") for ordinal in (0, 1)]

    def remove() -> None:
        """What reconcile does when the engine says that these are empty."""
        claimed = claim(cluster.pk)
        assert claimed is not None
        view, client = cluster_view(claimed.cluster, changing=True), client_for(claimed.cluster.target)
        for retired in (empty, volumes):
            seen = Advance(healthy=False, retired=tuple(retired))
            _obey(claimed, view, client, door.observe(client, view), seen, None)

    with killed_after(calls, of="DELETE"):
        remove()
    lose_claim(cluster)
    remove()
    assert sorted(names(control_plane, "statefulset", cluster)) == [
        f"statefulset.apps/{name}-s{shard}" for shard in range(3)
    ]
    assert len(names(control_plane, "poddisruptionbudget", cluster)) == 3
    deadline = time.monotonic() + 30
    while len(left := claims(control_plane, cluster)) > 6:
        assert time.monotonic() < deadline, "their volumes go"
        for pod in ("0", "1"):
            # There is no kubelet that would say that they have ended.
            control_plane.kubectl("-n", namespace(cluster), "delete", "pod", f"{name}-s3-{pod}", "--force")
    assert sorted(left) == sorted(f"data-{name}-s{shard}-{ordinal}" for shard in range(3) for ordinal in (0, 1))
    cluster.refresh_from_db()
    assert not [entry for entry in cluster.inventory if entry["name"] == f"{name}-s3"]
