"""The portal's processes on one machine, for the demo, the benchmark and the end-to-end tests.

`Portal` starts web, worker, beat and watcher as separate processes, the same commands as in production, on private
services (dev/services.py), and ends exactly those it started. `prefix` decides where they run: empty for this host, or
the start of a command line that joins the embedded target's network.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dev.services import bound_to_us

ROOT = Path(__file__).resolve().parent.parent
START_DEADLINE_SECONDS = 90.0
STOP_DEADLINE_SECONDS = 15.0


class PortalError(Exception):
    """A portal process did not start or ended early; the message says which and where its log is."""


def spawn(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, output to `log`."""
    with log.open("ab") as out:
        return subprocess.Popen(
            bound_to_us(argv), env=dict(environment), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip


class Portal:
    """The four processes. `environment` is what portal/settings.py asks for; logs go to `folder`."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, listen: str = "127.0.0.1:8000", web_workers: int = 2,
        prefix: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self.listen = listen
        self.web_workers = web_workers
        self.prefix = list(prefix)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def commands(self) -> dict[str, list[str]]:
        """Process name to argv."""
        celery = [sys.executable, "-m", "celery", "-A", "portal"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return {
            "web": [
                sys.executable, "-m", "gunicorn", "portal.wsgi:application", "--config", "deploy/gunicorn.conf.py",
                "--bind", self.listen, "--workers", str(self.web_workers),
            ],
            "worker": [*celery, "worker", "--pool", "threads", "--concurrency", "8", "--loglevel", "INFO", *quiet],
            "beat": [*celery, "beat", "--schedule", str(self.folder / "beat"), "--pidfile=", "--loglevel", "WARNING"],
            "watcher": [sys.executable, "manage.py", "watch"],
        }  # fmt: skip

    def manage(self, *arguments: str) -> str:
        """Run one manage.py command and return what it printed. Raises PortalError with its words."""
        done = subprocess.run(
            [*self.prefix, sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise PortalError(f"manage.py {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def start(self, *names: str) -> None:
        """Start the named processes (all without names)."""
        for name, argv in self.commands().items():
            if not names or name in names:
                self.processes[name] = spawn([*self.prefix, *argv], self.environment, self.folder / f"{name}.log")

    def kill(self, name: str) -> None:
        """SIGKILL one process and everything in its session, as a crash would."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Raise PortalError when a process has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = self.folder / f"{name}.log"
                tail = log.read_text(errors="replace")[-1500:]
                raise PortalError(f"{name} ended with status {process.returncode}. Its log, {log}, ends with:\n{tail}")

    def stop(self) -> None:
        """End all processes: first politely, then not."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()


class ApiError(Exception):
    """The API said no: `problem` is the decoded problem+json."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code', '')}: {problem.get('detail', '')}".strip())
        self.status = status
        self.problem = problem


class Api:
    """A small client of the public REST API, as a caller with a token would write it."""

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self.host, self.port, self.token = host, port, token
        self.connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the kept connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        """One request, connection kept alive; returns the decoded body (None for 204).

        Raises ApiError for 4xx and 5xx, OSError when the web process does not answer.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if self.connection is not None and self.connection.sock and select.select([self.connection.sock], [], [], 0)[0]:
            # Nothing was asked, so this is the server's goodbye to a connection that was idle for long.
            self.close()
        kept = self.connection is not None
        connection = self.connection or http.client.HTTPConnection(self.host, self.port, timeout=90)
        self.connection = None
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if kept and method == "GET" and isinstance(error, ConnectionError):
                # It said goodbye while this was on its way.
                return self.request(method, path, headers=headers)
            raise ConnectionError(f"{method} {path}: {error}") from error
        self.connection = connection
        decoded = json.loads(content) if content else None
        if answer.status >= 400:
            raise ApiError(answer.status, decoded if isinstance(decoded, dict) else {"detail": str(decoded)})
        return decoded

    def await_ready(
        self, deadline_seconds: float = START_DEADLINE_SECONDS, alive: Callable[[], None] | None = None
    ) -> None:
        """Wait until /readyz says yes. `alive` may raise to end the wait early. Raises PortalError at the deadline."""
        deadline = time.monotonic() + deadline_seconds
        last: Exception | None = None
        while time.monotonic() < deadline:
            if alive is not None:
                alive()
            try:
                self.request("GET", "/readyz")
                return
            except (ConnectionError, ApiError) as error:
                last = error
            time.sleep(0.05)
        raise PortalError(f"The portal was not ready within {deadline_seconds:.0f} s: {last}")

    def follow(
        self, operation: Mapping[str, Any], seen: Callable[[Mapping[str, Any]], None] | None = None,
        deadline_seconds: float = 900,
    ) -> Mapping[str, Any]:  # fmt: skip
        """Long-poll an operation until it has ended, handing every change to `seen`; returns its last state."""
        deadline = time.monotonic() + deadline_seconds
        while operation["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise PortalError(f"Operation {operation['id']} still waits: {operation.get('reason', '')}")
            path = f"/api/v1/operations/{operation['id']}?wait=30&revision={operation['revision']}"
            operation = self.request("GET", path)
            if seen is not None:
                seen(operation)
        return operation
