"""Pulling an image into the cache from a registry that speaks the OCI distribution protocol, where one answers.

BERTH_REGISTRY names one registry or mirror to ask for every image ("registry.example.com/mirror", or with http:// in
front); "off" forbids asking. Without it each image's own registry is asked, and must answer within a second.
Anonymous access only: for a registry with credentials, put a pull-through mirror before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from sandbox.images.oci import INDEX_TYPE, MANIFEST_TYPE, Descriptor
from sandbox.images.store import Store

DOCKER_HUB = "registry-1.docker.io"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPT = ", ".join((INDEX_TYPE, MANIFEST_TYPE, _DOCKER_LIST, _DOCKER_MANIFEST))
_ANSWER_SECONDS = 1.0
_READ_SECONDS = 30.0
_CHUNK = 1 << 20
_LOOPBACK = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")


class PullError(Exception):
    """The registry does not have the image, or does not give it to us; the message says which."""


class _Platform(TypedDict):
    os: str
    architecture: str


class _IndexEntry(Descriptor):
    platform: _Platform


@dataclass(frozen=True)
class Place:
    """Where to ask for an image: base URL of the registry, repository, tag or digest."""

    base: str
    repository: str
    tag: str


def place(ref: str, registry: str | None = None) -> Place:
    """The place of a full reference such as docker.io/library/redis:7.0.15, at `registry` instead of its own host."""
    host, _, rest = ref.partition("/")
    name, separator, tag = rest.partition("@")
    if not separator:
        name, _, tag = rest.rpartition(":")
    if not host or not name or not tag or "/" in tag:
        raise ValueError(f"image reference {ref!r} must be host/repository:tag")
    scheme = ""
    if registry:
        scheme, separator, where = registry.rpartition("://")
        host, _, prefix = where.strip("/").partition("/")
        name = f"{prefix}/{name}" if prefix else name
    elif host == "docker.io":
        host = DOCKER_HUB
    return Place(f"{scheme or ('http' if _LOOPBACK.match(host) else 'https')}://{host}", name, tag)


def configured() -> str | None:
    """The value of BERTH_REGISTRY, None when unset or empty."""
    return os.environ.get("BERTH_REGISTRY") or None


class Registries:
    """Remembers which registries answer and their tokens. One per `ensure`; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, bool] = {}
        self._tokens: dict[tuple[str, str], str] = {}

    def answers(self, base: str) -> bool:
        """Whether there is a registry at the base URL, asked once."""
        with self._lock:
            if base not in self._answers:
                self._answers[base] = _answers(base)
            return self._answers[base]

    def _open(self, place: Place, path: str, accept: str = "*/*") -> IO[bytes]:
        for attempt in (1, 2):
            request = urllib.request.Request(f"{place.base}/v2/{place.repository}/{path}", headers={"Accept": accept})
            token = self._tokens.get((place.base, place.repository))
            if token:
                # Not sent on to where blobs are redirected: storage services refuse requests with two credentials.
                request.add_unredirected_header("Authorization", f"Bearer {token}")
            try:
                answer: IO[bytes] = urllib.request.urlopen(request, timeout=_READ_SECONDS)
                return answer
            except urllib.error.HTTPError as error:
                challenge = error.headers.get("WWW-Authenticate", "")
                error.close()
                if error.code != 401 or attempt == 2:
                    raise PullError(f"{request.full_url} answered {error.code}") from error
                self._tokens[place.base, place.repository] = _token(challenge, place.repository)
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                raise PullError(f"{request.full_url}: {error}") from error
        raise PullError(f"{place.base} asks for credentials")

    def _manifest(self, place: Place, reference: str) -> bytes:
        with self._open(place, f"manifests/{reference}", _ACCEPT) as answer:
            content = answer.read()
        if reference.startswith("sha256:") and "sha256:" + hashlib.sha256(content).hexdigest() != reference:
            raise PullError(f"{place.base} sent another manifest than {reference}")
        return content

    def _blob(self, place: Place, blob: Descriptor, store: Store) -> None:
        if store.blob(blob["digest"]).exists():
            return
        digest = hashlib.sha256()
        with self._open(place, f"blobs/{blob['digest']}") as answer, store.scratch() as out:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
            if "sha256:" + digest.hexdigest() != blob["digest"]:
                Path(out.name).unlink()
                raise PullError(f"{place.base} sent a broken blob for {blob['digest']}")
            store.adopt(out, blob["digest"])

    def pull(self, ref: str, place: Place, architecture: str, store: Store) -> Path:
        """Bring the image with all its blobs into the store. Raises PullError."""
        content = self._manifest(place, place.tag)
        document = json.loads(content)
        if "manifests" in document:
            entries: list[_IndexEntry] = document["manifests"]
            for entry in entries:
                platform = entry.get("platform")
                if platform and (platform["os"], platform["architecture"]) == ("linux", architecture):
                    content = self._manifest(place, entry["digest"])
                    document = json.loads(content)
                    break
            else:
                raise PullError(f"{ref} is not offered for linux/{architecture}")
        parts: list[Descriptor] = [document["config"], *document["layers"]]
        for part in parts:
            self._blob(place, part, store)
        manifest = store.add(document.get("mediaType", MANIFEST_TYPE), content)
        return store.keep(ref, "pulled", manifest, parts)


def _answers(base: str) -> bool:
    found: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{base}/v2/", timeout=_ANSWER_SECONDS):
                found.append(True)
        except urllib.error.HTTPError as error:
            error.close()
            found.append(error.code == 401)
        except (urllib.error.URLError, OSError, ValueError):
            found.append(False)

    # In a thread of its own: the time limit of a socket does not cover looking its name up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return bool(found) and found[0]


def _token(challenge: str, repository: str) -> str:
    """An anonymous token, asked for where a Bearer challenge says."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.startswith("Bearer ") or "realm" not in fields:
        raise PullError(f"the registry wants credentials ({challenge or 'no challenge'})")
    query = {"scope": fields.get("scope", f"repository:{repository}:pull")}
    if "service" in fields:
        query["service"] = fields["service"]
    url = f"{fields['realm']}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=_READ_SECONDS) as answer:
            document = json.load(answer)
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        raise PullError(f"no anonymous token from {fields['realm']}: {error}") from error
    return str(document.get("token") or document.get("access_token") or "")
