"""What Berth does to a target: apply, observe, delete. Values of engines/base.py come out, plain manifests go in."""

from __future__ import annotations

import contextlib
import re
import secrets
import string
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from provisioning.apply import errors
from provisioning.apply.client import KubeClient
from provisioning.engines.base import (
    LABEL_CLUSTER_ID,
    LABEL_MANAGED_BY,
    MANAGED_BY,
    ClusterView,
    Manifest,
    NodeView,
    PodView,
    SecretSpec,
    VolumeView,
    WorkloadView,
    World,
    common_labels,
)

LABEL_TENANT_ID = "berth.io/tenant-id"
# The label of namespaces whose pods may read metrics.
MONITORING = {"berth.io/monitoring": "true"}
# Grows when network_policies() changes: namespaces that were made before get the new ones.
POLICIES = {"berth.io/network-policies": "2"}
# How ipreserve selects: StatefulSets' pods in namespaces with this label, unless the pod says no.
RESERVED_NAMESPACE = {"ip-reserve": "enabled"}
ANNOTATION_RESERVE = "ipreserve.berth.io/reserve"
CHARACTERS = string.ascii_letters + string.digits
# On a Secret whose content follows the wish: the generation it was last written for.
ANNOTATION_GENERATION = "berth.io/generation"
QUOTA_NAME, LIMITS_NAME = "berth-quota", "berth-limits"
QUOTA_WAIT_SECONDS = 10
REPLACE_WAIT_SECONDS = 5
# kind -> (path prefix, plural). Fixed for the kinds engines render, so that no discovery round trip is needed.
KINDS: Mapping[str, tuple[str, str]] = {
    "Namespace": ("/api/v1", "namespaces"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Secret": ("/api/v1", "secrets"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "ResourceQuota": ("/api/v1", "resourcequotas"),
    "LimitRange": ("/api/v1", "limitranges"),
    "Pod": ("/api/v1", "pods"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
}
WORKLOADS = ("StatefulSet", "Deployment")
# What a pod must find when it starts.
MOUNTED = ("ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding")
# Everything a cluster may own besides its volumes, in the order to delete it.
OWNED = (
    "StatefulSet", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "Service", "Secret", "RoleBinding", "Role",
    "ServiceAccount", "ConfigMap",
)  # fmt: skip
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
UNITS: Mapping[str, Fraction] = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    **{prefix + "i": Fraction(1024**power) for power, prefix in enumerate("KMGTPE", 1)},
    **{prefix: Fraction(1000**power) for power, prefix in enumerate("kMGTPE", 1)},
}


def path_of(kind: str, namespace: str, name: str = "") -> str:
    """The path of an object or a collection. Raises Rejected for a kind nobody taught us."""
    if kind not in KINDS:
        raise errors.Rejected(f"Berth does not know where objects of kind {kind} live.")
    prefix, plural = KINDS[kind]
    scope = "" if kind == "Namespace" else f"/namespaces/{namespace}"
    return f"{prefix}{scope}/{plural}" + (f"/{name}" if name else "")


def quantity(text: str | int) -> Fraction:
    """A Kubernetes quantity, exactly, in its base unit (cores, bytes, pieces); 0 for what is not one."""
    found = re.fullmatch(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:(m|[KMGTPE]i|[kMGTPE])|[eE]([+-]?\d{1,3}))?", str(text))
    if not found:
        return Fraction(0)
    return Fraction(found[1]) * UNITS[found[2] or ""] * Fraction(10) ** int(found[3] or 0)


def mebibytes(text: str) -> int:
    """A Kubernetes quantity in MiB, rounded up; 0 for what is not one."""
    return -int(-quantity(text) // 2**20)


def moment(text: str | None) -> datetime:
    """A Kubernetes time; now when it is absent."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else datetime.now(UTC)


@dataclass(frozen=True)
class NamespaceLook:
    """A tenant's namespace and its ResourceQuota as they were found; None and empty when there is none."""

    namespace: Mapping[str, Any] | None
    quota: Mapping[str, Any]


def look_at_namespace(client: KubeClient, namespace: str) -> Callable[[], NamespaceLook]:
    """Begin to read a namespace and its ResourceQuota. Call what is returned to wait for both: may raise DoorError."""
    found = client.threads.submit(_found_namespace, client, namespace)
    quota = client.threads.submit(_found_quota, client, namespace)
    return lambda: NamespaceLook(found.result(), quota.result())


def ensure_namespace(
    client: KubeClient, look: NamespaceLook, *, namespace: str, tenant: str, tenant_id: str, hard: Mapping[str, str]
) -> None:
    """Make the tenant's namespace with its guard rails. Raises NamespaceTaken when somebody else owns it.

    `look` is how it was found just now. `hard` is what the namespace's ResourceQuota allows, as Kubernetes names and
    counts it.
    """
    found = look.namespace
    require_namespace(look, namespace=namespace, tenant_id=tenant_id)
    wished = namespace_manifest(namespace, tenant, tenant_id)
    labels = wished["metadata"]["labels"]
    there = {} if found is None else found["metadata"].get("labels", {})
    path = path_of("Namespace", "", namespace)
    if found is None:
        unguarded = {key: value for key, value in labels.items() if key not in POLICIES}
        client.apply(path, {**wished, "metadata": {**wished["metadata"], "labels": unguarded}})
    if not POLICIES.items() <= there.items():
        for policy in network_policies(namespace):
            client.apply(path_of("NetworkPolicy", namespace, policy["metadata"]["name"]), policy)
    if not labels.items() <= there.items():
        # Last: its label says that the policies are there, whoever is killed in between.
        client.apply(path, wished)
    if not _is_enforced(look.quota, hard):
        _apply_quota(client, namespace, hard, with_limits=not look.quota)
    if found is None:
        # Pods are refused until the controller has made it; the StatefulSet controller would back off meanwhile.
        _await_service_account(client, namespace)


def require_namespace(look: NamespaceLook, *, namespace: str, tenant_id: str) -> None:
    """Refuse a namespace that is not the tenant's or is going away. Raises NamespaceTaken, Throttled."""
    found = look.namespace
    if found is not None and found["metadata"].get("labels", {}).get(LABEL_TENANT_ID) != tenant_id:
        raise errors.NamespaceTaken(
            f"The namespace {namespace} exists on the target and does not belong to this tenant.",
            remedy=f"Delete or rename that namespace, or label it {LABEL_TENANT_ID}={tenant_id} to hand it over.",
        )
    if found is not None and found.get("status", {}).get("phase") == "Terminating":
        raise errors.Throttled(f"The namespace {namespace} is being deleted; it is made anew afterwards.")


def namespace_manifest(namespace: str, tenant: str, tenant_id: str) -> Manifest:
    """The tenant's namespace on one target."""
    labels = {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_TENANT_ID: tenant_id,
        "berth.io/tenant": tenant,
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
        **RESERVED_NAMESPACE,
        **POLICIES,
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}


def ensure_quota(client: KubeClient, namespace: str, tenant_id: str, hard: Mapping[str, str]) -> bool:
    """Make the ResourceQuota of the tenant's namespace allow exactly `hard`; returns whether it had to be changed.

    Raises Absent when there is no such namespace, Throttled when the quota controller does not take it up in time.
    """
    found = _found_quota(client, namespace)
    if _is_enforced(found, hard):
        return False
    if not found:
        # By another way in than ensure_namespace: still nobody else's namespace.
        owner = client.get(path_of("Namespace", "", namespace))["metadata"].get("labels", {}).get(LABEL_TENANT_ID)
        if owner != tenant_id:
            raise errors.NamespaceTaken(f"The namespace {namespace} does not belong to this tenant.")
    _apply_quota(client, namespace, hard, with_limits=not found)
    return True


def _found_namespace(client: KubeClient, namespace: str) -> dict[str, Any] | None:
    try:
        return client.get(path_of("Namespace", "", namespace))
    except errors.Absent:
        return None


def _found_quota(client: KubeClient, namespace: str) -> dict[str, Any]:
    """The namespace's ResourceQuota, empty when there is none."""
    try:
        return client.get(path_of("ResourceQuota", namespace, QUOTA_NAME))
    except errors.Absent:
        return {}


def _is_enforced(found: Mapping[str, Any], hard: Mapping[str, str]) -> bool:
    return bool(found) and _numbers(found["spec"].get("hard", {})) == _numbers(hard) and _is_taken_up(found)


def _apply_quota(client: KubeClient, namespace: str, hard: Mapping[str, str], *, with_limits: bool) -> None:
    limits, wished = quota_manifests(namespace, hard)
    if with_limits:
        client.apply(path_of("LimitRange", namespace, LIMITS_NAME), limits)
    applied = client.apply(path_of("ResourceQuota", namespace, QUOTA_NAME), wished)
    _await_quota(client, namespace, applied)


def quota_manifests(namespace: str, hard: Mapping[str, str]) -> tuple[Manifest, Manifest]:
    """The LimitRange and the ResourceQuota of a tenant's namespace."""
    metadata = {"namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}}
    # The API server refuses pods without requests where it has to count them; Berth's own always say theirs.
    limits = [{"type": "Container", "defaultRequest": {"cpu": "50m", "memory": "64Mi"}}]
    return (
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {**metadata, "name": LIMITS_NAME},
         "spec": {"limits": limits}},
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {**metadata, "name": QUOTA_NAME},
         "spec": {"hard": dict(hard)}},
    )  # fmt: skip


def _numbers(hard: Mapping[str, str]) -> dict[str, Fraction]:
    """The API server writes quantities its own way: 16384Mi comes back as 16Gi."""
    return {name: quantity(text) for name, text in hard.items()}


def _is_taken_up(quota: Mapping[str, Any]) -> bool:
    return _numbers(quota.get("status", {}).get("hard", {})) == _numbers(quota["spec"].get("hard", {}))


def _await_quota(client: KubeClient, namespace: str, applied: Mapping[str, Any]) -> None:
    """Wait until the quota controller has taken the numbers up: until then admission refuses every pod."""
    if _is_taken_up(applied):
        return
    version = applied["metadata"]["resourceVersion"]
    for event in client.watch(
        path_of("ResourceQuota", namespace), resource_version=version, selector="", seconds=QUOTA_WAIT_SECONDS
    ):
        quota = event["object"]
        if event["type"] == "MODIFIED" and quota["metadata"]["name"] == QUOTA_NAME and _is_taken_up(quota):
            return
    raise errors.Throttled(f"The quota of the namespace {namespace} has not been taken up by its controller yet.")


def _await_service_account(client: KubeClient, namespace: str) -> None:
    collection = path_of("ServiceAccount", namespace)
    found = client.get(collection)
    if any(item["metadata"]["name"] == "default" for item in found["items"]):
        return
    version = found["metadata"]["resourceVersion"]
    for event in client.watch(collection, resource_version=version, selector="", seconds=10):
        if event["type"] == "ADDED" and event["object"]["metadata"]["name"] == "default":
            return
    raise errors.Throttled(f"The namespace {namespace} has no default ServiceAccount yet.")


def network_policies(namespace: str) -> list[Manifest]:
    """Nobody reaches a tenant's pods but its own namespace and Berth's, and Prometheus their metrics."""
    metadata = {"namespace": namespace, "labels": {LABEL_MANAGED_BY: MANAGED_BY}}
    peers = [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"berth.io/portal": "true"}}},
        {"namespaceSelector": {"matchLabels": {"berth.io/client-of": namespace}}},
    ]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {**metadata, "name": "berth-default-deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {**metadata, "name": "berth-allow-tenant"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {**metadata, "name": "berth-allow-monitoring"},
            "spec": {
                "podSelector": {"matchLabels": {LABEL_MANAGED_BY: MANAGED_BY}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"namespaceSelector": {"matchLabels": MONITORING}}],
                             "ports": [{"port": "metrics", "protocol": "TCP"}]}],
            },
        },
    ]  # fmt: skip


