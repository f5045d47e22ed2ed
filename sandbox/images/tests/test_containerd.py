"""Images in a real containerd of our own: imported, started, run as the user they name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.images import ensure, load
from sandbox.images.table import BUSYBOX, PAUSE, REDIS, REDIS_EXPORTER, ZOOKEEPER

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("containerd"), reason="needs root and containerd"),
]

START_SECONDS = 20.0
RUN_SECONDS = 60.0


@dataclass(frozen=True)
class Containerd:
    """A running containerd and the command that talks to it."""

    ctr: tuple[str, ...]

    def call(self, *arguments: str) -> str:
        """Output of ctr in the namespace of Kubernetes; a failure fails the test with what ctr said."""
        done = subprocess.run(
            [*self.ctr, "-n", "k8s.io", *arguments], capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, ref: str, *command: str) -> str:
        """Output of one command in a new container of the image."""
        return self.call("run", "--rm", ref, f"test-{time.monotonic_ns()}", *command)


def _words(argv: Sequence[str]) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=RUN_SECONDS, check=False).stdout.split()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    folder = tmp_path_factory.mktemp("cd")
    socket = folder / "c.sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["containerd", "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ctr = ("ctr", "--address", str(socket))
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode != 0:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield Containerd(ctr)
    finally:
        # Shims, and what runs in them, outlive containerd.
        for container in _words([*ctr, "-n", "k8s.io", "tasks", "ls", "-q"]):
            subprocess.run([*ctr, "-n", "k8s.io", "tasks", "rm", "-f", container], capture_output=True, check=False)
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
        for group in Path("/sys/fs/cgroup").glob("*/k8s.io"):
            with contextlib.suppress(OSError):  # not empty: somebody else's
                group.rmdir()


@pytest.fixture(scope="module")
def images(containerd: Containerd) -> dict[str, Path]:
    paths = ensure([PAUSE, BUSYBOX, REDIS, REDIS_EXPORTER, ZOOKEEPER], progress=print)
    load([containerd.ctr], list(paths.values()))
    return paths


def test_images_are_listed_under_their_references(containerd: Containerd, images: dict[str, Path]) -> None:
    assert set(images) <= set(containerd.call("images", "ls", "-q").split())


def test_second_load_imports_nothing(containerd: Containerd, images: dict[str, Path]) -> None:
    assert load([containerd.ctr], list(images.values())) == [[]]


def test_redis_runs_as_its_own_user(containerd: Containerd, images: dict[str, Path]) -> None:
    said = containerd.run(
        REDIS, "sh", "-c", "id -u; redis-server --version; redis-cli --version; touch /data/x && echo ok"
    )
    uid, server, cli, written = said.splitlines()
    assert (uid, written) == ("999", "ok")
    assert server.startswith("Redis server v=7.0.15")
    assert cli == "redis-cli 7.0.15"


def test_redis_serves_and_answers(containerd: Containerd, images: dict[str, Path]) -> None:
    script = (
        "redis-server --port 0 --unixsocket /tmp/s --daemonize yes >/dev/null; "
        "until redis-cli -s /tmp/s ping >/dev/null 2>&1; do sleep 0.05; done; "
        "redis-cli -s /tmp/s set a b; redis-cli -s /tmp/s get a"
    )
    assert containerd.run(REDIS, "sh", "-c", script).split() == ["OK", "b"]


def test_redis_exporter_starts(containerd: Containerd, images: dict[str, Path]) -> None:
    containerd.run(REDIS_EXPORTER, "/redis_exporter", "-version")


def test_zookeeper_elects_itself_and_answers_srvr(containerd: Containerd, images: dict[str, Path]) -> None:
    script = (
        "zkServer.sh start-foreground >/logs/out 2>&1 & "
        "until echo srvr | timeout 2 nc 127.0.0.1 2181 2>/dev/null | grep Mode; do sleep 0.1; done"
    )
    assert containerd.run(ZOOKEEPER, "/docker-entrypoint.sh", "sh", "-c", script).strip() == "Mode: standalone"


def test_zookeeper_start_script_takes_flags_and_configuration_folder(
    containerd: Containerd, images: dict[str, Path]
) -> None:
    script = (
        "mkdir /tmp/c && printf 'dataDir=/data\\nclientPort=2199\\nadmin.enableServer=false\\n' >/tmp/c/zoo.cfg && "
        "export ZOOCFGDIR=/tmp/c JVMFLAGS=-Xmx64m SERVER_JVMFLAGS=-Dberth.test=1 && "
        "{ zkServer.sh start-foreground >/logs/out 2>&1 & } && "
        "until echo srvr | timeout 2 nc 127.0.0.1 2199 2>/dev/null | grep -q Mode; do sleep 0.1; done; "
        "jcmd $! VM.command_line | grep jvm_args | tr ' ' '\\n' | grep -e -Xmx -e -Dberth | sort"
    )
    assert containerd.run(ZOOKEEPER, "sh", "-c", script).split() == ["-Dberth.test=1", "-Xmx64m"]


def test_busybox_has_the_tools_for_looking_names_up(containerd: Containerd, images: dict[str, Path]) -> None:
    assert "nslookup" in containerd.run(BUSYBOX, "sh", "-c", "busybox --list; ls /tmp")
