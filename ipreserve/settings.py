"""One source of settings: flags, else the environment, else the defaults below. Printed at start."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ipreserve.errors import Misconfigured
from ipreserve.records import parse_duration
from ipreserve.review import STATEFUL_PODS, Selector, selector

LISTEN = re.compile(r"(?P<host>[0-9a-zA-Z.:\[\]-]+):(?P<port>\d{1,5})")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CALICO_APIS = ("auto", "v3", "v1", "aggregated")
# Of the webhooks for what must not be missed: Kubernetes' own default. On a busy cluster waiting is better than a
# refusal, which only comes back as a retry.
TIMEOUT_SECONDS = 10
# Of the webhooks for what is best effort, and the own deadline for those: a late yes is a failed call, and nothing is
# told of what it did.
SHORT_TIMEOUT_SECONDS = 2
SHORT_DEADLINE = 1.5
# A claim counts as written for twice store.REMEMBERED_SECONDS: a record of another replica may be 20 s old when it is
# taken for granted, and is then remembered for as long. One that were dropped before would be believed to be there
# still, and the pod would go without a hold.
LEAST_CANCEL_AFTER = 50.0
PROTECTED = Selector(labels={"ip-reserve": "enabled"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of them; times in seconds."""

    kubeconfig: Path | None = None
    namespace: str = "ip-reserve"
    calico_api: str = "auto"
    listen: tuple[str, int] = ("0.0.0.0", 9443)
    url: str = ""
    metrics: tuple[str, int] | None = ("0.0.0.0", 9090)
    deadline: float = 6.0
    gather: float = 0.005
    deny: float = 60.0
    give_back: bool = False
    period: float = 5.0
    hold: float = 3600.0
    short_hold: float = 120.0
    max_count: int = 0
    max_per_namespace: int = 0
    cancel_after: float = 60.0
    identity: str = ""

    def shown(self) -> str:
        """For the log at start. None of them is secret."""
        return json.dumps({name: str(value) for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Live:
    """What the ConfigMap `ip-reserve-config` may change while running; None keeps the setting."""

    hold: float | None = None
    short_hold: float | None = None
    max_count: int | None = None
    max_per_namespace: int | None = None
    cancel_after: float | None = None
    namespaces: Selector = PROTECTED
    pods: Selector = STATEFUL_PODS


@dataclass(frozen=True)
class Reloaded:
    """The last good values, and what was wrong with what came since."""

    live: Live = field(default_factory=Live)
    problems: tuple[str, ...] = ()


def reload(data: Mapping[str, str], before: Live) -> Reloaded:
    """Values of the ConfigMap. A wrong one is named, and its last good value stays."""
    problems: list[str] = []
    found: dict[str, Any] = {}

    def take(name: str, field_name: str, convert: Any) -> None:
        if name not in data:
            return
        try:
            found[field_name] = convert(data[name])
        except ValueError as error:
            problems.append(f"ip-reserve-config: {name}: {error}; the last good value stays")
            found[field_name] = getattr(before, field_name)

    take("hold", "hold", parse_duration)
    take("short-hold", "short_hold", parse_duration)
    take("cancel-after", "cancel_after", _cancel_after)
    take("max-count", "max_count", _count)
    take("max-per-namespace", "max_per_namespace", _count)
    take("namespace-selector", "namespaces", _selector)
    take("pod-selector", "pods", _selector)
    known = {
        "hold", "short-hold", "cancel-after", "max-count", "max-per-namespace", "namespace-selector", "pod-selector"
    }  # fmt: skip
    problems += [f"ip-reserve-config: {name}: no such setting" for name in sorted(set(data) - known)]
    return Reloaded(Live(**found), tuple(problems))


def _count(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is not a number from 0")
    return int(text)


def _cancel_after(text: str) -> float:
    found = parse_duration(text)
    if not found >= LEAST_CANCEL_AFTER:
        raise ValueError(
            f"{text} is below {LEAST_CANCEL_AFTER:g} seconds, for which a webhook takes a claim that it has written "
            f"for granted. Set {LEAST_CANCEL_AFTER:g}s or more"
        )
    return found


def _selector(text: str) -> Selector:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError("not JSON") from error
    return selector(content)


def _host_port(text: str) -> tuple[str, int]:
    found = LISTEN.fullmatch(text)
    if found is None or not 0 <= int(found["port"]) <= 65535:
        raise Misconfigured(f"{text!r} is not HOST:PORT")
    return found["host"].strip("[]"), int(found["port"])


def _seconds(name: str, text: str, *, least: float = 0.0) -> float:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise Misconfigured(f"--{name}: {error}") from error
    if not math.isfinite(found) or found < least:
        raise Misconfigured(f"--{name}: {text} is below {least:g} seconds")
    return found


FLAGS = (
    ("kubeconfig", "PATH"), ("namespace", "NAME"), ("calico-api", "|".join(CALICO_APIS)), ("listen", "HOST:PORT"),
    ("url", "URL"), ("metrics", "HOST:PORT"), ("deadline", "SECONDS"), ("gather-ms", "MS"), ("deny-seconds", "SECONDS"),
    ("period", "SECONDS"), ("hold", "SECONDS"), ("short-hold", "SECONDS"), ("max-count", "N"),
    ("max-per-namespace", "N"), ("cancel-after", "SECONDS"), ("identity", "NAME"),
)  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags on one parser; README.md explains them."""
    for name, metavar in FLAGS:
        parser.add_argument(f"--{name}", metavar=metavar, default=None)
    parser.add_argument("--give-back", action="store_const", const="1", default=None)


def from_arguments(arguments: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises Misconfigured, which names the flag."""

    def value(flag: str, *more: str) -> str | None:
        given = arguments.get(flag.replace("-", "_"))
        names = (f"IPRESERVE_{flag.replace('-', '_').upper()}", *more)
        return given if given is not None else next((environment[n] for n in names if environment.get(n)), None)

    found = Settings(identity=f"{socket.gethostname()}-{os.getpid()}")
    changes: dict[str, Any] = {}
    if (text := value("kubeconfig", "KUBECONFIG")) is not None:
        changes["kubeconfig"] = Path(text)
    if (text := value("namespace", "POD_NAMESPACE")) is not None:
        if NAMESPACE.fullmatch(text) is None:
            raise Misconfigured(f"--namespace: {text!r} is not a name of a namespace")
        changes["namespace"] = text
    if (text := value("calico-api")) is not None:
        if text not in CALICO_APIS:
            raise Misconfigured(f"--calico-api: {text!r} is none of {', '.join(CALICO_APIS)}")
        changes["calico_api"] = text
    if (text := value("listen")) is not None:
        changes["listen"] = _host_port(text)
    if (text := value("metrics")) is not None:
        changes["metrics"] = None if text == "off" else _host_port(text)
    if (text := value("url")) is not None:
        if urlsplit(text).scheme != "https" or not urlsplit(text).hostname:
            raise Misconfigured(f"--url: {text!r} is not https://HOST:PORT")
        changes["url"] = text.rstrip("/")
    for flag, name, least in (
        ("deadline", "deadline", 0.1), ("deny-seconds", "deny", 0.0), ("period", "period", 0.1), ("hold", "hold", 0.0),
        ("short-hold", "short_hold", 0.0),
    ):  # fmt: skip
        if (text := value(flag)) is not None:
            changes[name] = _seconds(flag, text, least=least)
    if (text := value("cancel-after")) is not None:
        try:
            changes["cancel_after"] = _cancel_after(text)
        except ValueError as error:
            raise Misconfigured(f"--cancel-after: {error}") from error
    if changes.get("deadline", found.deadline) >= TIMEOUT_SECONDS:
        raise Misconfigured(
            f"--deadline: {value('deadline')} is not below {TIMEOUT_SECONDS} seconds, after which the API server "
            f"no longer waits for the webhook. Leave a second for the way: {TIMEOUT_SECONDS - 1} or less."
        )
    if (text := value("gather-ms")) is not None:
        changes["gather"] = _seconds("gather-ms", text) / 1000
    for flag in ("max-count", "max-per-namespace"):
        if (text := value(flag)) is not None:
            try:
                changes[flag.replace("-", "_")] = _count(text)
            except ValueError as error:
                raise Misconfigured(f"--{flag}: {error}") from error
    if (text := value("identity")) is not None:
        changes["identity"] = text
    if value("give-back") is not None:
        changes["give_back"] = True
    return replace(found, **changes)