def owner_manifest(cluster: ClusterView) -> Manifest:
    """The object that owns all others of a cluster, so that plain kubectl shows the wish and deletes in one go."""
    spec = {"berth.yaml": _readable(cluster)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{cluster.name}-berth", "namespace": cluster.namespace, "labels": common_labels(cluster)},
        "data": spec,
    }


def _readable(cluster: ClusterView) -> str:
    lines = [f"engine: {cluster.engine}", f"version: {cluster.version}", f"generation: {cluster.generation}", "spec:"]
    return "\n".join([*lines, *(f"  {key}: {value}" for key, value in cluster.spec.items())]) + "\n"


def dressed(
    cluster: ClusterView, manifests: Iterable[Manifest], owner: Mapping[str, Any], registry: str,
    *, reserves_addresses: bool = True,
) -> list[Manifest]:  # fmt: skip
    """The engine's manifests with namespace, common labels, owner and, if asked for, another registry.

    Without `reserves_addresses` the pods of StatefulSets say that their addresses need no rest; with it they say
    nothing, since the namespace's label selects them.
    """
    reference = {
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
    }  # fmt: skip
    finished = []
    for manifest in manifests:
        metadata = dict(manifest["metadata"])
        metadata["namespace"] = cluster.namespace
        metadata["labels"] = {**common_labels(cluster), **metadata.get("labels", {})}
        metadata["ownerReferences"] = [reference]
        finished.append(_mirrored({**manifest, "metadata": metadata}, registry))
    return finished if reserves_addresses else [_unreserved(manifest) for manifest in finished]


