"""A door between a service and the real API server that can lie, refuse, or have the service killed at a write."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from ipreserve.kube import Kube

WRITES = ("POST", "PUT", "PATCH", "DELETE")
# Of the answers' headers, those that mean something to the services.
KEPT = ("Content-Type", "Date", "Retry-After")


class Dropped(Exception):
    """For `Faults.before`: this request does not reach the API server, and nobody answers it."""


@dataclass
class Faults:
    """What happens to writes, by their method and path. `before` may raise Dropped."""

    lie: Callable[[str, str], bool] = lambda method, path: False
    refuse: Callable[[str, str], bool] = lambda method, path: False
    before: Callable[[str, str], None] = lambda method, path: None
    after: Callable[[str, str], None] = lambda method, path: None
    seen: list[str] = field(default_factory=list)


@contextmanager
def proxy(door: Kube, faults: Faults) -> Iterator[str]:
    """The URL of a proxy to the API server behind `door`. Callers sign in with their own tokens."""
    plain = urllib3.PoolManager(maxsize=8, ssl_context=door.context, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
            is_attempt = self.command in WRITES and "leases" not in self.path
            is_write = is_attempt and "dryRun" not in self.path
            if is_write:
                faults.seen.append(f"{self.command} {self.path}")
                try:
                    faults.before(self.command, self.path)
                except Dropped:
                    self.close_connection = True
                    return
            # A server that cannot store refuses dry runs too.
            if is_attempt and faults.refuse(self.command, self.path):
                self._send(503, {}, json.dumps({"message": "refused by the test"}).encode())
                return
            if is_write and faults.lie(self.command, self.path):
                told: dict[str, Any] = json.loads(body)
                told["metadata"]["resourceVersion"] = str(10 + int(told["metadata"].get("resourceVersion", 0)))
                self._send(200, {}, json.dumps(told).encode())
                return
            streaming = "watch=" in self.path
            answer = plain.request(
                self.command, door.server + self.path, body=body or None, headers=headers, preload_content=not streaming
            )
            kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}
            if streaming:
                self._stream(answer, kept)
                return
            if is_write:
                faults.after(self.command, self.path)
            self._send(answer.status, kept, answer.data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

        def _stream(self, answer: urllib3.BaseHTTPResponse, headers: dict[str, str]) -> None:
            self.send_response_only(answer.status)
            for name, value in {**headers, "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = True
            try:
                while piece := answer.read1(1 << 16):
                    self.wfile.write(piece)
            except (OSError, urllib3.exceptions.HTTPError):
                return
            finally:
                answer.close()

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in {
                "Content-Type": "application/json",
                **headers,
                "Content-Length": str(len(body)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Services that are killed break their connections."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        plain.clear()
