"""The spool of one attempt: retained bodies on disk, in segments that are removed as a whole."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, assert_never

from services.streams import effects, events
from services.streams.block import Body
from services.streams.block_index import SpoolPlace


class SpoolGoneError(Exception):
    """What was to be read has been let go of meanwhile; it is not needed any more."""


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
        self._waiting: deque[effects.SpoolEffect] = deque()
        self._wake = asyncio.Event()
        # Fair: a piece that is read waits for what was begun before, and for nothing else.
        self._at_work = asyncio.Lock()
        self._closing = False

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
            try:
                async with self._at_work:
                    return await self._spool.read(part)
            except OSError as error:
                self._post(events.ShellFailed(f"the spool: {error}"))
                raise SpoolGoneError(f"{part} cannot be read") from error

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
                    effect = self._waiting.popleft()
                    async with self._at_work:
                        done = await self._work(effect)
                    if done is not None:
                        self._post(done)
                if self._closing:
                    async with self._at_work:
                        return
                self._wake.clear()
                await self._wake.wait()
        finally:
            # Not while it is written: the process ends then, and its files close with it.
            if not self._at_work.locked():
                self._spool.close()

    async def _work(self, effect: effects.SpoolEffect) -> events.Event | None:
        try:
            match effect:
                case effects.WriteSpool(place=place, body=body):
                    await self._spool.write(place, body)
                    return events.SpoolWritten(place)
                case effects.ReadSpool(lane=lane, call=call, place=place):
                    return events.SpoolLoaded(lane, call, await self._spool.read(place))
                case effects.DropSegment(segment=segment):
                    await self._spool.drop(segment)
                    return None
                case _:
                    assert_never(effect)
        except (OSError, SpoolGoneError) as error:
            return events.ShellFailed(f"the spool: {error}")