def _unreserved(manifest: Manifest) -> Manifest:
    if manifest["kind"] != "StatefulSet":
        return manifest
    template = manifest["spec"]["template"]
    metadata = template["metadata"]
    annotations = {**metadata.get("annotations", {}), ANNOTATION_RESERVE: "false"}
    template = {**template, "metadata": {**metadata, "annotations": annotations}}
    return {**manifest, "spec": {**manifest["spec"], "template": template}}


def _mirrored(manifest: Manifest, registry: str) -> Manifest:
    if not registry or manifest["kind"] not in WORKLOADS:
        return manifest
    template = manifest["spec"]["template"]
    pod = dict(template["spec"])
    for key in ("initContainers", "containers"):
        if key in pod:
            pod[key] = [{**one, "image": f"{registry}/{one['image'].partition('/')[2]}"} for one in pod[key]]
    return {**manifest, "spec": {**manifest["spec"], "template": {**template, "spec": pod}}}


def create_secrets(
    client: KubeClient, cluster: ClusterView, wanted: Sequence[SecretSpec], owner: Manifest, *, dry_run: bool = False
) -> list[str]:  # fmt: skip
    """Create the Secrets that do not exist; returns their names. Of existing ones, whose passwords are in use, only
    what `SecretSpec.content` says is changed. Raises FieldConflict for one that is not the cluster's,
    CredentialsMissing for one that is gone though servers run by it.
    """
    query = {"dryRun": "All"} if dry_run else None
    made = []
    for spec in wanted:
        content = {key: make_password(length) for key, length in spec.generate.items()}
        metadata: dict[str, Any] = {"name": spec.name}
        if spec.content is not None:
            content = dict(spec.content(content, make_password))
            metadata["annotations"] = {ANNOTATION_GENERATION: str(cluster.generation)}
        manifest: Manifest = {
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": content,
        }  # fmt: skip
        try:
            dressed_secret = dressed(cluster, [manifest], owner, "")[0]
            if cluster.formed and not _is_there(client, cluster, spec):
                raise errors.CredentialsMissing(
                    f"The Secret {spec.name} is gone, with the passwords that the servers of {cluster.name} know."
                )
            client.request("POST", path_of("Secret", cluster.namespace), dressed_secret, query=query)
            made.append(spec.name)
        except errors.Taken:
            found = client.get(path_of("Secret", cluster.namespace, spec.name))
            if found["metadata"].get("labels", {}).get(LABEL_CLUSTER_ID) != cluster.id:
                raise not_ours(cluster, spec.name) from None
            if not dry_run:
                _settle_secret(client, cluster, spec, found)
    return made


