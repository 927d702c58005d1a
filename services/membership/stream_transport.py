"""Exchanges over connections: reading and writing one message at a time, in slices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

from services.membership.message import Address, StreamMessage
from services.membership.stream import ParserStop, StreamFormat

_READ_BYTES: Final = 64 * 1024


class StreamTransport:
    """Reads and writes messages on connected sockets.

    Args:
        form: How this cluster wraps its streams.
    """

    def __init__(self, form: StreamFormat) -> None:
        self._form = form

    @contextlib.asynccontextmanager
    async def dial(self, address: Address) -> AsyncIterator[socket.socket]:
        """Connect to a member, and close when done.

        Raises:
            OSError: It cannot be reached.
        """
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, address)
            yield connection

    async def read(self, connection: socket.socket, *, dialled: bool) -> tuple[StreamMessage, bool]:
        """Read one message, and whether a key had sealed it.

        Raises:
            RefusedError: It is malformed or foreign.
            OSError: The connection broke.
        """
        loop = asyncio.get_running_loop()
        parser = self._form.parser(dialled=dialled)
        while True:
            pause = parser.work()
            if pause is ParserStop.DATA:
                parser.feed(await loop.sock_recv(connection, _READ_BYTES))
            elif pause is ParserStop.TURN:
                await asyncio.sleep(0)
            elif parser.message is not None:
                return parser.message, parser.sealed

    async def write(
        self, connection: socket.socket, message: StreamMessage, *, dialled: bool
    ) -> None:
        """Write one message.

        Raises:
            OSError: The connection broke.
        """
        plain = bytearray()
        for piece in self._form.encode(message):
            plain += piece
            await asyncio.sleep(0)
        data = self._form.wrap(bytes(plain), dialled=dialled)
        await asyncio.get_running_loop().sock_sendall(connection, data)
