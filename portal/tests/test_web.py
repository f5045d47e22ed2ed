"""What every answer carries, the health endpoints, the application's page and the API reference."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from django.test import Client, override_settings

from portal import health, logs
from portal.api.schema import document
from portal.checks import operator_mistakes
from provisioning.models import Target

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_answer_has_a_request_id(client: Client, db: None) -> None:
    first, second = client.get("/api/v1/session"), client.get("/nowhere")
    assert first["X-Request-Id"] != second["X-Request-Id"]


@pytest.mark.parametrize("sent", ["abc-1", "0123456789abcdef" * 4, "trace.7_x"])
def test_a_sane_request_id_is_taken_over(client: Client, db: None, sent: str) -> None:
    assert client.get("/api/v1/session", headers={"X-Request-Id": sent})["X-Request-Id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "<script>", "ü", "-"])
def test_a_strange_request_id_is_replaced(client: Client, db: None, sent: str) -> None:
    answered = client.get("/api/v1/session", headers={"X-Request-Id": sent})["X-Request-Id"]
    assert answered != sent
    assert len(answered) == 32


def test_the_access_line_has_no_query(client: Client, db: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="berth.access"):
        client.get("/api/v1/session?password=hidden", headers={"X-Request-Id": "here"})
    (record,) = [record for record in caplog.records if record.name == "berth.access"]
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/session", 422)
    assert line["ms"] >= 0
    assert "hidden" not in str(line)


def test_a_log_line_is_json_with_what_was_passed_along() -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "done %s", "args": ("now",), "operation_id": "op_1"})
    token = logs.request_id.set("r1")
    logs.ContextFilter().filter(record)
    logs.request_id.reset(token)
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["message"], line["operation_id"], line["request_id"]) == ("done now", "op_1", "r1")
    assert logs.TextFormatter().format(record).endswith("done now request_id=r1 operation_id=op_1")


def test_the_process_is_alive(client: Client) -> None:
    assert client.get("/healthz", headers={"Host": "10.0.0.7"}).json() == {"status": "ok"}


def test_ready_with_database_and_broker(client: Client, db: None) -> None:
    answer = client.get("/readyz", headers={"Host": "10.0.0.7"})
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert [check["name"] for check in answer.json()["checks"]] == ["database", "broker"]


def test_an_unreachable_target_is_listed_but_does_not_make_us_unready(client: Client, db: None) -> None:
    Target.objects.create(name="berlin", title="Berlin", reachable=False, reason="secret address 10.1.2.3")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["degraded"]) == (200, "degraded", ["berlin"])
    assert "10.1.2.3" not in answer.content.decode()


def test_not_ready_without_the_broker(client: Client, db: None) -> None:
    with override_settings(CELERY_BROKER_URL="redis://127.0.0.1:1/0"):
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


def test_probes_answer_get_only(client: Client) -> None:
    assert {client.post(path).status_code for path in health.PATHS} == {405}


def test_the_page_says_how_to_build_it_when_it_is_not_built(client: Client, tmp_path: Path) -> None:
    with override_settings(FRONTEND_DIST=tmp_path):
        answer = client.get("/")
    assert answer.status_code == 503
    assert "make frontend" in answer.content.decode()


@pytest.mark.parametrize("path", ["/", "/acme/clusters/orders", "/sign-in"])
def test_every_address_of_the_application_answers_with_its_page(client: Client, tmp_path: Path, path: str) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>the application")
    with override_settings(FRONTEND_DIST=tmp_path):
        answer = client.get(path)
    assert "the application" in answer.content.decode()
    assert answer["Cache-Control"] == "no-cache"
    assert answer.cookies["csrftoken"].value
    policy = answer["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_file_that_is_not_there_is_404_not_the_page(client: Client, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the application")
    with override_settings(FRONTEND_DIST=tmp_path):
        assert client.get("/assets/gone-12345678.js").status_code == 404


def test_the_reference_loads_everything_from_here(client: Client) -> None:
    answer = client.get("/api/docs")
    text = answer.content.decode()
    assert "https://" not in text
    assert "http://" not in text
    loaded = [part.split('"')[0] for part in text.split('src="')[1:] + text.split('href="')[1:]]
    assert len(loaded) == 4
    assert [client.get(path).status_code for path in loaded] == [200] * 4
    assert "script-src 'self';" in answer["Content-Security-Policy"]


def test_the_committed_openapi_document_is_up_to_date() -> None:
    committed = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    assert committed == document(), "run: make types"


def test_the_openapi_document_is_served(client: Client) -> None:
    assert client.get("/api/v1/openapi.json").json()["openapi"].startswith("3.1")


def test_every_operation_is_described_for_people() -> None:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            assert all(parameter.get("description") for parameter in operation.get("parameters", [])), (method, path)


def test_operator_mistakes_are_found(tmp_path: Path) -> None:
    with override_settings(
        TARGETS_DIR=tmp_path / "absent", SECRET_KEY="short", ALLOWED_HOSTS=["berth.example.com"], SECURE_COOKIES=False,
        CSRF_TRUSTED_ORIGINS=["berth.example.com"],
    ):  # fmt: skip
        found = {finding.id for finding in operator_mistakes(None)}
    assert found == {"berth.W001", "berth.E002", "berth.W003", "berth.E003"}


def test_a_sound_installation_has_no_findings(tmp_path: Path) -> None:
    with override_settings(
        TARGETS_DIR=tmp_path, SECRET_KEY="k" * 50, ALLOWED_HOSTS=["berth.example.com"], SECURE_COOKIES=True
    ):
        assert operator_mistakes(None) == []
