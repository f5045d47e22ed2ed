"""System programs: which package has them, and installing it when that is allowed.

`python -m sandbox.packages` installs what the embedded target itself needs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# Where Debian keeps programs that are not on every user's PATH.
EXTRA_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")

POLICY = Path("/usr/sbin/policy-rc.d")

# program -> (Debian and Ubuntu, Fedora)
PACKAGES = {
    "containerd": ("containerd", "containerd"),
    "ctr": ("containerd", "containerd"),
    "runc": ("runc", "runc"),
    "host-local": ("containernetworking-plugins", "containernetworking-plugins"),
    "portmap": ("containernetworking-plugins", "containernetworking-plugins"),
    "nft": ("nftables", "nftables"),
    "iptables": ("iptables", "iptables"),
    "ip": ("iproute2", "iproute"),
    "mount": ("mount", "util-linux"),
    "nsenter": ("util-linux", "util-linux"),
    "unshare": ("util-linux", "util-linux"),
    "setpriv": ("util-linux", "util-linux-core"),
    "busybox": ("busybox-static", "busybox"),
    "gcc": ("gcc", "gcc"),
    "redis-server": ("redis-server", "redis"),
    "redis-cli": ("redis-tools", "redis"),
    "postgres": ("postgresql", "postgresql-server"),
    "initdb": ("postgresql", "postgresql-server"),
    "chromium": ("chromium", "chromium"),
    "git": ("git", "git"),
    "curl": ("curl", "curl"),
    "jq": ("jq", "jq"),
    "promtool": ("prometheus", "golang-github-prometheus"),
    "prometheus": ("prometheus", "golang-github-prometheus"),
    "prometheus-alertmanager": ("prometheus-alertmanager", "golang-github-prometheus-alertmanager"),
    "amtool": ("prometheus-alertmanager", "golang-github-prometheus-alertmanager"),
    "prometheus-redis-exporter": ("prometheus-redis-exporter", "prometheus-redis-exporter"),
    "java": ("openjdk-17-jre-headless", "java-17-openjdk-headless"),
}
# What `Sandbox.up` runs.
SANDBOX = (
    "containerd", "ctr", "runc", "host-local", "portmap", "nft", "iptables", "ip", "mount", "nsenter",
    "unshare", "setpriv",
)  # fmt: skip
# What the images are made of (sandbox/images).
IMAGES = ("busybox", "gcc", "redis-server", "redis-cli", "java")


class PackagesError(Exception):
    """Programs are missing and could not be installed; the message lists them and the command that installs them."""


def find(program: str) -> str | None:
    """Path of an installed program, also outside PATH; None when it is not installed."""
    found = shutil.which(program)
    if found is None:
        for folder in EXTRA_FOLDERS:
            found = found or shutil.which(program, path=folder)
    if found is None and program in ("postgres", "initdb"):
        candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
        found = str(candidates[-1]) if candidates else None
    return found


def missing(programs: Iterable[str]) -> list[str]:
    """Those of `programs` that are not installed."""
    return [program for program in dict.fromkeys(programs) if find(program) is None]


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian starts a service when its package is installed; policy-rc.d, while it exists, forbids that."""
    ours = "#!/bin/sh\n# Made by berth while it installs packages; may be removed.\nexit 101\n"
    # Somebody's own, such as a container image's, stays; ours may have been left by a killed installation.
    if POLICY.exists() and POLICY.read_text() != ours:
        yield
        return
    POLICY.write_text(ours)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _apt(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise PackagesError(
            f"apt-get {' '.join(arguments[:3])} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}"
        )


def ensure(programs: Iterable[str], *, install: bool) -> None:
    """Make sure that `programs` are installed; install their packages when `install`, root and apt-get allow it.

    Raises PackagesError with the one command to run otherwise.
    """
    lacking = missing(programs)
    if not lacking:
        return
    fedora = shutil.which("apt-get") is None and shutil.which("dnf") is not None
    wanted = sorted({PACKAGES[program][1 if fedora else 0] for program in lacking})
    command = f"{'dnf' if fedora else 'apt-get'} install {' '.join(wanted)}"
    if not install or os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PackagesError(f"Programs are missing: {', '.join(lacking)}. Install them with: sudo {command}")
    print(f"Installing system packages: {' '.join(wanted)} …", flush=True)
    with _no_services_started():
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *wanted)
    still = missing(lacking)
    if still:
        raise PackagesError(f"Still missing after '{command}': {', '.join(still)}. Install them by hand.")


if __name__ == "__main__":
    try:
        ensure((*SANDBOX, *IMAGES), install=True)
    except PackagesError as error:
        sys.exit(str(error))
