"""One portal on one shared target for every end-to-end test of a run: `stack`.

With KUBECONFIG set, the target is that cluster; otherwise the embedded one that the whole test run shares.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from dev.portal import Api, ApiError
from dev.stack import CLUSTERS, Stack, running_stack
from sandbox import Sandbox


@pytest.fixture(scope="session")
def stack(cluster: Sandbox | None) -> Iterator[Stack]:
    """A running portal, its processes as in production; a killed worker's claim runs out sooner."""
    os.environ["BERTH_CLAIM_LEASE_SECONDS"] = "5"
    with running_stack(name="e2e", sandbox=cluster, fast=True) as running:
        yield running


@dataclass(frozen=True)
class Order:
    """A cluster ordered through the API, and the operation that made it."""

    api: Api
    name: str
    operation: Mapping[str, Any]

    @property
    def path(self) -> str:
        return f"{CLUSTERS}/{self.name}"

    def read(self) -> Mapping[str, Any]:
        """The cluster as the API shows it now."""
        cluster: Mapping[str, Any] = self.api.request("GET", self.path)
        return cluster

    def password(self) -> str:
        """The default principal's password, revealed through the API."""
        principal = self.api.request("GET", f"{self.path}/credentials")["items"][0]["name"]
        revealed: str = self.api.request("POST", f"{self.path}/credentials/{principal}/reveal")["password"]
        return revealed


OrderCluster = Callable[..., Order]


@contextlib.contextmanager
def ordering(stack: Stack) -> Iterator[OrderCluster]:
    """Order clusters; they are deleted with their volumes at the end."""
    api = stack.api()
    names: list[str] = []

    def place(
        engine: str = "redis", *, plan: str, spec: Mapping[str, Any] | None = None, follow: bool = True,
        loses: bool = False,
    ) -> Order:  # fmt: skip
        """`loses`: what the spec may lose is confirmed."""
        name = f"t-{secrets.token_hex(4)}"
        names.append(name)
        body = {"engine": engine, "name": name, "plan": plan, "spec": dict(spec or {})}
        path = f"{CLUSTERS}?confirm={name}" if loses else CLUSTERS
        answer = api.request("POST", path, body, headers={"Idempotency-Key": secrets.token_hex(16)})
        operation = answer["operation"]
        if follow:
            operation = api.follow(operation)
        return Order(api, name, operation)

    try:
        yield place
    finally:
        for name in names:
            try:
                answer = api.request("DELETE", f"{CLUSTERS}/{name}?volumes=delete&confirm={name}")
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                api.follow(answer["operation"])


@pytest.fixture
def order(stack: Stack) -> Iterator[OrderCluster]:
    """Order clusters; they are deleted with their volumes when the test ends."""
    with ordering(stack) as place:
        yield place
