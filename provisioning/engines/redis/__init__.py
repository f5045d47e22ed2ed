"""Redis Cluster: one StatefulSet per shard, topology formed and healed by us with plain commands."""

from provisioning.engines.redis.engine import RedisEngine

__all__ = ["RedisEngine"]
