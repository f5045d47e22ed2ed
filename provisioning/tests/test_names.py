"""What a cluster may be called: nothing that an object of another cluster is called."""

from __future__ import annotations

import pytest

from provisioning.engines.base import ClusterView
from provisioning.engines.redis.tests import servers
from provisioning.engines.registry import ENGINES
from provisioning.engines.zookeeper.tests import test_rules as zookeeper
from provisioning.models import OBJECT_NAME


@pytest.mark.parametrize("cluster", [servers.view(tls="on"), zookeeper.view()], ids=["redis", "zookeeper"])
def test_no_object_of_a_cluster_has_a_name_that_another_cluster_may_get(cluster: ClusterView) -> None:
    engine = ENGINES[cluster.engine]
    names = {str(one["metadata"]["name"]) for one in engine.render(cluster)}
    names |= {one.name for one in engine.secrets(cluster)}
    names |= {name for one in engine.certificates(cluster) for name in (one.name, one.authority)}
    others = names - {cluster.name}
    assert len(others) > 2
    assert {name for name in others if OBJECT_NAME.search(name) is None} == set()
