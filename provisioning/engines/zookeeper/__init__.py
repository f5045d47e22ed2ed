"""ZooKeeper: an ensemble behind stable names, so that every address may change."""

from provisioning.engines.zookeeper.engine import ZooKeeperEngine

__all__ = ["ZooKeeperEngine"]
