"""Kubeconfigs that administrators send: what is accepted, and where they are kept. Never in the database.

A kubeconfig can do more than name a cluster: run programs (`exec`, `auth-provider`) and read files of whoever loads it.
So one that is sent is reduced to one cluster with its credentials written out, and refused when it needs anything else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import yaml

from provisioning.apply import errors
from provisioning.apply.client import KubeClient
from provisioning.apply.door import path_of

SUFFIX = ".kubeconfig"
FLATTEN = "kubectl config view --flatten --minify --raw"
# Levels of objects and lists; a kubeconfig without extensions has four.
DEEPEST = 12
CREDENTIALS = ("token", "client-certificate-data", "client-key-data", "username", "password")
CLUSTER_FIELDS = ("server", "certificate-authority-data", "tls-server-name", "proxy-url")


class BadKubeconfig(Exception):
    """What is wrong with a kubeconfig that was sent, in words that hold nothing of its secrets."""


def reduced(text: str) -> str:
    """The kubeconfig's current context and nothing else, as YAML. Raises BadKubeconfig."""
    try:
        _refuse_bombs(text)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadKubeconfig(f"It is not YAML{f': line {mark.line + 1}' if mark else ''}.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadKubeconfig("It is not YAML.") from None
    if not isinstance(content, dict):
        raise BadKubeconfig("It is not a kubeconfig: an object with clusters, users and contexts is expected.")
    context = _entry(content, "contexts", content.get("current-context"), "current-context")
    cluster = _entry(content, "clusters", context["context"].get("cluster"), "the current context's cluster")["cluster"]
    user = _entry(content, "users", context["context"].get("user"), "the current context's user")["user"]
    kept = {
        "apiVersion": "v1", "kind": "Config", "current-context": "target",
        "clusters": [{"name": "target", "cluster": _cluster(cluster)}],
        "users": [{"name": "target", "user": _user(user)}],
        "contexts": [{"name": "target", "context": {"cluster": "target", "user": "target"}}],
    }  # fmt: skip
    return yaml.safe_dump(kept, sort_keys=False)


def _refuse_bombs(text: str) -> None:
    """Refuse what makes a short text long work: an alias can expand a few lines to gigabytes, and the time to read
    nested brackets grows with the square of their depth. kubectl writes neither.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise BadKubeconfig("It uses YAML aliases. Write the values out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise BadKubeconfig("It is nested too deeply to be a kubeconfig.")


def _entry(content: Mapping[str, Any], section: str, name: object, what: str) -> dict[str, Any]:
    """The entry `name` of a section, whose only other member is an object."""
    member = section.removesuffix("s")
    entries = content.get(section)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(member), dict):
            return entry
    raise BadKubeconfig(f"It has no entry under {section} that {what} names.")


def _texts(found: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, str]:
    kept = {key: found[key] for key in wanted if found.get(key) not in (None, "")}
    wrong = [key for key, value in kept.items() if not isinstance(value, str)]
    if wrong:
        raise BadKubeconfig(f"{wrong[0]} is not a text.")
    for key, value in kept.items():
        if key.endswith("-data"):
            try:
                b64decode("".join(value.split()), validate=True)
            except (NotBase64, ValueError):
                raise BadKubeconfig(f"{key} is not Base64.") from None
    return kept


def _cluster(found: Mapping[str, Any]) -> dict[str, str]:
    if found.get("insecure-skip-tls-verify"):
        raise BadKubeconfig("It skips the check of the certificate. Give certificate-authority-data instead.")
    if found.get("certificate-authority"):
        raise BadKubeconfig(f"It names a file of its authority. Write it out: {FLATTEN}")
    kept = _texts(found, CLUSTER_FIELDS)
    try:
        parts = urlsplit(kept.get("server", ""))
        whole = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
    except ValueError:
        whole = False
    if not whole or parts.username or parts.query or parts.fragment:
        raise BadKubeconfig("Its server is not an address of the form https://host:port.")
    return kept


def _user(found: Mapping[str, Any]) -> dict[str, str]:
    for program in ("exec", "auth-provider"):
        if found.get(program):
            raise BadKubeconfig(f"It signs in by a program ({program}). Use a ServiceAccount's token or a certificate.")
    for file in ("tokenFile", "client-certificate", "client-key"):
        if found.get(file):
            raise BadKubeconfig(
                f"It names a file ({file}). Write it out: {FLATTEN}"
            )  # fmt: skip
    if found.get("as") or found.get("as-groups") or found.get("as-uid"):
        raise BadKubeconfig("It signs in as somebody else (as). Give Berth an account of its own.")
    kept = _texts(found, CREDENTIALS)
    if ("client-certificate-data" in kept) != ("client-key-data" in kept):
        raise BadKubeconfig("A certificate and its key go together: one of them is missing.")
    if ("username" in kept) != ("password" in kept):
        raise BadKubeconfig("A username and its password go together: one of them is missing.")
    if not kept:
        raise BadKubeconfig("It holds no credentials: a token, or a certificate with its key.")
    return kept


def client_of(text: str) -> KubeClient:
    """A client for a reduced kubeconfig that is kept nowhere yet. Raises NoKubeconfig."""
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        path = Path(folder) / f"target{SUFFIX}"
        _write(path, text)
        return KubeClient.from_kubeconfig(path)


class Keeper(Protocol):
    """Where kubeconfigs are kept. Both raise NotKept."""

    def keep(self, name: str, text: str) -> None:
        """Keep a target's kubeconfig, in place of the one before."""

    def forget(self, name: str) -> None:
        """Remove a target's kubeconfig; gone already is fine."""


class NotKept(errors.DoorError):
    """The place for kubeconfigs cannot be written."""

    code = "kubeconfig_not_kept"
    remedy = (
        "An administrator puts the kubeconfig into BERTH_TARGETS_DIR as <target>.kubeconfig and registers the target "
        "without one; or makes that folder writable; or sets BERTH_TARGETS_SECRET."
    )


class Folder:
    """Files in BERTH_TARGETS_DIR, readable by Berth's user only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str, text: str) -> None:
        """See Keeper."""
        try:
            _write(self.folder / f"{name}{SUFFIX}", text)
        except OSError as error:
            raise NotKept(f"The folder of kubeconfigs cannot be written: {error.strerror}.") from error

    def forget(self, name: str) -> None:
        """See Keeper."""
        try:
            (self.folder / f"{name}{SUFFIX}").unlink(missing_ok=True)
        except OSError as error:
            raise NotKept(f"The folder of kubeconfigs cannot be written: {error.strerror}.") from error


class Secret:
    """Keys of one Secret in the cluster Berth runs in, mounted at BERTH_TARGETS_DIR; the kubelet brings changes there
    within about a minute.
    """

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self.client = client
        self.path = path_of("Secret", namespace, name)

    def keep(self, name: str, text: str) -> None:
        """See Keeper."""
        self._set(name, b64encode(text.encode()).decode())

    def forget(self, name: str) -> None:
        """See Keeper."""
        self._set(name, None)

    def _set(self, name: str, value: str | None) -> None:
        body = {"data": {f"{name}{SUFFIX}": value}}
        try:
            self.client.request("PATCH", self.path, body, content_type="application/merge-patch+json")
        except errors.DoorError as error:
            # Not its message: that of a refused Secret may quote it.
            raise NotKept(f"The Secret of kubeconfigs cannot be written ({error.code}).") from None


def _write(path: Path, text: str) -> None:
    """All of it or nothing, and never readable by others."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
