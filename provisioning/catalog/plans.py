"""The plans that come with Berth. An administrator's own are never touched."""

from __future__ import annotations

from typing import Any

from provisioning.engines.registry import ENGINES
from provisioning.models import Plan

# engine, name, title, description, values
BUILT_IN: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    (
        "redis",
        "redis-dev",
        "Development",
        "Small and quick; fits a laptop. Three shards with a replica each.",
        {"shards": 3, "replicasPerShard": 1, "memoryGiB": 0.125, "cpu": 0.1, "storageGiB": 1, "nodeTimeoutMs": 5000},
    ),
    (
        "redis",
        "redis-standard",
        "Standard",
        "Three shards of 2 GiB with a replica each, append-only file on every node.",
        {"shards": 3, "replicasPerShard": 1, "memoryGiB": 2, "cpu": 1, "storageGiB": 5},
    ),
    (
        "redis",
        "redis-large",
        "Large",
        "Six shards of 8 GiB with a replica each, on fast storage.",
        {"shards": 6, "replicasPerShard": 1, "memoryGiB": 8, "cpu": 2, "storageGiB": 17, "storageClass": "fast-ssd"},
    ),
    (
        "zookeeper",
        "zookeeper-dev",
        "Development",
        "Three small servers; fits a laptop.",
        {"servers": "3", "memoryMiB": 256, "cpu": 0.1, "storageGiB": 1},
    ),
    (
        "zookeeper",
        "zookeeper-standard",
        "Standard",
        "Three servers of 1 GiB.",
        {"servers": "3", "memoryMiB": 1024, "cpu": 0.5, "storageGiB": 10},
    ),
)


def ensure_plans() -> int:
    """Make the built-in plans of the engines on offer that do not exist yet; returns how many were made."""
    made = 0
    for position, (engine, name, title, description, values) in enumerate(BUILT_IN):
        if engine in ENGINES:
            _, created = Plan.objects.get_or_create(
                name=name,
                defaults={
                    "engine": engine, "title": title, "description": description, "values": values,
                    "position": position,
                },
            )  # fmt: skip
            made += created
    return made
