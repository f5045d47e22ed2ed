"""The engines on offer. Adding one is adding its folder and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from provisioning.engines.base import Engine
from provisioning.engines.redis import RedisEngine
from provisioning.engines.zookeeper import ZooKeeperEngine

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (RedisEngine(), ZooKeeperEngine())}
