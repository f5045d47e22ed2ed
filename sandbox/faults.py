"""Breaking things on purpose, for tests and demonstrations: each fault is one function, and most have a cure.

A pod is named NAMESPACE/NAME. Faults reach only what belongs to the given sandbox.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from sandbox import cgroups, packages, processes
from sandbox.cluster import Sandbox
from sandbox.errors import SandboxError
from sandbox.layout import HOST_LOCAL, Node

NFT_TABLE = "berth_faults"


def _get(sandbox: Sandbox, *arguments: str) -> dict[str, Any]:
    done = sandbox.kubectl(*arguments, "-o", "json")
    if done.returncode != 0:
        raise SandboxError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _pod(sandbox: Sandbox, pod: str) -> dict[str, Any]:
    namespace, _, name = pod.rpartition("/")
    return _get(sandbox, "-n", namespace or "default", "get", "pod", name)


def _node(sandbox: Sandbox, name: str) -> Node:
    for node in sandbox.nodes:
        if node.name == name:
            return node
    raise SandboxError(f"There is no node {name}. There are: {', '.join(node.name for node in sandbox.nodes)}")


def _container_pids(sandbox: Sandbox, pod: str, container: str | None) -> list[int]:
    """Process ids of one container (the pod's first by default), its main process first."""
    status = _pod(sandbox, pod).get("status", {}).get("containerStatuses", [])
    chosen = [one for one in status if container in (None, one["name"])]
    if not chosen or "running" not in chosen[0].get("state", {}):
        raise SandboxError(f"Pod {pod} has no running container{f' {container}' if container else ''}.")
    identity = chosen[0]["containerID"].rpartition("//")[2]
    top = cgroups.members_root(sandbox.layout.cgroup)
    pids = [int(line) for path in top.glob(f"**/{identity}/cgroup.procs") for line in path.read_text().split()]
    if not pids:
        raise SandboxError(f"The processes of {pod} were not found in {top}.")
    # The main process was born first.
    return sorted(pids, key=lambda pid: processes.start_time(pid) or 0)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_container(sandbox: Sandbox, pod: str, container: str | None = None) -> str:
    """SIGKILL a container's processes, as the kernel does when memory runs out. kubelet restarts it in its pod."""
    pids = _container_pids(sandbox, pod, container)
    _signal(pids, signal.SIGKILL)
    return f"killed {len(pids)} processes of {pod}"


def kill_containers(sandbox: Sandbox, pods: Sequence[str], container: str | None = None) -> str:
    """The same of many pods at one moment."""
    pids = [pid for pod in pods for pid in _container_pids(sandbox, pod, container)]
    _signal(pids, signal.SIGKILL)
    return f"killed {len(pids)} processes of {len(pods)} pods"


def freeze(sandbox: Sandbox, pod: str, container: str | None = None) -> str:
    """SIGSTOP a container's processes: alive, connected, and silent. `thaw` ends it."""
    _signal(_container_pids(sandbox, pod, container), signal.SIGSTOP)
    return f"{pod} is frozen"


def thaw(sandbox: Sandbox, pod: str, container: str | None = None) -> str:
    """SIGCONT what `freeze` stopped."""
    _signal(_container_pids(sandbox, pod, container), signal.SIGCONT)
    return f"{pod} runs again"


def node_down(sandbox: Sandbox, name: str) -> str:
    """End kubelet, containerd and every container of a node at once, as a power cut does."""
    node = _node(sandbox, name)
    found = sandbox.record.read()
    pieces = [found[piece] for piece in (f"kubelet-{name}", f"containerd-{name}") if piece in found]
    processes.kill_all([process.pid for process in pieces if process.is_alive()])
    # The shims are in the common cgroup; they end with their containers.
    processes.kill_all(cgroups.processes_below(f"{sandbox.layout.cgroup}/{node.name}"))
    processes.await_end(pieces, 10)
    return f"{name} is down; the API server notices within about 15 s"


def node_up(sandbox: Sandbox, name: str) -> str:
    """Start a node again after `node_down`."""
    node = _node(sandbox, name)
    sandbox.start_node(node)
    return f"{name} is starting"


def api_down(sandbox: Sandbox) -> str:
    """SIGKILL the API server with all of the control plane. What runs on the nodes runs on. `api_up` ends it."""
    found = sandbox.record.read()
    names = ("control-plane", "etcd", "kube-controller-manager", "kube-scheduler")
    pieces = [found[name] for name in names if name in found]
    processes.kill_all([process.pid for process in pieces if process.is_alive()])
    processes.await_end(pieces, 10)
    return "the control plane is down"


def api_up(sandbox: Sandbox) -> str:
    """Start the control plane again on its data."""
    sandbox.start_control_plane()
    return "the control plane is up"


def lose_volume(sandbox: Sandbox, claim: str) -> str:
    """Empty the folder behind a claim (NAMESPACE/NAME): the disk was replaced. Kill its container to make it notice."""
    namespace, _, name = claim.rpartition("/")
    volume = _get(sandbox, "-n", namespace or "default", "get", "pvc", name)["spec"].get("volumeName", "")
    folders = list(sandbox.layout.volumes.glob(f"*/{volume}")) if volume else []
    if not folders:
        raise SandboxError(f"Claim {claim} has no volume yet.")
    for entry in folders[0].iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return f"{claim} is empty"


def new_addresses(sandbox: Sandbox, namespace: str, selector: str) -> str:
    """Delete all pods a label selector matches at once, without grace: every one comes back under a new address."""
    done = sandbox.kubectl(
        "-n", namespace, "delete", "pods", "-l", selector, "--grace-period=0", "--force", "--wait=false"
    )
    if done.returncode != 0:
        raise SandboxError(done.stderr.strip())
    return f"{len(done.stdout.splitlines())} pods will come back under new addresses"


def _inside(sandbox: Sandbox, program: str, *arguments: str, input: str = "") -> str:
    argv = [packages.find(program) or program, *arguments]
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{sandbox.holder()}/ns/net", "--", *argv],
        capture_output=True,
        text=True,
        input=input,
    )
    if done.returncode != 0:
        raise SandboxError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout


