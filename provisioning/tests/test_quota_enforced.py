"""Kubernetes enforces the limits too: on a real API server, what the ledger never saw is refused."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.clusters.enforcement import enforce
from provisioning.clusters.quota import amounts_of, enforced_name, hard_limits
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.services import check_draft, create_cluster
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Cluster, Target
from sandbox import Sandbox
from tenants import quota
from tenants.models import Tenant, User
from tenants.quota import OVERALL, Standing

SPEC = {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1}


def limit(tenant: Tenant, **limits: int) -> None:
    quota.replace_limits(
        tenant_id=tenant.pk,
        limits={(OVERALL, name.replace("__", ":")): amount for name, amount in limits.items()},
    )


def kubernetes_quota(client: KubeClient, tenant: Tenant) -> dict[str, Any]:
    return client.get(door.path_of("ResourceQuota", namespace_of(tenant.slug), door.QUOTA_NAME))


def pod(name: str, **requests: str) -> dict[str, Any]:
    """A pod as a defective portal might apply it; `restricted` lets it in."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}
            },
            "containers": [
                {
                    "name": "x", "image": "docker.io/library/redis:7.0.15", "resources": {"requests": requests},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }  # fmt: skip


def claim(name: str, storage_class: str, size: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "kind", "make", "words"),
    [
        ({"pods": 7}, "Pod", lambda: [pod("a"), pod("b")], "pods=1, used: pods=7, limited: pods=7"),
        ({"cpu": 1000}, "Pod", lambda: [pod("a", cpu="281m")], "requests.cpu"),
        ({"memory": 1100}, "Pod", lambda: [pod("a", cpu="1m", memory="45Mi")], "requests.memory"),
        ({"storage": 7168}, "PersistentVolumeClaim", lambda: [claim("a", "standard", "1025Mi")], "requests.storage"),
        (
            {"storage__standard": 6144}, "PersistentVolumeClaim", lambda: [claim("a", "standard", "1Mi")],
            "standard.storageclass.storage.k8s.io/requests.storage",
        ),
    ],
)  # fmt: skip
@pytest.mark.control_plane
def test_what_the_ledger_never_saw_is_refused_by_the_api_server(
    live: Target, acme: Tenant, alice: User, limits: dict[str, int], kind: str, make: Any, words: str
) -> None:
    limit(acme, **limits)
    cluster, _ = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    client = client_for(live)
    namespace = namespace_of(acme.slug)
    _await_used(client, acme, cluster)
    *fitting, last = make()
    for manifest in fitting:
        client.request("POST", door.path_of(kind, namespace), manifest)
    with pytest.raises(errors.Denied) as refused:
        client.request("POST", door.path_of(kind, namespace), last)
    assert "exceeded quota: berth-quota" in refused.value.message
    assert words in refused.value.message


def _await_used(client: KubeClient, tenant: Tenant, cluster: Cluster) -> None:
    """Wait until the controllers have made all pods and volumes and the quota has counted them."""
    wanted = amounts_of(cluster.engine, cluster.spec)
    found = kubernetes_quota(client, tenant)
    named = [(enforced_name(resource), amount) for resource, amount in wanted.items()]
    counted = {name[0]: door.quantity(f"{amount}{name[1]}") for name, amount in named if name}
    path = door.path_of("ResourceQuota", namespace_of(tenant.slug))
    version = found["metadata"]["resourceVersion"]
    events = client.watch(path, resource_version=version, selector="", seconds=30)
    while any(door.quantity(used) < counted.get(name, 0) for name, used in found["status"].get("used", {}).items()):
        found = next(event["object"] for event in events if event["type"] == "MODIFIED")


