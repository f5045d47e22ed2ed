"""Names, addresses and folders of a sandbox: pure, decided by its name alone.

Every sandbox has its own network namespace, so all of them use the same addresses inside. What they share on the host
(the cgroup root, the folder for sockets, the state folder) carries the name.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError

NAME_RULE = re.compile(r"[a-z][a-z0-9-]{0,19}")
API_ADDRESS = "10.250.0.100"
API_PORT = 6443
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
STORAGE_CLASSES = ("standard", "fast-ssd")
# Who gives pods their addresses: the standard plugin, a range per node; or our model of Calico, by Calico's objects.
HOST_LOCAL, CALICO = "host-local", "calico"
IPAMS = (HOST_LOCAL, CALICO)
CALICO_RELEASE = "3.32"
CALICO_POOL, CALICO_BLOCK_SIZE = "10.244.0.0/16", 26
# What a pod sends through its cable; pools must be inside.
POD_SUBNET = "10.0.0.0/8"
CALICO_PLUGIN = "berth-calico-ipam"
# Services of a control plane without nodes live in the loopback range, so that no route is needed.
LOOPBACK_SERVICE_RANGE = "127.96.0.0/16"


@dataclass(frozen=True)
class Node:
    """One node: `number` counts from 1."""

    number: int
    zone: str

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return f"10.250.0.{self.number}"

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def bridge(self) -> str:
        return f"cni-{self.name}"


def nodes(count: int) -> tuple[Node, ...]:
    """`count` nodes over two zones: the first half in zone-a."""
    return tuple(Node(number, "zone-a" if number <= (count + 1) // 2 else "zone-b") for number in range(1, count + 1))


def state_home() -> Path:
    """Where sandboxes keep what they write: BERTH_SANDBOX_HOME, or berth/sandbox in the user's state folder."""
    given = os.environ.get("BERTH_SANDBOX_HOME")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "berth" / "sandbox"


def cache_home() -> Path:
    """Where things are kept that are made once: programs, images."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"


@dataclass(frozen=True)
class Layout:
    """Folders of one sandbox. Raises SandboxError for a name that would not fit into file and cgroup names."""

    name: str

    def __post_init__(self) -> None:
        if not NAME_RULE.fullmatch(self.name):
            raise SandboxError(
                f"sandbox name {self.name!r}: use 1 to 20 lower-case letters, digits, hyphens; start with a letter"
            )

    @property
    def state(self) -> Path:
        """Everything on disk."""
        return state_home() / self.name

    def check_length(self) -> None:
        """Raise SandboxError when the state folder's path is too long for etcd's socket in it."""
        # The kernel's limit for the path of a unix socket, which ends in a zero byte.
        if len(os.fsencode(self.control_plane / "etcd.sock")) > 107:
            raise SandboxError(
                f"The folder {self.state} has too long a path for the sockets in it: set BERTH_SANDBOX_HOME to a "
                "shorter one."
            )

    @property
    def cni_programs(self) -> Path:
        """The standard network plugins and ours in one folder, since containerd looks in one only."""
        return self.state / "cni-programs"

    @property
    def run(self) -> Path:
        """Sockets; a short path, since a unix socket's may not exceed 107 bytes."""
        return Path("/run/berth") / self.name

    @property
    def settings(self) -> Path:
        """What the sandbox was first started with: how many nodes (0: a control plane alone), who gives addresses."""
        return self.state / "settings.json"

    @property
    def record(self) -> Path:
        return self.state / "processes.json"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def control_plane(self) -> Path:
        """etcd's data and sockets."""
        return self.state / "control-plane"

    @property
    def kubeconfig(self) -> Path:
        """For programs of this host."""
        return self.state / "kubeconfig"

    @property
    def inside_kubeconfig(self) -> Path:
        """For programs inside the sandbox's network."""
        return self.pki / "admin.kubeconfig"

    @property
    def resolv_conf(self) -> Path:
        return self.state / "resolv.conf"

    @property
    def cgroup(self) -> str:
        """The root of all its cgroups, relative to a cgroup mount."""
        return f"berth-{self.name}"

    def node(self, node: Node) -> Path:
        """A node's own folder on disk."""
        return self.state / node.name

    def socket(self, node: Node) -> Path:
        """A node's containerd socket."""
        return self.run / node.name / "containerd.sock"
