"""What a target says to objects without taking them: server-side dry runs, and what would differ from what is there.

Both sides of a comparison come from the API server, the live object and what it would become; so defaults, units and
orders that the server fills in or rewrites are no differences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from provisioning.apply import certificates, door, errors
from provisioning.apply.client import KubeClient
from provisioning.engines.base import CertificateSpec, ClusterView, Manifest, SecretSpec

# What the API server keeps about an object, which nobody wishes.
KEPT_BY_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
# A Deployment's controller notes its revision there.
KEPT_BY_CONTROLLERS = ("deployment.kubernetes.io/revision",)

Action = Literal["create", "change", "none", "delete", "keep"]


@dataclass(frozen=True)
class Difference:
    """One value that would change: `pointer` (RFC 6901) into the object; None is absent."""

    pointer: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Rehearsed:
    """What would become of one object.

    `manifest` is what Berth sends, None for Secrets and for what would be deleted. `checked` says whether the target
    was asked; `refusal` is its no.
    """

    kind: str
    name: str
    action: Action
    manifest: Manifest | None = None
    changes: tuple[Difference, ...] = ()
    checked: bool = True
    refusal: errors.DoorError | None = None

    @property
    def restarts(self) -> bool:
        """Whether pods that run would be replaced: the template they are made from changes."""
        return self.kind in door.WORKLOADS and any(
            one.pointer.startswith("/spec/template/") for one in self.changes
        )  # fmt: skip


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    """What differs between two states of one object as the API server tells them, but for what it keeps itself."""
    return tuple(_differing(_wish(before), _wish(after), ""))


def _wish(found: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in found.get("metadata", {}).items() if key not in KEPT_BY_SERVER}
    annotations = {
        key: value for key, value in metadata.pop("annotations", {}).items() if key not in KEPT_BY_CONTROLLERS
    }
    return {
        **{key: value for key, value in found.items() if key != "status"},
        "metadata": {**metadata, "annotations": annotations},
    }


def _differing(before: Any, after: Any, at: str) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            step = key.replace("~", "~0").replace("/", "~1")
            yield from _differing(before.get(key), after.get(key), f"{at}/{step}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differing(old, new, f"{at}/{index}")
    else:
        yield Difference(at, before, after)


def shown(manifest: Manifest) -> Manifest:
    """A manifest for people: without its owner, whose uid is not known before it is made."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
    return {**manifest, "metadata": metadata}


def rehearse_apply(
    client: KubeClient, manifests: Sequence[Manifest], *, over_others: bool = False
) -> list[Rehearsed]:  # fmt: skip
    """Ask the target what it would make of each object, side by side. Their namespace must exist.

    A refusal of one object is told with that object. Raises Unreachable and its like.
    """

    def ask(manifest: Manifest) -> Rehearsed:
        metadata = manifest["metadata"]
        kind, name = manifest["kind"], metadata["name"]
        path = door.path_of(kind, metadata.get("namespace", ""), name)
        live = _found(client, path)
        action: Action = "create" if live is None else "change"
        try:
            would_be = client.apply(path, manifest, dry_run=True, over_others=over_others)
        except _NO as error:
            return Rehearsed(kind, name, action, shown(manifest), refusal=error)
        changes = differences(live, would_be) if live is not None else ()
        return Rehearsed(kind, name, action if live is None or changes else "none", shown(manifest), changes)

    return list(client.threads.map(ask, manifests))


# The target was asked and said no to this very object.
_NO = (errors.Denied, errors.FieldConflict, errors.Rejected, errors.Taken, errors.Absent)


def _found(client: KubeClient, path: str) -> dict[str, Any] | None:
    try:
        return client.get(path)
    except errors.Absent:
        return None


def rehearse_secrets(
    client: KubeClient, cluster: ClusterView, wanted: Sequence[SecretSpec], owner: Mapping[str, Any]
) -> list[Rehearsed]:
    """The same for the Secrets that are made once. Made-up passwords are sent and stored nowhere."""

    def ask(spec: SecretSpec) -> Rehearsed:
        try:
            made = door.create_secrets(client, cluster, [spec], dict(owner), dry_run=True)
        except _NO as error:
            return Rehearsed("Secret", spec.name, "create", refusal=error)
        return Rehearsed("Secret", spec.name, "create" if made else "none")

    return [ask(spec) for spec in wanted]


def rehearse_certificates(
    client: KubeClient, cluster: ClusterView, wanted: Sequence[CertificateSpec]
) -> list[Rehearsed]:
    """The same for the Secrets of certificates, by whether they are there; what they would hold is not made up."""
    found = []
    for spec in wanted:
        for name in (spec.authority, spec.name):
            try:
                there = certificates.is_there(client, cluster, name)
            except _NO as error:
                found.append(Rehearsed("Secret", name, "create", refusal=error))
            else:
                found.append(Rehearsed("Secret", name, "none" if there else "create"))
    return found


def rehearse_removal(client: KubeClient, cluster: ClusterView, *, volumes: bool) -> list[Rehearsed]:
    """What deleting the cluster would remove, and with `volumes` its data too; without, they are said to stay."""
    found = door.owned_names(client, cluster, door.OWNED)
    claims = [("PersistentVolumeClaim", one.name) for one in door.volumes(client, cluster)]
    gone = rehearse_deletes(client, cluster.namespace, [*found, *(claims if volumes else [])])
    return [*gone, *(Rehearsed(kind, name, "keep") for kind, name in ([] if volumes else claims))]


def rehearse_deletes(client: KubeClient, namespace: str, names: Sequence[tuple[str, str]]) -> list[Rehearsed]:
    """Ask the target whether it would delete these objects, by kind and name."""

    def ask(entry: tuple[str, str]) -> Rehearsed:
        kind, name = entry
        try:
            door.delete(client, kind, namespace, name, dry_run=True)
        except _NO as error:
            return Rehearsed(kind, name, "delete", refusal=error)
        return Rehearsed(kind, name, "delete")

    return list(client.threads.map(ask, names))
