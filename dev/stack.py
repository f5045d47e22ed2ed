"""Portal and target together on one machine: what the demo, the benchmark and the end-to-end tests start.

With KUBECONFIG set the target is that cluster, reached by port-forwarding; otherwise it is the embedded one
(sandbox/), and the portal's processes run inside its network, where pod addresses are routable as they are for a worker
that runs in the cluster.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dev.portal import Api, ApiError, Portal, PortalError
from dev.services import Services, private_services
from provisioning.apply import door, errors
from provisioning.apply.client import KubeClient
from sandbox import Sandbox, programs

INSIDE_PORT = 8000
TARGET = "embedded"
# Where the demo's owner orders, and where it ends up.
CLUSTERS = "/api/v1/tenants/demo/clusters"
NAMESPACE = "berth-demo"
CLEANING_SECONDS = 180


@dataclass(frozen=True)
class Stack:
    """A running portal with one target. `url` works from this host; `password` signs `alice`, the demo's owner, in."""

    portal: Portal
    services: Services
    sandbox: Sandbox | None
    kubeconfig: Path
    folder: Path
    host: str
    port: int
    token: str
    password: str
    clients: list[Api] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def api(self) -> Api:
        """A client that signs its requests with the owner's token; closed with the stack."""
        client = Api(self.host, self.port, self.token)
        self.clients.append(client)
        return client

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """kubectl as the target's administrator, on the embedded target or on KUBECONFIG's."""
        if self.sandbox is not None:
            return self.sandbox.kubectl(*arguments)
        argv = [*programs.kubernetes(print).argv("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def run_inside(
        self, argv: Sequence[str], *, timeout: float | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this host where the cluster's addresses and names work. Embedded target only."""
        if self.sandbox is None:
            raise RuntimeError("Only the embedded target lets a program of this host into its network.")
        return self.sandbox.exec(argv, timeout=timeout, env=env)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepare(folder: Path, services: Services) -> tuple[dict[str, str], Path]:
    """Folders, secrets and environment of a new portal; returns the environment and the targets folder."""
    targets = folder / "targets"
    targets.mkdir(mode=0o700)
    environment = {
        **services.environment(),
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "BERTH_SECRET_KEY": secrets.token_urlsafe(48),
        "BERTH_SECURE_COOKIES": "0",
        "BERTH_TARGETS_DIR": str(targets),
        "BERTH_IMAGE_REGISTRY": os.environ.get("REGISTRY", ""),
    }
    return environment, targets


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; while starting, a signal ends the program by KeyboardInterrupt."""
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        if stopped.is_set():
            return  # already on the way out: a second Ctrl-C must not leave half of it behind
        stopped.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running_stack(
    *, name: str, port: int | None = None, progress: Callable[[str], None] = lambda line: None, fast: bool = False,
    sandbox: Sandbox | None = None, web_workers: int = 2,
) -> Iterator[Stack]:  # fmt: skip
    """Start everything, yield it, end and remove everything this function started.

    `sandbox` is an already running embedded target to share (it is left running); without one and without KUBECONFIG a
    new one called `name` is started and wiped at the end. `fast` trades the database's durability for speed.
    """
    external = os.environ.get("KUBECONFIG")
    folder = Path(tempfile.mkdtemp(prefix=f"berth-{name}-", dir="/tmp"))
    folder.chmod(0o711)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        own: Sandbox | None = None
        if sandbox is None and not external:
            own = sandbox = Sandbox(name=name)
            own.down(wipe=True)  # what an earlier run left when it was killed
            stack.callback(own.down, wipe=True)
        # The target takes longest, so the database, the broker and the migrations go beside it.
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(own.up, progress=progress) if own is not None else None
            services = stack.enter_context(private_services(folder / "services", fast=fast))
            environment, targets = prepare(folder, services)
            host_port = port or free_port()
            listen = f"127.0.0.1:{INSIDE_PORT if sandbox is not None else host_port}"
            portal = Portal(folder, environment, listen=listen, web_workers=web_workers)
            portal.manage("migrate", "--verbosity", "0")
            progress("database and broker are ready")
            if starting is not None:
                starting.result()
        kubeconfig = Path(external or "") if sandbox is None else sandbox.inside_kubeconfig_path
        portal.prefix = sandbox.network_prefix() if sandbox is not None else []
        (targets / f"{TARGET}.kubeconfig").write_bytes(kubeconfig.read_bytes())
        portal.manage("berth_setup")
        reach = "direct" if sandbox is not None else "port-forward"
        title = "Embedded Kubernetes" if sandbox is not None else "Your Kubernetes cluster"
        portal.manage("add_target", TARGET, "--title", title, "--reach", reach)
        password = secrets.token_urlsafe(12)
        password_file, token_file = folder / "password", folder / "token"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        portal.environment["BERTH_DEMO_PASSWORD_FILE"] = str(password_file)
        portal.manage("berth_demo", "--token-file", str(token_file))
        stack.callback(portal.stop)
        portal.start()
        if sandbox is not None:
            stack.enter_context(sandbox.forward(host_port, INSIDE_PORT))
        token = token_file.read_text().strip()
        running = Stack(portal, services, sandbox, kubeconfig, folder, "127.0.0.1", host_port, token, password)
        running.api().await_ready(alive=portal.check)
        if sandbox is None:
            stack.callback(_leave_as_found, running, _namespace_exists(kubeconfig), progress)
        progress("portal is ready")
        try:
            yield running
        finally:
            for client in running.clients:
                client.close()


def _namespace_exists(kubeconfig: Path) -> bool:
    try:
        KubeClient.from_kubeconfig(kubeconfig).get(door.path_of("Namespace", "", NAMESPACE))
    except errors.Absent:
        return False
    return True


def _leave_as_found(stack: Stack, existed: bool, progress: Callable[[str], None]) -> None:
    """Remove from somebody's own Kubernetes cluster what was ordered there, and the namespace unless it was there.

    This portal's database goes with it, so nobody could delete them through Berth later.
    """
    api = stack.api()
    try:
        while items := api.request("GET", CLUSTERS)["items"]:
            for name in [item["name"] for item in items]:
                progress(f"deleting {name} with its volumes from your Kubernetes cluster")
                answer = api.request("DELETE", f"{CLUSTERS}/{name}?volumes=delete&confirm={name}")
                ended = api.follow(answer["operation"], deadline_seconds=CLEANING_SECONDS)
                if ended["state"] != "succeeded":
                    raise PortalError(f"{name} was not deleted: {ended['reason'] or ended['error']}")
        if not existed:
            door.delete(KubeClient.from_kubeconfig(stack.kubeconfig), "Namespace", "", NAMESPACE)
    except (ApiError, OSError, PortalError, errors.DoorError) as error:
        progress(f"Not everything could be removed: {error}. Remove it with: kubectl delete namespace {NAMESPACE}")
    finally:
        api.close()


def environment_for_browser(stack: Stack) -> Mapping[str, str]:
    """What the browser test in frontend/ reads: the address, and files with the user's name and password."""
    user = stack.folder / "user"
    user.write_text("alice")
    return {
        "BASE_URL": stack.url,
        "BERTH_USER_FILE": str(user),
        "BERTH_PASSWORD_FILE": str(stack.folder / "password"),
    }
