"""What programs print: followed live, shipped in pieces, bounded in flight.

A piece counts as shipped once the controller has committed it. When a session ends, whatever was
not confirmed is sent again in the next one; the controller knows by the offset what it has.

A piece says when its last byte was printed. That is the time at which its file was written last, as it
was when the file was seen to have grown; files are looked at without a session, too. So lines that wait
for a session keep their times, to a second: an output that printed at 12:00:00 and 12:05:00 while the
controller was away is sent as two pieces. Of very many such moments every second one is let go.

Secrets of a program are hidden in what is shipped (`edge_agent.secrets.secret_mask`). Bytes with which one may
begin wait for those behind them, or for the end of the program.
"""

import asyncio
import contextlib
import os
import stat
from bisect import bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_agent.secrets.secret_mask import NO_MASK, SecretMask
from edge_agent.tree import open_plain
from shoal.names import AttemptRef
from shoal.session.log_piece import LogPiece
from shoal.view import LIVE_LOG_BYTES_MAX, LogStream

_PIECE_BYTES: Final = 64 << 10
_IN_FLIGHT_BYTES_MAX: Final = 4 << 20
_POLL_SECONDS: Final = 0.1
_AWAY_POLL_SECONDS: Final = 1.0
_MOMENTS_MAX: Final = 1_000
_LATEST: Final = 4_102_444_800.0  # the year 2100: a job may set any time on its file
_NAMES: Final = {LogStream.STDOUT: "stdout", LogStream.STDERR: "stderr"}


@dataclass(slots=True)
class _Followed:
    """One output of one attempt."""

    ref: AttemptRef
    stream: LogStream
    path: str
    mask: SecretMask = NO_MASK
    ended: bool = False
    sent: int = 0
    confirmed: int = 0
    _ends: list[int] = field(default_factory=list[int])
    _times: list[float] = field(default_factory=list[float])
    _seen: int = 0

    def look(self) -> int:
        """Return how much there is to ship, in bytes, and note when it was printed.

        Nothing is there where a job has put something else.
        """
        try:
            status = os.lstat(self.path)
        except OSError:
            return 0
        if not stat.S_ISREG(status.st_mode):
            return 0
        size = min(status.st_size, LIVE_LOG_BYTES_MAX)
        if size > self._seen:
            self._seen = size
            self._ends.append(size)
            self._times.append(status.st_mtime)
            if len(self._ends) > _MOMENTS_MAX:
                # What was printed by the moments that go counts as printed by the next one.
                del self._ends[:-1:2], self._times[:-1:2]
        return size

    def read(self, size: int) -> bytes:
        """Return at most so many bytes of what is to be sent next, with secrets hidden in them.

        They are fewer where what is there may be the beginning of a secret, or cannot be read.
        """
        margin = self.mask.margin
        begin = max(0, self.sent - margin)
        data = _read(self.path, begin, self.sent - begin + size + margin)
        before = self.sent - begin
        shown = self.mask.hide(data, ended=self.ended)
        if not self.ended and len(data) < before + size + margin:
            shown = shown[: len(data) - self.mask.held(data)]
        return shown[before : before + size]

    def moment(self) -> tuple[int, datetime | None]:
        """Return how far what is to be sent next was printed by one moment, and that moment."""
        index = bisect_right(self._ends, self.sent)
        if index == len(self._ends):
            return LIVE_LOG_BYTES_MAX, None
        time = self._times[index]
        known = 0 <= time < _LATEST
        return self._ends[index], datetime.fromtimestamp(time, UTC) if known else None

    def confirm(self, end: int) -> None:
        """Let go of the moments of what the controller has."""
        self.confirmed = end
        kept = bisect_right(self._ends, end)
        del self._ends[:kept], self._times[:kept]


