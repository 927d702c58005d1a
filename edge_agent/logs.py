"""What programs print: followed live, shipped in pieces, bounded in flight.

A piece counts as shipped once the controller has committed it. When a session ends, whatever was
not confirmed is sent again in the next one; the controller knows by the offset what it has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.assignment import LogPiece
from shoal.names import AttemptRef
from shoal.view import LogStream

SHIPPED_BYTES_MAX: Final = 16 << 20
"""How much of one output is shipped live; the archive has everything."""

_PIECE_BYTES: Final = 64 << 10
_IN_FLIGHT_BYTES_MAX: Final = 4 << 20
_POLL_SECONDS: Final = 0.1
_NAMES: Final = {LogStream.STDOUT: "stdout", LogStream.STDERR: "stderr"}


@dataclass(slots=True)
class _Followed:
    ref: AttemptRef
    stream: LogStream
    path: Path
    sent: int = 0
    confirmed: int = 0

    @property
    def size(self) -> int:
        """How much there is to ship, in bytes."""
        try:
            return min(os.stat(self.path).st_size, SHIPPED_BYTES_MAX)  # noqa: PTH116 - often
        except FileNotFoundError:
            return 0


class LogShipper:
    """Ships the outputs of attempts while a session stands.

    Args:
        say: hands a piece to the session.
    """

    def __init__(self, say: Callable[[LogPiece], Awaitable[None]]) -> None:
        self._say = say
        self._followed: dict[tuple[AttemptRef, LogStream], _Followed] = {}
        self._in_flight = 0
        self._open = False
        self._news = asyncio.Event()
        self._confirmed = asyncio.Condition()

    def follow(self, ref: AttemptRef, folder: Path) -> None:
        """Ship what is in `folder`/stdout and stderr, now and later."""
        for stream, name in _NAMES.items():
            self._followed.setdefault((ref, stream), _Followed(ref, stream, folder / name))
        self._news.set()

    def unfollow(self, ref: AttemptRef) -> None:
        """Ship nothing more of an attempt."""
        for stream in _NAMES:
            followed = self._followed.pop((ref, stream), None)
            if followed is not None:
                self._in_flight -= followed.sent - followed.confirmed

    def session_opened(self) -> None:
        """A session stands."""
        self._open = True
        self._news.set()

    def session_closed(self) -> None:
        """The session is over; what was not confirmed is sent again later."""
        self._open = False
        self._in_flight = 0
        for followed in self._followed.values():
            followed.sent = followed.confirmed

    async def confirm(self, piece: LogPiece) -> None:
        """The controller has committed a piece."""
        followed = self._followed.get((piece.ref, piece.stream))
        end = piece.offset + len(piece.data)
        if followed is not None and end > followed.confirmed:
            self._in_flight -= end - followed.confirmed
            followed.confirmed = end
            self._news.set()
            async with self._confirmed:
                self._confirmed.notify_all()

    async def finish(self, ref: AttemptRef, deadline_seconds: float) -> bool:
        """Wait until all of an attempt that has ended is with the controller; say whether it is."""

        def done() -> bool:
            return all(
                followed.confirmed >= followed.size
                for followed in self._followed.values()
                if followed.ref == ref
            )

        if not self._open:
            return done()
        self._news.set()
        try:
            async with asyncio.timeout(deadline_seconds), self._confirmed:
                await self._confirmed.wait_for(done)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Ship until cancelled."""
        while True:
            if not self._open or not self._followed:
                self._news.clear()
                await self._news.wait()
            if not await self._ship():
                self._news.clear()
                try:
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)

    async def _ship(self) -> bool:
        """Send what there is room for; say whether there was anything."""
        shipped = False
        for followed in tuple(self._followed.values()):
            room = _IN_FLIGHT_BYTES_MAX - self._in_flight
            if not self._open or room <= 0:
                return False
            size = min(followed.size - followed.sent, _PIECE_BYTES, room)
            if size <= 0:
                continue
            data = _read(followed.path, followed.sent, size)
            if data:
                piece = LogPiece(followed.ref, followed.stream, followed.sent, data)
                followed.sent += len(data)
                self._in_flight += len(data)
                await self._say(piece)
                shipped = True
        return shipped


def tail(path: Path, bytes_max: int = 2048) -> str:
    """The last words in a log, from a line's beginning where there is one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - bytes_max))
            data = file.read()
    except OSError:
        return ""
    if size > bytes_max and b"\n" in data[:-1]:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace").strip()


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), size, offset)
    except OSError:
        return b""
