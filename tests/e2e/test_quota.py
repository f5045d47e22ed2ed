"""The ledger on a real target: what it holds is what the pods and volumes request, to the last unit."""

from __future__ import annotations

import pytest

from dev.stack import Stack
from tests.e2e.conftest import OrderCluster

pytestmark = pytest.mark.sandbox

PROOF = "from provisioning.clusters.ledger_proof import prove_all; prove_all()"


def test_a_delivered_cluster_requests_exactly_what_the_ledger_holds(stack: Stack, order: OrderCluster) -> None:
    placed = order(plan="redis-dev")
    quota = placed.api.request("GET", "/api/v1/tenants/demo/quota")
    (holder,) = [one for one in quota["items"] if one["name"] == placed.name]
    assert {one["reserved"] for one in holder["holds"]} == {0}
    assert {one["used_by"]["id"] for one in holder["holds"]} == {placed.operation["id"]}
    stack.portal.manage("shell", "-c", PROOF)
    assert placed.api.request("GET", "/api/v1/quota-findings")["items"] == []
