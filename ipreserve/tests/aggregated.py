"""An API server for IPReservations behind the test's own, as Calico's is: reached by an APIService.

It keeps them in memory, and on demand does what Calico's does after five conflicts: reports success for a write that it
gave up.
"""

from __future__ import annotations

import itertools
import json
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from ipreserve import certs, errors
from ipreserve.kube import Kube
from ipreserve.tests.waiting import eventually

GROUP, VERSION = "projectcalico.org", "v3"
ROOT = f"/apis/{GROUP}/{VERSION}"
COLLECTION = f"{ROOT}/ipreservations"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"


class Aggregated:
    """What it holds. With `gives_up` it stores nothing and says that it did."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.gives_up = False
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of one request."""
        with self._lock:
            if path == ROOT:
                resource = {
                    "name": "ipreservations", "singularName": "ipreservation", "namespaced": False,
                    "kind": "IPReservation", "verbs": ["get", "list", "create", "update"],
                }  # fmt: skip
                found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
                return 200, {**found, "resources": [resource]}
            if not path.startswith(COLLECTION):
                return _status(404, "NotFound")
            name = path.removeprefix(COLLECTION).strip("/") or (body or {}).get("metadata", {}).get("name", "")
            if method == "GET" and not name:
                kind = {"kind": "IPReservationList", "apiVersion": f"{GROUP}/{VERSION}"}
                return 200, {**kind, "metadata": {"resourceVersion": "1"}, "items": list(self.objects.values())}
            there = self.objects.get(name)
            if method == "GET":
                return (200, there) if there is not None else _status(404, "NotFound")
            if (method == "POST") == (there is not None):
                return _status(409, "AlreadyExists") if there is not None else _status(404, "NotFound")
            seen = body["metadata"].get("resourceVersion")
            if there is not None and seen != there["metadata"]["resourceVersion"]:
                return _status(409, "Conflict")
            written = {**body, "metadata": {**body["metadata"], "resourceVersion": str(next(self._versions))}}
            if not self.gives_up:
                self.objects[name] = written
            return 200, written


def _status(code: int, reason: str) -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}


@contextmanager
def aggregated(door: Kube) -> Iterator[Aggregated]:
    """Served as projectcalico.org/v3 until the end. Native kinds of the same group must not be there."""
    found = Aggregated()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length) if length else b""
            asked = urlsplit(self.path)
            body = json.loads(sent) if sent else None
            if "dryRun" in asked.query:
                status, told = 200, body
            else:
                status, told = found.answer(self.command, asked.path, body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = _handle

        def log_message(self, format: str, *args: object) -> None:
            return

    with https(Handler) as (port, _), _registered(door, port):
        yield found


@contextmanager
def https(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[int, bytes]]:
    """The port of a server on 127.0.0.1, and the authority of its certificate."""
    now = datetime.now(UTC) - timedelta(minutes=1)
    authority = certs.make_authority(now)
    pair = certs.issue(authority, ["localhost", "127.0.0.1"], now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(file.name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], authority.certificate
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _registered(door: Kube, port: int) -> Iterator[None]:
    service = {
        "metadata": {"name": "calico-api", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    registered = {
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP, "version": VERSION, "groupPriorityMinimum": 1500, "versionPriority": 200,
            "service": {"namespace": "default", "name": "calico-api", "port": port},
            "insecureSkipTLSVerify": True,
        },
    }  # fmt: skip
    try:
        door.request("POST", "/api/v1/namespaces/default/services", service)
        door.request("POST", SERVICES, registered)
        eventually(lambda: _served(door), "the aggregated API server is available")
        yield
    finally:
        for path in (f"{SERVICES}/{NAME}", "/api/v1/namespaces/default/services/calico-api"):
            try:
                door.request("DELETE", path)
            except errors.NotFound:
                continue
        eventually(lambda: not _served(door), "it is no longer served")


def _served(door: Kube) -> bool:
    try:
        door.get(COLLECTION)
    except errors.ApiError:
        return False
    return True
