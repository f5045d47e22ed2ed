"""A tenant, its people and a target with a real API server behind it, for tests that go over the API."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from provisioning.catalog.plans import ensure_plans
from provisioning.clusters.reconcile import reconcile
from provisioning.models import Cluster, Target
from provisioning.targets import discover
from sandbox import Sandbox
from tenants.models import Membership, Role, Tenant, User
from tenants.tokens import create_token

ORDER = {"engine": "redis", "name": "fresh", "plan": "redis-dev"}


@pytest.fixture
def acme(db: None) -> Tenant:
    ensure_plans()
    # A name of its own, since the API server keeps namespaces over tests and the database does not.
    return Tenant.objects.create(slug=f"acme-{secrets.token_hex(3)}", name="Acme")


@pytest.fixture
def alice(acme: Tenant) -> User:
    user = User.objects.create_user("alice")
    Membership.objects.create(tenant=acme, user=user, role=Role.OWNER)
    return user


@pytest.fixture
def api(alice: User) -> APIClient:
    _, secret = create_token(user=alice, name="test", scopes=["write"])
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    client.get("/api/v1/session")  # last_used is written now
    return client


@pytest.fixture
def absent(db: None, tmp_path: Path, settings: Settings) -> Target:
    """A target whose kubeconfig is missing."""
    settings.TARGETS_DIR = tmp_path
    return Target.objects.create(name="main", title="Main")


@pytest.fixture
def live(absent: Target, tmp_path: Path, control_plane: Sandbox) -> Target:
    """The same with a real API server behind it."""
    shutil.copy(control_plane.kubeconfig_path, tmp_path / "main.kubeconfig")
    assert discover(absent)
    absent.refresh_from_db()
    return absent


@pytest.fixture
def clusters(acme: Tenant) -> str:
    return f"/api/v1/tenants/{acme.slug}/clusters"


@pytest.fixture
def running(live: Target, acme: Tenant, api: APIClient, clusters: str) -> Cluster:
    """A cluster that was applied; its pods wait for nodes."""
    answer = api.post(clusters, {**ORDER, "name": "running"}, format="json", headers={"Idempotency-Key": "running"})
    assert answer.status_code == 202, answer.content
    reconcile(answer.json()["cluster"]["id"])
    cluster = Cluster.objects.select_related("tenant", "target").get(name="running")
    assert cluster.observed_generation == 1
    return cluster
