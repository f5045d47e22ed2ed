"""pytest fixtures: real targets for tests, started once for a whole run.

With KUBECONFIG set, `cluster` is None and the tests use that cluster. BERTH_SANDBOX names an embedded one that already
runs, for a quick round while developing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from sandbox.cluster import Sandbox, lacking
from sandbox.layout import CALICO, state_home
from sandbox.processes import start_time


def _name(prefix: str) -> str:
    """A name of this run's own. What a killed run has left behind is removed first: its name tells its process."""
    home = state_home()
    for folder in home.iterdir() if home.exists() else ():
        found = re.fullmatch(r"test-[a-z]+-(\d+)", folder.name)
        if found and start_time(int(found[1])) is None:
            Sandbox(folder.name).down(wipe=True)
    return f"test-{prefix}-{os.getpid()}"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Sandbox]:
    """A real API server with controllers and scheduler, and no nodes: seconds to start, no root needed."""
    sandbox = Sandbox(_name("cp"), control_plane_only=True)
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Sandbox | None]:
    """The full embedded target, shared by all tests of the run; None when KUBECONFIG names another cluster."""
    if os.environ.get("KUBECONFIG"):
        yield None
        return
    running = os.environ.get("BERTH_SANDBOX")
    if running:
        yield Sandbox(running)
        return
    reasons = lacking()
    if reasons:
        pytest.fail(f"The embedded target cannot run here: {'; '.join(reasons)}")
    sandbox = Sandbox(_name("full"))
    try:
        sandbox.up(progress=print)
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@pytest.fixture(scope="session")
def calico_cluster() -> Iterator[Sandbox]:
    """A second full target, whose pods get their addresses by Calico's objects."""
    if os.environ.get("KUBECONFIG"):
        pytest.skip("this is about the embedded target's addresses")
    reasons = lacking()
    if reasons:
        pytest.fail(f"The embedded target cannot run here: {'; '.join(reasons)}")
    sandbox = Sandbox(_name("calico"), ipam=CALICO)
    try:
        sandbox.up(progress=print)
        yield sandbox
    finally:
        sandbox.down(wipe=True)
