"""A small ZooKeeper client: four-letter words, and sessions with SASL DIGEST-MD5 (RFC 2831) for the proof.

The wire format is jute: big-endian integers, length-prefixed strings and buffers, as in ZooKeeper's zookeeper.jute.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from types import TracebackType

from provisioning.engines.base import LinkError

CREATE, DELETE, GET, SASL, CLOSE = 1, 2, 4, 102, -11
EPHEMERAL = 1
SESSION_MS = 10000


class ZooKeeperError(Exception):
    """The server refused a request; `code` is ZooKeeper's error number, such as -115 for a failed sign-in."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ZooKeeper answered error {code}")
        self.code = code


def four_letters(connected: socket.socket, word: str) -> str:
    """Send a four-letter word and read until the server closes. Raises LinkError."""
    try:
        connected.sendall(word.encode())
        parts = []
        while part := connected.recv(4096):
            parts.append(part)
    except OSError as error:
        raise LinkError(f"no answer to {word}") from error
    finally:
        connected.close()
    return b"".join(parts).decode(errors="replace")


def parse_mntr(text: str) -> dict[str, str]:
    """The answer to mntr: key to value, without the prefix zk_."""
    pairs = (line.split("\t", 1) for line in text.splitlines() if "\t" in line)
    return {key.removeprefix("zk_"): value for key, value in pairs}


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">i", len(data)) + data


def digest_answer(
    challenge: str, user: str, password: str, nonce: Callable[[], str] = lambda: secrets.token_hex(16)
) -> str:
    """The response to a DIGEST-MD5 challenge for ZooKeeper's service name."""
    found: Mapping[str, str] = {
        key: value.strip('"') for key, value in re.findall(r'([\w-]+)=("[^"]*"|[^,]*)', challenge)
    }
    realm, server_nonce, cnonce = found.get("realm", ""), found["nonce"], nonce()
    uri = f"zookeeper/{realm or 'zk-sasl-md5'}"

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    start = md5(f"{user}:{realm}:{password}".encode()) + f":{server_nonce}:{cnonce}".encode()
    first, second = md5(start).hex(), md5(f"AUTHENTICATE:{uri}".encode()).hex()
    answer = md5(f"{first}:{server_nonce}:00000001:{cnonce}:auth:{second}".encode()).hex()
    return (
        f'charset=utf-8,username="{user}",realm="{realm}",nonce="{server_nonce}",nc=00000001,cnonce="{cnonce}",'
        f'digest-uri="{uri}",maxbuf=65536,response={answer},qop=auth'
    )


class Session:
    """One signed-in session. Raises LinkError when the connection breaks, ZooKeeperError when a request is refused."""

    def __init__(self, connected: socket.socket, user: str, password: str) -> None:
        self._socket = connected
        self._xid = 0
        # protocol version, last zxid seen, timeout, session id, password, read-only
        self._send(struct.pack(">iqiq", 0, 0, SESSION_MS, 0) + _string(b"\0" * 16) + b"\0")
        self._receive()
        challenge = self._sasl(b"")
        self._sasl(digest_answer(challenge.decode(), user, password).encode())

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, path: str, data: bytes, *, ephemeral: bool = False) -> None:
        """Create a node that everybody signed in may use."""
        everybody = struct.pack(">ii", 1, 31) + _string("world") + _string("anyone")
        self._call(CREATE, _string(path) + _string(data) + everybody + struct.pack(">i", EPHEMERAL if ephemeral else 0))

    def get(self, path: str) -> bytes:
        """A node's data."""
        body = self._call(GET, _string(path) + b"\0")
        (length,) = struct.unpack_from(">i", body)
        return body[4 : 4 + length]

    def delete(self, path: str) -> None:
        """Delete a node, whatever its version."""
        self._call(DELETE, _string(path) + struct.pack(">i", -1))

    def close(self) -> None:
        """End the session; its ephemeral nodes go with it."""
        try:
            self._call(CLOSE, b"")
        except (LinkError, ZooKeeperError):
            pass  # it is gone either way
        finally:
            self._socket.close()

    def _sasl(self, token: bytes) -> bytes:
        body = self._call(SASL, _string(token))
        (length,) = struct.unpack_from(">i", body)
        return body[4 : 4 + max(0, length)]

    def _call(self, kind: int, body: bytes) -> bytes:
        self._xid += 1
        self._send(struct.pack(">ii", self._xid, kind) + body)
        while True:
            answer = self._receive()
            xid, _, code = struct.unpack_from(">iqi", answer)
            if xid == self._xid:
                break
        if code != 0:
            raise ZooKeeperError(code)
        return answer[16:]

    def _send(self, body: bytes) -> None:
        try:
            self._socket.sendall(struct.pack(">i", len(body)) + body)
        except OSError as error:
            raise LinkError("the connection to ZooKeeper broke") from error

    def _receive(self) -> bytes:
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except OSError as error:
                raise LinkError("ZooKeeper does not answer") from error
            if not part:
                raise LinkError("ZooKeeper closed the connection")
            data += part
        return data
