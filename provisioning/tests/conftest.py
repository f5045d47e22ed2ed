"""Alice's tenant, and targets: a real API server without nodes, and one that is not there."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest
from pytest_django import Settings

from provisioning.catalog.plans import ensure_plans
from provisioning.models import Target
from provisioning.targets import discover
from sandbox import Sandbox
from tenants.models import Membership, Role, Tenant, User


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice")


@pytest.fixture
def acme(alice: User) -> Tenant:
    # A name of its own, since the API server keeps namespaces over tests and the database does not.
    tenant = Tenant.objects.create(slug=f"acme-{secrets.token_hex(3)}", name="Acme")
    Membership.objects.create(tenant=tenant, user=alice, role=Role.OWNER)
    ensure_plans()
    return tenant


@pytest.fixture
def targets(tmp_path: Path, settings: Settings) -> Path:
    """The folder of kubeconfigs."""
    settings.TARGETS_DIR = tmp_path
    return tmp_path


@pytest.fixture
def target(acme: Tenant, targets: Path) -> Target:
    """A target nobody has looked at yet."""
    return Target.objects.create(name="main", title="Main")


@pytest.fixture
def live(target: Target, targets: Path, control_plane: Sandbox) -> Target:
    """The same, with a real API server behind it."""
    shutil.copy(control_plane.kubeconfig_path, targets / "main.kubeconfig")
    assert discover(target)
    target.refresh_from_db()
    return target
