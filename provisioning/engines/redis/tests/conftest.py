"""Fleets of real servers, ended with their test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioning.engines.base import ClusterView
from provisioning.engines.redis.tests.servers import Fleet

networks = itertools.count(1)
Start = Callable[[ClusterView], Fleet]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    fleets: list[Fleet] = []

    def begin(cluster: ClusterView) -> Fleet:
        folder = tmp_path / cluster.name
        folder.mkdir()
        fleet = Fleet(cluster, folder, next(networks))
        fleets.append(fleet)
        fleet.start()
        return fleet

    yield begin
    for fleet in fleets:
        fleet.stop()
