"""What fires about a cluster, and where its metrics are. With a real Alertmanager: tests/test_cluster_alerts.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from portal import env
from portal.api.monitoring import NOT_CONFIGURED
from portal.tests.conftest import Client, World

PATH = "/api/v1/tenants/acme/clusters/orders/alerts"
MONITORING = "/api/v1/tenants/acme/clusters/orders/monitoring"


def test_without_an_alertmanager_it_says_that_nobody_watches(world: World, client_of: Client) -> None:
    answer = client_of(world.vera).get(PATH).json()
    assert answer == {"configured": False, "remedy": NOT_CONFIGURED, "items": [], "next": None}


def test_an_alertmanager_that_is_away_is_a_503_with_a_remedy(
    world: World, client_of: Client, settings: Settings
) -> None:
    settings.ALERTMANAGER_URL = "http://127.0.0.1:9"
    answer = client_of(world.alice).get(PATH)
    assert (answer.status_code, answer.json()["code"]) == (503, "monitoring_unreachable")
    assert "127.0.0.1" not in answer.content.decode()


def test_the_page_is_told_where_metrics_and_the_dashboard_are(
    world: World, client_of: Client, settings: Settings
) -> None:
    client = client_of(world.vera)
    found = client.get(MONITORING).json()
    assert (found["dashboard"], found["alerting"]) == ("", False)
    assert found["metrics"][0] == {
        "pod": "orders-s0-0", "host": "orders-s0-0.orders-nodes.berth-acme.svc.cluster.local", "port": 9121,
        "shard": "0",
    }  # fmt: skip
    assert found["labels"]["cluster"] == "orders"
    settings.GRAFANA_URL, settings.ALERTMANAGER_URL = "https://graphs.example.com/g", "http://alerts"
    found = client.get(MONITORING).json()
    assert found["dashboard"] == "https://graphs.example.com/g/d/berth-redis?var-tenant=acme&var-cluster=orders"
    assert found["alerting"] is True


@pytest.mark.parametrize(
    "value", ["alerts.example.com", "ftp://alerts", "https://", "https://me:secret@alerts", "https://alerts/?a=b"]
)
def test_a_strange_address_stops_the_start_and_is_not_repeated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_ALERTMANAGER_URL", value)
    with pytest.raises(ImproperlyConfigured, match="BERTH_ALERTMANAGER_URL") as stopped:
        env.address("BERTH_ALERTMANAGER_URL")
    assert "secret" not in str(stopped.value)


def test_a_token_is_read_from_a_file_and_is_not_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert env.optional_secret("BERTH_ALERTMANAGER_TOKEN") == ""
    (tmp_path / "token").write_text("sesame\n")
    monkeypatch.setenv("BERTH_ALERTMANAGER_TOKEN_FILE", str(tmp_path / "token"))
    assert env.optional_secret("BERTH_ALERTMANAGER_TOKEN") == "sesame"


@dataclass
class Impostor:
    """A server in Alertmanager's place: what it answers, and what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"[]"
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def impostor(settings: Settings) -> Iterator[Impostor]:
    told = Impostor()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers["Authorization"]))
            self.send_response(told.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings.ALERTMANAGER_URL = f"http://127.0.0.1:{server.server_port}"
        yield told
        server.shutdown()


def alert(number: int, **labels: str) -> dict[str, Any]:
    """In the form of https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, gettableAlert."""
    whose = {"target": "berlin", "tenant": "acme", "cluster": "orders", "alertname": f"A{number}"}
    return {
        "labels": {**whose, **labels}, "annotations": {}, "fingerprint": f"f{number}", "receivers": [],
        "startsAt": f"2026-01-01T00:00:{number:02}.5Z", "endsAt": "2026-01-01T01:00:00Z",
        "updatedAt": "2026-01-01T00:00:00Z", "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"), (200, b'{"a": 1}'), (200, b"[1]"), (200, b"[{}]"), (200, b"null"), (500, b"[]"),
        (302, b"[]"), (401, b"[]"), (200, b" " * 4_000_001),
    ],
)  # fmt: skip
def test_what_is_no_answer_of_an_alertmanager_is_a_503(
    world: World, client_of: Client, impostor: Impostor, status: int, body: bytes
) -> None:
    impostor.status, impostor.body = status, body
    answer = client_of(world.alice).get(PATH)
    assert (answer.status_code, answer.json()["code"]) == (503, "monitoring_unreachable")
    assert len(impostor.asked) == 1


def test_only_the_clusters_own_alerts_are_asked_for_and_shown(
    world: World, client_of: Client, impostor: Impostor, settings: Settings
) -> None:
    settings.ALERTMANAGER_TOKEN = "sesame"
    others = [alert(2, tenant="other"), alert(3, cluster="carts"), alert(4, target="paris")]
    impostor.body = json.dumps([alert(1, pod="orders-s0-0"), *others]).encode()
    (shown,) = client_of(world.alice).get(PATH).json()["items"]
    assert (shown["name"], shown["labels"]) == ("A1", {"pod": "orders-s0-0"})
    ((path, authorization),) = impostor.asked
    assert parse_qs(urlsplit(path).query)["filter"] == ['target="berlin"', 'tenant="acme"', 'cluster="orders"']
    assert authorization == "Bearer sesame"


def test_alerts_come_in_pages_newest_first(world: World, client_of: Client, impostor: Impostor) -> None:
    impostor.body = json.dumps([alert(number) for number in (1, 3, 2)]).encode()
    client = client_of(world.alice)
    first = client.get(PATH, {"limit": 2}).json()
    assert [one["name"] for one in first["items"]] == ["A3", "A2"]
    second = client.get(PATH, {"limit": 2, "cursor": first["next"]}).json()
    assert ([one["name"] for one in second["items"]], second["next"]) == (["A1"], None)
