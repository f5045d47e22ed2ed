"""What an engine says it demands is what its manifests request, as Kubernetes counts, for every spec it accepts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from provisioning.apply.requests import added, counted_claim, counted_workload, pod_requests
from provisioning.engines.base import ClusterView, Field
from provisioning.engines.registry import ENGINES


def value_of(field: Field) -> st.SearchStrategy[Any]:
    """Every value the field allows."""
    if field.kind in ("integer", "number"):
        step = field.step or 1
        low, high = field.minimum or 0, field.maximum if field.maximum is not None else (field.minimum or 0) + 1000
        steps = st.integers(0, int((high - low) / step))
        return steps.map(lambda count: int(low + count) if field.kind == "integer" else round(low + count * step, 6))
    return {
        "enum": st.sampled_from(field.choices or ("",)),
        "boolean": st.booleans(),
        "storage-class": st.sampled_from(["standard", "fast-ssd", "a.b"]),
    }.get(field.kind, st.just(field.default))


def specs(engine: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.key: value_of(field) for field in ENGINES[engine].fields})


@pytest.mark.parametrize("engine", sorted(ENGINES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_demand_equals_what_kubernetes_counts_of_the_manifests(engine: str, data: st.DataObject) -> None:
    spec = data.draw(specs(engine))
    chosen = ENGINES[engine]
    assume(not chosen.check(spec))
    view = ClusterView("clu_1", "orders", "acme", "berth-acme", engine, chosen.versions[0], 1, spec)
    manifests = chosen.render(view)
    counted = added(
        *(counted_workload(one, claims=True) for one in manifests if one["kind"] in ("StatefulSet", "Deployment")),
        *(counted_claim(one["spec"]) for one in manifests if one["kind"] == "PersistentVolumeClaim"),
    )
    assert not [one["kind"] for one in manifests if one["kind"] in ("Pod", "DaemonSet", "Job", "CronJob", "ReplicaSet")]
    templates = [one["spec"]["template"]["spec"] for one in manifests if "template" in one.get("spec", {})]
    containers = [one for pod in templates for one in [*pod["containers"], *pod.get("initContainers", [])]]
    # Without a request of its own a container would get the LimitRange's.
    assert all({"cpu", "memory"} <= set(one["resources"]["requests"]) for one in containers)
    demand = chosen.demand(spec)
    demanded = {"pods": demand.pods, "cpu": demand.cpu_millicores, "memory": demand.memory_mib,
                "storage": sum(demand.storage_mib.values()),
                **{f"storage:{name}": size for name, size in demand.storage_mib.items()}}  # fmt: skip
    assert demanded == {"storage": 0, **counted}


def container(cpu: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "millicores"),
    [
        ({"containers": [container("100m"), container("0.2")]}, 300),
        ({"containers": [container("100m")], "initContainers": [container("300m"), container("200m")]}, 300),
        ({"containers": [container("100m")], "initContainers": [container("50m", restartPolicy="Always")]}, 150),
        (
            {
                "containers": [container("100m")],
                "initContainers": [container("50m", restartPolicy="Always"), container("300m")],
            },
            350,
        ),
        (
            {
                "containers": [container("100m")],
                "initContainers": [container("300m"), container("50m", restartPolicy="Always")],
            },
            300,
        ),
        ({"containers": [{"resources": {"limits": {"cpu": "1"}}}], "overhead": {"cpu": "10m"}}, 1010),
        ({"containers": [{}]}, 0),
    ],
)
def test_a_pod_is_counted_as_the_api_server_counts_it(spec: dict[str, Any], millicores: int) -> None:
    assert pod_requests(spec)["cpu"] * 1000 == millicores