def _is_there(client: KubeClient, cluster: ClusterView, spec: SecretSpec) -> bool:
    try:
        client.get(path_of("Secret", cluster.namespace, spec.name))
    except errors.Absent:
        return False
    return True


def make_password(length: int) -> str:
    """A random password of letters and digits."""
    return "".join(secrets.choice(CHARACTERS) for _ in range(length))


def settle_secrets(client: KubeClient, cluster: ClusterView, wanted: Sequence[SecretSpec]) -> None:
    """Have the Secrets that exist hold what `SecretSpec.content` says. Raises a DoorError."""
    for spec in wanted:
        if spec.content is not None:
            _settle_secret(client, cluster, spec, client.get(path_of("Secret", cluster.namespace, spec.name)))


def _settle_secret(client: KubeClient, cluster: ClusterView, spec: SecretSpec, found: Mapping[str, Any]) -> None:
    """Write a Secret's content where it differs, unless it is that of a later wish than `cluster` knows: what a worker
    that comes back late does not know of must not be lost. `found` is the Secret as it was just read.
    """
    annotations = found["metadata"].get("annotations", {})
    if spec.content is None or int(annotations.get(ANNOTATION_GENERATION, "0")) > cluster.generation:
        return
    stored = {key: b64decode(value).decode() for key, value in found.get("data", {}).items()}
    content = dict(spec.content(stored, make_password))
    if content == stored:
        return
    metadata = {**found["metadata"], "annotations": {**annotations, ANNOTATION_GENERATION: str(cluster.generation)}}
    data = {key: b64encode(value.encode()).decode() for key, value in content.items()}
    try:
        # With the resourceVersion of what was read.
        path = path_of("Secret", cluster.namespace, spec.name)
        client.request("PUT", path, {**found, "metadata": metadata, "data": data})
    except (errors.Taken, errors.Absent) as error:
        raise errors.Throttled(f"The Secret {spec.name} was changed by somebody else just now.") from error


