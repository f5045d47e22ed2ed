"""From an order to an address that rests: the portal, a real API server, and ipreserve's two services as processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from ipreserve import install, kube
from ipreserve.kube import Kube
from ipreserve.settings import Live
from ipreserve.tests import calico, wire
from ipreserve.tests.conftest import armed
from ipreserve.tests.waiting import eventually
from ipreserve.tests.world import NAMESPACE, Service, accounts, kubeconfig_of
from provisioning.catalog.plans import ensure_plans
from provisioning.clusters.reconcile import reconcile
from provisioning.clusters.services import create_cluster
from provisioning.clusters.views import namespace_of
from provisioning.models import Cluster, Target
from provisioning.targets import discover
from sandbox import Sandbox
from tenants.models import Membership, Role, Tenant, User
from tenants.tokens import create_token

pytestmark = pytest.mark.control_plane
SPEC = {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    """An API server of its own: it learns of Calico, and of a webhook that other tests must not meet."""
    sandbox = Sandbox(f"test-rest-{os.getpid()}", control_plane_only=True)
    try:
        sandbox.up()
        yield sandbox
    finally:
        sandbox.down(wipe=True)


@pytest.fixture(scope="module")
def admin(server: Sandbox) -> Kube:
    door = kube.connect(server.kubeconfig_path)
    accounts(door)
    calico.install(door)
    return door


@pytest.fixture
def target(db: None, server: Sandbox, admin: Kube, tmp_path: Path, settings: Settings) -> Target:
    settings.TARGETS_DIR = tmp_path
    shutil.copy(server.kubeconfig_path, tmp_path / "main.kubeconfig")
    found = Target.objects.create(name="main", title="Main")
    assert discover(found)
    found.refresh_from_db()
    ensure_plans()
    return found


def member(name: str, tenant: Tenant) -> User:
    user = User.objects.create_user(name)
    Membership.objects.create(tenant=tenant, user=user, role=Role.OWNER)
    return user


@pytest.fixture
def acme(db: None) -> Tenant:
    # A name of its own, since the API server keeps namespaces over tests and the database does not.
    return Tenant.objects.create(slug=f"acme-{secrets.token_hex(3)}", name="Acme")


@pytest.fixture
def alice(acme: Tenant) -> User:
    return member("alice", acme)


@pytest.fixture
def orders(target: Target, acme: Tenant, alice: User) -> Cluster:
    """A Redis cluster whose objects are on the target; its pods have no node to run on."""
    return ordered(acme, alice, "orders")


def ordered(tenant: Tenant, by: User, name: str) -> Cluster:
    cluster, _ = create_cluster(tenant=tenant, by=by, name=name, engine="redis", spec=SPEC)
    reconcile(cluster.pk)
    return cluster


class Caller:
    """Somebody who asks for a tenant's addresses."""

    def __init__(self, user: User, tenant: Tenant) -> None:
        self.client, self.path = APIClient(), f"/api/v1/tenants/{tenant.slug}/ip-reservations"
        _, secret = create_token(user=user, name="test", scopes=["read"])
        self.client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")

    def asked(self, status: int, **query: str) -> dict[str, Any]:
        answer = self.client.get(self.path, query)
        assert answer.status_code == status, answer.content
        body: dict[str, Any] = answer.json()
        return body

    def get(self, **query: str) -> dict[str, Any]:
        return self.asked(200, **query)

    def items(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(**query)["items"]
        return found


@pytest.fixture
def caller(alice: User, acme: Tenant) -> Caller:
    return Caller(alice, acme)


def give_address(admin: Kube, namespace: str, pod: str, address: str) -> None:
    """Report an address as kubelet would, once the StatefulSet's controller has made the pod."""
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
    there = f"/api/v1/namespaces/{namespace}/pods"
    eventually(lambda: pod in {one["metadata"]["name"] for one in admin.list(there)[0]}, f"{pod} is made")
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    admin.request("PATCH", f"{path}/status", {"status": status}, content_type="application/merge-patch+json")


@pytest.mark.django_db(transaction=True)
def test_the_address_of_a_deleted_pod_is_shown_held_then_resting_then_released(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, server: Sandbox, tmp_path: Path
) -> None:
    namespace = namespace_of(acme.slug)
    assert caller.get()["targets"] == [
        {"target": "main", "installed": False, "armed": False, "remedy": caller.get()["targets"][0]["remedy"]}
    ]
    assert "kubectl apply -k" in caller.get()["targets"][0]["remedy"]
    own = {
        name: kubeconfig_of(admin, server.kubeconfig_path, f"ipreserve-{name}", tmp_path / name)
        for name in ("webhook", "sweeper")
    }
    webhook = Service("webhook", own["webhook"], tmp_path / "webhook.log", deny_seconds=600)
    install.install(admin, namespace=NAMESPACE, url=webhook.url, give_back=False)
    sweeper: Service | None = None
    try:
        eventually(lambda: webhook.is_ready() and armed(admin), "the webhook is armed")
        assert caller.get()["targets"] == [{"target": "main", "installed": True, "armed": True, "remedy": ""}]
        assert caller.items() == []
        give_address(admin, namespace, "orders-s0-0", "10.60.0.1")
        give_address(admin, namespace, "orders-s0-1", "fd00::60")
        pods = f"/api/v1/namespaces/{namespace}/pods"
        admin.request("DELETE", f"{pods}/orders-s0-0")

        (held,) = caller.items()
        shown = ("address", "cluster", "target", "pod", "state", "noticed", "released", "end", "until")
        assert {name: held[name] for name in shown} == {
            "address": "10.60.0.1", "cluster": "orders", "target": "main", "pod": "orders-s0-0", "state": "claimed",
            "noticed": "delete", "released": None, "end": None, "until": None,
        }  # fmt: skip

        sweeper = Service("sweeper", own["sweeper"], tmp_path / "sweeper.log", period=0.3, hold=3600, max_count=100)
        (resting,) = eventually(lambda: caller.items(state="freed"), "the address rests")
        assert resting["freed"] < resting["until"]
        assert "nobody who still dials it" in resting["why"]

        admin.request("DELETE", f"{pods}/orders-s0-1")
        eventually(lambda: len(caller.items(state="freed")) == 2, "both addresses rest")
        limit = {"metadata": {"name": "ip-reserve-config"}, "data": {"max-count": "1"}}
        admin.request("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", limit)
        (ended,) = eventually(lambda: caller.items(state="released"), "the oldest is released")
        assert (ended["address"], ended["end"]) == ("10.60.0.1", "crowded")
        assert resting["since"] == ended["since"] < ended["released"]
        assert [one["address"] for one in caller.items(state="held")] == ["fd00::60"]
        assert [one["address"] for one in caller.items(cluster="orders")] == ["fd00::60", "10.60.0.1"]
    finally:
        install.uninstall(admin, None, namespace=NAMESPACE, purge=False)
        for one in (webhook, *([sweeper] if sweeper else [])):
            one.stop()


@pytest.fixture
def ledger_of_many(admin: Kube, settings: Settings) -> str:
    """A namespace of ipreserve's of this test's own; the portal is told of it."""
    name = f"ip-reserve-{secrets.token_hex(3)}"
    admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    settings.IPRESERVE_NAMESPACE = name
    return name


def write_down(admin: Kube, service: str, *, acme: str, other: str, year: str = "2099") -> None:
    """The example of ipreserve's format, told of these namespaces and of a year after them all."""
    text = wire.FILE.read_text().replace("berth-acme", acme).replace("berth-other", other).replace("2025-", f"{year}-")
    content = json.loads(text)
    for part, name in (("ledger", "ip-reserve-delay-release"), ("history", "ip-reserve-history")):
        manifest = {"metadata": {"name": name, "labels": content["labels"][part]}, "data": content[part]}
        admin.request("POST", f"/api/v1/namespaces/{service}/configmaps", manifest)


@pytest.mark.django_db(transaction=True)
def test_a_stranger_s_addresses_are_in_nobody_else_s_answer(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, ledger_of_many: str
) -> None:
    other = Tenant.objects.create(slug=f"other-{secrets.token_hex(3)}", name="Other")
    charlie = member("charlie", other)
    ordered(other, charlie, "stranger")
    write_down(admin, ledger_of_many, acme=namespace_of(acme.slug), other=namespace_of(other.slug))
    mine, theirs = caller.items(), Caller(charlie, other).items()
    assert {one["address"] for one in mine} == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
    assert {(one["address"], one["pod"]) for one in theirs} == {("fd00::1", "stranger-0"), ("10.0.0.2", "stranger-0")}
    assert len(mine) == 4 + 7
    # The other tenant had 10.0.0.2 as well; asking for the address tells nothing of that.
    assert {one["pod"].rpartition("-")[0] for one in caller.items(address="10.0.0.2")} == {"orders-s0"}
    assert caller.items(address="fd00::1") == []
    # No cluster is called keeper here, so its pod is nobody's.
    assert {one["pod"]: one["cluster"] for one in mine if one["pod"] == "keeper-0"} == {"keeper-0": None}


@pytest.mark.django_db(transaction=True)
def test_a_namespace_of_the_same_name_that_is_not_the_tenant_s_tells_nothing(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, ledger_of_many: str
) -> None:
    namespace = namespace_of(acme.slug)
    write_down(admin, ledger_of_many, acme=namespace, other="berth-other")
    assert caller.items()
    label = {"metadata": {"labels": {"berth.io/tenant-id": "ten_somebody"}}}
    path = f"/api/v1/namespaces/{namespace}"
    admin.request("PATCH", path, label, content_type="application/merge-patch+json")
    assert caller.items() == []


@pytest.mark.django_db(transaction=True)
def test_what_is_older_than_the_namespace_was_somebody_else_s(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, ledger_of_many: str
) -> None:
    write_down(admin, ledger_of_many, acme=namespace_of(acme.slug), other="berth-other", year="2001")
    assert caller.items() == []


@pytest.mark.django_db(transaction=True)
def test_configmaps_without_ipreserve_s_labels_are_not_believed(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, ledger_of_many: str
) -> None:
    record = {"10.0.0.1": f"{namespace_of(acme.slug)}_orders-s0-0_n1_2099-01-01-00:00:00"}
    collection = f"/api/v1/namespaces/{ledger_of_many}/configmaps"
    admin.request("POST", collection, {"metadata": {"name": "ip-reserve-delay-release"}, "data": record})
    assert caller.items() == []


@pytest.mark.django_db(transaction=True)
def test_pages_hold_every_row_once_newest_first(
    orders: Cluster, caller: Caller, acme: Tenant, admin: Kube, ledger_of_many: str
) -> None:
    write_down(admin, ledger_of_many, acme=namespace_of(acme.slug), other="berth-other")
    whole = caller.items()
    walked: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        body = caller.get(limit="3", **({"cursor": cursor} if cursor else {}))
        walked += body["items"]
        cursor = body["next"]
    assert walked == whole
    assert [one["since"] for one in whole] == sorted((one["since"] for one in whole), reverse=True)
    # Leading zeros and upper case are the same address.
    assert caller.items(address="10.0.0.1") == [one for one in whole if one["address"] == "10.0.0.1"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("cluster", "nothing", "no cluster of this name"), ("address", "10.0.0.256", "not an IPv4 or IPv6 address"),
        ("state", "asleep", "asleep"), ("cursor", "WyJpZCIsICIiLCAieCJd", "another ordering"), ("limit", "0", "1"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_with_its_name(
    orders: Cluster, caller: Caller, name: str, value: str, says: str
) -> None:
    (error,) = caller.asked(422, **{name: value})["errors"]
    assert error["pointer"] == f"?{name}"
    assert says in error["message"]


@pytest.mark.django_db(transaction=True)
def test_a_target_that_does_not_answer_is_a_503_that_names_it_and_the_remedy(
    orders: Cluster, caller: Caller, tmp_path: Path
) -> None:
    file = tmp_path / "main.kubeconfig"
    text = file.read_text()
    server = next(line for line in text.splitlines() if "server:" in line)
    file.write_text(text.replace(server, "    server: https://127.0.0.1:1"))
    # Kept clients are told apart by the file's time.
    os.utime(file, (1, timezone.now().timestamp() + 10))
    body = caller.asked(503)
    assert (body["code"], "Target main:" in body["detail"]) == ("target_unreachable", True)
    assert "API server runs" in body["suggestion"]


@pytest.mark.django_db(transaction=True)
def test_the_portal_s_namespaces_and_pods_are_what_ipreserve_selects(
    orders: Cluster, acme: Tenant, admin: Kube
) -> None:
    namespace = admin.get(f"/api/v1/namespaces/{namespace_of(acme.slug)}")
    wanted = install.validating(namespace=NAMESPACE, live=Live())["webhooks"][0]
    assert wanted["namespaceSelector"]["matchLabels"].items() <= namespace["metadata"]["labels"].items()
    pods = f"/api/v1/namespaces/{namespace_of(acme.slug)}/pods"
    found = eventually(lambda: admin.list(pods)[0], "pods are made")
    (term,) = wanted["objectSelector"]["matchExpressions"]
    assert all(term["key"] in one["metadata"]["labels"] for one in found)
