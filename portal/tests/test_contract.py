"""The API keeps to its own description: requests made from it, sensible and not, by an administrator and a developer.

No answer is a 5xx but the documented 503 of a target that is not there, each has a documented status, media type and
shape, and each refusal is problem+json with a code that has a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from portal.api.schema import document
from portal.problem_codes import CODES
from portal.tests.conftest import World, make_cluster
from portal.wsgi import application
from provisioning.clusters.grants import share
from provisioning.models import Phase, Principal
from tenants.models import Role
from tenants.people import invite
from tenants.tokens import create_service_token, create_token

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


@dataclass(frozen=True)
class Caller:
    """Who asks, with what, and the ids of what such a caller could reach."""

    secret: str
    own_token: str


@dataclass(frozen=True)
class Cast:
    """Both callers, and what there is in the world for them."""

    callers: dict[str, Caller]
    known: dict[str, str]
    # Path prefix to parameters that mean something else below it.
    below: dict[str, dict[str, str]]

    def leads_somewhere(self, path: str, caller: Caller) -> dict[str, str]:
        """Values of path parameters that lead to something; whether this caller may touch it is another matter."""
        found = {**self.known, "token": caller.own_token}
        for part, values in self.below.items():
            if part in path:
                found |= values
        return found


WHO = ("administrator", "developer")


@pytest.fixture
def cast(world: World) -> Cast:
    world.alice.is_superuser = True
    world.alice.save(update_fields=["is_superuser"])
    callers = {}
    for name, user in zip(WHO, (world.alice, world.bob), strict=True):
        _, secret = create_token(user=user, name="contract", scopes=["admin"])
        spare, _ = create_token(user=user, name="spare", scopes=["read"])
        callers[name] = Caller(secret, spare.pk)
    service, _ = create_service_token(tenant=world.acme, by=world.alice, name="ci", role=Role.VIEWER, scopes=["read"])
    invitation, _ = invite(tenant=world.acme, by=world.alice, role=Role.VIEWER)
    access = {"key_prefixes": ["shop:"], "channel_prefixes": [], "commands": ["read"]}
    Principal.objects.create(cluster=world.orders, name="shop", secret_name="orders-user-shop", access=access)
    share(cluster=world.orders, username="charlie", right="read")
    former = make_cluster(world.acme, world.target, "former", phase=Phase.DELETED, volumes_kept=True)
    return Cast(
        callers=callers,
        known={
            "tenant": "acme", "name": "orders", "principal": "default", "operation": world.operation.pk,
            "username": "bob", "engine": "redis", "target": "berlin", "plan": "plan-small", "user": "shop",
            "invitation": invitation.pk, "holder": former.pk,
        },
        below={
            "/grants/": {"username": "charlie"},
            "/service-tokens/": {"token": service.pk},
            # Not the token that asks.
            "/people/": {"username": "vera", "token": create_token(user=world.vera, name="v", scopes=[])[0].pk},
        },
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Requests use the test's connection and leave it open, as with Django's own test client."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


# What takes no body: those of an operation could be refused before anybody looks for the object.
PLAIN = [
    pytest.param(operation, id=operation.definition.raw["operationId"])
    for operation in OPERATIONS
    if "{" in operation.path and operation.method in ("get", "delete")
]


@pytest.mark.parametrize("operation", PLAIN)
def test_what_is_known_leads_somewhere(cast: Cast, operation: Any) -> None:
    caller = cast.callers["administrator"]
    path = operation.path.format(**cast.leads_somewhere(operation.path, caller))
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {caller.secret}")
    answer = client.generic(operation.method.upper(), path)
    assert answer.status_code != 404, answer.content


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_every_answer_is_as_described(cast: Cast, operation: Any, mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        case=operation.as_strategy(generation_mode=mode),
        leads_somewhere=st.sampled_from((True, True, False)),
        who=st.sampled_from(WHO),
    )
    def ask(case: Any, leads_somewhere: bool, who: str) -> None:
        caller = cast.callers[who]
        if leads_somewhere:
            somewhere = cast.leads_somewhere(operation.path, caller)
            case.path_parameters.update({key: somewhere[key] for key in case.path_parameters})
            # What nobody could guess would be refused before anything else is looked at.
            case.query.pop("cursor", None)
            case.headers.pop("If-Match", None)
            case.headers["Idempotency-Key"] = token_hex(8)
        case.headers["Authorization"] = f"Bearer {caller.secret}"
        answer = case.call(app=application)
        if answer.status_code >= 500:
            assert answer.status_code == 503, answer.text
        case.validate_response(answer, checks=CONFORMANCE)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == ["application/problem+json"]
            assert answer.json()["code"] in CODES

    ask()
