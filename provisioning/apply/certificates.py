"""Keeps the Secrets of a cluster's certificates as credentials/certificates.py says they are to be."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from provisioning.credentials.certificates import Data, advance
from provisioning.engines.base import LABEL_CLUSTER_ID, CertificateSpec, ClusterView, Manifest

# Two workers that write at once: the later one looks again.
TRIES = 5


def keep(
    client: KubeClient, cluster: ClusterView, wanted: Sequence[CertificateSpec], owner: Manifest,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[str]:  # fmt: skip
    """Make what is missing, renew what is old; returns the names of the server Secrets that were written.

    Raises FieldConflict for a Secret that is not the cluster's, or another DoorError.
    """
    return [spec.name for spec in wanted if _keep_one(client, cluster, spec, owner, clock)]


def _keep_one(
    client: KubeClient, cluster: ClusterView, spec: CertificateSpec, owner: Manifest, clock: Callable[[], datetime]
) -> bool:
    for _ in range(TRIES):
        authority, server = (_found(client, cluster, name) for name in (spec.authority, spec.name))
        before = _data(authority), _data(server)
        after = advance(*before, spec.names, cluster.name, clock())
        try:
            # The authority first: what it signs is of no use when its key was not kept.
            if after[0] != before[0]:
                _write(client, cluster, spec.authority, authority, after[0], owner)
            if after[1] != before[1]:
                _write(client, cluster, spec.name, server, after[1], owner)
        except (errors.Taken, errors.Absent):
            continue
        return after[1] != before[1]
    raise errors.Throttled(f"The Secret {spec.name} is written by somebody else all the time.")


def is_there(client: KubeClient, cluster: ClusterView, name: str) -> bool:
    """Whether there is such a Secret. Raises FieldConflict when it is somebody else's."""
    return _found(client, cluster, name) is not None


def _found(client: KubeClient, cluster: ClusterView, name: str) -> dict[str, Any] | None:
    try:
        found = client.get(door.path_of("Secret", cluster.namespace, name))
    except errors.Absent:
        return None
    if found["metadata"].get("labels", {}).get(LABEL_CLUSTER_ID) != cluster.id:
        raise door.not_ours(cluster, name)
    return found


def _data(found: Mapping[str, Any] | None) -> Data:
    """What a Secret holds; what is no text reads as none, and is made anew like all that cannot be used."""
    data: dict[str, str] = {}
    for key, value in ((found or {}).get("data") or {}).items():
        try:
            data[key] = base64.b64decode(value).decode()
        except (UnicodeDecodeError, binascii.Error):
            data[key] = ""
    return data


def _write(
    client: KubeClient, cluster: ClusterView, name: str, before: Mapping[str, Any] | None, data: Data, owner: Manifest
) -> None:
    metadata: dict[str, Any] = {"name": name}
    manifest: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
    manifest["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    dressed = door.dressed(cluster, [manifest], owner, "")[0]
    if before is None:
        client.request("POST", door.path_of("Secret", cluster.namespace), dressed)
        return
    # Only what we have read is replaced: a conflict says that it has changed since.
    dressed["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
    client.request("PUT", door.path_of("Secret", cluster.namespace, name), dressed)
