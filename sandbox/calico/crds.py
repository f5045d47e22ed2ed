"""Calico's IPAM kinds as CustomResourceDefinitions, per release, written from the documented fields and rules.

What differs between releases is what a writer of IPReservation must survive:

| release | served as | reservedCIDRs |
|---|---|---|
| 3.31 and before | `crd.projectcalico.org/v1` | a plain list: bare addresses and duplicates are stored |
| 3.32 | that, or native `projectcalico.org/v3` | a set: duplicates are refused |
| 3.33 branch | that, or native | a set whose items must be in CIDR notation: bare addresses are refused |
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from sandbox.api import Client
from sandbox.errors import SandboxError

V1 = ("crd.projectcalico.org", "v1")
NATIVE = ("projectcalico.org", "v3")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MAX_COOLDOWN_SECONDS = 1200

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_BOOLEAN = {"type": "boolean"}
_RESERVED: dict[str, dict[str, Any]] = {
    "3.31": {"type": "array", "items": _STRING},
    # Calico put the format on the list, where it has no effect; 3.33 moved it to the items.
    "3.32": {"type": "array", "items": _STRING, "format": "cidr", "x-kubernetes-list-type": "set"},
    "3.33": {"type": "array", "items": {**_STRING, "format": "cidr"}, "x-kubernetes-list-type": "set"},
}
RELEASES = tuple(_RESERVED)


@dataclass(frozen=True)
class Kind:
    """A cluster-scoped kind and the schema of its spec."""

    plural: str
    kind: str
    spec: dict[str, Any]


def _spec(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def kinds(release: str, *, native: bool = False) -> list[Kind]:
    """The kinds of a release. Raises SandboxError for a release that is not known or never had native kinds."""
    if release not in RELEASES:
        raise SandboxError(f"Calico release {release!r} is not known. Known: {', '.join(RELEASES)}.")
    if native and release == "3.31":
        raise SandboxError("Calico 3.31 has no native v3 kinds. Choose 3.32 or later, or leave native out.")
    config: dict[str, Any] = {
        "strictAffinity": _BOOLEAN,
        "autoAllocateBlocks": _BOOLEAN,
        "maxBlocksPerHost": {**_INTEGER, "minimum": 0},
    }
    if release == "3.33":
        config["ipCooldownSeconds"] = {**_INTEGER, "minimum": 0, "maximum": MAX_COOLDOWN_SECONDS}
    block = {
        "cidr": _STRING,
        "affinity": _STRING,
        "allocations": {"type": "array", "items": {**_INTEGER, "nullable": True}},
        "unallocated": {"type": "array", "items": _INTEGER},
        "attributes": {
            "type": "array",
            "items": _spec(
                {"handle_id": _STRING, "secondary": {"type": "object", "additionalProperties": _STRING}},
            ),
        },
        "deleted": _BOOLEAN,
        "strictAffinity": _BOOLEAN,
        "sequenceNumber": {**_INTEGER, "format": "int64"},
    }
    affinity = {"state": _STRING, "node": _STRING, "type": _STRING, "cidr": _STRING, "deleted": _STRING}
    pool = {
        "cidr": _STRING,
        "blockSize": _INTEGER,
        "disabled": _BOOLEAN,
        "nodeSelector": _STRING,
        "ipipMode": _STRING,
        "vxlanMode": _STRING,
        "natOutgoing": _BOOLEAN,
        "allowedUses": {"type": "array", "items": _STRING},
    }
    return [
        Kind("ipreservations", "IPReservation", _spec({"reservedCIDRs": _RESERVED[release]})),
        Kind("ippools", "IPPool", _spec(pool, "cidr")),
        Kind("ipamblocks", "IPAMBlock", _spec(block, "cidr", "allocations", "unallocated", "attributes")),
        Kind("blockaffinities", "BlockAffinity", _spec(affinity, "cidr", "deleted", "node", "state")),
        Kind("ipamconfigurations", "IPAMConfiguration", _spec(config))
        if native
        else Kind("ipamconfigs", "IPAMConfig", _spec(config)),
    ]


def definitions(release: str, *, native: bool = False) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of a release. Raises SandboxError as `kinds`."""
    group, version = NATIVE if native else V1
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{one.plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Cluster",
                "names": {
                    "plural": one.plural,
                    "singular": one.kind.lower(),
                    "kind": one.kind,
                    "listKind": f"{one.kind}List",
                },
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": one.spec}}},
                    }
                ],
            },
        }
        for one in kinds(release, native=native)
    ]


def install(client: Client, release: str, *, native: bool = False, patience_seconds: float = 30.0) -> None:
    """Serve a release's kinds; returns when all are served.

    Over another release's kinds the new schemas take effect a moment later, and the API server does not tell when.

    Raises SandboxError with the server's answer when it refuses one, or when it does not serve them in time.
    """
    group, version = NATIVE if native else V1
    wanted = definitions(release, native=native)
    for one in wanted:
        # Server-side apply: creates or replaces, so a change of release is the same call.
        path = f"{DEFINITIONS}/{one['metadata']['name']}?fieldManager=sandbox-calico&force=true"
        status, body = client.send("PATCH", path, one, kind="application/apply-patch+yaml")
        if status not in (200, 201):
            raise SandboxError(f"{one['metadata']['name']} was refused ({status}): {message_of(body)}")
    deadline = time.monotonic() + patience_seconds
    for one in wanted:
        while not client.exists(f"/apis/{group}/{version}/{one['spec']['names']['plural']}"):
            if time.monotonic() > deadline:
                raise SandboxError(f"{one['metadata']['name']} is not served after {patience_seconds:.0f} s.")
            time.sleep(0.05)


def message_of(body: bytes) -> str:
    """The API server's words in an answer, or the start of what it is."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
