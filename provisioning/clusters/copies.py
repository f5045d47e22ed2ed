"""An order for another cluster like one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provisioning.engines.registry import ENGINES, completed
from provisioning.models import Cluster


@dataclass(frozen=True)
class Copy:
    """`order` is all that `create_cluster` wants but the name, which has to be a new one.

    `left_out`: JSON pointer into the order to why the original's value is not in it; what stands there instead holds.
    """

    order: Mapping[str, Any]
    left_out: Mapping[str, str]


def order_like(cluster: Cluster) -> Copy:
    """The order that would make another cluster like this one; wants `plan` and `target` loaded.

    Every value is in it, so that a plan that was changed since changes nothing. No data, credential or user is: the
    new cluster makes its own.
    """
    engine = ENGINES[cluster.engine]
    spec = completed(cluster.engine, cluster.spec)
    order: dict[str, Any] = {
        "engine": cluster.engine, "plan": cluster.plan_id, "version": cluster.version, "target": cluster.target_id,
        "spec": {field.key: spec[field.key] for field in engine.fields}, "labels": dict(cluster.labels),
        "description": cluster.description,
    }  # fmt: skip
    left_out = {}
    if cluster.plan is not None and not cluster.plan.offered:
        order["plan"] = None
        left_out["/plan"] = f"The plan {cluster.plan_id} is no longer offered. Its values are in the spec."
    if cluster.version not in engine.versions:
        order["version"] = engine.versions[0]
        left_out["/version"] = f"{engine.title} {cluster.version} is no longer offered; {engine.versions[0]} is."
    if not cluster.target.enabled:
        order["target"] = None
        left_out["/target"] = f"The target {cluster.target_id} takes no new orders. Choose another one."
    return Copy(order, left_out)
