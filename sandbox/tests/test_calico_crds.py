"""Each release's kinds on a real API server refuse what that release refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from sandbox.api import Client
from sandbox.calico import crds
from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError

# Native kinds came with 3.32.
SERVED = [("3.31", False), ("3.32", False), ("3.32", True), ("3.33", False), ("3.33", True)]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Client, str, bool]]:
    """An API server of its own per release: the run's shared one must not learn of Calico from here."""
    release, native = request.param
    sandbox = Sandbox(f"calico-{os.getpid()}", control_plane_only=True)
    try:
        sandbox.up()
        client = Client(sandbox.layout.kubeconfig)
        crds.install(client, release, native=native)
        yield client, release, native
    finally:
        sandbox.down(wipe=True)


def store(client: Client, native: bool, plural: str, kind: str, spec: dict[str, object]) -> tuple[int, str]:
    """Status and message of a server-side dry run of a create."""
    group, version = crds.NATIVE if native else crds.V1
    body = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    status, answer = client.send("POST", f"/apis/{group}/{version}/{plural}?dryRun=All", body)
    return status, str(json.loads(answer).get("message", ""))


@pytest.mark.control_plane
@pytest.mark.parametrize("server", SERVED, indirect=True)
def test_each_release_stores_and_refuses_what_calico_s_schema_does(server: tuple[Client, str, bool]) -> None:
    client, release, native = server

    def reserved(*items: str) -> int:
        return store(client, native, "ipreservations", "IPReservation", {"reservedCIDRs": list(items)})[0]

    assert reserved("10.0.0.1/32", "fd00::1/128") == 201
    assert reserved("10.0.0.1/32", "10.0.0.1/32") == {"3.31": 201}.get(release, 422)
    assert reserved("10.0.0.1") == {"3.33": 422}.get(release, 201)


@pytest.mark.control_plane
@pytest.mark.parametrize("server", [("3.33", False)], indirect=True)
def test_cooldown_ends_at_twenty_minutes(server: tuple[Client, str, bool]) -> None:
    client, _, native = server
    assert store(client, native, "ipamconfigs", "IPAMConfig", {"ipCooldownSeconds": 1200})[0] == 201
    status, message = store(client, native, "ipamconfigs", "IPAMConfig", {"ipCooldownSeconds": 1201})
    assert (status, "ipCooldownSeconds" in message) == (422, True)


@pytest.mark.parametrize(("release", "native"), [("3.30", False), ("3.31", True)])
def test_release_without_such_kinds_is_refused_with_what_there_is(release: str, native: bool) -> None:
    with pytest.raises(SandboxError, match=r"Known:|no native"):
        crds.definitions(release, native=native)
