"""Calico's kinds on the test's API server, as each release serves them; the schemas are sandbox/calico's."""

from __future__ import annotations

from typing import Any

from ipreserve import errors
from ipreserve.kube import Kube
from ipreserve.tests.waiting import eventually
from sandbox.calico import crds

CRDS = crds.DEFINITIONS


def install(kube: Kube, *, release: str = "3.32", native: bool = False, ipam: bool = True) -> None:
    """Serve Calico's kinds of a release, v1 CRDs or native v3 CRDs; returns when they are served.

    Without `ipam` only IPReservations. Raises SandboxError for a release that never had native kinds.
    """
    group, version = crds.NATIVE if native else crds.V1
    wanted = [
        one
        for one in crds.definitions(release, native=native)
        if ipam or one["spec"]["names"]["kind"] == "IPReservation"
    ]
    for one in wanted:
        path = f"{CRDS}/{one['metadata']['name']}"
        try:
            kube.request("POST", CRDS, one)
        except errors.Conflict:
            raw = kube.get(path)
            kube.request("PUT", path, {**raw, "spec": {**raw["spec"], **one["spec"]}})
    for one in wanted:
        plural = one["spec"]["names"]["plural"]
        eventually(lambda plural=plural: _served(kube, f"/apis/{group}/{version}/{plural}"), f"{plural} served")  # type: ignore[misc]


def remove(kube: Kube, *, native: bool) -> None:
    """Stop serving all of them."""
    group, version = crds.NATIVE if native else crds.V1
    for one in crds.definitions("3.33", native=native):
        try:
            kube.request("DELETE", f"{CRDS}/{one['metadata']['name']}")
        except errors.NotFound:
            continue
    # The API server looks every 5 s whether the last object is gone, and tries again when somebody writes meanwhile.
    eventually(lambda: not _served(kube, f"/apis/{group}/{version}/ipreservations"), "no longer served", seconds=90)


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
