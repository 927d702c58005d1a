"""The spool of one attempt: retained bodies on disk, in segments that are removed as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from services.streams import effects, events
from services.streams.block import Body
from services.streams.block_index import SpoolPlace


class SpoolGoneError(Exception):
    """What was to be read has been let go of meanwhile; nobody needs it any more."""


@dataclass(slots=True)
class _Piece:
    """Somebody waits for a piece of what lies in the spool."""

    place: SpoolPlace
    piece: asyncio.Future[bytes]


class Spool(Protocol):
    """Where bodies lie; one thing is asked of it at a time."""

    async def write(self, place: SpoolPlace, body: Body) -> None:
        """Write a body to its place.

        Raises:
            OSError: The disk is full or broken.
        """
        ...

    async def read(self, place: SpoolPlace) -> bytes:
        """Return the body at its place.

        Raises:
            OSError: It cannot be read, or is cut short.
            SpoolGoneError: Its segment was removed.
        """
        ...

    async def drop(self, segment: int) -> None:
        """Remove a segment."""
        ...

    def close(self) -> None:
        """Remove every segment that is left."""
        ...


class FileSpool:
    """Files `{segment}.spool` in one folder, which is made when it is needed.

    It holds what can be made again by running the producer again, so nothing is flushed to disk.
    A thread does the work, so that a slow disk stalls no lane.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}

    async def write(self, place: SpoolPlace, body: Body) -> None:
        """See `Spool`."""
        await asyncio.to_thread(self._write, place, body)

    async def read(self, place: SpoolPlace) -> bytes:
        """See `Spool`."""
        return await asyncio.to_thread(self._read, place)

    async def drop(self, segment: int) -> None:
        """See `Spool`."""
        await asyncio.to_thread(self._drop, segment)

    def close(self) -> None:
        """Remove every segment that is left, and the folder."""
        for segment in list(self._files):
            self._drop(segment)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _write(self, place: SpoolPlace, body: Body) -> None:
        descriptor = self._open(place.segment)
        done = 0
        while done < len(body):
            done += os.pwrite(descriptor, memoryview(body)[done:], place.offset + done)

    def _read(self, place: SpoolPlace) -> bytes:
        descriptor = self._files.get(place.segment)
        if descriptor is None:
            raise SpoolGoneError(f"segment {place.segment} is not there")
        parts: list[bytes] = []
        have = 0
        while have < place.length:
            part = os.pread(descriptor, place.length - have, place.offset + have)
            if not part:
                raise OSError(f"segment {place.segment} ends before {place.offset + place.length}")
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def _drop(self, segment: int) -> None:
        descriptor = self._files.pop(segment, None)
        if descriptor is not None:
            os.close(descriptor)
            self._path(segment).unlink(missing_ok=True)

    def _open(self, segment: int) -> int:
        descriptor = self._files.get(segment)
        if descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = self._files[segment] = os.open(self._path(segment), flags, 0o600)
        return descriptor

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment}.spool"


class Spooler:
    """Works on a spool, one thing after the other.

    Args:
        spool: where bodies lie.
        post: takes what came of it.
    """

    def __init__(self, spool: Spool, post: Callable[[events.Event], None]) -> None:
        self._spool = spool
        self._post = post
        # Bounded by the machine: what may be on its way to the spool, and one read a lane.
        self._waiting: deque[effects.SpoolEffect | _Piece] = deque()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._working = False

    def do(self, effect: effects.SpoolEffect) -> None:
        """Do something after everything before it."""
        self._waiting.append(effect)
        self._wake.set()

    def reader(self, place: SpoolPlace) -> Callable[[int, int], Awaitable[bytes]]:
        """Return what reads pieces of the body at a place: offset, length; see SpoolGoneError."""

        async def read(offset: int, length: int) -> bytes:
            if self._closing:
                raise SpoolGoneError("the spool is closed")
            part = SpoolPlace(place.segment, place.offset + offset, length)
            waiter: asyncio.Future[bytes] = self._loop.create_future()
            self._waiting.append(_Piece(part, waiter))
            self._wake.set()
            return await waiter

        return read

    def close(self) -> None:
        """Remove the spool after everything before, and end `run`."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Work until closed."""
        try:
            while True:
                while self._waiting:
                    order = self._waiting.popleft()
                    self._working = True
                    done = await self._work(order)
                    self._working = False
                    self._tell(order, done)
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            # Not while it is written: the process ends then, and its files close with it.
            if not self._working:
                self._spool.close()

    def _tell(self, order: effects.SpoolEffect | _Piece, done: events.Event | bytes | None) -> None:
        if not isinstance(order, _Piece):
            if done is not None and not isinstance(done, bytes):
                self._post(done)
            return
        if isinstance(done, events.ShellFailed):
            self._post(done)
        if order.piece.done():
            return
        if isinstance(done, bytes):
            order.piece.set_result(done)
        else:
            order.piece.set_exception(SpoolGoneError(f"{order.place} cannot be read"))

    async def _work(self, order: effects.SpoolEffect | _Piece) -> events.Event | bytes | None:
        try:
            match order:
                case effects.WriteSpool(place=place, body=body):
                    await self._spool.write(place, body)
                    return events.SpoolWritten(place)
                case effects.ReadSpool(lane=lane, call=call, place=place):
                    return events.SpoolLoaded(lane, call, await self._spool.read(place))
                case effects.DropSegment(segment=segment):
                    await self._spool.drop(segment)
                    return None
                case _Piece(place=place):
                    return await self._piece(place)
                case _:
                    assert_never(order)
        except (OSError, SpoolGoneError) as error:
            return events.ShellFailed(f"the spool: {error}")

    async def _piece(self, place: SpoolPlace) -> bytes | None:
        try:
            return await self._spool.read(place)
        except SpoolGoneError:
            return None  # its consumer is done, and its call about to end
