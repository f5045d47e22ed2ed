"""The one door to Kubernetes: requests over urllib3, watches, and which API Calico's kinds are served by.

Own code instead of the `kubernetes` package: a handful of requests on raw objects is all that is needed, the package's
models take a second and 60 MB to load, and it would be the largest part of the image. Signs in with a service account,
or a kubeconfig with a certificate or a token; login programs are for people, and kustomize serves them.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import logging
import random
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import orjson
import urllib3
import yaml

from ipreserve import errors

log = logging.getLogger("ipreserve.kube")

JsonObject = dict[str, Any]
JSON = "application/json"
# Only the metadata of what is asked for: whether it is there, and which version.
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
# A mounted token is replaced on disk; it is read again at least this often.
TOKEN_SECONDS = 30.0
WATCH_SECONDS = 240
# A bookmark comes every minute; a connection that is silent for longer leads nowhere.
SILENCE_SECONDS = 90.0
MESSAGE_LIMIT = 300
PAGE = 500
CLOCK_JUMP_SECONDS = 30.0
CLOCK_PATIENCE_SECONDS = 600.0


class Clock:
    """The API server's time, carried on by this machine's monotonic clock.

    All replicas then agree, and setting the local clock changes nothing. A jump of the server's clock is believed only
    after it has lasted for ten minutes: until then holds are measured as if nothing had happened.

    Whoever ends holds sets `local`, this machine's own clock in seconds since 1970: where the server is ahead of it
    when this process starts, it may have jumped a moment ago. The earlier of both then counts for as long.
    """

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, on_jump: Callable[[float], None] = lambda _: None
    ) -> None:
        self._monotonic = monotonic
        self.local: Callable[[], float] | None = None
        # Whether what is doubted is the first time that the server said, which another process may know to be right.
        self._unsure = False
        self._offset: float | None = None
        self._jumped: tuple[float, float] | None = None
        self._since = 0.0
        self._lock = threading.Lock()
        self.on_jump = on_jump

    def observe(self, server: float) -> None:
        """The server said it is this time (whole seconds) now."""
        now = self._monotonic()
        offset = server - now
        with self._lock:
            if self._offset is None:
                self._since = now
                ahead = 0.0 if self.local is None else server - self.local()
                self._offset = offset - ahead if ahead >= CLOCK_JUMP_SECONDS else offset
                if self._offset != offset:
                    self._jumped, self._unsure = (offset, now), True
                    log.warning(
                        "the API server's clock is %.0f s ahead of this machine's: holds go by the earlier for 10 min",
                        ahead,
                    )
                    self.on_jump(ahead)
                return
            off = offset - self._offset
            if abs(off) < CLOCK_JUMP_SECONDS:
                self._jumped, self._unsure = None, False
                if off > 0:
                    # The header has whole seconds and takes time to come: the largest one seen is the nearest.
                    self._offset = offset
                elif off < -2.0:
                    self._offset += 0.1 * off
                return
            if self._jumped is None or abs(offset - self._jumped[0]) >= CLOCK_JUMP_SECONDS:
                self._jumped, self._unsure = (offset, now), False
                log.warning("the API server's clock jumped by %.0f s; holds go on by the time it had before", off)
                self.on_jump(off)
            elif now - self._jumped[1] >= CLOCK_PATIENCE_SECONDS:
                log.warning("the API server's clock has been %.0f s off for ten minutes: taken as right", off)
                self._offset, self._jumped, self._unsure = offset, None, False

    def follow(self, other: float) -> None:
        """Another process keeps this time now. Where it is far off, the server's clock jumped before this one started.

        The other has seen what came before, so its time goes on here too, until a jump is believed. A clock that is
        older than that patience knows better.
        """
        now = self._monotonic()
        with self._lock:
            if self._offset is None or now - self._since >= CLOCK_PATIENCE_SECONDS:
                return
            if self._jumped is not None and not self._unsure:
                return
            if abs(other - now - self._offset) >= CLOCK_JUMP_SECONDS:
                self._offset = other - now

    @property
    def doubts(self) -> bool:
        """Whether the server says a time that is not believed, or not yet."""
        with self._lock:
            return self._jumped is not None

    def now(self) -> float:
        """Seconds since 1970, UTC. This machine's own clock before the first answer."""
        with self._lock:
            at = time.time() if self._offset is None else self._offset + self._monotonic()
        # As exact as the ledger writes it, so that a record that was read again is the same.
        return round(at, 3)


