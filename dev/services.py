"""A private PostgreSQL and Redis for the demo and the tests: own folder, unix sockets only, gone when stopped.

Used by dev/demo.py and the root conftest.py. Nothing here is used in production.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

START_DEADLINE_SECONDS = 60.0


class ServiceError(Exception):
    """A private service did not start; the message says why and where its log is."""


@dataclass(frozen=True)
class Services:
    """Addresses of the two running services."""

    database_url: str
    broker_url: str
    postgres_pid: int
    redis_pid: int

    def environment(self) -> Mapping[str, str]:
        """The variables portal/settings.py asks for."""
        return {"DATABASE_URL": self.database_url, "BERTH_BROKER_URL": self.broker_url}


def postgres_program(name: str) -> str:
    """Path of a PostgreSQL server program; Debian keeps them outside PATH. Raises ServiceError when there is none."""
    found = shutil.which(name)
    if found:
        return found
    candidates = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not candidates:
        raise ServiceError(f"{name} is not installed. Install the PostgreSQL server package (Debian: postgresql).")
    return str(candidates[-1])


def _unprivileged() -> tuple[int, int] | None:
    """User and group for PostgreSQL, which refuses to run as root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise ServiceError("PostgreSQL refuses to run as root and there is no user postgres or nobody to run it as.")


def _run(argv: Sequence[str], user: tuple[int, int] | None, cwd: Path) -> None:
    uid, gid = user or (None, None)
    extra = [] if user is None else list[int]()
    done = subprocess.run(argv, user=uid, group=gid, extra_groups=extra if user else None, cwd=cwd, capture_output=True)
    if done.returncode != 0:
        raise ServiceError(f"{argv[0]} failed: {done.stderr.decode(errors='replace').strip()[-2000:]}")


def bound_to_us(argv: Sequence[str]) -> list[str]:
    """The command line with which `argv` is killed when this process dies, however it dies.

    So a demo or test run that was killed leaves no process behind. Linux only; elsewhere `argv` as it is.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=KILL", "--", *argv] if setpriv else list(argv)


def _spawn(argv: Sequence[str], user: tuple[int, int] | None, cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    uid, gid = user or (None, None)
    # Own session: a Ctrl-C at the terminal is for us to hand on in order, not for the database to die of first.
    with log.open("ab") as out:
        return subprocess.Popen(
            bound_to_us(argv), user=uid, group=gid, extra_groups=[] if user else None, cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


def _await(process: subprocess.Popen[bytes], ready: Sequence[str], what: str, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while subprocess.run(ready, capture_output=True).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise ServiceError(f"{what} did not start. Its log, {log}, ends with:\n{tail}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def private_services(folder: Path, *, fast: bool) -> Iterator[Services]:
    """Start both in `folder` (made when absent, kept afterwards), yield their addresses, stop them.

    `fast` drops PostgreSQL's durability: for tests, never for the demo. `folder` must be short, since the path of a
    unix socket may not exceed 107 bytes. Raises ServiceError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    user = _unprivileged()
    data, sockets, cache = folder / "postgres", folder / "s", folder / "redis"
    for path in (data, sockets, cache):
        path.mkdir(exist_ok=True)
    for path in (folder, *folder.parents):
        # The database's user must be able to walk to its folder; a private home folder would stop it.
        if user and not os.stat(path).st_mode & 0o001:
            raise ServiceError(
                f"{path} is closed to the user PostgreSQL runs as. Choose a folder below /tmp or /var/tmp."
            )
    if user:
        for path in (data, sockets):
            os.chown(path, *user)
    data.chmod(0o700)
    if not (data / "PG_VERSION").exists():
        initdb = [postgres_program("initdb"), "--pgdata", str(data), "--username=berth", "--auth=trust"]
        _run([*initdb, "--encoding=UTF8", "--locale=C.UTF-8", *(["--no-sync"] if fast else [])], user, folder)
    (data / "postmaster.pid").unlink(missing_ok=True)
    quick = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"] if fast else []
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}", "-c", "max_connections=200"]
    postgres_log, redis_log = folder / "postgres.log", folder / "redis.log"
    postgres = _spawn([postgres_program("postgres"), "-D", str(data), *settings, *quick], user, folder, postgres_log)
    try:
        redis_socket = sockets / "redis.sock"
        redis_server = shutil.which("redis-server")
        if redis_server is None:
            raise ServiceError("redis-server is not installed. Install the Redis package (Debian: redis-server).")
        redis = _spawn(
            [redis_server, "--port", "0", "--unixsocket", str(redis_socket), "--save", "", "--dir", str(cache)],
            None, folder, redis_log,
        )  # fmt: skip
        try:
            ask = [postgres_program("psql"), "-h", str(sockets), "-U", "berth", "-d", "postgres", "-tAc"]
            _await(postgres, [*ask, "select 1"], "PostgreSQL", postgres_log)
            _await(redis, ["redis-cli", "-s", str(redis_socket), "ping"], "Redis", redis_log)
            found = subprocess.run([*ask, "select 1 from pg_database where datname='berth'"], capture_output=True)
            if not found.stdout.strip():
                _run([*ask, "create database berth"], None, folder)
            yield Services(
                database_url=f"postgresql://berth@/berth?host={sockets}",
                broker_url=f"redis+socket://{redis_socket}",
                postgres_pid=postgres.pid,
                redis_pid=redis.pid,
            )
        finally:
            _stop(redis, signal.SIGTERM)
    finally:
        _stop(postgres, signal.SIGINT)  # SIGINT: fast shutdown, does not wait for clients