def not_ours(cluster: ClusterView, name: str) -> errors.FieldConflict:
    """The refusal to use a Secret of somebody else."""
    return errors.FieldConflict(
        f"A Secret {name} exists in {cluster.namespace} and is not this cluster's.",
        remedy=f"Delete that Secret, or order the cluster under a name other than {cluster.name}.",
    )


def apply_all(
    client: KubeClient, cluster: ClusterView, wanted: Sequence[SecretSpec], manifests: Sequence[Manifest],
    owner: Manifest, keep_certificates: Callable[[], object] | None = None,
) -> None:  # fmt: skip
    """Create the missing Secrets and apply the objects, side by side. Raises a DoorError.

    Workloads wait for what their pods mount, since a kubelet that misses it tries again only after a pause.
    `keep_certificates` sees to the Secrets that are more than passwords.
    """

    def apply(manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        path = path_of(manifest["kind"], metadata["namespace"], metadata["name"])
        try:
            client.apply(path, manifest)
        except errors.DoorError as error:
            error.args = (f"{manifest['kind']} {metadata['name']}: {error.message}",)
            error.message = error.args[0]
            raise

    def begin(chosen: Callable[[str], bool]) -> list[Future[None]]:
        return [client.threads.submit(apply, manifest) for manifest in manifests if chosen(manifest["kind"])]

    mounted: list[Future[Any]] = [client.threads.submit(create_secrets, client, cluster, wanted, owner)]
    if keep_certificates is not None:
        mounted.append(client.threads.submit(keep_certificates))
    mounted += begin(lambda kind: kind in MOUNTED)
    begun: list[Future[Any]] = [*mounted, *begin(lambda kind: kind not in MOUNTED and kind not in WORKLOADS)]
    wait(mounted)
    if not any(one.exception() for one in mounted):
        begun += begin(lambda kind: kind in WORKLOADS)
    # All of them, also after an error: nothing goes on behind the caller's back.
    wait(begun)
    for one in begun:
        one.result()


def prune(
    client: KubeClient, cluster: ClusterView, before: Sequence[Mapping[str, str]], now: set[tuple[str, str]]
) -> None:
    """Delete what the inventory says we applied and no longer render."""
    for entry in before:
        if (entry["kind"], entry["name"]) not in now:
            delete(client, entry["kind"], cluster.namespace, entry["name"])


def delete(
    client: KubeClient, kind: str, namespace: str, name: str, *, uid: str | None = None, dry_run: bool = False,
    grace_seconds: int | None = None,
) -> None:  # fmt: skip
    """Delete one object, with what it owns; gone already is fine. With `uid`, only that very object. `grace_seconds`:
    of a pod, instead of its own.
    """
    options: dict[str, Any] = {"preconditions": {"uid": uid}} if uid else {}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    gone = (errors.Absent, errors.Taken) if uid else (errors.Absent,)
    with contextlib.suppress(*gone):
        query = {"propagationPolicy": "Background", **({"dryRun": "All"} if dry_run else {})}
        client.request("DELETE", path_of(kind, namespace, name), options or None, query=query)


def owned_names(client: KubeClient, cluster: ClusterView, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, name) of every object of the cluster among `kinds`, found by label."""
    selector = f"{LABEL_CLUSTER_ID}={cluster.id}"

    def names(kind: str) -> list[tuple[str, str]]:
        found = client.get(path_of(kind, cluster.namespace), labelSelector=selector)
        return [(kind, item["metadata"]["name"]) for item in found["items"]]

    return [entry for entries in client.threads.map(names, kinds) for entry in entries]


def read_secret(client: KubeClient, namespace: str, name: str) -> dict[str, str]:
    """A Secret's decoded values. Raises Absent."""
    found = client.get(path_of("Secret", namespace, name))
    return {key: b64decode(value).decode() for key, value in found.get("data", {}).items()}


def nodes(client: KubeClient) -> list[dict[str, Any]]:
    """The target's nodes as stored on Target.nodes."""
    found = []
    for item in client.get("/api/v1/nodes")["items"]:
        spec, status = item["spec"], item["status"]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
        blocked = spec.get("unschedulable", False) or any(
            taint["effect"] in ("NoSchedule", "NoExecute") for taint in spec.get("taints", [])
        )
        cpu = status.get("allocatable", {}).get("cpu", "0")
        millicores = int(cpu[:-1]) if cpu.endswith("m") else int(float(cpu) * 1000)
        found.append(
            {
                "name": item["metadata"]["name"],
                "zone": item["metadata"].get("labels", {}).get("topology.kubernetes.io/zone", ""),
                "ready": ready,
                "schedulable": ready and not blocked,
                "cpu_millicores": millicores,
                "memory_mib": mebibytes(status.get("allocatable", {}).get("memory", "0")),
            }
        )
    return sorted(found, key=lambda node: node["name"])


def storage_classes(client: KubeClient) -> list[dict[str, Any]]:
    """The target's storage classes as stored on Target.storage_classes."""
    default = "storageclass.kubernetes.io/is-default-class"
    return [
        {
            "name": item["metadata"]["name"],
            "provisioner": item["provisioner"],
            "default": item["metadata"].get("annotations", {}).get(default) == "true",
            "expandable": item.get("allowVolumeExpansion", False),
        }
        for item in client.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
    ]


def _pod_problem(item: Mapping[str, Any]) -> str:
    """Why a pod does not run, in Kubernetes' own words; "" when nothing is wrong."""
    status = item.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not placed: {condition.get('message', condition.get('reason', ''))}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
            last = container.get("lastState", {}).get("terminated", {})
            ended = f" (last ended with {last['reason']}, status {last['exitCode']})" if last else ""
            said = f": {waiting['message']}" if waiting.get("message") else ""
            return f"container {container['name']}: {waiting.get('reason', 'waiting')}{ended}{said}"
    return ""


def pod_view(item: Mapping[str, Any], zones: Mapping[str, str]) -> PodView:
    """A pod as engines see it."""
    metadata, status = item["metadata"], item.get("status", {})
    containers = status.get("containerStatuses", [])
    # The engine's own container comes first; what stands beside it, such as an exporter, is no member.
    own = item["spec"]["containers"][0]["name"]
    node = item["spec"].get("nodeName", "")
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        labels=metadata.get("labels", {}),
        node=node,
        zone=zones.get(node, ""),
        ip=status.get("podIP", ""),
        phase=status.get("phase", "Pending"),
        started=any(one["name"] == own and "running" in one.get("state", {}) for one in containers),
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])),
        restarts=sum(one.get("restartCount", 0) for one in containers),
        deleting="deletionTimestamp" in metadata,
        created=moment(metadata.get("creationTimestamp")),
        problem=_pod_problem(item),
        revision=metadata.get("labels", {}).get("controller-revision-hash", ""),
    )


