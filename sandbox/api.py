"""Speaking to a sandbox's API server: enough of a client to wait for things, with the standard library only.

Polling with kubectl costs a tenth of a second of CPU each time, which is what the control plane needs to start.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 5.0


class Client:
    """Speaks as the user of a kubeconfig that our certificate maker wrote."""

    def __init__(self, kubeconfig: Path) -> None:
        text = kubeconfig.read_text()

        def field(name: str) -> str:
            found = re.search(rf"^ *{name}: (\S+)$", text, re.MULTILINE)
            assert found is not None
            return found[1]

        def decoded(name: str) -> bytes:
            return base64.b64decode(field(name))

        url = urlsplit(field("server"))
        self._host, self._port = url.hostname or "", url.port
        self._context = ssl.create_default_context(cadata=decoded("certificate-authority-data").decode())
        # The ssl module takes a client's certificate from files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(decoded("client-certificate-data") + decoded("client-key-data"))
            file.flush()
            self._context.load_cert_chain(file.name)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; status 0 when the server does not answer."""
        return self.send("GET", path)

    def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body of the answer, status 0 when there is none; `kind` is the content type of what is sent."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._context)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {} if body is None else {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def exists(self, path: str) -> bool:
        """Whether a GET succeeds."""
        return self.get(path)[0] == 200

    def read(self, path: str) -> dict[str, Any]:
        """An object or list; empty when the server does not answer or has none."""
        status, body = self.get(path)
        found: dict[str, Any] = json.loads(body) if status == 200 else {}
        return found
