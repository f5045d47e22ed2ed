"""Is this Kubernetes cluster one Berth can deliver to? Each question with its answer and what to do about a no."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient

# docs: any Kubernetes from this on. Earlier ones lack what the manifests rely on.
OLDEST = (1, 28)
# What Berth does to the kinds it knows, and what it only reads.
VERBS = ("create", "patch", "delete", "list")
WATCHED = ("Pod", "StatefulSet", "PersistentVolumeClaim")
READ = (("", "nodes"), ("storage.k8s.io", "storageclasses"))
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Finding:
    """One question about a target. `vital`: without it nothing can be delivered."""

    check: str
    ok: bool
    message: str
    remedy: str = ""
    vital: bool = True


@dataclass(frozen=True)
class Examination:
    """What was found; `facts` are columns of the target, empty when it did not answer. `uid` tells which cluster it is:
    that of its namespace kube-system, which lives as long as the cluster.
    """

    uid: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def obstacle(self) -> Finding | None:
        """The first thing that makes the target unusable."""
        return next((one for one in self.findings if one.vital and not one.ok), None)


def cluster_uid(client: KubeClient) -> str:
    """Which cluster answers. Raises a DoorError."""
    uid: str = client.get(door.path_of("Namespace", "", "kube-system"))["metadata"]["uid"]
    return uid


def facts(client: KubeClient) -> dict[str, Any]:
    """What is written down about a target that answers. Raises a DoorError."""
    return {
        "kubernetes_version": client.get("/version")["gitVersion"],
        "nodes": door.nodes(client),
        "storage_classes": door.storage_classes(client),
    }


def examine(client: KubeClient, *, reach: str) -> Examination:
    """Ask everything. A target that does not answer is a finding, not an error."""
    try:
        uid = cluster_uid(client)
        found = facts(client)
    except errors.DoorError as error:
        return Examination("", {}, (Finding("answers", False, error.message, error.remedy),))
    version = str(found["kubernetes_version"])
    findings = [Finding("answers", True, f"Kubernetes {version} answers."), _version(version), _rights(client, reach)]
    ready = [node for node in found["nodes"] if node["schedulable"]]
    findings.append(
        Finding(
            "nodes", bool(ready), f"{len(ready)} of {len(found['nodes'])} nodes take pods.",
            "" if ready else "Add nodes, or look at their taints and conditions.", vital=False,
        )
    )  # fmt: skip
    classes = [entry["name"] for entry in found["storage_classes"]]
    findings.append(
        Finding(
            "storage", bool(classes), f"Storage classes: {', '.join(classes) or 'none'}.",
            "" if classes else "Install a provisioner with a StorageClass: clusters keep their data on volumes.",
            vital=False,
        )
    )  # fmt: skip
    return Examination(uid, found, tuple(findings))


def _version(text: str) -> Finding:
    found = re.match(r"v?(\d+)\.(\d+)", text)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    oldest = ".".join(map(str, OLDEST))
    if number < OLDEST:
        return Finding(
            "version", False, f"{text} is older than {oldest}.", f"Upgrade it to Kubernetes {oldest} at least."
        )
    return Finding("version", True, f"{text} is new enough.")


def _rights(client: KubeClient, reach: str) -> Finding:
    lacking = missing_rights(client, reach=reach)
    if not lacking:
        return Finding("rights", True, "Berth may do there what it needs to.")
    some = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
    return Finding(
        "rights", False, f"Berth's account there may not {some}.", "Grant it by a ClusterRole and a ClusterRoleBinding."
    )


def missing_rights(client: KubeClient, *, reach: str) -> list[str]:
    """What the client's account may not do in every namespace, such as "patch statefulsets". Raises a DoorError."""
    wanted: list[tuple[str, str, str]] = []
    for kind, (prefix, plural) in door.KINDS.items():
        group = prefix.split("/")[2] if prefix.startswith("/apis/") else ""
        # Pods are made by workloads.
        verbs: Sequence[str] = ("delete", "list") if kind == "Pod" else VERBS
        wanted += [(verb, group, plural) for verb in verbs]
        if kind in WATCHED:
            wanted.append(("watch", group, plural))
    wanted += [("list", group, plural) for group, plural in READ]
    if reach == "port-forward":
        wanted.append(("create", "", "pods/portforward"))

    def lacks(right: tuple[str, str, str]) -> str:
        verb, group, resource = right
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }  # fmt: skip
        answer = client.request("POST", REVIEWS, review)
        return "" if answer["status"]["allowed"] else f"{verb} {resource}"

    return [text for text in client.threads.map(lacks, wanted) if text]
