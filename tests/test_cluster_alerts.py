"""What a real Alertmanager says of a cluster, through the API: fired, silenced, and muted by another alert."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from dev.stack import free_port
from dev.watchers import Watchers, running_watchers
from provisioning.models import Cluster, Phase, Target
from sandbox.tests.waiting import eventually
from tenants.models import Tenant


@pytest.fixture(scope="module")
def watchers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watchers]:
    ports = (free_port(), free_port(), free_port())
    with running_watchers(
        tmp_path_factory.mktemp("watchers"), discovery={"static_configs": []}, ports=ports, hurried=True
    ) as running:
        yield running


@pytest.fixture
def orders(acme: Tenant) -> Cluster:
    target = Target.objects.create(name="main", title="Main")
    return Cluster.objects.create(
        tenant=acme, target=target, name="orders", engine="redis", version="7.0.15", spec={"shards": 3},
        phase=Phase.READY,
    )  # fmt: skip


def send(watchers: Watchers, path: str, body: Any) -> None:
    request = urllib.request.Request(
        f"{watchers.alertmanager}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def test_alerts_are_shown_with_what_became_of_them(
    watchers: Watchers, orders: Cluster, api: APIClient, settings: Settings
) -> None:
    settings.ALERTMANAGER_URL = watchers.alertmanager
    tenant = orders.tenant.slug
    path = f"/api/v1/tenants/{tenant}/clusters/orders/alerts"
    whose = {"target": "main", "tenant": tenant, "cluster": "orders"}
    node = {**whose, "engine": "redis", "severity": "warning", "alertname": "RedisNodeDown", "pod": "orders-s0-0"}
    now = datetime.now(UTC)
    said = {"summary": "It is down.", "description": "See why.", "runbook_url": "docs/engines/redis.md#redisnodedown"}
    send(watchers, "/api/v2/alerts", [
        {"labels": node, "annotations": said, "startsAt": now.isoformat()},
        {"labels": {**node, "cluster": "carts"}, "startsAt": now.isoformat()},
        {"labels": {**whose, "alertname": "Mine", "engine": "x"}, "startsAt": now.isoformat()},
    ])  # fmt: skip

    def shown() -> dict[str, dict[str, Any]]:
        answer = api.get(path)
        assert answer.status_code == 200, answer.content
        assert answer.json()["configured"] is True
        return {one["name"]: one for one in answer.json()["items"]}

    def states() -> dict[str, str]:
        return {name: one["state"] for name, one in shown().items()}

    eventually(lambda: states() == {"RedisNodeDown": "firing", "Mine": "firing"}, "both alerts are shown as firing")
    found = shown()["RedisNodeDown"]
    assert (found["summary"], found["description"], found["runbook"]) == tuple(said.values())
    assert found["severity"] == "warning"
    assert found["labels"] == {"engine": "redis", "pod": "orders-s0-0"}

    send(watchers, "/api/v2/silences", {
        "matchers": [{"name": "alertname", "value": "Mine", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat(), "createdBy": "alice",
        "comment": "known",
    })  # fmt: skip
    down = {**whose, "severity": "critical", "alertname": "RedisClusterDown"}
    send(watchers, "/api/v2/alerts", [{"labels": down, "startsAt": now.isoformat()}])
    # As deploy/monitoring/alertmanager.yml says: where all is down, single nodes are no news.
    wished = {"RedisNodeDown": "muted", "Mine": "silenced", "RedisClusterDown": "firing"}
    eventually(lambda: states() == wished, f"shown as {wished}")


def test_when_it_is_over_nothing_is_shown(
    watchers: Watchers, orders: Cluster, api: APIClient, settings: Settings
) -> None:
    settings.ALERTMANAGER_URL = watchers.alertmanager
    path = f"/api/v1/tenants/{orders.tenant.slug}/clusters/orders/alerts"
    labels = {"target": "main", "tenant": orders.tenant.slug, "cluster": "orders", "alertname": "Brief"}
    now = datetime.now(UTC)
    send(watchers, "/api/v2/alerts", [{"labels": labels, "startsAt": now.isoformat()}])
    eventually(lambda: len(api.get(path).json()["items"]) == 1, "it is shown")
    ended = datetime.now(UTC).isoformat()
    send(watchers, "/api/v2/alerts", [{"labels": labels, "startsAt": now.isoformat(), "endsAt": ended}])
    eventually(lambda: api.get(path).json()["items"] == [], "it is gone")