class Kube:
    """Requests to one API server. Safe to share between threads."""

    def __init__(
        self, server: str, *, context: ssl.SSLContext, token: str = "", token_file: Path | None = None, pool: int = 16
    ) -> None:
        self.server = server.rstrip("/")
        # For who needs connections of its own.
        self.context = context
        self.clock = Clock()
        self._token, self._token_file, self._token_read = token, token_file, -TOKEN_SECONDS
        self._pool = urllib3.PoolManager(maxsize=pool, ssl_context=context, retries=False)

    def request(
        self, method: str, path: str, body: Mapping[str, Any] | list[Any] | None = None, *,
        query: Mapping[str, str] | None = None, content_type: str = JSON, timeout: float = READ_SECONDS,
        accept: str = JSON,
    ) -> JsonObject:  # fmt: skip
        """One request, decoded; `timeout` in seconds bounds connecting plus waiting. Raises ApiError, Unreachable."""
        data = None if body is None else orjson.dumps(body)
        answer = self._open(method, path, data, query, content_type, timeout, accept=accept, stream=False)
        if answer.status >= 400:
            raise refusal(answer.status, answer.data, f"{method} {path}")
        try:
            decoded = orjson.loads(answer.data)
        except ValueError as error:
            raise errors.NotStored(f"{method} {path}: {answer.status} with a body that is not JSON") from error
        if not isinstance(decoded, dict):
            raise errors.NotStored(f"{method} {path}: {answer.status} with a body that is no object")
        return decoded

    def _open(
        self, method: str, path: str, data: bytes | None, query: Mapping[str, str] | None, content_type: str,
        timeout: float, *, stream: bool, accept: str = JSON,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "ipreserve"}
        token = self._current_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        limits = urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout)
        try:
            answer = self._pool.request(
                method, url, body=data, headers=headers, timeout=limits, preload_content=not stream
            )
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"{method} {path}: no answer ({type(error).__name__})") from error
        if (date := email.utils.parsedate_tz(answer.headers.get("Date", ""))) is not None:
            self.clock.observe(email.utils.mktime_tz(date))
        return answer

    def _current_token(self) -> str:
        if self._token_file is not None and time.monotonic() - self._token_read > TOKEN_SECONDS:
            try:
                self._token = self._token_file.read_text().strip()
            except OSError as error:
                log.warning("the token's file cannot be read (%s); the last one is used", error.strerror)
            self._token_read = time.monotonic()
        return self._token

    def get(self, path: str, *, timeout: float = READ_SECONDS, accept: str = JSON, **query: str) -> JsonObject:
        """GET."""
        return self.request("GET", path, query=query, timeout=timeout, accept=accept)

    def list(self, path: str, *, accept: str = JSON, **query: str) -> tuple[list[JsonObject], str]:
        """All pages of a list, from one moment; and its resourceVersion."""
        while True:
            items: list[JsonObject] = []
            version = ""
            try:
                for page, at in self.pages(path, accept=accept, **query):
                    items += page
                    version = at
            except errors.Expired:
                continue
            return items, version

    def pages(self, path: str, *, accept: str = JSON, **query: str) -> Iterator[tuple[Sequence[JsonObject], str]]:
        """The pages of a list, from one moment, each with the list's resourceVersion. Only one of them is in memory.

        Raises Expired where that moment is too long ago by now: the list has to be begun anew.
        """
        more: dict[str, str] = {}
        while True:
            page = self.request("GET", path, query={"limit": str(PAGE)} | query | more, accept=accept)
            yield page.get("items") or [], str(page["metadata"].get("resourceVersion", ""))
            token = page["metadata"].get("continue")
            if not token:
                return
            more = {"continue": token}

    def watch(
        self, path: str, version: str, *, opened: Callable[[Callable[[], None]], None] = lambda _: None, **query: str
    ) -> Iterator[JsonObject]:
        """Events from a resourceVersion on, for some minutes. Raises Expired when it is too old.

        `opened` is given what ends it from another thread: events come rarely, so waiting for the next is no way out.
        """
        query |= {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        answer = self._open("GET", path, None, query, JSON, SILENCE_SECONDS, stream=True)
        try:
            if answer.status >= 400:
                raise refusal(answer.status, answer.read(), f"watch {path}")
            opened(answer.shutdown)
            rest = b""
            for chunk in answer.stream(1 << 16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event: JsonObject = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise refusal(event["object"].get("code", 500), b"", f"watch {path}")
                    yield event
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise errors.Unreachable(f"watch {path}: broke ({type(error).__name__})") from error
        finally:
            answer.close()


def refusal(status: int, body: bytes, what: str) -> errors.ApiError:
    """The error of a status."""
    try:
        message = str(orjson.loads(body)["message"])[:MESSAGE_LIMIT]
    except (ValueError, KeyError, TypeError):
        message = ""
    kind = {404: errors.NotFound, 409: errors.Conflict, 410: errors.Expired}.get(status, errors.ApiError)
    return kind(f"{what}: {status} {message}".rstrip(), status)


# --- signing in -----------------------------------------------------------------------------------------------------


def connect(kubeconfig: Path | None, *, pool: int = 16) -> Kube:
    """From a kubeconfig, else from the pod's service account. Raises Misconfigured, which quotes nothing secret."""
    return _from_kubeconfig(kubeconfig, pool) if kubeconfig is not None else _in_cluster(pool)


def _in_cluster(pool: int) -> Kube:
    try:
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    except OSError as error:
        raise errors.Misconfigured("no service account here: run in a pod, or give --kubeconfig PATH") from error
    return Kube("https://kubernetes.default.svc", context=context, token_file=ACCOUNT / "token", pool=pool)


def _from_kubeconfig(path: Path, pool: int) -> Kube:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        current = _named(content["contexts"], content["current-context"])["context"]
        cluster = _named(content["clusters"], current["cluster"])["cluster"]
        user = _named(content["users"], current["user"])["user"] or {}
        server = str(cluster["server"])
    except OSError as error:
        raise errors.Misconfigured(f"--kubeconfig: {path.name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise errors.Misconfigured(f"--kubeconfig: {path.name} is no kubeconfig with a current context") from error
    if "exec" in user or "auth-provider" in user:
        raise errors.Misconfigured(
            f"--kubeconfig: {path.name} signs in with a program. Use a certificate, a token, or a service account."
        )
    try:
        authority = _material(cluster, "certificate-authority", path)
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate, key = _material(user, "client-certificate", path), _material(user, "client-key", path)
        if certificate and key:
            # The ssl module takes a client's certificate from files only.
            with tempfile.NamedTemporaryFile() as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (OSError, ValueError) as error:
        raise errors.Misconfigured(f"--kubeconfig: {path.name}: its certificates cannot be used") from error
    token_file = path.parent / user["tokenFile"] if "tokenFile" in user else None
    return Kube(server, context=context, token=str(user.get("token", "")), token_file=token_file, pool=pool)


def _named(among: list[JsonObject], name: str) -> JsonObject:
    return next((one for one in among if one["name"] == name), {})


def _material(of: Mapping[str, Any], name: str, path: Path) -> bytes:
    if f"{name}-data" in of:
        return base64.b64decode(of[f"{name}-data"])
    return (path.parent / of[name]).read_bytes() if name in of else b""


# --- Calico's API ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CalicoApi:
    """Where IPReservations are written. `aggregated` means through Calico's own API server, which may lose writes."""

    group: str
    version: str
    aggregated: bool
    kinds: frozenset[str]

    @property
    def name(self) -> str:
        """As the option says it."""
        return "aggregated" if self.aggregated else self.version

    @property
    def api_version(self) -> str:
        """For manifests."""
        return f"{self.group}/{self.version}"

    @property
    def reservations(self) -> str:
        """The path of the collection."""
        return f"/apis/{self.group}/{self.version}/ipreservations"


NATIVE, LEGACY = ("projectcalico.org", "v3"), ("crd.projectcalico.org", "v1")


def _kinds(kube: Kube, group: str, version: str) -> frozenset[str]:
    try:
        found = kube.get(f"/apis/{group}/{version}")
    except errors.ApiError as error:
        # 503 while an aggregated server is down: then it is not there for us.
        if error.status in (403, 404, 503):
            return frozenset()
        raise
    return frozenset(one["name"] for one in found.get("resources") or ())


def detect(kube: Kube, wanted: str = "auto") -> CalicoApi:
    """Native v3 CRDs, else v1 CRDs, else the aggregated server. Raises NoCalico, which says what was looked for."""
    native = _kinds(kube, *NATIVE)
    aggregated = False
    if "ipreservations" in native:
        service = kube.get("/apis/apiregistration.k8s.io/v1/apiservices/v3.projectcalico.org")
        aggregated = bool(service.get("spec", {}).get("service"))
    options: dict[str, CalicoApi] = {}
    if "ipreservations" in native:
        options["aggregated" if aggregated else "v3"] = CalicoApi(*NATIVE, aggregated, native)
    if wanted in ("auto", "v1") and "v3" not in options:
        legacy = _kinds(kube, *LEGACY)
        if "ipreservations" in legacy:
            options["v1"] = CalicoApi(*LEGACY, False, legacy)
    order = ("v3", "v1", "aggregated") if wanted == "auto" else (wanted,)
    found = next((options[one] for one in order if one in options), None)
    if found is None:
        raise errors.NoCalico(
            f"no IPReservation is served as {' or '.join(order)}: looked in projectcalico.org/v3 and "
            f"crd.projectcalico.org/v1. Is Calico installed, with Kubernetes as its datastore?"
        )
    return found


def ipam_path(kube: Kube, calico: CalicoApi, kind: str) -> str | None:
    """The collection of an IPAM kind (`ipamblocks`, `ippools`): of the same group, else v1; None when not served."""
    if kind in calico.kinds:
        return f"/apis/{calico.group}/{calico.version}/{kind}"
    legacy = _kinds(kube, *LEGACY)
    return f"/apis/{LEGACY[0]}/{LEGACY[1]}/{kind}" if kind in legacy else None


# --- a mirror of a collection ---------------------------------------------------------------------------------------

Row = TypeVar("Row")


class Mirror(Generic[Row]):
    """What a collection holds, kept up by a watch. Only what `project` keeps of each object is remembered."""

    def __init__(self, kube: Kube, path: str, project: Callable[[JsonObject], Row | None]) -> None:
        self.kube, self.path, self._project = kube, path, project
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._listed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mirror {path}", daemon=True)
        self._end_watch: Callable[[], None] | None = None
        # Objects that were left out, as they were told.
        self._told: set[str] = set()
        self.error: str | None = None

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and its thread; returns when both have ended, at the latest when a request has timed out."""
        self._stop.set()
        self._shut()
        if self._thread.is_alive():
            self._thread.join(CONNECT_SECONDS + READ_SECONDS)

    def _opened(self, end_watch: Callable[[], None]) -> None:
        self._end_watch = end_watch
        # Either this sees that it is to stop, or `stop` sees the watch.
        if self._stop.is_set():
            self._shut()

    def _shut(self) -> None:
        end_watch = self._end_watch
        if end_watch is not None:
            # It may have ended by itself at this moment.
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                end_watch()

    def wait(self, seconds: float) -> bool:
        """Whether the first list came within so many seconds."""
        return self._listed.wait(seconds)

    def rows(self) -> list[Row]:
        """All that is there now."""
        with self._lock:
            return list(self._rows.values())

    def row(self, uid: str) -> Row | None:
        """What is there now of the object of this uid."""
        with self._lock:
            return self._rows.get(uid)

    def relist(self) -> str:
        """Read all of it now; returns the resourceVersion. Raises ApiError or Unreachable."""
        return self._read()[1]

    def fresh(self) -> list[Row]:
        """All that is there now by a list made now, whatever the watch says. Raises ApiError or Unreachable."""
        return self._read()[0]

    def _read(self) -> tuple[list[Row], str]:
        version = ""
        while True:
            rows: dict[str, Row] = {}
            try:
                # Whole objects are a hundred times as large as what is kept of them.
                for page, at in self.kube.pages(self.path):
                    version = at
                    for one in page:
                        if (row := self._row(one)) is not None:
                            rows[one["metadata"].get("uid") or one["metadata"]["name"]] = row
            except errors.Expired:
                continue
            break
        with self._lock:
            self._rows = rows
        self._listed.set()
        return list(rows.values()), version

    def _row(self, one: JsonObject) -> Row | None:
        try:
            return self._project(one)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            # Whatever somebody put into one object must not cost the others.
            metadata = one.get("metadata") or {}
            what = f"{self.path} {metadata.get('namespace', '')}/{metadata.get('name')} is left out: {error!r}"[:300]
            if what not in self._told:
                log.warning("%s", what)
                self._told = {*list(self._told)[-99:], what}
            return None

    def _run(self) -> None:
        pause = 0.2
        version = ""
        while not self._stop.is_set():
            try:
                version = version or self.relist()
                self.error = None
                for event in self.kube.watch(self.path, version, opened=self._opened):
                    if self._stop.is_set():
                        return
                    version = self._take(event)
                pause = 0.2
            except (errors.IpreserveError, KeyError) as error:
                if self._stop.is_set():
                    return
                self.error = str(error)
                log.warning("watch of %s: %s", self.path, error)
            except Exception as error:
                # Who stopped watching would go by what there was for ever.
                self.error = repr(error)
                log.exception("watch of %s broke", self.path)
            else:
                continue
            version = ""
            self._stop.wait(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 10.0)

    def _take(self, event: JsonObject) -> str:
        one = event["object"]
        uid = one["metadata"].get("uid") or one["metadata"].get("name", "")
        if event["type"] != "BOOKMARK":
            row = self._row(one) if event["type"] != "DELETED" else None
            with self._lock:
                if row is None:
                    self._rows.pop(uid, None)
                else:
                    self._rows[uid] = row
        return str(one["metadata"]["resourceVersion"])


def ipam_settings(kube: Kube, calico: CalicoApi) -> tuple[bool, float]:
    """Whether borrowing is off (strictAffinity), and Calico's own cooldown in seconds; its defaults when not set."""
    found = ipam_configuration(kube, calico)
    return bool(found.get("strictAffinity")), float(found.get("ipCooldownSeconds") or 0)


def ipam_configuration(kube: Kube, calico: CalicoApi) -> JsonObject:
    """The spec of Calico's IPAM configuration `default`; empty when there is none.

    Its name differs between the groups: `ipamconfigurations` in projectcalico.org/v3 (native kinds and Calico's own
    server), `ipamconfigs` in crd.projectcalico.org/v1. After a migration to native kinds the old one may be left over,
    so it is not asked where the new one is served. Raises ApiError, Unreachable.
    """
    kind = "ipamconfigurations" if "ipamconfigurations" in calico.kinds else "ipamconfigs"
    path = ipam_path(kube, calico, kind)
    if path is None:
        return {}
    try:
        spec: JsonObject = kube.get(f"{path}/default").get("spec") or {}
    except errors.NotFound:
        return {}
    return spec
