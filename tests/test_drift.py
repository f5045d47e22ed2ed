"""The drift report over the API and a real API server: what differs is named, and nothing is changed by asking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from provisioning.apply.door import path_of
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.views import client_for, namespace_of
from provisioning.models import Cluster, OperationState
from tenants.models import User
from tenants.tokens import create_token

pytestmark = pytest.mark.control_plane


def patched(cluster: Cluster, kind: str, name: str, spec: dict[str, Any]) -> None:
    """Change an object as another field manager, which takes the value over."""
    path = path_of(kind, namespace_of(cluster.tenant.slug), name)
    whole = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    client_for(cluster.target).request(
        "PATCH",
        path,
        whole,
        content_type="application/apply-patch+yaml",
        query={"fieldManager": "somebody", "force": "true"},
    )


def drift(api: APIClient, clusters: str, name: str = "running") -> dict[str, Any]:
    answer = api.get(f"{clusters}/{name}/drift")
    assert answer.status_code == 200, answer.content
    told: dict[str, Any] = answer.json()
    return told


def test_a_cluster_as_wished_is_in_step(running: Cluster, api: APIClient, clusters: str) -> None:
    told = drift(api, clusters)
    assert (told["in_step"], told["objects"], told["problem"]) == (True, [], None)
    assert told["cluster"]["name"] == "running"


def test_what_somebody_deleted_is_missing_until_berth_makes_it_again(
    running: Cluster, api: APIClient, clusters: str
) -> None:
    client, path = client_for(running.target), path_of("Service", namespace_of(running.tenant.slug), "running")
    client.request("DELETE", path)
    told = drift(api, clusters)
    assert told["in_step"] is False
    assert [(one["kind"], one["name"], one["action"]) for one in told["objects"]] == [("Service", "running", "create")]
    # At rest, and its time has come.
    running.operations.update(state=OperationState.SUCCEEDED)
    Cluster.objects.filter(pk=running.pk).update(applied_at=None)
    reconcile(running.pk)
    assert client.get(path)["metadata"]["name"] == "running"
    assert drift(api, clusters)["in_step"] is True


def test_a_value_that_another_owns_is_named_with_its_owner(running: Cluster, api: APIClient, clusters: str) -> None:
    patched(running, "StatefulSet", "running-s0", {"replicas": 1})
    [found] = drift(api, clusters)["objects"]
    assert (found["kind"], found["name"]) == ("StatefulSet", "running-s0")
    assert found["refusal"]["code"] == "field_conflict"
    assert "somebody" in found["refusal"]["message"]
    assert found["refusal"]["remedy"]


def test_what_others_add_is_no_drift(running: Cluster, api: APIClient, clusters: str) -> None:
    path = path_of("StatefulSet", namespace_of(running.tenant.slug), "running-s0")
    body = {"metadata": {"annotations": {"example.com/note": "ours"}}}
    client_for(running.target).request("PATCH", path, body, content_type="application/merge-patch+json")
    assert drift(api, clusters)["in_step"] is True


def test_a_target_that_does_not_answer_is_said(
    running: Cluster, api: APIClient, clusters: str, settings: Settings
) -> None:
    Path(settings.TARGETS_DIR, "main.kubeconfig").unlink()
    told = drift(api, clusters)
    assert told["in_step"] is None
    assert told["problem"]["code"]


def test_an_administrator_sees_all_tenants_page_by_page(running: Cluster) -> None:
    _, secret = create_token(user=User.objects.create(username="root", is_superuser=True), name="t", scopes=["read"])
    root = APIClient()
    root.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    page = root.get("/api/v1/drift?limit=1").json()
    assert [(one["cluster"]["name"], one["in_step"]) for one in page["items"]] == [("running", True)]
    assert page["next"] is None
    assert root.get("/api/v1/drift?tenant=nobody").json()["items"] == []
    assert root.get("/api/v1/drift?limit=21").status_code == 422
