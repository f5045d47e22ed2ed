"""ipreserve's format as its own tests hold it, the names of owners, and how clusters opt in. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioning.apply.door import dressed
from provisioning.apply.reservations import ENDS, STATES, WAYS, Hold, history_holds, hold_of, ledger_holds
from provisioning.clusters.reservations import cluster_of
from provisioning.engines.base import ClusterView, Manifest
from provisioning.engines.registry import ENGINES
from provisioning.models import Cluster

# Data, not code: ipreserve's tests fail when it writes anything else than this.
WIRE = Path(__file__).resolve().parents[2] / "ipreserve" / "tests" / "wire.json"
OWNER: dict[str, Any] = {"metadata": {"name": "orders-berth", "uid": "1"}}
STATEFUL: Manifest = {
    "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "orders"},
    "spec": {"template": {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": []}}},
}  # fmt: skip
VIEW = ClusterView(
    id="clu_1", name="orders", tenant="acme", namespace="berth-acme", engine="redis", version="7", generation=1, spec={}
)


@pytest.fixture
def wire() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(WIRE.read_text())
    return found


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_ledger_is_read_as_ipreserve_writes_it(wire: dict[str, Any]) -> None:
    found = {one.address: one for one in ledger_holds(wire["ledger"])}
    assert {address: (one.pod, one.state, one.via) for address, one in found.items()} == {
        "10.0.0.1": ("orders-s0-0", "claimed", "evict"),
        "10.0.0.2": ("orders-s0-1", "freed", "delete"),
        "10.0.0.3": ("keeper-0", "terminating", "kubelet"),
        "10.0.0.4": ("orders-s0-2", "releasing", "delete"),
        "10.0.0.9": ("unknown", "claimed", "found"),
        "fd00::1": ("stranger-0", "freed", "delete"),
    }
    assert found["10.0.0.2"] == Hold(
        address="10.0.0.2", namespace="berth-acme", pod="orders-s0-1", node="n1", owner="StatefulSet/orders-s0",
        via="delete", state="freed", first=at("2025-11-25T03:04:05.123"), freed=at("2025-11-25T03:04:08.123"),
        until=at("2025-11-25T04:04:08.123"), released=None, end="",
    )  # fmt: skip
    assert found["fd00::1"].namespace == "berth-other"


def test_the_history_tells_every_way_a_hold_can_end(wire: dict[str, Any]) -> None:
    found = history_holds(wire["history"])
    assert [one.namespace for one in found] == ["berth-other", *["berth-acme"] * len(ENDS)]
    assert [one.end for one in found[1:]] == list(ENDS)
    assert {(one.state, one.released) for one in found} == {("released", at("2025-11-25T04:04:09.123"))}


def test_every_state_and_way_of_the_example_is_one_the_api_documents(wire: dict[str, Any]) -> None:
    found = [*ledger_holds(wire["ledger"]), *history_holds(wire["history"])]
    assert {one.state for one in found} == set(STATES)
    assert {one.via for one in found} <= set(WAYS)


def test_the_four_fields_that_older_tools_write_are_read_as_utc() -> None:
    (found,) = ledger_holds({"fd00--7": "berth-acme_orders-s0-0_n1_2022-12-24-10:00:00"})
    assert (found.address, found.pod, found.first) == ("fd00::7", "orders-s0-0", at("2022-12-24T10:00:00"))


@pytest.mark.parametrize(
    "data",
    [
        {"10.0.0.1": "a_b"}, {"10.0.0.1.json": "{"}, {"10.0.0.1.json": '{"v":2}'}, {"10.0.0.1.json": "[]"},
        {"10.0.0.1.json": '{"v":1,"state":"freed"}'}, {"10.0.0.1.bad": "x"}, {"nonsense": "x"},
        {"10.0.0.1": "a_b_c_yesterday"},
    ],
)  # fmt: skip
def test_records_that_cannot_be_read_are_left_out_and_spoil_nothing(wire: dict[str, Any], data: dict[str, str]) -> None:
    good = {name: text for name, text in wire["ledger"].items() if name.startswith("10.0.0.2")}
    assert [one.address for one in ledger_holds({**good, **data})] == ["10.0.0.2"]


@pytest.mark.parametrize("text", ["{", "[{}]", '{"v":1}', "null", '[{"v":1,"first":"2022-01-01T00:00:00"}]'])
def test_a_history_that_cannot_be_read_spoils_nothing(wire: dict[str, Any], text: str) -> None:
    found = history_holds({"10.9.9.9": text, **wire["history"]})
    assert {one.address for one in found} == {"10.0.0.2"}


def cluster(name: str, *, created: int = 1, deleted: int | None = None, workloads: tuple[str, ...] = ()) -> Cluster:
    made = datetime(2025, 11, created, tzinfo=UTC)
    gone = None if deleted is None else datetime(2025, 11, deleted, tzinfo=UTC)
    inventory = [{"kind": "StatefulSet", "name": one} for one in workloads]
    return Cluster(name=name, created=made, deleted_at=gone, inventory=inventory)


@pytest.mark.parametrize(
    ("owner", "clusters", "named"),
    [
        ("StatefulSet/orders-s0", [cluster("orders")], 0),
        ("StatefulSet/keeper", [cluster("orders"), cluster("keeper")], 1),
        ("StatefulSet/a-b-s0", [cluster("a"), cluster("a-b")], 1),
        # What a cluster says it made beats what its name could mean.
        ("StatefulSet/a-b-s0", [cluster("a", workloads=("a-b-s0",)), cluster("a-b")], 0),
        ("StatefulSet/orders-s0", [cluster("orders", deleted=20), cluster("orders", created=21)], 0),
        ("StatefulSet/orders-s0", [cluster("orders", deleted=2), cluster("orders", created=3)], 1),
    ],
)  # fmt: skip
def test_an_address_is_told_to_the_cluster_that_lived_then(
    wire: dict[str, Any], owner: str, clusters: list[Cluster], named: int
) -> None:
    record = {**json.loads(wire["ledger"]["10.0.0.2.json"]), "owner": owner, "first": "2025-11-20T00:00:00+00:00"}
    assert cluster_of(hold_of("10.0.0.2", record), clusters) is clusters[named]


def test_an_address_of_no_cluster_is_told_to_none(wire: dict[str, Any]) -> None:
    (found, *_) = ledger_holds(wire["ledger"])
    assert cluster_of(found, [cluster("order"), cluster("orders", created=26)]) is None


def test_engines_whose_members_know_each_other_by_address_ask_for_rest() -> None:
    assert {name for name, engine in ENGINES.items() if engine.reserves_addresses} >= {"redis", "zookeeper"}


def test_pods_of_an_engine_that_needs_no_rest_say_so_and_keep_their_annotations() -> None:
    (plain,) = dressed(VIEW, [STATEFUL], OWNER, "")
    (opted_out,) = dressed(VIEW, [STATEFUL], OWNER, "", reserves_addresses=False)
    assert plain["spec"] == STATEFUL["spec"]
    annotations = opted_out["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"a": "b", "ipreserve.berth.io/reserve": "false"}
    service: Manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders"}, "spec": {}}
    assert dressed(VIEW, [service], OWNER, "", reserves_addresses=False)[0]["spec"] == {}
