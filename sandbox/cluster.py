"""`Sandbox`: the embedded target as a whole; up, down, and doors into it.

One sleeping process, the holder, owns the sandbox's mount and network namespaces; every other piece joins them. When
the last process has gone, so have the namespaces with all their mounts, interfaces and rules.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypedDict

from sandbox import cgroups, components, images, layout, packages, processes, programs
from sandbox.api import Client
from sandbox.calico import datastore
from sandbox.components import Api
from sandbox.errors import SandboxError, Unsupported
from sandbox.layout import Layout, Node
from sandbox.processes import Record, Recorded

Progress = Callable[[str], None]
DEFAULT_NODES = 3
MOST_NODES = 50
# What runs besides control-plane, the API server then, where Kubernetes' separate programs are used.
SEPARATE = ("etcd", "kube-controller-manager", "kube-scheduler")
ROOT = Path(__file__).resolve().parent.parent
API_DEADLINE_SECONDS = 60.0
NODES_DEADLINE_SECONDS = 120.0
KUBELET_DEADLINE_SECONDS = 30.0
KUBELET_TRIES = 10
INSTEAD = "To use a Kubernetes cluster you have instead, set KUBECONFIG=/path/to/its/kubeconfig."

HOLDER = """set -e
mkdir -p "$STATE/run-hold" "$STATE/var-lib" "$STATE/var-lib-work"
# Sockets stay where this host sees them; everything else in /run, /var/log and /var/lib is private.
mount --bind "$RUN" "$STATE/run-hold"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p "$RUN" /run/netns
mount --move "$STATE/run-hold" "$RUN"
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t overlay -o "lowerdir=/var/lib,upperdir=$STATE/var-lib,workdir=$STATE/var-lib-work" overlay /var/lib
mount --make-rshared /
ip link set lo up
for address in $ADDRESSES; do ip address add "$address/32" dev lo; done
ip route add "$SERVICES" dev lo
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
touch "$STATE/holder-ready"
exec sleep infinity
"""

# The cluster's names work for a program of this host: its resolver's file is replaced, for that program alone.
WITH_DNS = 'if [ -e /etc/resolv.conf ]; then mount --bind "$0" "$(readlink -f /etc/resolv.conf)"; fi; exec "$@"'


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def lacking() -> list[str]:
    """What this machine lacks to run the embedded target, in words; empty when it can."""
    if sys.platform != "linux":
        return [f"the operating system is {sys.platform}, and kubelet needs Linux"]
    if os.geteuid() != 0:
        return ["it needs root (try: sudo make demo)"]
    unshare = packages.find("unshare")
    if unshare is None:
        return ["the program unshare (package util-linux) is not installed"]
    done = subprocess.run([unshare, "--mount", "--net", "true"], capture_output=True, text=True)
    if done.returncode != 0:
        return [f"namespaces are forbidden here ({done.stderr.strip()})"]
    reasons = [cgroups.lacking(), _overlay_lacking(unshare)]
    return [reason for reason in reasons if reason is not None]


def _overlay_lacking(unshare: str) -> str | None:
    """Why layered file systems do not work in the state folder; None when they do."""
    home = layout.state_home()
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=home) as name:
        script = 'cd "$0"; mkdir a b c d; mount -t overlay -o lowerdir=a,upperdir=b,workdir=c overlay d'
        argv = [unshare, "--mount", "--propagation", "private", "/bin/sh", "-c", script, name]
        done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    return f"overlay mounts do not work in {home}; set BERTH_SANDBOX_HOME to a folder on ext4, xfs or btrfs"


def check_supported() -> None:
    """Raise Unsupported, with all reasons and the way around, when the embedded target cannot run here."""
    reasons = lacking()
    if reasons:
        raise Unsupported(f"The embedded Kubernetes target cannot run here: {'; '.join(reasons)}. {INSTEAD}")


def _listening_socket(port: int | None = None) -> socket.socket:
    """A socket on 127.0.0.1, on any free port when `port` is None. Raises SandboxError when the port is taken."""
    # Below the ports the kernel gives to outgoing connections: nobody takes it between here and its use.
    tries = [port] if port is not None else random.sample(range(20000, 32000), 50)
    for number in tries:
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(("127.0.0.1", number))
        except OSError as error:
            found.close()
            if number == tries[-1]:
                raise SandboxError(
                    f"Port {number} of 127.0.0.1 cannot be used ({error.strerror}). Choose another."
                ) from error
        else:
            return found
    raise AssertionError("unreachable: the last try returns or raises")


def _said(process: Recorded, log: Path, start: int, words: bytes, seconds: float) -> bool:
    """Wait until `words` are in the log behind byte `start`; False when the process ends or the time is up first."""
    deadline = time.monotonic() + seconds
    while words not in log.read_bytes()[start:]:
        if not process.is_alive() or time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def _dns_ready(client: Client) -> bool:
    deployment = client.read("/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    return bool(deployment.get("status", {}).get("readyReplicas"))


class _Settings(TypedDict):
    """What `settings.json` holds: what a sandbox was first started with."""

    nodes: int
    ipam: str


def _in_words(settings: _Settings) -> str:
    if not settings["nodes"]:
        return "a control plane only"
    return f"{settings['nodes']} nodes and addresses from {settings['ipam']}"


class Sandbox:
    """One embedded target. `control_plane_only` starts API server, controllers and scheduler on the host's loopback.

    The object holds no state of its own: any process may make one by name and use or end what another started.
    Without `nodes` and `control_plane_only` it has what it had when it was first started, three nodes if it is new; and
    so for `ipam`, who gives pods their addresses: `host-local`, or `calico`, our model of Calico's (sandbox/calico).
    """

    def __init__(
        self, name: str = "berth", *, nodes: int | None = None, control_plane_only: bool = False,
        ipam: str | None = None,
    ) -> None:  # fmt: skip
        self.layout = Layout(name)
        self.record = Record(self.layout.record)
        kept = self._read_settings()
        if ipam is not None and ipam not in layout.IPAMS:
            raise SandboxError(f"ipam: {ipam!r} is not one of {', '.join(layout.IPAMS)}")
        if ipam == layout.CALICO and control_plane_only:
            raise SandboxError("ipam: a control plane without nodes gives no addresses; leave out one of the two")
        self.ipam = ipam or (layout.HOST_LOCAL if kept is None else kept["ipam"])
        wanted = 0 if control_plane_only else nodes
        if wanted is None:
            wanted = DEFAULT_NODES if kept is None else kept["nodes"]
        if not 0 <= wanted <= MOST_NODES or (nodes == 0 and not control_plane_only):
            raise SandboxError(f"nodes: {nodes} is not between 1 and {MOST_NODES}")
        self.nodes = layout.nodes(wanted)
        self.control_plane_only = wanted == 0

    def _read_settings(self) -> _Settings | None:
        try:
            found = json.loads(self.layout.settings.read_text())
            return {"nodes": found["nodes"], "ipam": found.get("ipam", layout.HOST_LOCAL)}
        except (FileNotFoundError, ValueError):
            return None

    def _keep_settings(self) -> None:
        """Write down what this sandbox consists of. Raises SandboxError when what is on disk is something else."""
        kept, wanted = self._read_settings(), _Settings(nodes=len(self.nodes), ipam=self.ipam)
        if kept is not None and kept != wanted:
            has, wants = (_in_words(one) for one in (kept, wanted))
            raise SandboxError(
                f"Sandbox {self.name} was made with {has}, not with {wants}. Use another --name, or remove it first: "
                f"python -m sandbox down --wipe --name {self.name}"
            )
        self.layout.settings.write_text(json.dumps(wanted))

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def kubeconfig_path(self) -> Path:
        """Administrator's kubeconfig for programs of this host."""
        return self.layout.kubeconfig

    @property
    def inside_kubeconfig_path(self) -> Path:
        """Administrator's kubeconfig for programs inside the sandbox's network."""
        return self.layout.kubeconfig if self.control_plane_only else self.layout.inside_kubeconfig

    # --- up -----------------------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether every piece that should run does."""
        found = self.record.read()
        return all(name in found and found[name].is_alive() for name in self._expected())

    def _expected(self) -> list[str]:
        found = self.record.read()
        # Upstream's separate programs, where they are what was found.
        pieces = ["control-plane", *(name for name in SEPARATE if name in found)]
        if self.control_plane_only:
            return pieces
        pieces = ["holder", *pieces, "kube-proxy", "volumes", "forward-api"]
        return pieces + [f"{piece}-{node.name}" for node in self.nodes for piece in ("containerd", "kubelet")]

    def up(self, progress: Progress = quiet) -> None:
        """Start what is needed; returns when the nodes are Ready and DNS answers. A running sandbox is left alone.

        Raises Unsupported where it cannot run, SandboxError when a piece does not start, with the place of its log.
        """
        started = time.monotonic()

        def say(line: str) -> None:
            progress(f"Kubernetes: {line} ({time.monotonic() - started:.1f} s)")

        self.layout.check_length()
        if not self.control_plane_only:
            check_supported()
        try:
            packages.ensure(() if self.control_plane_only else packages.SANDBOX, install=True)
        except packages.PackagesError as error:
            raise SandboxError(str(error)) from error
        with self._alone():
            self.layout.logs.mkdir(parents=True, exist_ok=True)
            self.layout.state.chmod(0o700)
            self._keep_settings()
            if self.is_running():
                say(f"sandbox {self.name} is already running")
                return
            self._stop(gently=False)
            kubernetes = programs.kubernetes(progress)
            try:
                if self.control_plane_only:
                    self._up_alone(kubernetes)
                else:
                    self._up_with_nodes(kubernetes, progress, say)
            except BaseException:
                self._stop(gently=False)
                raise
        say("control plane is ready" if self.control_plane_only else f"{len(self.nodes)} nodes and DNS are ready")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        folder = layout.state_home()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f".{self.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _up_alone(self, kubernetes: programs.Programs) -> None:
        with _listening_socket() as probe:
            api = components.without_nodes(probe.getsockname()[1])
        shutil.rmtree(self.layout.pki, ignore_errors=True)  # the port is new, and the kubeconfigs name it
        self._certificates(kubernetes, api)
        shutil.copy2(self.layout.inside_kubeconfig, self.layout.kubeconfig)
        self._start_control_plane(kubernetes, api)
        self._await_api()

    def _up_with_nodes(self, kubernetes: programs.Programs, progress: Progress, say: Progress) -> None:
        api = components.WITH_NODES
        with ThreadPoolExecutor(max_workers=len(self.nodes) + 3) as pool:
            # Making images and CoreDNS may take minutes the first time; the control plane does not wait for them.
            dns = programs.coredns(progress)
            made = pool.submit(images.ensure, None, progress=progress, program=lambda _: dns)
            self._certificates(kubernetes, api)
            self._hold()
            self._start_control_plane(kubernetes, api)
            self._start_forward_api(api)
            for node in self.nodes:
                self._start_containerd(node)
            loaded = pool.submit(self._load, made.result)
            self._await_api()
            say("control plane is ready")
            if self.ipam == layout.CALICO:
                datastore.set_up(
                    Client(self.layout.kubeconfig), layout.CALICO_RELEASE,
                    pool=layout.CALICO_POOL, block_size=layout.CALICO_BLOCK_SIZE,
                )  # fmt: skip
            applied = pool.submit(self._apply_base)
            self._start_inside("kube-proxy", [*kubernetes.argv("kube-proxy"), f"--config={self._proxy_file()}"])
            self._start_volumes(kubernetes)
            for started in [pool.submit(self._start_kubelet, kubernetes, node) for node in self.nodes]:
                started.result()
            loaded.result()
            applied.result()
            client = Client(self.layout.kubeconfig)
            self._await("nodes are not Ready", NODES_DEADLINE_SECONDS, lambda: self._nodes_ready(client))
            self._await("DNS does not answer", NODES_DEADLINE_SECONDS, lambda: _dns_ready(client))

    def _certificates(self, kubernetes: programs.Programs, api: Api) -> None:
        if (self.layout.pki / "complete").exists():
            return
        arguments = components.certificate_arguments(self.layout, api, self.nodes)
        self._run([str(kubernetes.tool), "certs", *arguments], "making certificates")
        (self.layout.pki / "complete").touch()

    def _run(self, argv: Sequence[str], what: str, **options: Any) -> str:
        done: subprocess.CompletedProcess[str] = subprocess.run(argv, capture_output=True, text=True, **options)
        if done.returncode != 0:
            raise SandboxError(f"{what} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def _hold(self) -> None:
        if str(self.layout.state).startswith("/var/lib/"):
            raise SandboxError("Sandboxes cannot keep their state below /var/lib; set BERTH_SANDBOX_HOME elsewhere.")
        cgroups.make(self.layout.cgroup, ["system", *(node.name for node in self.nodes)])
        self.layout.run.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("empty-resolv.conf", ""),
            ("resolv.conf", self._resolv_conf()),
        ):
            (self.layout.state / name).write_text(content)
        ready = self.layout.state / "holder-ready"
        ready.unlink(missing_ok=True)
        environment = {
            "STATE": str(self.layout.state),
            "RUN": str(self.layout.run),
            "ADDRESSES": " ".join([layout.API_ADDRESS, *(node.address for node in self.nodes)]),
            "SERVICES": layout.SERVICE_RANGE,
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        }
        argv = ["unshare", "--mount", "--net", "--propagation", "private", "/bin/sh", "-c", HOLDER]
        self._start("holder", argv, environment)
        self._await("the namespaces could not be made", 10, ready.exists, piece="holder")

    def _resolv_conf(self) -> str:
        domain = layout.CLUSTER_DOMAIN
        search = f"default.svc.{domain} svc.{domain} {domain}"
        return f"nameserver {layout.DNS_SERVICE}\nsearch {search}\noptions ndots:5\n"

    def _start(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Recorded:
        join = "" if self.control_plane_only else cgroups.join_script(self.layout.cgroup)
        pid = processes.spawn(argv, self.layout.logs / f"{name}.log", before=join, environment=environment)
        return self.record.add(name, pid)

    def _start_inside(self, name: str, argv: Sequence[str]) -> Recorded:
        path = os.pathsep.join([os.environ.get("PATH", ""), *packages.EXTRA_FOLDERS])
        return self._start(name, [*self._joined(), *argv], {"PATH": path})

    def holder(self) -> int:
        """The process that owns the namespaces. Raises SandboxError when the sandbox does not run."""
        holder = self.record.read().get("holder")
        if holder is None or not holder.is_alive():
            raise SandboxError(
                f"Sandbox {self.name} is not running. Start it with: python -m sandbox up --name {self.name}"
            )
        return holder.pid

    def _joined(self) -> list[str]:
        """The start of a command line that runs a program inside both namespaces."""
        return ["nsenter", f"--target={self.holder()}", "--mount", "--net", "--"]

    def _start_control_plane(self, kubernetes: programs.Programs, api: Api) -> None:
        data = self.layout.control_plane
        data.mkdir(mode=0o700, exist_ok=True)
        for stale in data.glob("*.sock*"):
            stale.unlink()
        server = components.apiserver(self.layout, api)
        manager = components.controller_manager(self.layout, api)
        scheduler = components.scheduler(self.layout)
        start = self._start if self.control_plane_only else self._start_inside
        if kubernetes.upstream is None:
            argv = [*kubernetes.argv("control-plane"), f"--dir={data}"]
            argv += [f"--apiserver-arg={argument}" for argument in server]
            argv += [f"--controller-manager-arg={argument}" for argument in manager]
            argv += [f"--scheduler-arg={argument}" for argument in scheduler]
            start("control-plane", argv)
            return
        client, peer = f"unix://{data}/etcd.sock", f"unix://{data}/peer.sock"
        etcd = [
            f"--data-dir={data}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--unsafe-no-fsync",
        ]  # fmt: skip
        start("etcd", [*kubernetes.argv("etcd"), *etcd])
        start("control-plane", [*kubernetes.argv("kube-apiserver"), f"--etcd-servers={client}", *server])
        # They end when the API server is not healthy within 10 s, which a busy machine may take.
        healthy = lambda: self.kubectl("get", "--raw", "/readyz").returncode == 0  # noqa: E731
        self._await("the API server is not ready", API_DEADLINE_SECONDS, healthy, piece="control-plane")
        start("kube-controller-manager", [*kubernetes.argv("kube-controller-manager"), *manager])
        start("kube-scheduler", [*kubernetes.argv("kube-scheduler"), *scheduler])

    def _start_containerd(self, node: Node) -> None:
        folder = self.layout.node(node)
        (folder / "cni").mkdir(parents=True, exist_ok=True)
        self.layout.socket(node).parent.mkdir(parents=True, exist_ok=True)
        # Not by "bridge": iproute2 has a program of that name too.
        plugin = packages.find("host-local")
        assert plugin is not None
        plugins, network = Path(plugin).parent, components.cni(self.layout, node)
        if self.ipam == layout.CALICO:
            plugins, network = self._calico_plugin(plugins), components.cni_calico(self.layout, node)
        (folder / "containerd.toml").write_text(components.containerd(self.layout, node, plugins))
        (folder / "cni" / "10-berth.conflist").write_text(json.dumps(network))
        self._start_inside(f"containerd-{node.name}", ["containerd", "--config", str(folder / "containerd.toml")])

    def _calico_plugin(self, standard: Path) -> Path:
        folder = self.layout.cni_programs
        folder.mkdir(exist_ok=True)
        for program in standard.iterdir():
            link = folder / program.name
            if not link.is_symlink():
                link.symlink_to(program)
        ours = folder / layout.CALICO_PLUGIN
        ours.write_text(components.calico_plugin(Path(sys.executable), ROOT))
        ours.chmod(0o755)
        return folder

    def _await_containerd(self, node: Node) -> None:
        answers = lambda: self._succeeds([*self.ctr(node), "version"])  # noqa: E731
        self._await(f"containerd of {node.name} does not answer", 30, answers, piece=f"containerd-{node.name}")

    def _start_kubelet(self, kubernetes: programs.Programs, node: Node) -> None:
        folder = self.layout.node(node)
        configuration = components.kubelet_configuration(self.layout, node)
        (folder / "kubelet.json").write_text(json.dumps(configuration))
        argv = [*kubernetes.argv("kubelet"), *components.kubelet(self.layout, node)]
        name = f"kubelet-{node.name}"
        log = self.layout.logs / f"{name}.log"
        self._await_containerd(node)
        # containerd's socket answers a moment before its CRI service does, and a kubelet that comes in between ends.
        for _ in range(KUBELET_TRIES):
            before = log.stat().st_size if log.exists() else 0
            process = self._start_inside(name, argv)
            if _said(process, log, before, b"Started kubelet", KUBELET_DEADLINE_SECONDS):
                return
            if process.is_alive() or b"server is not initialized yet" not in log.read_bytes()[before:]:
                break
        tail = log.read_text(errors="replace")[-1500:]
        raise SandboxError(f"kubelet of {node.name} did not start. Its log, {log}, ends with:\n{tail}")

    def start_node(self, node: Node) -> None:
        """Start a node's pieces again; for faults.py."""
        self._start_containerd(node)
        self._start_kubelet(programs.kubernetes(quiet), node)

    def start_control_plane(self) -> None:
        """Start the control plane again on its data, and wait for it; for faults.py."""
        self._start_control_plane(programs.kubernetes(quiet), components.WITH_NODES)
        self._await_api()

    def _start_volumes(self, kubernetes: programs.Programs) -> None:
        self.layout.volumes.mkdir(exist_ok=True)
        argv = [str(kubernetes.tool), "volumes", f"--kubeconfig={self.layout.pki}/volumes.kubeconfig"]
        argv += [f"--root={self.layout.volumes}", f"--classes={','.join(layout.STORAGE_CLASSES)}"]
        self._start_inside("volumes", argv)

    def _proxy_file(self) -> Path:
        path = self.layout.state / "kube-proxy.json"
        path.write_text(json.dumps(components.proxy_configuration(self.layout, self.nodes[0])))
        return path

    def ctr(self, node: Node) -> list[str]:
        """The start of a ctr command line for one node's containerd."""
        return [*self._joined(), "ctr", "--address", str(self.layout.socket(node))]

    def _load(self, made: Callable[[], Mapping[str, Path]]) -> None:
        paths = list(made().values())
        for node in self.nodes:
            self._await_containerd(node)
        images.load([self.ctr(node) for node in self.nodes], paths)

    def _succeeds(self, argv: Sequence[str]) -> bool:
        return subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0

    def _await(self, complaint: str, seconds: float, holds: Callable[[], bool], *, piece: str = "") -> None:
        """Wait for a condition; raises SandboxError with `complaint` and, of the `piece` to blame, the log's end."""
        deadline = time.monotonic() + seconds
        while not holds():
            found = self.record.read().get(piece)
            if (found is not None and not found.is_alive()) or time.monotonic() > deadline:
                if holds():
                    return
                log = self.layout.logs / f"{piece}.log"
                tail = f" Its log, {log}, ends with:\n{log.read_text(errors='replace')[-1500:]}" if log.exists() else ""
                logs = tail or f" The logs are in {self.layout.logs}."
                raise SandboxError(f"{complaint} after {seconds:.0f} s.{logs}")
            time.sleep(0.03)

    def _await_api(self) -> None:
        client = Client(self.layout.kubeconfig)

        def answers() -> bool:
            # The first pod of a namespace is refused until its ServiceAccount is there.
            return client.exists("/readyz") and client.exists("/api/v1/namespaces/default/serviceaccounts/default")

        self._await("the API server is not ready", API_DEADLINE_SECONDS, answers, piece="control-plane")

    def _apply_base(self) -> None:
        manifests = components.as_list(components.dns_manifests(replicas=min(2, len(self.nodes))))
        ours = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
        text = "\n---\n".join([*(path.read_text() for path in ours), manifests])
        done = self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)
        if done.returncode != 0:
            raise SandboxError(f"The sandbox's own objects could not be applied: {done.stderr.strip()[-1000:]}")

    def _nodes_ready(self, client: Client) -> bool:
        ready = [
            node["metadata"]["name"]
            for node in client.read("/api/v1/nodes").get("items", [])
            for condition in node.get("status", {}).get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        return set(ready) >= {node.name for node in self.nodes}

    # --- down ---------------------------------------------------------------------------------------------------

    def down(self, *, wipe: bool = False) -> None:
        """End every piece and leave nothing running; with `wipe`, nothing on disk either.

        Works after a crash as well, and on a sandbox that does not exist. Without `wipe`, the API server's objects,
        the volumes and the images stay for the next `up`.
        """
        with self._alone():
            self._stop(gently=not wipe)
            if wipe:
                shutil.rmtree(self.layout.state, ignore_errors=True)
        if wipe:
            (layout.state_home() / f".{self.name}.lock").unlink(missing_ok=True)

    def _stop(self, *, gently: bool) -> None:
        found = list(self.record.read().values())
        if gently:
            # As at a shutdown: containers get a moment to write what they hold; kubelet must not restart them.
            kubelets = [process for process in found if process.name.startswith("kubelet-")]
            processes.end(kubelets, patience_seconds=3)
            containers = self._containers()
            for process in containers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            processes.await_end(containers, 5)
            # The control plane needs no patience: etcd has written what it acknowledged, and it replays its log.
        holders = [process for process in found if process.is_alive()]
        processes.kill_all([process.pid for process in holders])
        deadline = time.monotonic() + 15
        while True:
            # Again and again: a shim may have started one more before it was killed itself.
            left = [pid for pid in cgroups.processes(self.layout.cgroup) if processes.start_time(pid) is not None]
            if not left:
                break
            if time.monotonic() > deadline:
                raise SandboxError(f"Processes of sandbox {self.name} do not end: {left}. Is their disk hanging?")
            processes.kill_all(left)
            processes.reap()
            time.sleep(0.02)
        processes.await_end(holders, 10)
        for _ in range(100):
            cgroups.remove(self.layout.cgroup)
            if not cgroups.members_root(self.layout.cgroup).exists():
                break
            time.sleep(0.05)
        shutil.rmtree(self.layout.run, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.layout.run.parent.rmdir()
        self.layout.record.unlink(missing_ok=True)

    def _containers(self) -> list[Recorded]:
        found = []
        for node in self.nodes:
            for pid in cgroups.processes_below(f"{self.layout.cgroup}/{node.name}"):
                born = processes.start_time(pid)
                if born is not None:
                    found.append(Recorded("container", pid, born))
        return found

    # --- doors --------------------------------------------------------------------------------------------------

    def network_prefix(self) -> list[str]:
        """The start of a command line that runs a program of this host in the sandbox's network, with its DNS."""
        if self.control_plane_only:
            return []
        return [
            "nsenter", f"--net=/proc/{self.holder()}/ns/net", "--",
            "unshare", "--mount", "--propagation", "private", "--",
            "/bin/sh", "-c", WITH_DNS, str(self.layout.resolv_conf),
        ]  # fmt: skip

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this host where the cluster's addresses and names work; output is captured as text."""
        return subprocess.run(
            [*self.network_prefix(), *argv], capture_output=True, text=True, timeout=timeout, input=input, cwd=cwd,
            env=None if env is None else dict(env), stdin=subprocess.DEVNULL if input is None else None,
        )  # fmt: skip

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int | IO[Any],
    ) -> subprocess.Popen[bytes]:
        """Start a program of this host where the cluster's addresses and names work; both outputs go to `stdout`.

        It is the caller's to end.
        """
        return subprocess.Popen(
            [*self.network_prefix(), *argv], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT,
            env=None if env is None else dict(env), cwd=cwd,
        )  # fmt: skip

    def kubectl(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl as administrator, inside the sandbox's network."""
        kubectl = programs.kubernetes(quiet).argv("kubectl")
        enter = [] if self.control_plane_only else ["nsenter", f"--net=/proc/{self.holder()}/ns/net", "--"]
        config = f"--kubeconfig={self.inside_kubeconfig_path}"
        return subprocess.run(
            [*enter, *kubectl, config, *arguments], capture_output=True, text=True, input=input,
            stdin=subprocess.DEVNULL if input is None else None,
        )  # fmt: skip

    def _start_forward_api(self, api: Api) -> None:
        with _listening_socket() as listening:
            port = listening.getsockname()[1]
            config = self.layout.inside_kubeconfig.read_text()
            self.layout.kubeconfig.touch(mode=0o600)
            self.layout.kubeconfig.write_text(config.replace(api.url, f"https://127.0.0.1:{port}"))
            self._start_forward("forward-api", listening, (api.address, api.port))

    def _start_forward(self, name: str, listening: socket.socket, to: tuple[str, int]) -> Recorded:
        listening.listen(128)
        descriptor = listening.fileno()
        namespace = f"/proc/{self.holder()}/ns/net"
        argv = [sys.executable, "-m", "sandbox.forward", str(descriptor), namespace, to[0], str(to[1])]
        log = self.layout.logs / f"{name}.log"
        join = cgroups.join_script(self.layout.cgroup)
        environment = {"PYTHONPATH": str(ROOT)}
        pid = processes.spawn(argv, log, before=join, environment=environment, pass_fds=(descriptor,))
        return self.record.add(name, pid)

    @contextlib.contextmanager
    def forward(self, port: int, inside_port: int) -> Iterator[None]:
        """While open, 127.0.0.1:`port` of this host is 127.0.0.1:`inside_port` of the sandbox.

        Raises SandboxError when the port is taken.
        """
        name = f"forward-{port}"
        with _listening_socket(port) as listening:
            process = self._start_forward(name, listening, ("127.0.0.1", inside_port))
        try:
            yield
        finally:
            processes.end([process], patience_seconds=3)
            self.record.forget([name])

    # --- looking ------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Every piece with its process id (null when it does not run), CPU seconds and memory so far."""
        found = self.record.read()
        pieces = {
            name: found[name].pid if name in found and found[name].is_alive() else None for name in self._expected()
        }
        answer: dict[str, Any] = {"name": self.name, "running": self.is_running(), "pieces": pieces}
        if not self.control_plane_only and cgroups.members_root(self.layout.cgroup).exists():
            answer["cpu_seconds"], answer["memory_bytes"] = cgroups.usage(self.layout.cgroup)
        answer["kubeconfig"] = str(self.kubeconfig_path)
        return answer
