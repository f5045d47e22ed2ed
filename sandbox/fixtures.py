"""pytest fixtures: real targets for tests, started once for a whole run.

With KUBECONFIG set, `cluster` is None and the tests use that cluster. BERTH_SANDBOX names an embedded one that already
runs, for a quick round while developing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from sandbox.cluster import Sandbox, lacking


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Sandbox]:
    """A real API server with controllers and scheduler, and no nodes: seconds to start, no root needed."""
    sandbox = Sandbox(f"cp-{secrets.token_hex(3)}", control_plane_only=True)
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
    sandbox = Sandbox(f"t-{secrets.token_hex(3)}")
    try:
        sandbox.up(progress=print)
        yield sandbox
    finally:
        sandbox.down(wipe=True)