def observe(client: KubeClient, cluster: ClusterView) -> World:
    """What Kubernetes says about one cluster now: five lists, side by side."""
    selector = f"{LABEL_CLUSTER_ID}={cluster.id}"

    def listing(kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get(path_of(kind, cluster.namespace), labelSelector=selector)["items"]
        return found

    some_nodes = client.threads.submit(nodes, client)
    kinds = ("Pod", "PersistentVolumeClaim", *WORKLOADS)
    pods, claims, sets, deployments = client.threads.map(listing, kinds)
    node_entries = some_nodes.result()
    zones = {node["name"]: node["zone"] for node in node_entries}
    return World(
        now=datetime.now(UTC),
        pods=tuple(sorted((pod_view(item, zones) for item in pods), key=lambda pod: pod.name)),
        volumes=tuple(sorted((_volume_view(item) for item in claims), key=lambda volume: volume.name)),
        workloads=tuple(
            _workload_view(kind, item)
            for kind, items in zip(WORKLOADS, (sets, deployments), strict=True)
            for item in items
        ),
        nodes=tuple(NodeView(node["name"], node["zone"], node["ready"], node["schedulable"]) for node in node_entries),
    )


def volumes(client: KubeClient, cluster: ClusterView) -> list[VolumeView]:
    """The cluster's PersistentVolumeClaims, sorted by name."""
    selector = f"{LABEL_CLUSTER_ID}={cluster.id}"
    found = client.get(path_of("PersistentVolumeClaim", cluster.namespace), labelSelector=selector)["items"]
    return sorted((_volume_view(item) for item in found), key=lambda volume: volume.name)


def _volume_view(item: Mapping[str, Any]) -> VolumeView:
    spec, status = item["spec"], item.get("status", {})
    phase = status.get("phase", "Pending")
    return VolumeView(
        name=item["metadata"]["name"],
        phase=phase,
        storage_class=spec.get("storageClassName", ""),
        requested_mib=mebibytes(spec["resources"]["requests"]["storage"]),
        capacity_mib=mebibytes(status.get("capacity", {}).get("storage", "0")),
        labels=item["metadata"].get("labels", {}),
        problem="" if phase == "Bound" else f"waits for a volume of class {spec.get('storageClassName', '?')}",
    )


def _workload_view(kind: str, item: Mapping[str, Any]) -> WorkloadView:
    status = item.get("status", {})
    return WorkloadView(
        kind=kind,
        name=item["metadata"]["name"],
        labels=item["metadata"].get("labels", {}),
        replicas=item["spec"].get("replicas", 1),
        ready=status.get("readyReplicas", 0),
        current=status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0),
        revision=status.get("updateRevision", ""),
        claims=_claim_sizes(item),
    )


