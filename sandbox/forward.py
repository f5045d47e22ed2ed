"""A TCP forwarder into a sandbox: listens on this host, connects inside the sandbox's network.

The listening socket is made before the process joins the network namespace and stays in the host's; connections are
made after. Used for the API server and for the portal's web port.

    python -m sandbox.forward FD NETWORK_NAMESPACE_FILE HOST PORT
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
CHUNK = 1 << 16


def join_network(namespace: Path) -> None:
    """Move this thread into a network namespace. Raises OSError where that is forbidden."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open("rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot join {namespace}: {os.strerror(number)}")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        # One direction may end while the other goes on (half-closed), as with a streamed answer.
        if writer.can_write_eof():
            writer.write_eof()


async def _serve(listening: socket.socket, host: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            for side in (writer, inner_writer):
                side.close()

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = await asyncio.start_server(relay, sock=listening)
    await ended.wait()
    server.close()


def main() -> None:
    """Serve until SIGTERM."""
    descriptor, namespace, host, port = sys.argv[1:5]
    listening = socket.socket(fileno=int(descriptor))
    join_network(Path(namespace))
    asyncio.run(_serve(listening, host, int(port)))


if __name__ == "__main__":
    main()
