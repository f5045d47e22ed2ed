"""Fleets of real servers, ended with their test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from provisioning.engines.base import ClusterView
from provisioning.engines.redis.tests.servers import PASSWORD, Fleet

networks = itertools.count(1)


class Start(Protocol):
    """Makes a fleet and starts its servers."""

    def __call__(self, cluster: ClusterView, *, password: str = PASSWORD) -> Fleet: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    fleets: list[Fleet] = []

    def begin(cluster: ClusterView, *, password: str = PASSWORD) -> Fleet:
        folder = tmp_path / cluster.name
        folder.mkdir()
        fleet = Fleet(cluster, folder, next(networks), stored={"password": password})
        fleets.append(fleet)
        fleet.start()
        return fleet

    yield begin
    for fleet in fleets:
        fleet.stop()