def _claim_sizes(workload: Mapping[str, Any]) -> dict[str, int]:
    """Name of each volume template of a StatefulSet to its size in MiB."""
    templates = workload["spec"].get("volumeClaimTemplates", [])
    return {one["metadata"]["name"]: mebibytes(one["spec"]["resources"]["requests"]["storage"]) for one in templates}


def grow_volumes(client: KubeClient, cluster: ClusterView, manifests: Iterable[Manifest], world: World) -> None:
    """Make existing volumes as large as the StatefulSets to be applied want them. Raises a DoorError.

    1. Each claim that asks for less is told to ask for more; the storage class's driver does the rest.
    2. Kubernetes lets nobody change a StatefulSet's volume templates. So one that differs is deleted without its pods,
       which run on, and the apply that follows makes it anew and adopts them. Whoever dies in between leaves pods that
       run and a workload that is missing, which every look applies again.
    """
    there = {one.name: one for one in world.workloads if one.kind == "StatefulSet"}
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        if manifest["kind"] != "StatefulSet" or name not in there:
            continue
        wanted = _claim_sizes(manifest)
        for template, size in wanted.items():
            prefix = f"{template}-{name}-"
            for volume in world.volumes:
                ordinal = volume.name.removeprefix(prefix)
                if not (volume.name.startswith(prefix) and ordinal.isdigit() and volume.phase == "Bound"):
                    # One that is not bound yet cannot be changed; a later apply finds it.
                    continue
                if volume.requested_mib < size:
                    body = {"spec": {"resources": {"requests": {"storage": f"{size}Mi"}}}}
                    path = path_of("PersistentVolumeClaim", cluster.namespace, volume.name)
                    client.request("PATCH", path, body, content_type="application/merge-patch+json")
        if wanted != there[name].claims:
            _replace_keeping_pods(client, cluster.namespace, name)


