"""The same on the schemas of Calico's releases, and on an API that changes meanwhile; giving back; history."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipreserve import __main__ as commands
from ipreserve import errors, kube, store
from ipreserve.kube import Kube
from ipreserve.records import Address, State, address
from ipreserve.tests import calico
from ipreserve.tests.aggregated import aggregated
from ipreserve.tests.conftest import followed
from ipreserve.tests.test_sweeper import BLOCKS, claim, reserve
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, World, insist, overwrite
from sandbox import Sandbox


@pytest.fixture
def as_before(admin: Kube) -> Iterator[None]:
    """Leaves Calico 3.32's v1 kinds, as other tests expect."""
    yield
    calico.remove(admin, native=True)
    calico.install(admin)


@pytest.mark.parametrize(
    ("release", "native"), [("3.31", False), ("3.32", False), ("3.32", True), ("3.33", False), ("3.33", True)]
)
def test_list_is_valid_on_every_release_and_repeats_are_too(
    quiet_world: World, as_before: None, release: str, native: bool
) -> None:
    world = quiet_world
    calico.install(world.kube, release=release, native=native, ipam=False)
    held = world.store()
    wanted = [address(world.address(1)), address("fd00::1")]
    first = held.write_barred(held.read_barred(0), wanted)
    again = held.write_barred(first, [*wanted, address(world.address(2))])
    assert (again.raw or {})["apiVersion"] == ("projectcalico.org/v3" if native else "crd.projectcalico.org/v1")
    assert (again.raw or {})["spec"]["reservedCIDRs"] == [
        f"{world.address(1)}/32", f"{world.address(2)}/32", "fd00::1/128"
    ]  # fmt: skip
    # No account of each address's writer: it would be longer than the list, for every pod's start to read.
    assert "managedFields" not in (again.raw or {})["metadata"]


def test_migration_to_native_kinds_while_running_carries_every_reservation_over(
    quiet_world: World, as_before: None, sweeper_kubeconfig: Path
) -> None:
    world = quiet_world
    reserve(world, claim(world, "cache-0", 1))
    sweeper = world.sweeper(sweeper_kubeconfig)
    sweeper.sweep()
    calico.install(world.kube, native=True)
    sweeper._detected = -kube.Clock().now()
    sweeper.sweep()
    assert sweeper.calico().name == "v3"
    assert kube.detect(world.kube).name == "v3"
    assert world.barred() == {address(world.address(1))}


def test_webhook_that_runs_follows_a_migration_and_what_it_knew_of_the_old_api_counts_for_nothing(
    world: World, serving: Service, as_before: None
) -> None:
    first = world.pod("cache-0", world.address(1), node="n1")
    world.delete("cache-0")
    assert kube.detect(world.kube).name == "v1"
    assert world.barred() == {address(world.address(1))}
    calico.install(world.kube, native=True)
    calico.remove(world.kube, native=False)
    eventually(lambda: followed(serving) == "v3", "the webhook has noticed")
    eventually(serving.is_ready, "it can write there")
    world.pod("cache-1", world.address(2), node="n1")
    world.delete("cache-1")
    # A repeat of what it wrote before, which is gone with the old kinds.
    world.finish(first)
    found = world.store().read_barred(0)
    assert (found.raw or {})["apiVersion"] == "projectcalico.org/v3"
    assert found.addresses == {address(world.address(1)), address(world.address(2))}
    assert "Calico's API changed from v1 to v3" in serving.said()


def test_calico_s_own_api_server_is_recognised_used_where_nothing_else_is_served_and_read_back(
    world: World, serving: Service, webhook_kubeconfig: Path, as_before: None
) -> None:
    # Under the webhook's own account: it must be able to tell.
    door = kube.connect(webhook_kubeconfig)
    with aggregated(world.kube) as server:
        seen = kube.detect(door, "aggregated")
        assert (seen.name, seen.aggregated, seen.api_version) == ("aggregated", True, "projectcalico.org/v3")
        # What is stored is nearer, and cannot lose a write.
        assert kube.detect(door).name == "v1"
        with pytest.raises(errors.NoCalico, match="no IPReservation is served as v3"):
            kube.detect(door, "v3")
        calico.remove(world.kube, native=False)
        assert kube.detect(door).name == "aggregated"
        eventually(lambda: followed(serving) == "aggregated", "the webhook has noticed")
        eventually(serving.is_ready, "it can write there")
        world.pod("cache-0", world.address(1), node="n1")
        world.delete("cache-0")
        assert server.objects[store.NAME]["spec"]["reservedCIDRs"] == [f"{world.address(1)}/32"]
        server.gives_up = True
        held = store.Store(door, NAMESPACE, lambda: seen)
        with pytest.raises(errors.NotStored, match="reported success, and 1 addresses are not in it"):
            held.write_barred(held.read_barred(0), [address(world.address(1)), address(world.address(2))])
    # While it is down it counts as not there, and is not an error of its own.
    with pytest.raises(errors.NoCalico, match="Is Calico installed"):
        kube.detect(door)


