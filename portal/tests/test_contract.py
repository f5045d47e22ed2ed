"""The API keeps to its own description: requests made from it, sensible and not, by somebody who may do everything.

No answer is a 5xx but the documented 503 of a target that is not there, each has a documented status, media type and
shape, and each refusal is problem+json with a code that has a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from portal.api.schema import document
from portal.problem_codes import CODES
from portal.tests.conftest import World
from portal.wsgi import application
from tenants.tokens import create_token

EXAMPLES = 6
# Has no end to read to: test_changes.py listens to it.
STREAMS = {"streamChanges"}

load_all_checks()
CONFORMANCE = CHECKS.get_by_names(
    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(document())))
OPERATIONS = [
    operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok))
    if operation.definition.raw["operationId"] not in STREAMS
]
assert len(OPERATIONS) + len(STREAMS) == sum(len(methods) for methods in document()["paths"].values())
CASES = [
    pytest.param(operation, mode, id=f"{operation.definition.raw['operationId']}-{mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    # Where nothing is asked for, nothing can be wrong.
    if mode is GenerationMode.POSITIVE or operation.definition.raw.keys() & {"parameters", "requestBody"}
]


def known(world: World) -> dict[str, str]:
    """Values of path parameters that lead somewhere."""
    return {
        "tenant": "acme", "name": "orders", "principal": "default", "operation": world.operation.pk, "username": "bob",
        "engine": "redis", "holder": world.orders.pk, "code": "not_found",
        "target": "berlin",
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Requests use the test's connection and leave it open, as with Django's own test client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_every_answer_is_as_described(world: World, operation: Any, mode: GenerationMode) -> None:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    _, secret = create_token(user=world.alice, name="contract", scopes=["admin"])
    somewhere = known(world)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), leads_somewhere=st.booleans())
    def ask(case: Any, leads_somewhere: bool) -> None:
        if leads_somewhere:
            case.path_parameters.update({key: somewhere[key] for key in case.path_parameters if key in somewhere})
        case.headers["Authorization"] = f"Bearer {secret}"
        answer = case.call(app=application)
        if answer.status_code >= 500:
            assert answer.status_code == 503, answer.text
        case.validate_response(answer, checks=CONFORMANCE)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == ["application/problem+json"]
            assert answer.json()["code"] in CODES

    ask()
