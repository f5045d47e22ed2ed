"""The engines on offer. Adding one is adding its folder and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from provisioning.engines.base import Engine, Spec
from provisioning.engines.redis import RedisEngine
from provisioning.engines.zookeeper import ZooKeeperEngine

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (RedisEngine(), ZooKeeperEngine())}


def completed(engine: str, spec: Spec) -> Spec:
    """A cluster's spec, with the defaults of fields that are younger than the cluster."""
    return {**{field.key: field.default for field in ENGINES[engine].fields}, **spec} if engine in ENGINES else spec
