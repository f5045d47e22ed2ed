"""Removing it all beside services that run: what is purged stays away, and nothing is barred for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipreserve import certs, errors, install, kube
from ipreserve.records import address
from ipreserve.tests.paper import Paper
from ipreserve.tests.test_refusing import webhook
from ipreserve.tests.test_sweeper import claim, reserve
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, ROOT, Service, World

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{install.LEASE}"
CONFIGURATIONS = f"{install.VALIDATING}/{install.CONFIGURATION}"


def is_there(door: kube.Kube, path: str) -> bool:
    try:
        door.get(path)
    except errors.NotFound:
        return False
    return True


@pytest.fixture
def installed(quiet_world: World) -> Iterator[World]:
    """Something is written, and a configuration is there; those of other tests are put back."""
    world = quiet_world
    paths = (CONFIGURATIONS, f"{install.MUTATING}/{install.GIVE_BACK}")
    before = {path: world.kube.get(path) for path in paths if is_there(world.kube, path)}
    install.install(world.kube, namespace=NAMESPACE, url="https://127.0.0.1:1", give_back=False)
    reserve(world, claim(world, "cache-0", 1))
    yield world
    world.wipe()
    for path, one in before.items():
        metadata = {"name": one["metadata"]["name"], "labels": one["metadata"].get("labels", {})}
        world.kube.request("POST", path.rpartition("/")[0], {**one, "metadata": metadata})


def purge(world: World) -> list[str]:
    return install.uninstall(world.kube, world.store(), namespace=NAMESPACE, purge=True)


def test_purge_beside_a_running_sweeper_unblocks_and_removes_nothing_else_until_that_has_ended(
    installed: World, sweeper_kubeconfig: Path, tmp_path: Path
) -> None:
    world = installed
    running = Service("sweeper", sweeper_kubeconfig, tmp_path / "log", extra=("--identity=elsewhere",), period=1)
    try:
        eventually(lambda: running.value("ipreserve_leading") == 1, "it leads")
        with pytest.raises(errors.StillRunning, match=r"the sweeper elsewhere runs .* nothing is blocked") as refused:
            purge(world)
        assert not refused.value.may_pass
        assert not is_there(world.kube, CONFIGURATIONS)
        assert address(world.address(1)) in world.barred()
        assert address(world.address(1)) in world.records()
    finally:
        running.stop()
    purge(world)
    assert (world.barred(), world.records(), is_there(world.kube, LEASE)) == (frozenset(), {}, False)


def test_purge_waits_for_the_lease_of_a_sweeper_that_was_killed_and_then_nobody_else_sweeps(
    installed: World, sweeper_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, seen = installed, list[Any]()
    killed = world.sweeper(sweeper_kubeconfig)
    assert killed.lease.holds()
    raw = world.kube.get(LEASE)
    world.kube.request("PUT", LEASE, {**raw, "spec": {**raw["spec"], "leaseDurationSeconds": 1}})
    starts = world.store()
    written = starts.reservation_paths

    def meanwhile() -> list[str]:
        # Another one starts while all is removed.
        seen.append((world.kube.get(LEASE)["spec"]["holderIdentity"], killed.lease.acquire()))
        return written()

    monkeypatch.setattr(starts, "reservation_paths", meanwhile)
    install.uninstall(world.kube, starts, namespace=NAMESPACE, purge=True)
    assert set(seen) == {("uninstall", False)}
    assert not is_there(world.kube, LEASE)


def test_purge_ends_the_services_that_were_applied_before_it_removes_what_they_write(installed: World) -> None:
    world = installed
    for name in ("webhook", "sweeper"):
        objects = yaml.safe_load_all((ROOT / f"deploy/ipreserve/base/{name}.yaml").read_text())
        world.kube.request("POST", DEPLOYMENTS, next(one for one in objects if one["kind"] == "Deployment"))
    eventually(lambda: len(world.kube.list(PODS)[0]) == 4, "two pods of each")
    done = purge(world)
    assert [one for one in done if "deployments" in one] == [
        "removed deployments ipreserve-webhook", "removed deployments ipreserve-sweeper"
    ]  # fmt: skip
    # First that nothing is blocked, then who writes, then what was written.
    assert done[0] == "removed validatingwebhookconfigurations ipreserve"
    assert done.index("removed deployments ipreserve-sweeper") < min(
        number for number, one in enumerate(done) if "configmaps" in one or "ipreservations" in one
    )
    assert world.kube.list(PODS)[0] == []
    assert (world.barred(), world.records()) == (frozenset(), {})


def test_purge_stops_while_a_pod_of_the_services_does_not_end(
    installed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = installed
    stuck = {
        "metadata": {
            "name": "stuck", "labels": {"app.kubernetes.io/name": "ipreserve-sweeper"},
            "finalizers": ["example.com/stuck"],
        },
        "spec": {"containers": [{"name": "main", "image": "busybox"}], "serviceAccountName": "ipreserve-sweeper"},
    }  # fmt: skip
    world.kube.request("POST", PODS, stuck)
    monkeypatch.setattr(install, "GONE_SECONDS", 0.0)
    try:
        with pytest.raises(errors.StillRunning, match="still there: stuck"):
            purge(world)
        assert address(world.address(1)) in world.barred()
    finally:
        world.kube.request("DELETE", f"{PODS}/stuck")
        patch = {"metadata": {"finalizers": None}}
        world.kube.request("PATCH", f"{PODS}/stuck", patch, content_type="application/merge-patch+json")


def test_purge_removes_what_a_request_that_came_late_has_barred_meanwhile(
    installed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, late = installed, iter(["once"])
    ask = world.kube.request

    def request(method: str, path: str, *arguments: Any, **more: Any) -> kube.JsonObject:
        answer = ask(method, path, *arguments, **more)
        if method == "DELETE" and "ipreservations" in path and next(late, None):
            reserve(world, claim(world, "cache-1", 2))
        return answer

    monkeypatch.setattr(world.kube, "request", request)
    done = purge(world)
    assert next(late, None) is None
    assert len([one for one in done if "ipreservations" in one]) == 2
    assert (world.barred(), world.records()) == (frozenset(), {})


def test_webhook_whose_configuration_was_removed_makes_no_secret_and_claims_no_evictions_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = Paper()
    one = webhook(paper, monkeypatch)
    for part in ("_detect", "_reload", "_probe"):
        monkeypatch.setattr(one, part, lambda: None)
    monkeypatch.setattr(one, "_problem", "")
    secret = f"/api/v1/namespaces/{one.options.namespace}/secrets/{certs.SECRET}"
    configuration = install.validating(namespace=one.options.namespace, live=one.live)
    pod = ("team", "cache-0", "")
    # Before it is installed it makes its certificate, as it must to be installed.
    one.keep()
    assert secret in paper.objects
    paper.request("POST", install.VALIDATING, configuration)
    one.keep()
    del paper.objects[CONFIGURATIONS], paper.objects[secret]
    for _ in range(3):
        one.keep()
        assert (secret in paper.objects, one._evictions._claim(*pod)) == (False, "not_installed")
    paper.request("POST", install.VALIDATING, configuration)
    one.keep()
    assert secret in paper.objects
    with pytest.raises(errors.NotFound):
        one._evictions._claim(*pod)