def with_present_claims(manifests: Iterable[Manifest], world: World) -> list[Manifest]:
    """The manifests with the volume templates' sizes of the StatefulSets that are there, as only those can be applied
    to them; see grow_volumes.
    """
    there = {one.name: one.claims for one in world.workloads if one.kind == "StatefulSet"}
    found = []
    for manifest in manifests:
        sizes = there.get(manifest["metadata"]["name"], {}) if manifest["kind"] == "StatefulSet" else {}
        if sizes and sizes != _claim_sizes(manifest):
            templates = [
                {**one, "spec": {**one["spec"], "resources": {"requests": {"storage": f"{sizes[name]}Mi"}}}}
                if (name := one["metadata"]["name"]) in sizes
                else one
                for one in manifest["spec"]["volumeClaimTemplates"]
            ]
            manifest = {**manifest, "spec": {**manifest["spec"], "volumeClaimTemplates": templates}}
        found.append(manifest)
    return found


def _replace_keeping_pods(client: KubeClient, namespace: str, name: str) -> None:
    path = path_of("StatefulSet", namespace, name)
    with contextlib.suppress(errors.Absent):
        client.request("DELETE", path, query={"propagationPolicy": "Orphan"})
        until = time.monotonic() + REPLACE_WAIT_SECONDS
        while time.monotonic() < until:
            client.get(path)
            time.sleep(0.05)
        raise errors.Throttled(f"The StatefulSet {name} is being replaced to grow its volumes.")
