"""The cast: alice owns acme, bob develops in it, vera views it, charlie is a stranger with a tenant of his own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from provisioning.models import Cluster, ClusterEvent, Operation, OperationState, Phase, Plan, Principal, Target
from tenants.models import Membership, Role, Tenant, User
from tenants.tokens import create_token

Client = Callable[..., APIClient]


@dataclass(frozen=True)
class World:
    """What the tests find in the database. `orders` is acme's cluster, `theirs` charlie's."""

    acme: Tenant
    alice: User
    bob: User
    vera: User
    charlie: User
    target: Target
    orders: Cluster
    operation: Operation
    theirs: Cluster


def make_cluster(tenant: Tenant, target: Target, name: str, **values: Any) -> Cluster:
    """A ready cluster as reconcile leaves it."""
    return Cluster.objects.create(
        tenant=tenant, target=target, name=name, phase=values.pop("phase", Phase.READY),
        **{"engine": "redis", "version": "7.0.15", "spec": {"shards": 3}, **values},
    )  # fmt: skip


def make_operation(cluster: Cluster, **values: Any) -> Operation:
    """An operation as services and reconcile leave it."""
    return Operation.objects.create(
        cluster=cluster, generation=1, deadline=timezone.now() + timedelta(minutes=10),
        **{"kind": "create", "state": OperationState.SUCCEEDED, "percent": 100, **values},
    )  # fmt: skip


@pytest.fixture
def world(db: None) -> World:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    other = Tenant.objects.create(slug="other", name="Other")
    people = {}
    for name, tenant, role in (
        ("alice", acme, Role.OWNER),
        ("bob", acme, Role.DEVELOPER),
        ("vera", acme, Role.VIEWER),
        ("charlie", other, Role.OWNER),
    ):
        people[name] = User.objects.create(username=name)
        Membership.objects.create(tenant=tenant, user=people[name], role=role)
    target = Target.objects.create(
        name="berlin", title="Berlin", reachable=True,
        nodes=[
            {"name": f"n{i}", "zone": f"z{i % 2}", "ready": True, "schedulable": True, "cpu_millicores": 8000,
             "memory_mib": 16384}
            for i in range(3)
        ],
        storage_classes=[{"name": "standard", "provisioner": "local", "default": True, "expandable": True}],
    )  # fmt: skip
    Plan.objects.create(name="plan-small", engine="redis", title="Small", values={"shards": 3}, position=1)
    Plan.objects.create(name="plan-keeper", engine="zookeeper", title="Keeper", position=2)
    orders = make_cluster(acme, target, "orders", labels={"team": "shop"})
    steps = [{"key": "apply", "title": "Apply", "state": "done", "started": "2026-01-01T00:00:00Z"}]
    operation = make_operation(orders, steps=steps, proof={"summary": "wrote and read"}, actor=people["alice"])
    ClusterEvent.objects.create(cluster=orders, reason="Applied", message="12 objects applied")
    Principal.objects.create(cluster=orders, name="default", secret_name="orders-redis")
    theirs = make_cluster(other, target, "secret-plans")
    make_operation(theirs)
    return World(acme=acme, target=target, orders=orders, operation=operation, theirs=theirs, **people)


@pytest.fixture
def client_of() -> Client:
    """A client that calls with a fresh token of the user."""

    def make(user: User, **options: Any) -> APIClient:
        _, secret = create_token(user=user, name="test", **{"scopes": ["read", "write", "admin"], **options})
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return client

    return make