def test_ipam_configuration_is_read_under_the_name_it_has_in_its_group(quiet_world: World, as_before: None) -> None:
    door = quiet_world.kube
    spec: dict[str, object] = {"autoAllocateBlocks": True, "strictAffinity": True, "maxBlocksPerHost": 4}
    overwrite(
        quiet_world, "/apis/crd.projectcalico.org/v1/ipamconfigs",
        {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMConfig", "metadata": {"name": "default"}, "spec": spec},
    )  # fmt: skip
    try:
        assert kube.ipam_configuration(door, kube.detect(door)) == spec
        # As after a migration: the old kind is still served, and no longer what Calico reads.
        calico.install(door, release="3.33", native=True)
        assert kube.ipam_configuration(door, kube.detect(door)) == {}
        now = {**spec, "maxBlocksPerHost": 8, "ipCooldownSeconds": 30}
        overwrite(
            quiet_world, "/apis/projectcalico.org/v3/ipamconfigurations",
            {
                "apiVersion": "projectcalico.org/v3", "kind": "IPAMConfiguration", "metadata": {"name": "default"},
                "spec": now,
            },
        )  # fmt: skip
        assert kube.ipam_configuration(door, kube.detect(door)) == now
        assert kube.ipam_settings(door, kube.detect(door)) == (True, 30.0)
    finally:
        door.request("DELETE", "/apis/crd.projectcalico.org/v1/ipamconfigs/default")


def test_without_calico_the_message_says_what_was_looked_for(quiet_world: World) -> None:
    with pytest.raises(errors.NoCalico, match="no IPReservation is served as v3"):
        kube.detect(quiet_world.kube, "v3")


@contextlib.contextmanager
def pools(world: World, *specs: dict[str, Any]) -> Iterator[None]:
    """With these pools of Calico and no others."""
    collection, api = "/apis/crd.projectcalico.org/v1/ippools", {"apiVersion": "crd.projectcalico.org/v1"}
    names = [f"{world.namespace}-{number}" for number in range(len(specs))]
    for name, spec in zip(names, specs, strict=True):
        world.kube.request("POST", collection, {**api, "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        for name in names:
            world.kube.request("DELETE", f"{collection}/{name}")


def asked_for(world: World) -> dict[str, list[str]]:
    """What the pods of a new StatefulSet of two, which want their addresses back, ask Calico for."""
    wish = {"ipreserve.berth.io/give-back": "true"}
    body = {
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "cache"},
        "spec": {
            "serviceName": "cache", "replicas": 2, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "cache"}},
            "template": {
                "metadata": {"labels": {"app": "cache"}, "annotations": wish},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    }  # fmt: skip
    world.kube.request("POST", f"/apis/apps/v1/namespaces/{world.namespace}/statefulsets", body)
    eventually(lambda: len(world.kube.get(world.pods())["items"]) == 2, "both pods are made")
    return {
        one["metadata"]["name"]: json.loads(one["metadata"]["annotations"].get("cni.projectcalico.org/ipAddrs", "[]"))
        for one in world.kube.get(world.pods())["items"]
    }


WIDE: dict[str, Any] = {"cidr": "10.96.0.0/11", "blockSize": 26}


def test_same_ordinal_gets_its_held_address_and_another_pod_does_not(world: World, serving: Service) -> None:
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now())
    with pools(world, WIDE):
        assert asked_for(world) == {"cache-0": [world.address(1)], "cache-1": []}


@contextlib.contextmanager
def block(world: World, *, used: set[int]) -> Iterator[None]:
    """With this test's block of 64, of which these are allocated."""
    cidr, api = f"{world.address(0)}/26", {"apiVersion": "crd.projectcalico.org/v1"}
    queue = [n for n in range(64) if n not in used]
    found = calico.block(cidr, "n1", used=dict.fromkeys(used, "handle"), queue=queue, size=64)
    world.kube.request("POST", BLOCKS, {**api, **found})
    try:
        yield
    finally:
        world.kube.request("DELETE", f"{BLOCKS}/{found['metadata']['name']}")


@pytest.mark.parametrize("used", [set(), {1}], ids=["free", "still-taken"])
def test_pod_that_is_made_anew_at_once_gets_its_address_back_if_it_is_free_though_no_sweep_has_been(
    world: World, serving: Service, used: set[int]
) -> None:
    first = world.pod("cache-0", world.address(1), node="n1")
    with pools(world, WIDE), block(world, used=used):
        world.delete("cache-0")
        world.finish(first)
        assert world.records()[address(world.address(1))].state is State.CLAIMED
        assert asked_for(world)["cache-0"] == ([] if used else [world.address(1)])


def test_address_that_another_pod_took_by_name_is_not_given_back(world: World, serving: Service) -> None:
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now())
    held = world.store()
    kept = held.read_kept(0)
    taken = {one: replace(record, swapped=True) for one, record in kept.ledger.records.items()}
    insist(lambda: held.write_kept(held.read_kept(0), replace(kept.ledger, records=taken)))
    with pools(world, WIDE):
        assert asked_for(world)["cache-0"] == []


