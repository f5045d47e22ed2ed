"""The model's state as Calico keeps it: IPPool, IPAMBlock, IPReservation and IPAMConfig objects of an API server.

Used by the plugin, one short process per pod on every node, all at once. What keeps them apart is what keeps Calico's
apart: a block is written with the version that was read, and whoever comes second reads and chooses anew.
"""

from __future__ import annotations

import ipaddress
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sandbox.api import Client
from sandbox.calico import crds
from sandbox.calico.ipam import DEFAULT_MAX_BLOCKS, Block, Ipam, Network, Pool
from sandbox.errors import SandboxError

GROUP, VERSION = crds.V1
BASE = f"/apis/{GROUP}/{VERSION}"
# As often as Calico's own client tries (datastoreRetries).
TRIES = 100
LONGEST_PAUSE_SECONDS = 0.1
Answer = TypeVar("Answer")


class Unavailable(SandboxError):
    """The API server did not answer, or every try met somebody else's write. Later it may work."""


class _Conflict(Exception):
    """Somebody else wrote the block first."""


@dataclass(frozen=True)
class _Read:
    ipam: Ipam
    before: Mapping[Network, dict[str, Any]]
    versions: Mapping[Network, str]


class Datastore:
    """Calico's objects, as the user of `client` may see them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self) -> Ipam:
        """The whole state. Raises Unavailable, SandboxError when Calico's kinds are not served."""
        return self._read().ipam

    def change(self, decide: Callable[[Ipam], Answer]) -> Answer:
        """Let `decide` change the state, and store the blocks it changed; what it returns.

        It is called again, on what is there by then, when another node was faster. Raises Unavailable, SandboxError,
        and what `decide` raises.
        """
        for _ in range(TRIES):
            found = self._read()
            answer = decide(found.ipam)
            try:
                self._write(found)
            except _Conflict:
                time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
                continue
            return answer
        raise Unavailable(f"{TRIES} tries to write a block met somebody else's write. Try again.")

    def _list(self, plural: str) -> list[dict[str, Any]]:
        status, body = self._client.get(f"{BASE}/{plural}")
        if status == 0:
            raise Unavailable("The API server does not answer. Try again.")
        if status == 404:
            raise SandboxError(f"{plural}.{GROUP} is not served. Install Calico's kinds (sandbox.calico.crds.install).")
        if status != 200:
            raise SandboxError(f"{plural}.{GROUP} cannot be listed ({status}): {crds.message_of(body)}")
        items: list[dict[str, Any]] = json.loads(body)["items"]
        return items

    def _read(self) -> _Read:
        # In Calico's order: reservations first, blocks last.
        reserved = [
            ipaddress.ip_network(one, strict=False)
            for item in self._list("ipreservations")
            for one in (item.get("spec") or {}).get("reservedCIDRs") or []
        ]
        pools = [
            Pool(ipaddress.ip_network(spec["cidr"]), spec.get("blockSize", 26), bool(spec.get("disabled")))
            for spec in (item["spec"] for item in self._list("ippools"))
        ]
        settings = {item["metadata"]["name"]: item.get("spec") or {} for item in self._list("ipamconfigs")}
        limits = settings.get("default", {})
        blocks: dict[Network, Block] = {}
        versions: dict[Network, str] = {}
        for item in self._list("ipamblocks"):
            block = Block.from_spec(item["spec"])
            blocks[block.cidr] = block
            versions[block.cidr] = item["metadata"]["resourceVersion"]
        before = {cidr: block.spec() for cidr, block in blocks.items()}
        strict, most = bool(limits.get("strictAffinity")), limits.get("maxBlocksPerHost") or DEFAULT_MAX_BLOCKS
        return _Read(Ipam(pools, blocks, reserved, strict, most), before, versions)

    def _write(self, found: _Read) -> None:
        """Store what changed. A choice changes one block; releasing may change several, each of them for good."""
        for cidr, block in found.ipam.blocks.items():
            if cidr not in found.before:
                self._send("POST", f"{BASE}/ipamblocks", self._body(block))
            elif block.spec() != found.before[cidr]:
                path = f"{BASE}/ipamblocks/{block.name}"
                self._send("PUT", path, self._body(block, version=found.versions[cidr]))
        for cidr in found.before.keys() - found.ipam.blocks.keys():
            name = Block.new(cidr, None).name
            self._send(
                "DELETE", f"{BASE}/ipamblocks/{name}", {"preconditions": {"resourceVersion": found.versions[cidr]}}
            )

    def _body(self, block: Block, *, version: str = "") -> dict[str, Any]:
        metadata = {"name": block.name, **({"resourceVersion": version} if version else {})}
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "IPAMBlock", "metadata": metadata, "spec": block.spec()}

    def _send(self, method: str, path: str, body: dict[str, Any]) -> None:
        status, answer = self._client.send(method, path, body)
        # 404: the block was given up meanwhile.
        if status in (404, 409):
            raise _Conflict
        if status == 0:
            raise Unavailable("The API server does not answer. Try again.")
        if status not in (200, 201):
            raise SandboxError(f"{method} {path} was refused ({status}): {crds.message_of(answer)}")


def set_up(client: Client, release: str, *, pool: str, block_size: int) -> None:
    """Serve a release's kinds and make the first pool, as an installation of Calico does; what is there stays.

    Raises SandboxError as `crds.install`, or when the pool is refused.
    """
    crds.install(client, release)
    name = "default-ipv4-ippool"
    body = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "IPPool", "metadata": {"name": name},
        "spec": {"cidr": pool, "blockSize": block_size},
    }  # fmt: skip
    status, answer = client.send("POST", f"{BASE}/ippools", body)
    if status not in (201, 409):
        raise SandboxError(f"The pool {name} was refused ({status}): {crds.message_of(answer)}")
