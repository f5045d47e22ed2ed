"""Every "no" is problem+json with a code from the table."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.test import Client as DjangoClient
from rest_framework.test import APIClient

from portal.api.engines import EnginesView
from portal.api.schema import document
from portal.problem_codes import CODES, FIELD_CODES
from portal.problems import field_errors, pointer_of
from portal.tests.conftest import Client, World

MEMBERS = {"type", "title", "status", "code", "detail", "errors", "suggestion", "request_id", "instance"}
CLUSTERS = "/api/v1/tenants/acme/clusters"


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json"), answer.content
    body: dict[str, Any] = answer.json()
    assert set(body) == MEMBERS
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"/api/v1/problems/{code}"
    assert body["detail"]
    assert body["suggestion"]
    assert body["request_id"] == answer["X-Request-Id"]
    return body


@pytest.fixture
def alice(world: World, client_of: Client) -> APIClient:
    return client_of(world.alice)


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v2/x", "/api/v1/nothing", "/api/v1/tenants/"])
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_an_unknown_address_below_api_is_a_404_problem(db: None, path: str, method: str) -> None:
    answer = DjangoClient().generic(method.upper(), path)
    if path == "/api":  # the one address of these that is not below /api/
        assert answer.status_code == 404
        return
    assert_problem(answer, 404, "not_found")


def test_a_wrong_method_names_the_right_ones(alice: APIClient) -> None:
    answer = alice.put(CLUSTERS, {}, format="json")
    assert_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer["Allow"]


def test_a_caller_who_wants_no_json_gets_406(alice: APIClient) -> None:
    assert_problem(alice.get(CLUSTERS, headers={"Accept": "text/html"}), 406, "not_acceptable")


def test_a_form_is_refused_with_415(alice: APIClient) -> None:
    assert_problem(alice.post(CLUSTERS, "a=b", content_type="text/plain"), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"name": \n "x",}', "line 2"),
        (b"", None),
        (b"{", "line 1"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"\\u0000": 1}', "NUL"),
        (b'{"a": "\\ud800"}', "half"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[" * 100_000, "nested"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_malformed_json_is_told_where(alice: APIClient, body: bytes, words: str | None) -> None:
    answer = alice.post(CLUSTERS, body, content_type="application/json", headers={"Idempotency-Key": "k"})
    if words is None:
        assert_problem(answer, 422, "invalid")
        return
    assert words in assert_problem(answer, 400, "malformed_json")["detail"]


@pytest.mark.parametrize("body", [[], "x", 1, None, True])
def test_a_body_that_is_no_object_is_invalid(alice: APIClient, body: object) -> None:
    answer = alice.post(CLUSTERS, json.dumps(body), content_type="application/json", headers={"Idempotency-Key": "k"})
    assert_problem(answer, 422, "invalid")


def test_too_large_a_body_is_refused(alice: APIClient) -> None:
    body = json.dumps({"name": "x" * settings.MAX_BODY_BYTES})
    assert_problem(
        alice.post(CLUSTERS, body, content_type="application/json", headers={"Idempotency-Key": "k"}), 413, "too_large"
    )


def test_every_wrong_field_is_named_with_a_pointer(alice: APIClient) -> None:
    body = {"name": 7, "engin": "redis", "spec": []}
    answer = alice.post(CLUSTERS, body, format="json", headers={"Idempotency-Key": "k"})
    errors = assert_problem(answer, 422, "invalid")["errors"]
    assert [(error["pointer"], error["code"]) for error in errors] == [("/engin", "unknown_field")]
    body = {"name": 7, "spec": [], "labels": {"a/b": 1}}
    answer = alice.post(CLUSTERS, body, format="json", headers={"Idempotency-Key": "k"})
    errors = assert_problem(answer, 422, "invalid")["errors"]
    assert {(error["pointer"], error["code"]) for error in errors} == {
        ("/name", "invalid"),
        ("/engine", "required"),
        ("/spec", "not_a_dict"),
        ("/labels/a~1b", "invalid"),
    }


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "phase=odd", "order=size", "cursor=%%%", "colour=red", "q=%00"]
)
def test_a_wrong_query_parameter_is_named(alice: APIClient, query: str) -> None:
    errors = assert_problem(alice.get(f"{CLUSTERS}?{query}"), 422, "invalid")["errors"]
    assert [error["pointer"] for error in errors] == ["?" + query.split("=")[0]]


@pytest.mark.parametrize("path", ["/api/v1/tenants/%00", "/api/v1/tenants/acme/clusters/%00", "/api/v1/operations/%00"])
def test_a_nul_in_the_address_is_simply_not_found(alice: APIClient, path: str) -> None:
    assert_problem(alice.get(path), 404, "not_found")


def test_an_error_nobody_foresaw_tells_nothing_of_the_inside(alice: APIClient) -> None:
    alice.raise_request_exception = False
    with patch.object(EnginesView, "get", side_effect=RuntimeError("the inside")):
        answer = alice.get("/api/v1/engines")
    assert_problem(answer, 500, "internal_error")
    assert "inside " not in answer.content.decode()


def test_a_strange_host_is_a_problem_too(db: None) -> None:
    assert_problem(DjangoClient().get("/api/v1/session", headers={"Host": "evil.example"}), 400, "bad_request")


def test_pointers_are_escaped() -> None:
    assert pointer_of(["a/b", "~", 0]) == "/a~1b/~0/0"
    assert pointer_of([]) == ""


def test_nested_errors_become_a_flat_list() -> None:
    detail = {"spec": {"list": [{}, {"size": ["too big"]}]}, "non_field_errors": ["all wrong"]}
    assert [error.pointer for error in field_errors(detail)] == ["/spec/list/1/size", ""]


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_has_a_page(client: DjangoClient, code: str) -> None:
    answer = client.get(f"/api/v1/problems/{code}")
    assert answer.status_code == 200
    assert code in answer.content.decode()
    assert code in client.get("/api/v1/problems").content.decode()


def test_an_unknown_code_has_no_page(client: DjangoClient) -> None:
    assert_problem(client.get("/api/v1/problems/nonsense"), 404, "not_found")


REFUSALS = {
    "Refusal", "Invalid", "Conflict", "Forbidden", "Missing", "Unavailable", "SessionRequired", "Malformed", "TooLarge",
    "_refusal", "answer",
}  # fmt: skip


def calls() -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Every call in the product's source: where, the function's name, the arguments."""
    for app in ("portal", "tenants", "provisioning"):
        for path in sorted((settings.BASE_DIR / app).rglob("*.py")):
            if "tests" in path.parts or "migrations" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    yield f"{Path(path).relative_to(settings.BASE_DIR)}:{node.lineno}", name, node.args


def literal(arguments: list[ast.expr], index: int) -> str | None:
    if len(arguments) > index and isinstance(arguments[index], ast.Constant):
        return str(ast.literal_eval(arguments[index]))
    return None


def test_every_code_the_source_uses_is_in_the_table() -> None:
    used = [(where, literal(arguments, 0)) for where, name, arguments in calls() if name in REFUSALS - {"answer"}]
    assert used
    assert [(where, code) for where, code in used if code is not None and code not in CODES] == []


def test_every_field_code_the_source_uses_is_in_the_table() -> None:
    used = [(where, literal(a, 1)) for where, name, a in calls() if name in {"FieldError", "Problem"}]
    assert used
    assert [(where, code) for where, code in used if code is not None and code not in FIELD_CODES] == []


def test_every_patch_takes_the_media_type_of_a_merge_patch() -> None:
    """RFC 7396 names one; clients that keep to it must not get 415 from some addresses."""
    patches = {path: methods["patch"] for path, methods in document()["paths"].items() if "patch" in methods}
    strict = {
        path
        for path, method in patches.items()
        if "application/merge-patch+json" not in method["requestBody"]["content"]
    }
    assert patches
    assert strict == set()
