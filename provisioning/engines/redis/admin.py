"""A small client of the Redis protocol (RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from provisioning.engines.base import LinkError

Reply = str | int | None | list["Reply"]


class RedisError(Exception):
    """The server said no: `code` is its first word, such as MOVED or ERR."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


class Connection:
    """One connection to one node. Raises LinkError when it breaks, RedisError when the server refuses."""

    def __init__(self, connected: socket.socket, *accounts: tuple[str, str]) -> None:
        """Sign in with the first of the accounts (user, password) that is accepted; user "" is the default one."""
        self._socket = connected
        self._file = connected.makefile("rb")
        try:
            self._sign_in(accounts)
        except (LinkError, RedisError):
            self.close()
            raise

    def _sign_in(self, accounts: Sequence[tuple[str, str]]) -> None:
        for number, (user, password) in enumerate(accounts, 1):
            try:
                self.call("AUTH", *([user] if user else []), password)
            except RedisError as error:
                # A server without any password answers ERR.
                if number == len(accounts) or error.code not in ("WRONGPASS", "ERR"):
                    raise
            else:
                return

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._file.close()
        self._socket.close()

    def call(self, *words: str | int) -> Reply:
        """Send one command and return its reply."""
        replies = self.pipeline([words])
        if isinstance(replies[0], RedisError):
            raise replies[0]
        return replies[0]

    def pipeline(self, commands: Sequence[Sequence[str | int]]) -> list[Reply | RedisError]:
        """Send commands at once and return their replies, errors among them."""
        try:
            self._socket.sendall(b"".join(_encode(words) for words in commands))
            return [self._read() for _ in commands]
        except (OSError, ValueError) as error:
            raise LinkError(f"the connection to Redis broke ({type(error).__name__})") from error

    def wait_up_to(self, seconds: float) -> None:
        """How long to wait for each reply from now on."""
        self._socket.settimeout(seconds)

    def text(self, *words: str | int) -> str:
        """A command whose reply is text."""
        reply = self.call(*words)
        return reply if isinstance(reply, str) else ""

    def _read(self) -> Reply | RedisError:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("closed")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == "-1":
                return None
            # Keys may be any bytes: what is not UTF-8 must come out of _encode as it came in here.
            return self._file.read(int(rest) + 2)[:-2].decode(errors="surrogateescape")
        if kind == b"*":
            items = [self._read() for _ in range(int(rest))]
            return [item for item in items if not isinstance(item, RedisError)]
        raise OSError(f"not the Redis protocol: {kind!r}")


def _encode(words: Sequence[str | int]) -> bytes:
    parts = [str(word).encode(errors="surrogateescape") for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@dataclass(frozen=True)
class Peer:
    """One line of CLUSTER NODES.

    `moving` are the slots on the move, which only a node's own line tells: (slot, whether it comes in, the other id).
    """

    id: str
    ip: str
    flags: frozenset[str]
    master: str
    epoch: int
    linked: bool
    slots: tuple[tuple[int, int], ...]
    moving: tuple[tuple[int, bool, str], ...] = ()
    # A ping it has not answered yet is on its way.
    pinged: bool = False
    # When it last answered one, in milliseconds by the clock of the node that lists it; 0: never, or itself.
    heard: int = 0
    # The name it wants clients to be sent to, "" while that is not known.
    host: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.flags & {"fail", "noaddr"})

    @property
    def alive(self) -> bool:
        """Whether the node that lists it has lately heard of it: a link alone may still be trying to connect."""
        return self.linked and not self.failed and not self.pinged

    @property
    def doubted(self) -> bool:
        """Taken for failed, by this one node at least."""
        return bool(self.flags & {"fail", "fail?"})


def parse_nodes(text: str) -> list[Peer]:
    """CLUSTER NODES: https://redis.io/docs/latest/commands/cluster-nodes/."""
    peers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 8:
            continue
        slots = []
        moving = []
        for word in words[8:]:
            if word.startswith("["):
                # [93-<-id] comes in, [77->-id] goes out.
                number, direction, other = word[1:-1].split("-", 2)
                moving.append((int(number), direction == "<", other))
            else:
                first, _, last = word.partition("-")
                slots.append((int(first), int(last or first)))
        address, _, more = words[1].partition(",")
        ip = address.partition("@")[0].rpartition(":")[0]
        master = "" if words[3] == "-" else words[3]
        flags = frozenset(words[2].split(","))
        linked, pinged = words[7] == "connected", words[4] != "0"
        peers.append(
            Peer(
                words[0],
                ip,
                flags,
                master,
                int(words[6]),
                linked,
                tuple(slots),
                tuple(moving),
                pinged,
                int(words[5]),
                more.partition(",")[0],
            ),
        )
    return peers


def parse_info(text: str) -> dict[str, str]:
    """INFO and CLUSTER INFO: key to value."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {key: value.strip() for key, _, value in pairs if key}
