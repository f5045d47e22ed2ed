"""What Prometheus is told to scrape."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from portal.tests.conftest import Client, World, make_cluster
from provisioning.models import Cluster, Phase

PATH = "/api/v1/metrics-targets"


@pytest.fixture
def watched(world: World) -> World:
    """Both clusters have been ready."""
    Cluster.objects.update(ready_at=timezone.now())
    world.orders.refresh_from_db()
    return world


def pods(client: APIClient, **query: str) -> dict[str, Any]:
    answer = client.get(PATH, query)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    return {group["labels"]["pod"]: group for group in answer.json()}


def test_every_pod_is_told_with_the_labels_that_rules_ask_for(watched: World, client_of: Client) -> None:
    watched.orders.members = [{"pod": "orders-s2-1", "node": "n3", "shard": "2"}]
    watched.orders.save()
    found = pods(client_of(watched.alice, scopes=["read"]))
    assert sorted(found) == [f"orders-s{shard}-{member}" for shard in range(3) for member in range(2)]
    common = {
        "engine": "redis", "target": "berlin", "tenant": "acme", "cluster": "orders", "namespace": "berth-acme",
    }  # fmt: skip
    assert found["orders-s2-1"] == {
        "targets": ["orders-s2-1.orders-nodes.berth-acme.svc.cluster.local:9121"],
        "labels": {**common, "shard": "2", "pod": "orders-s2-1", "node": "n3"},
    }
    assert found["orders-s0-0"]["labels"] == {**common, "shard": "0", "pod": "orders-s0-0"}


def test_members_that_are_to_leave_are_scraped_until_they_left(watched: World, client_of: Client) -> None:
    watched.orders.members = [{"pod": "orders-s3-0", "node": "n1", "shard": "3"}]
    watched.orders.save()
    assert pods(client_of(watched.alice))["orders-s3-0"]["labels"]["shard"] == "3"


def test_a_cluster_without_exporters_is_not_scraped(watched: World, client_of: Client) -> None:
    watched.orders.spec = {"shards": 3, "exporter": False}
    watched.orders.save()
    assert pods(client_of(watched.alice)) == {}


def test_zookeeper_gives_its_own_metrics(watched: World, client_of: Client) -> None:
    make_cluster(
        watched.acme, watched.target, "keeper", engine="zookeeper", version="3.9.4", spec={}, ready_at=timezone.now()
    )
    found = pods(client_of(watched.alice))["keeper-0"]
    assert found["targets"] == ["keeper-0.keeper-nodes.berth-acme.svc.cluster.local:7000"]
    assert found["labels"]["engine"] == "zookeeper"


@pytest.mark.parametrize(
    "values", [{"ready_at": None}, {"phase": Phase.DELETING}, {"phase": Phase.DELETED}], ids=["new", "going", "gone"]
)
def test_silence_of_what_is_not_there_yet_or_any_more_is_no_news(
    watched: World, client_of: Client, values: dict[str, Any]
) -> None:
    Cluster.objects.update(**values)
    assert pods(client_of(watched.alice)) == {}


def test_a_prometheus_in_one_target_asks_for_that_one(watched: World, client_of: Client) -> None:
    client = client_of(watched.alice)
    assert len(pods(client, target="berlin")) == 6
    assert pods(client, target="paris") == {}


def test_an_administrators_token_sees_all_a_tenants_token_the_tenant(watched: World, client_of: Client) -> None:
    watched.alice.is_superuser = True
    watched.alice.save()
    everybody = pods(client_of(watched.alice))
    assert {group["labels"]["tenant"] for group in everybody.values()} == {"acme", "other"}
    one = pods(client_of(watched.alice, tenant=watched.acme))
    assert {group["labels"]["tenant"] for group in one.values()} == {"acme"}
