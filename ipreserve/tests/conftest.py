"""The real API server with Calico's kinds, and both services under their own accounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipreserve import install, kube
from ipreserve.kube import Kube
from ipreserve.tests import calico
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World, accounts, ensure, kubeconfig_of
from sandbox import Sandbox


@pytest.fixture(scope="session")
def admin(control_plane: Sandbox) -> Kube:
    """The cluster's administrator; Calico 3.32's kinds are served."""
    door = kube.connect(control_plane.kubeconfig_path)
    accounts(door)
    calico.install(door)
    # Pods of a node that does not exist are collected as garbage.
    ensure(door, "/api/v1/nodes", {"metadata": {"name": "n1"}})
    return door


@pytest.fixture(scope="session")
def webhook_kubeconfig(admin: Kube, control_plane: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("webhook") / "kubeconfig"
    return kubeconfig_of(admin, control_plane.kubeconfig_path, "ipreserve-webhook", to)


@pytest.fixture(scope="session")
def sweeper_kubeconfig(admin: Kube, control_plane: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("sweeper") / "kubeconfig"
    return kubeconfig_of(admin, control_plane.kubeconfig_path, "ipreserve-sweeper", to)


def armed(door: Kube) -> bool:
    """Whether the installed configuration is fail-closed, which a ready webhook makes it."""
    found = door.get(f"{install.VALIDATING}/{install.CONFIGURATION}")
    return bool(found["webhooks"][0]["failurePolicy"] == "Fail")


def followed(service: Service) -> str:
    """Which of Calico's APIs the webhook takes for the one: it starts with v1, and says each change."""
    changes: list[str] = re.findall(r"Calico's API changed from \S+ to (\S+)", service.said())
    return changes[-1] if changes else "v1"


@pytest.fixture(scope="session")
def serving(admin: Kube, webhook_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A webhook process that the API server calls."""
    log = tmp_path_factory.mktemp("webhook") / "log"
    service = Service("webhook", webhook_kubeconfig, log, deny_seconds=600, extra=("--give-back",))
    install.install(admin, namespace=NAMESPACE, url=service.url, give_back=True)
    try:
        eventually(lambda: service.is_ready() and armed(admin), "the webhook is armed")
        yield service
    finally:
        install.uninstall(admin, None, namespace=NAMESPACE, purge=False)
        service.stop()


@pytest.fixture
def quiet_world(admin: Kube) -> Iterator[World]:
    """A test's own corner with nothing reserved before, and no webhook."""
    world = World(admin)
    world.wipe()
    yield world
    world.close()


@pytest.fixture
def world(quiet_world: World, serving: Service) -> World:
    """The same, with the webhook, which has noticed whatever another test did to Calico's API."""
    eventually(lambda: followed(serving) == "v1", "the webhook writes to the API that is served")
    return quiet_world