@pytest.mark.control_plane
def test_a_cluster_that_fills_the_limits_exactly_gets_all_of_its_pods_and_volumes(
    live: Target, acme: Tenant, alice: User
) -> None:
    draft = check_draft(engine="redis", plan=None, version=None, target=None, spec=SPEC)
    wanted = amounts_of("redis", draft.spec)
    quota.replace_limits(tenant_id=acme.pk, limits={(OVERALL, name): amount for name, amount in wanted.items()})
    cluster, _ = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    client = client_for(live)
    _await_used(client, acme, cluster)
    status = kubernetes_quota(client, acme)["status"]
    assert {name: door.quantity(text) for name, text in status["used"].items()} == {
        name: door.quantity(text) for name, text in status["hard"].items()
    }
    assert set(status["hard"]) == {
        "pods", "requests.cpu", "requests.memory", "requests.storage",
        "standard.storageclass.storage.k8s.io/requests.storage",
    }  # fmt: skip


@pytest.mark.control_plane
def test_changed_limits_reach_the_namespace_and_never_fall_below_what_is_held(
    live: Target, acme: Tenant, alice: User
) -> None:
    cluster, _ = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    client = client_for(live)
    assert kubernetes_quota(client, acme)["spec"].get("hard", {}) == {}
    limit(acme, pods=9, cpu=500)
    assert enforce(acme.pk) == ["main"]
    hard = kubernetes_quota(client, acme)["spec"]["hard"]
    assert {name: door.quantity(text) * 1000 for name, text in hard.items()} == {"pods": 9000, "requests.cpu": 720}
    assert enforce(acme.pk) == []
    limit(acme)
    assert enforce(acme.pk) == ["main"]
    assert kubernetes_quota(client, acme)["spec"].get("hard", {}) == {}


@pytest.mark.control_plane
def test_a_namespace_of_somebody_else_gets_no_quota_of_ours(live: Target, alice: User, control_plane: Sandbox) -> None:
    slug = f"taken-{secrets.token_hex(3)}"
    control_plane.kubectl("create", "namespace", f"berth-{slug}")
    tenant = Tenant.objects.create(slug=slug, name="Taken")
    create_cluster(tenant=tenant, by=alice, name="orders", engine="redis", spec=SPEC)
    assert enforce(tenant.pk) == []
    found = control_plane.kubectl("-n", f"berth-{slug}", "get", "resourcequota,limitrange", "-o", "json").stdout
    assert json.loads(found)["items"] == []


@pytest.mark.control_plane
def test_a_pod_without_requests_is_counted_by_the_default(live: Target, acme: Tenant, alice: User) -> None:
    limit(acme, cpu=10_000)
    cluster, _ = create_cluster(tenant=acme, by=alice, name="orders", engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    made = client_for(live).request("POST", door.path_of("Pod", namespace_of(acme.slug)), pod("bare"))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "50m", "memory": "64Mi"}}


def rows(*found: tuple[str, str, int | None, int]) -> list[Standing]:
    return [Standing(resource, place, most, used, 0) for resource, place, most, used in found]


def test_a_target_may_use_what_others_left_of_the_overall_limit_and_no_more_than_its_own() -> None:
    found = rows(("pods", "", 10, 7), ("pods", "berlin", None, 4), ("pods", "paris", 5, 3))
    assert hard_limits(found, "berlin") == {"pods": "7"}
    assert hard_limits(found, "paris") == {"pods": "5"}
    assert hard_limits(found, "rome") == {"pods": "3"}


def test_a_target_keeps_what_it_holds_though_the_limit_was_lowered_below() -> None:
    found = rows(("cpu", "", 100, 900), ("cpu", "berlin", 50, 600), ("cpu", "paris", None, 300))
    assert hard_limits(found, "berlin") == {"requests.cpu": "600m"}
    assert hard_limits(found, "paris") == {"requests.cpu": "300m"}


def test_what_kubernetes_cannot_count_is_not_asked_of_it() -> None:
    assert hard_limits(rows(("clusters", "", 3, 1), ("clusters:redis", "", 3, 1)), "berlin") == {}