class LogShipper:
    """Ships the outputs of attempts while a session stands.

    Everything is looked at a few times a second; what has more to ship, or is about to end, is
    looked at in between, so that the cost of an attempt does not grow with the number of others.

    Args:
        say: hands a piece to the session.
    """

    def __init__(self, say: Callable[[LogPiece], Awaitable[None]]) -> None:
        self._say = say
        self._followed: dict[AttemptRef, tuple[_Followed, ...]] = {}
        self._urgent: dict[AttemptRef, None] = {}
        self._finishing: dict[AttemptRef, asyncio.Event] = {}
        self._in_flight = 0
        self._open = False
        self._resting = False
        """Whether nothing is looked at until there is news."""
        self._news = asyncio.Event()

    def follow(
        self,
        ref: AttemptRef,
        folder: Path | str,
        mask: SecretMask = NO_MASK,
        *,
        ended: bool = False,
    ) -> None:
        """Ship what is in `folder`/stdout and stderr, now and later.

        Args:
            ref: which attempt.
            folder: where its outputs are.
            mask: hides its secrets.
            ended: whether its program has ended already.
        """
        if ref in self._followed:
            return
        if self._resting or not self._open:
            self._news.set()  # else it is looked at with the others
        place = str(folder)
        self._followed[ref] = tuple(
            _Followed(ref, stream, f"{place}/{name}", mask, ended)
            for stream, name in _NAMES.items()
        )

    def unfollow(self, ref: AttemptRef) -> None:
        """Ship nothing more of an attempt."""
        for followed in self._followed.pop(ref, ()):
            self._in_flight -= followed.sent - followed.confirmed
        self._urgent.pop(ref, None)

    def last_words(self, folder: Path, mask: SecretMask = NO_MASK) -> str:
        """The end of `folder`/stderr."""
        return tail(folder / _NAMES[LogStream.STDERR], mask=mask)

    def session_opened(self) -> None:
        """A session stands."""
        self._open = True
        self._urgent.update(dict.fromkeys(self._followed))
        self._news.set()

    def session_closed(self) -> None:
        """The session is over; what was not confirmed is sent again later."""
        self._open = False
        self._in_flight = 0
        for outputs in self._followed.values():
            for followed in outputs:
                followed.sent = followed.confirmed

    def confirm(self, piece: LogPiece) -> None:
        """The controller has committed a piece."""
        end = piece.offset + len(piece.data)
        for followed in self._followed.get(piece.ref, ()):
            if followed.stream is piece.stream and end > followed.confirmed:
                self._in_flight -= end - followed.confirmed
                followed.confirm(end)
        if self._urgent:
            self._news.set()
        finishing = self._finishing.get(piece.ref)
        if finishing is not None and self._done(piece.ref):
            finishing.set()

    def is_finished(self, ref: AttemptRef) -> bool:
        """Say whether all of an attempt that has ended is with the controller; nothing more is shipped of it then."""
        outputs = self._followed.get(ref)
        if outputs is None:
            return True
        for followed in outputs:
            followed.ended = True
        if not self._done(ref):
            return False
        self.unfollow(ref)
        return True

    async def finish(self, ref: AttemptRef, deadline_seconds: float) -> bool:
        """Wait until all of an attempt that has ended is with the controller; say whether it is."""
        if self.is_finished(ref):
            return True
        if not self._open:
            return False
        self._urgent[ref] = None
        self._news.set()
        finishing = self._finishing.setdefault(ref, asyncio.Event())
        try:
            async with asyncio.timeout(deadline_seconds):
                await finishing.wait()
        except TimeoutError:
            return False
        finally:
            self._finishing.pop(ref, None)
        self.unfollow(ref)
        return True

    async def run(self) -> None:
        """Ship until cancelled."""
        loop = asyncio.get_running_loop()
        scan_at = 0.0
        while True:
            self._news.clear()
            if self._followed and not self._open:
                await self._look_while_away()
                continue
            if loop.time() >= scan_at:
                if not self._followed:
                    self._resting = True
                    await self._news.wait()
                    self._resting = False
                self._urgent.update(dict.fromkeys(self._followed))
                scan_at = loop.time() + _POLL_SECONDS
            await self._ship()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(scan_at):
                    await self._news.wait()

    async def _look_while_away(self) -> None:
        """Note when outputs grow, until there is something else to do, or for a while."""
        for outputs in self._followed.values():
            for followed in outputs:
                followed.look()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AWAY_POLL_SECONDS):
                await self._news.wait()

    async def _ship(self) -> None:
        """Send what there is room for; what is left stays urgent."""
        for ref in tuple(self._urgent):
            del self._urgent[ref]
            for followed in self._followed.get(ref, ()):
                if not await self._ship_output(followed):
                    self._urgent[ref] = None
                    return

    async def _ship_output(self, followed: _Followed) -> bool:
        """Send one output as far as there is room; say whether all of it is sent."""
        while (left := followed.look() - followed.sent) > 0:
            room = _IN_FLIGHT_BYTES_MAX - self._in_flight
            if not self._open or room <= 0:
                return False
            end, moment = followed.moment()
            size = min(left, _PIECE_BYTES, room, end - followed.sent)
            data = followed.read(size)
            if not data:
                break
            piece = LogPiece(followed.ref, followed.stream, followed.sent, data, moment)
            followed.sent += len(data)
            self._in_flight += len(data)
            await self._say(piece)
        return True

    def _done(self, ref: AttemptRef) -> bool:
        return all(
            followed.confirmed >= followed.look() for followed in self._followed.get(ref, ())
        )


def tail(path: Path, bytes_max: int = 2048, mask: SecretMask = NO_MASK) -> str:
    """The last words in a log, from a line's beginning where there is one."""
    try:
        with os.fdopen(open_plain(path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - bytes_max - mask.margin))
            data = mask.hide(file.read(), ended=True)[-bytes_max:]
    except OSError:
        return ""
    if size > bytes_max:
        # Half a word, such as half an address, says nothing, or what should not be shown.
        data = data.split(b"\n" if b"\n" in data[:-1] else None, 1)[-1]
    return data.decode("utf-8", "replace").strip()


def _read(path: str, offset: int, size: int) -> bytes:
    try:
        descriptor = open_plain(path)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, size, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