def _host_side(sandbox: Sandbox, pod: str) -> str:
    """The interface at the node's end of a pod's cable."""
    pid = _container_pids(sandbox, pod, None)[0]
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "--", packages.find("ip") or "ip", "-json", "link", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    peer = json.loads(done.stdout)[0]["link_index"]
    links = json.loads(_inside(sandbox, "ip", "-json", "link", "show"))
    return str(next(link["ifname"] for link in links if link["ifindex"] == peer))


def cut_pod(sandbox: Sandbox, pod: str) -> str:
    """Pull a pod's network cable; its processes go on. `heal_pod` puts it back."""
    _inside(sandbox, "ip", "link", "set", _host_side(sandbox, pod), "down")
    return f"{pod} is cut off"


def heal_pod(sandbox: Sandbox, pod: str) -> str:
    """Put a pod's network cable back."""
    _inside(sandbox, "ip", "link", "set", _host_side(sandbox, pod), "up")
    return f"{pod} is connected"


def cut_node(sandbox: Sandbox, name: str) -> str:
    """Cut a node from all else: its pods reach only each other, and its kubelet is silent. `heal_node` ends it."""
    node = _node(sandbox, name)
    if sandbox.ipam != HOST_LOCAL:
        raise SandboxError(
            "cut-node works on a node's range of addresses, and with --ipam calico a node has none. Use node-down."
        )
    table, pods = f"{NFT_TABLE}_{name}", node.pod_range
    # The API server and the portal are local to the network all nodes share: what they say is input and output there.
    rules = f"""
table ip {table}
delete table ip {table}
table ip {table} {{
  chain forward {{
    type filter hook forward priority -10;
    ip saddr {pods} ip daddr != {pods} drop
    ip daddr {pods} ip saddr != {pods} drop
  }}
  chain input {{ type filter hook input priority -10; ip saddr {pods} drop; }}
  chain output {{ type filter hook output priority -10; ip daddr {pods} drop; }}
}}
"""
    _kubelet(sandbox, node, signal.SIGSTOP)
    _inside(sandbox, "nft", "-f", "-", input=rules)
    return f"{name} is cut off; the API server notices within about 15 s"


def heal_node(sandbox: Sandbox, name: str) -> str:
    """Connect a node again after `cut_node`."""
    node = _node(sandbox, name)
    table = f"{NFT_TABLE}_{name}"
    _inside(sandbox, "nft", "-f", "-", input=f"table ip {table}\ndelete table ip {table}\n")
    _kubelet(sandbox, node, signal.SIGCONT)
    return f"{name} is connected"


def _kubelet(sandbox: Sandbox, node: Node, number: signal.Signals) -> None:
    process = sandbox.record.read().get(f"kubelet-{node.name}")
    if process is not None and process.is_alive():
        os.kill(process.pid, number)


# name on the command line -> (function, names of its arguments)
FAULTS: dict[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "kill": (kill_container, ("pod",)),
    "freeze": (freeze, ("pod",)),
    "thaw": (thaw, ("pod",)),
    "node-down": (node_down, ("node",)),
    "node-up": (node_up, ("node",)),
    "api-down": (api_down, ()),
    "api-up": (api_up, ()),
    "lose-volume": (lose_volume, ("claim",)),
    "new-addresses": (new_addresses, ("namespace", "selector")),
    "cut-pod": (cut_pod, ("pod",)),
    "heal-pod": (heal_pod, ("pod",)),
    "cut-node": (cut_node, ("node",)),
    "heal-node": (heal_node, ("node",)),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m sandbox fault`."""
    kinds = parser.add_subparsers(dest="fault", required=True)
    for name, (function, arguments) in FAULTS.items():
        summary = (function.__doc__ or "").splitlines()[0]
        kind = kinds.add_parser(name, help=summary, description=summary)
        for argument in arguments:
            kind.add_argument(argument)


def run(sandbox: Sandbox, arguments: argparse.Namespace) -> str:
    """Cause the fault the command line names; returns what was done, in words."""
    function, names = FAULTS[arguments.fault]
    return function(sandbox, *(getattr(arguments, name) for name in names))
