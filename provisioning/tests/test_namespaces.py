"""A tenant's namespace on a real API server: who may reach its pods."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Target
from tenants.models import Tenant


def ensure(client: KubeClient, tenant: Tenant) -> None:
    namespace = namespace_of(tenant.slug)
    look = door.look_at_namespace(client, namespace)()
    door.ensure_namespace(
        client, look, namespace=namespace, tenant=tenant.slug, tenant_id=tenant.pk, hard={"pods": "10"}
    )


def policies(client: KubeClient, tenant: Tenant) -> dict[str, Any]:
    items = client.get(door.path_of("NetworkPolicy", namespace_of(tenant.slug)))["items"]
    return {item["metadata"]["name"]: item["spec"] for item in items}


@pytest.mark.control_plane
def test_prometheus_reaches_metrics_and_nothing_else(live: Target, acme: Tenant) -> None:
    client = client_for(live)
    ensure(client, acme)
    found = policies(client, acme)
    assert found["berth-default-deny"]["policyTypes"] == ["Ingress"]
    (rule,) = found["berth-allow-monitoring"]["ingress"]
    assert rule["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"berth.io/monitoring": "true"}}}]


@pytest.mark.control_plane
@pytest.mark.parametrize("label", [None, "1"])
def test_a_namespace_of_an_older_berth_gets_the_policies_of_today(
    live: Target, acme: Tenant, label: str | None
) -> None:
    client = client_for(live)
    ensure(client, acme)
    namespace = namespace_of(acme.slug)
    wished = door.namespace_manifest(namespace, acme.slug, acme.pk)
    key = "berth.io/network-policies"
    others = {name: value for name, value in wished["metadata"]["labels"].items() if name != key}
    labels = {**others, key: label} if label else others
    client.apply(
        door.path_of("Namespace", "", namespace), {**wished, "metadata": {**wished["metadata"], "labels": labels}}
    )
    door.delete(client, "NetworkPolicy", namespace, "berth-allow-monitoring")
    ensure(client, acme)
    assert "berth-allow-monitoring" in policies(client, acme)


@pytest.mark.control_plane
def test_a_worker_killed_before_the_policies_leaves_them_to_the_next(
    live: Target, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_for(live)

    def killed(namespace: str) -> list[Any]:
        raise errors.Unreachable("killed")

    with monkeypatch.context() as patched:
        patched.setattr(door, "network_policies", killed)
        with pytest.raises(errors.Unreachable):
            ensure(client, acme)
    ensure(client, acme)
    assert set(policies(client, acme)) == {"berth-default-deny", "berth-allow-tenant", "berth-allow-monitoring"}
