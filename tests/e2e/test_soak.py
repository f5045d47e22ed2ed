"""A short soak in the suite: every kind of operation and of fault once, while a client has its writes confirmed."""

from __future__ import annotations

import pytest

from dev.soak import SHORT, soak
from dev.stack import Stack
from tests.e2e.conftest import OrderCluster
from tests.e2e.test_faults import embedded

pytestmark = pytest.mark.sandbox

SEED = 6


def test_nothing_confirmed_is_lost_while_a_cluster_is_changed_and_broken(stack: Stack, order: OrderCluster) -> None:
    embedded(stack)
    placed = order(plan="redis-dev")
    seen = soak(stack, placed.name, iter(SHORT), seed=SEED, minutes=None, say=print)
    assert (seen["lost_count"], seen["confirmed"] > 1000) == (0, True)
