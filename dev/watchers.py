"""Prometheus and Alertmanager of the system's packages, private and gone when stopped, with the shipped configuration.

What differs from deploy/monitoring/ is addresses, and, `hurried`, times: for tests, which cannot wait minutes.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.monitoring import DEPLOYED, ENGINES
from dev.services import bound_to_us
from sandbox import packages

START_SECONDS = 60
# Prometheus and Alertmanager at 2 looks a second; every rule after six of them, since on a busy machine a look fails.
HURRY = "500ms"
HOLD = "3s"
WINDOW = "10s"
Fetch = Callable[[str], bytes]


class WatcherError(Exception):
    """One of the processes did not start; the message ends with its log."""


@dataclass(frozen=True)
class Watchers:
    """Both running. `fetch` reads a URL from where they are; `received` is where the webhook's messages go."""

    prometheus: str
    alertmanager: str
    received: Path
    fetch: Fetch

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result. Raises urllib.error.HTTPError for what Prometheus cannot read."""
        path = f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        found: list[dict[str, Any]] = json.loads(self.fetch(path))["data"]["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Labels of what fires or is about to, as Prometheus says."""
        found = json.loads(self.fetch(f"{self.prometheus}/api/v1/alerts"))["data"]["alerts"]
        return [alert["labels"] for alert in found]

    def told(self) -> list[dict[str, Any]]:
        """Every alert that reached the webhook, oldest first: status, labels, annotations, fingerprint …"""
        lines = self.received.read_text(encoding="utf-8").splitlines() if self.received.exists() else []
        return [alert for line in lines for alert in json.loads(line)["alerts"]]


def read(url: str) -> bytes:
    """A GET from this process."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def rules(*, hurried: bool) -> dict[str, str]:
    """The shipped rules files by engine; `hurried` with short times."""
    found = {path.parts[-3]: path.read_text(encoding="utf-8") for path in ENGINES.glob("*/monitoring/rules.yaml")}
    if not hurried:
        return found
    return {
        engine: re.sub(r"\[\d+m\]", f"[{WINDOW}]", re.sub(r"^( +for): \d+[sm]$", rf"\1: {HOLD}", text, flags=re.M))
        for engine, text in found.items()
    }


def configure(
    folder: Path, *, discovery: Mapping[str, Any], alertmanager: str, webhook: str, hurried: bool
) -> None:  # fmt: skip
    """Write the shipped configuration to `folder`, with `discovery` (such as {"file_sd_configs": […]}) in the place of
    Berth's address, and these addresses (host:port, URL).
    """
    prometheus = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = prometheus["scrape_configs"]
    del job["http_sd_configs"]
    job.update(discovery)
    prometheus["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    routes = yaml.safe_load((DEPLOYED / "alertmanager.yml").read_text(encoding="utf-8"))
    for receiver in routes["receivers"]:
        receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    if hurried:
        prometheus["global"] = {"scrape_interval": HURRY, "scrape_timeout": HURRY, "evaluation_interval": HURRY}
        routes["route"] |= {"group_wait": "100ms", "group_interval": HURRY}
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    for engine, text in rules(hurried=hurried).items():
        (folder / "rules" / f"{engine}.yaml").write_text(text)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routes))


@contextlib.contextmanager
def running_watchers(
    folder: Path, *, discovery: Mapping[str, Any], ports: tuple[int, int, int], hurried: bool = False,
    prefix: Sequence[str] = (), fetch: Fetch = read,
) -> Iterator[Watchers]:  # fmt: skip
    """Start Prometheus, Alertmanager and a webhook's receiver on these `ports` of 127.0.0.1; end them at last.

    `prefix` runs a program in another network, where `fetch` reads. Raises WatcherError, PackagesError.
    """
    packages.ensure(["prometheus", "prometheus-alertmanager"], install=False)
    folder.mkdir(parents=True, exist_ok=True)
    prometheus, alertmanager, webhook = (f"127.0.0.1:{port}" for port in ports)
    configure(
        folder, discovery=discovery, alertmanager=alertmanager, webhook=f"http://{webhook}/", hurried=hurried
    )  # fmt: skip
    received = folder / "received"
    programs = {
        "receiver": [sys.executable, "-m", "dev.alert_receiver", str(ports[2]), str(received)],
        "alertmanager": [
            "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alerts",
            f"--web.listen-address={alertmanager}", "--cluster.listen-address=",
        ],
        "prometheus": [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series",
            f"--web.listen-address={prometheus}", "--storage.tsdb.retention.time=1d",
        ],
    }  # fmt: skip
    watchers = Watchers(f"http://{prometheus}", f"http://{alertmanager}", received, fetch)
    with contextlib.ExitStack() as stack:
        for name, argv in programs.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                bound_to_us([*prefix, *argv]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=Path(__file__).resolve().parent.parent,
            )  # fmt: skip
            stack.callback(_end, process)
            if name != "receiver":
                _await(process, f"{getattr(watchers, name)}/-/ready", fetch, folder / f"{name}.log")
        yield watchers


def _await(process: subprocess.Popen[bytes], url: str, fetch: Fetch, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            fetch(url)
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise WatcherError(f"{log.stem} did not start:\n{log.read_text()[-2000:]}") from error
            time.sleep(0.05)
        else:
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
