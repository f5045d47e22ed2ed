"""What Kubernetes counts for pods and volumes: the arithmetic of its quota, and what a namespace really requests.

The rule is the API server's own (k8s.io/component-helpers/resource, PodRequests): the containers together with the init
containers that keep running (restartPolicy Always), or the largest moment of starting up, whichever is more; plus the
runtime's overhead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any

from provisioning.apply.client import KubeClient
from provisioning.apply.door import path_of, quantity
from provisioning.engines.base import LABEL_CLUSTER_ID

COUNTED = ("cpu", "memory")
MIB = 2**20


def pod_requests(spec: Mapping[str, Any]) -> dict[str, Fraction]:
    """CPU (cores) and memory (bytes) that one pod of this spec requests."""
    total: dict[str, Fraction] = {}
    for resource in COUNTED:
        running = sum((_asked(one, resource) for one in spec.get("containers", [])), Fraction(0))
        sidecars = Fraction(0)
        starting = Fraction(0)
        for one in spec.get("initContainers", []):
            asked = _asked(one, resource)
            if one.get("restartPolicy") == "Always":
                sidecars += asked
                starting = max(starting, sidecars)
            else:
                starting = max(starting, sidecars + asked)
        overhead = quantity(spec.get("overhead", {}).get(resource, "0"))
        total[resource] = max(running + sidecars, starting) + overhead
    return total


def _asked(container: Mapping[str, Any], resource: str) -> Fraction:
    """A container's request; a limit alone is its request too (the API server's defaulting)."""
    resources = container.get("resources", {})
    text = resources.get("requests", {}).get(resource, resources.get("limits", {}).get(resource, "0"))
    return quantity(text)


def counted_pods(spec: Mapping[str, Any], count: int) -> dict[str, int]:
    """`count` pods of this spec in the ledger's units, rounded up as a whole."""
    asked = pod_requests(spec)
    return {"pods": count, "cpu": ceil(count * asked["cpu"] * 1000), "memory": ceil(count * asked["memory"] / MIB)}


def counted_claim(spec: Mapping[str, Any], count: int = 1) -> dict[str, int]:
    """`count` volume claims of this spec in the ledger's units."""
    size = ceil(count * quantity(spec["resources"]["requests"]["storage"]) / MIB)
    return {"storage": size, f"storage:{spec.get('storageClassName', '')}": size}


def counted_workload(manifest: Mapping[str, Any], *, claims: bool) -> dict[str, int]:
    """All pods of a StatefulSet or Deployment, and with `claims` the volumes its templates ask for."""
    spec = manifest["spec"]
    replicas = spec.get("replicas", 1)
    found = counted_pods(spec["template"]["spec"], replicas)
    for template in spec.get("volumeClaimTemplates", []) if claims else ():
        found = added(found, counted_claim(template["spec"], replicas))
    return found


def added(*amounts: Mapping[str, int]) -> dict[str, int]:
    """The sum, resource by resource."""
    total: dict[str, int] = defaultdict(int)
    for one in amounts:
        for resource, amount in one.items():
            total[resource] += amount
    return dict(total)


def requested(client: KubeClient, namespace: str) -> dict[str, dict[str, int]]:
    """What a namespace really requests, in the ledger's units, by cluster id ("" for what belongs to no cluster).

    Workloads count by what they ask for, so a pod that is being replaced makes no difference; pods that no workload of
    the namespace accounts for count by themselves; volumes count as they are. Raises a DoorError.
    """
    kinds = ("StatefulSet", "Deployment", "Pod", "PersistentVolumeClaim")
    listed = client.threads.map(lambda kind: client.get(path_of(kind, namespace))["items"], kinds)
    sets, deployments, pods, claims = listed
    found: dict[str, dict[str, int]] = {}

    def count(item: Mapping[str, Any], amounts: Mapping[str, int]) -> None:
        cluster = item["metadata"].get("labels", {}).get(LABEL_CLUSTER_ID, "")
        found[cluster] = added(found.get(cluster, {}), amounts)

    for workload in [*sets, *deployments]:
        count(workload, counted_workload(workload, claims=False))
    set_names = {one["metadata"]["name"] for one in sets}
    deployment_names = {one["metadata"]["name"] for one in deployments}
    for pod in pods:
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not ended and not _is_accounted(pod, set_names, deployment_names):
            count(pod, counted_pods(pod["spec"], 1))
    for claim in claims:
        count(claim, counted_claim(claim["spec"]))
    return found


def _is_accounted(pod: Mapping[str, Any], sets: set[str], deployments: set[str]) -> bool:
    """Whether a workload that was counted asked for this pod."""
    owner = next((one for one in pod["metadata"].get("ownerReferences", []) if one.get("controller")), None)
    if owner is None:
        return False
    if owner["kind"] == "ReplicaSet":
        # Named after its Deployment: <deployment>-<hash of the template>.
        return owner["name"].rpartition("-")[0] in deployments
    return owner["kind"] == "StatefulSet" and owner["name"] in sets