@pytest.mark.parametrize(
    "specs",
    [
        [],
        [WIDE | {"cidr": "10.64.0.0/11"}],
        [WIDE | {"disabled": True}],
        [WIDE | {"allowedUses": ["Tunnel"]}],
        [WIDE | {"nodeSelector": "rack == 'a'"}],
    ],
    ids=["none", "another", "disabled", "not-for-pods", "not-for-all-nodes"],
)
def test_address_of_a_pool_that_calico_would_not_choose_now_is_not_given_back(
    world: World, serving: Service, specs: list[dict[str, Any]]
) -> None:
    reserve(world, claim(world, "cache-0", 1), state=State.FREED, freed=world.kube.clock.now())
    with pools(world, *specs):
        assert asked_for(world) == {"cache-0": [], "cache-1": []}


@pytest.mark.parametrize("left", [["10.99.0.1"], ["fd00::9"], ["10.99.0.1", "fd00::9"]])
def test_pod_of_both_ip_versions_gets_both_addresses_back_or_none(
    world: World, serving: Service, left: list[str]
) -> None:
    first = replace(claim(world, "cache-0", 1), dual=True)
    held = [replace(first, address=Address(one)) for one in left]
    reserve(world, *held, state=State.FREED, freed=world.kube.clock.now())
    with pools(world, WIDE, {"cidr": "fd00::/64", "blockSize": 122}):
        assert asked_for(world) == {"cache-0": left if len(left) == 2 else [], "cache-1": []}


def test_addresses_of_a_deleted_pod_remember_that_it_had_both_ip_versions(world: World, serving: Service) -> None:
    world.pod("cache-0", world.address(1), "fd00::17")
    world.pod("cache-1", world.address(2))
    for name in ("cache-0", "cache-1"):
        world.delete(name)
    assert {str(one): record.dual for one, record in world.records().items()} == {
        world.address(1): True, "fd00::17": True, world.address(2): False
    }  # fmt: skip


def test_history_names_every_owner_an_address_had(
    quiet_world: World, sweeper_kubeconfig: Path, control_plane: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    world = quiet_world
    now = world.kube.clock.now()
    sweeper = world.sweeper(sweeper_kubeconfig)
    for number in range(7):
        reserve(world, claim(world, f"cache-{number}", 1, at=now - 9000 + number), state=State.FREED, freed=now - 7200)
        sweeper.sweep()
    reserve(world, claim(world, "cache-8", 1))
    command = ["history", world.address(1), f"--kubeconfig={control_plane.kubeconfig_path}"]
    assert commands.run(commands._parser().parse_args(command)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == store.HISTORY_PER_ADDRESS + 1
    assert "cache-6" in lines[-2]
    assert "expired" in lines[-2]
    assert "now claimed" in lines[-1]


def advice(control_plane: Sandbox, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says."""
    command = ["advice", f"--kubeconfig={control_plane.kubeconfig_path}"]
    assert commands.run(commands._parser().parse_args(command)) == 0
    return capsys.readouterr().out


def test_advice_goes_by_the_settings_that_hold_now_and_names_namespaces_with_a_label_that_does_nothing(
    quiet_world: World, control_plane: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    world = quiet_world
    pool = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": world.namespace}}
    pool["spec"] = {"cidr": "10.80.0.0/16", "blockSize": 28}
    collection = "/apis/crd.projectcalico.org/v1/ippools"
    world.kube.request("POST", collection, pool)
    wrong = f"{world.namespace}-wrong"
    world.kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": wrong, "labels": {"ip-reserve": "enable"}}})
    try:
        assert "pool 10.80.0.0/16" not in advice(control_plane, capsys)
        config = {"metadata": {"name": store.CONFIG}, "data": {"max-count": "300"}}
        world.kube.request("POST", world.store().configmaps, config)
        found = advice(control_plane, capsys)
    finally:
        world.kube.request("DELETE", f"{collection}/{world.namespace}")
        world.kube.request("DELETE", f"/api/v1/namespaces/{wrong}")
    assert "pool 10.80.0.0/16: a node gets at most 20 blocks of /28, 320 addresses" in found
    assert f"namespace {wrong}: ip-reserve=enable protects nothing. Set ip-reserve=enabled, or remove it." in found
    assert f"namespace {world.namespace}:" not in found


def test_advice_speaks_of_calico_s_own_cooldown(
    quiet_world: World, control_plane: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    found = advice(control_plane, capsys)
    assert "Calico's API: v1 (crd.projectcalico.org/v1)" in found
    assert "ipCooldownSeconds" in found
