"""A CNI plugin that gives pods addresses as Calico would: by Calico's objects on the API server, and by our model.

This is not Calico, and nothing of Calico is in it. It does what services on top of IPReservation depend on in
`calico-ipam`: blocks per node, their queues, reservations, and addresses asked for by name (the annotation
`cni.projectcalico.org/ipAddrs`). Routes and interfaces are made by the standard plugin `ptp`, which calls this one.

Missing, besides what `sandbox.calico.ipam` leaves out: BlockAffinity and IPAMHandle objects, IPv6, and everything that
Calico's kube-controllers do later: nobody gives up empty blocks, or frees the addresses of a node that is gone.

containerd starts it by the CNI specification (1.0.0): command and container in the environment, configuration on
standard input, the answer or the error as JSON on standard output.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.api import Client
from sandbox.calico.datastore import Datastore, Unavailable
from sandbox.calico.ipam import Address, Ipam, NoAddress
from sandbox.errors import SandboxError

CNI_VERSION = "1.0.0"
SUPPORTED = ("0.3.1", "0.4.0", "1.0.0")
ASKS = "cni.projectcalico.org/ipAddrs"
# Codes of the CNI specification; from 100 on they are the plugin's own.
BAD_ENVIRONMENT, BAD_CONFIGURATION, TRY_AGAIN, NO_ADDRESS, FAILED = 4, 7, 11, 100, 101


class CniError(Exception):
    """What the runtime is told: a code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(environment: Mapping[str, str], text: str) -> dict[str, Any] | None:
    """Do one command; the answer, None where there is none. Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return {"cniVersion": CNI_VERSION, "supportedVersions": list(SUPPORTED)}
    if command not in ("ADD", "CHECK", "DEL"):
        raise CniError(BAD_ENVIRONMENT, f"CNI_COMMAND is {command!r}, not ADD, CHECK, DEL or VERSION")
    container = environment.get("CNI_CONTAINERID", "")
    if not container:
        raise CniError(BAD_ENVIRONMENT, "CNI_CONTAINERID is not set")
    try:
        configuration = json.loads(text)
        name, own = configuration["name"], configuration["ipam"]
        node, gateway, lock = own["node"], own["gateway"], Path(own["lock"])
        subnet = ipaddress.IPv4Network(own["subnet"])
        client = Client(Path(own["kubeconfig"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CniError(BAD_CONFIGURATION, f"the network's configuration: {type(error).__name__}: {error}") from error
    store, handle = Datastore(client), f"{name}.{container}"
    try:
        if command == "CHECK":
            if not any(one.get("handle_id") == handle for b in store.read().blocks.values() for one in b.attributes):
                raise CniError(NO_ADDRESS, f"{handle} has no address")
            return None
        # As Calico's plugin: one at a time on a node.
        with _alone(lock):
            if command == "DEL":
                store.change(lambda ipam: ipam.release(handle))
                return None
            pod = _pod(environment)
            asked = _asked(client, pod) if pod else None
            about = {"node": node, "timestamp": str(datetime.now(UTC)), **pod}
            given = store.change(lambda ipam: _give(ipam, node, handle, about, asked, subnet))
    except Unavailable as error:
        raise CniError(TRY_AGAIN, str(error)) from error
    except NoAddress as error:
        raise CniError(NO_ADDRESS, str(error)) from error
    except SandboxError as error:
        raise CniError(FAILED, str(error)) from error
    return {
        "cniVersion": configuration.get("cniVersion", CNI_VERSION),
        "ips": [{"address": f"{given}/{subnet.prefixlen}", "gateway": gateway}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def _give(
    ipam: Ipam, node: str, handle: str, about: dict[str, str], asked: Address | None, subnet: ipaddress.IPv4Network
) -> Address:
    ipam.pools = [pool for pool in ipam.pools if pool.cidr.version == 4]
    for pool in ipam.pools:
        if not pool.disabled and not ipaddress.IPv4Network(pool.cidr).subnet_of(subnet):
            raise CniError(BAD_CONFIGURATION, f"the pool {pool.cidr} is not inside {subnet}, which is routed here")
    if asked is None:
        return ipam.auto_assign(node, handle, about)
    ipam.assign(node, asked, handle, about)
    return asked


def _pod(environment: Mapping[str, str]) -> dict[str, str]:
    """Which pod it is, as Calico writes it into a block; empty when it is none."""
    words = dict(one.partition("=")[::2] for one in environment.get("CNI_ARGS", "").split(";"))
    if not words.get("K8S_POD_NAME"):
        return {}
    return {"namespace": words.get("K8S_POD_NAMESPACE", ""), "pod": words["K8S_POD_NAME"]}


def _asked(client: Client, pod: Mapping[str, str]) -> Address | None:
    """The address that a pod asks for by name. Raises CniError, Unavailable."""
    status, body = client.get(f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['pod']}")
    if status == 0:
        raise Unavailable("The API server does not answer. Try again.")
    if status != 200:
        raise CniError(FAILED, f"the pod {pod['namespace']}/{pod['pod']} cannot be read ({status})")
    text = (json.loads(body)["metadata"].get("annotations") or {}).get(ASKS)
    if text is None:
        return None
    try:
        (one,) = json.loads(text)
        return ipaddress.IPv4Address(one)
    except (TypeError, ValueError) as error:
        raise CniError(BAD_CONFIGURATION, f"{ASKS} is {text!r}, not a list of one IPv4 address") from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Entry point; the exit status."""
    try:
        answer = run(os.environ, sys.stdin.read())
    except CniError as error:
        json.dump({"cniVersion": CNI_VERSION, "code": error.code, "msg": str(error)}, sys.stdout)
        return 1
    if answer is not None:
        json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
