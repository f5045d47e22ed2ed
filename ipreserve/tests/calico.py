"""Calico's kinds as the API server of each release serves them, cut down to what is asked here.

From research of Calico's own schemas: until 3.31 the list is plain; from 3.32 it is a set, so duplicates are refused;
on the 3.33 branch each entry must also be in CIDR notation, so a bare address is refused.
"""

from __future__ import annotations

from typing import Any

from ipreserve import errors
from ipreserve.kube import Kube
from ipreserve.tests.waiting import eventually

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ITEMS: dict[str, dict[str, Any]] = {
    "3.31": {"type": "array", "items": {"type": "string"}},
    "3.32": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
    "3.33": {"type": "array", "items": {"type": "string", "format": "cidr"}, "x-kubernetes-list-type": "set"},
}


def definition(group: str, version: str, plural: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A CustomResourceDefinition of one cluster-scoped kind."""
    schema = {"type": "object", "properties": {"spec": spec}}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": {"api-approved.kubernetes.io": "unapproved, tests"}},
        "spec": {"group": group, "scope": "Cluster", "names": names, "versions": [served]},
    }


def install(kube: Kube, *, release: str = "3.32", native: bool = False, ipam: bool = True) -> None:
    """Serve Calico's kinds of a release, v1 CRDs or native v3 CRDs; returns when they are served."""
    group, version = ("projectcalico.org", "v3") if native else ("crd.projectcalico.org", "v1")
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    reservation = {"type": "object", "properties": {"reservedCIDRs": ITEMS[release]}}
    kinds: list[tuple[str, str, dict[str, Any]]] = [("ipreservations", "IPReservation", reservation)]
    if ipam:
        more = {"ipamblocks": "IPAMBlock", "ippools": "IPPool", "ipamconfigs": "IPAMConfig"}
        kinds += [(plural, kind, anything) for plural, kind in more.items()]
    for plural, kind, spec in kinds:
        wanted = definition(group, version, plural, kind, spec)
        try:
            kube.request("POST", CRDS, wanted)
        except errors.Conflict:
            raw = kube.get(f"{CRDS}/{wanted['metadata']['name']}")
            kube.request(
                "PUT", f"{CRDS}/{wanted['metadata']['name']}", {**raw, "spec": {**raw["spec"], **wanted["spec"]}}
            )
    for plural, _, _ in kinds:
        eventually(lambda plural=plural: _served(kube, f"/apis/{group}/{version}/{plural}"), f"{plural} served")  # type: ignore[misc]


def remove(kube: Kube, *, native: bool) -> None:
    """Stop serving all of them."""
    group, version = ("projectcalico.org", "v3") if native else ("crd.projectcalico.org", "v1")
    for plural in ("ipreservations", "ipamblocks", "ippools", "ipamconfigs"):
        try:
            kube.request("DELETE", f"{CRDS}/{plural}.{group}")
        except errors.NotFound:
            continue
    eventually(lambda: not _served(kube, f"/apis/{group}/{version}/ipreservations"), "no longer served")


def _served(kube: Kube, path: str) -> bool:
    try:
        kube.get(path)
    except errors.ApiError:
        return False
    return True


def block(cidr: str, host: str, *, used: dict[int, str], queue: list[int], size: int) -> dict[str, Any]:
    """An IPAMBlock as Calico writes it: `used` maps ordinals to handles, `queue` is the order of the free ones."""
    handles = sorted(set(used.values()))
    return {
        "kind": "IPAMBlock",
        "metadata": {"name": cidr.replace(".", "-").replace("/", "-")},
        "spec": {
            "cidr": cidr,
            "affinity": f"host:{host}",
            "allocations": [handles.index(used[n]) if n in used else None for n in range(size)],
            "unallocated": queue,
            "attributes": [{"handle_id": handle} for handle in handles],
            "deleted": False,
            "strictAffinity": False,
        },
    }
