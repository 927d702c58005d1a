"""Reading the logs of a pipeline: what is kept, then what comes, until the pipeline has ended."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from control.core.errors import UnknownJobError
from control.front.control_plane import ControlPlane
from control.front.log_folder import LogFolder
from control.front.log_times import LogTimes
from shoal.names import AttemptRef, PipelineRef
from shoal.view import LogChunk, LogStream, PipelineView

LATE_SECONDS: Final = 5.0
"""How long a follow that ends at a moment goes on behind it, for what is on its way or comes with a node's return."""

_LOOK_SECONDS: Final = 30.0
"""How often such a follow looks at the clock, which may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Whose logs: a pipeline's, or those of one of its jobs (`job` is an id, or a spec's name).

    `tail_bytes`, `tail_lines` and `since` leave out what comes before, `until` what was printed then or
    later; with `times` each chunk says when it was printed. A log in `places` comes from that byte on.
    """

    ref: PipelineRef
    job: str = ""
    follow: bool = False
    tail_bytes: int = 0
    tail_lines: int = 0
    since: datetime | None = None
    times: bool = False
    until: datetime | None = None
    places: Mapping[tuple[AttemptRef, LogStream], int] = field(
        default_factory=dict[tuple[AttemptRef, LogStream], int]
    )


class LogReading:
    """One reading; it remembers how far it has come in each log.

    Args:
        plane: knows the attempts, and when the pipeline has ended.
        folder: has the logs.
        query: what is asked for.
        send: takes the next piece, and as much time as the reader needs.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: LogFolder,
        query: LogQuery,
        send: Callable[[LogChunk], Awaitable[None]],
        wall: Callable[[], float],
    ) -> None:
        self._plane = plane
        self._folder = folder
        self._query = query
        self._send = send
        self._wall = wall
        self._end = (
            None if query.until is None else max(query.until.timestamp(), wall()) + LATE_SECONDS
        )
        self._read: dict[tuple[AttemptRef, LogStream], int] = {}
        self._times: dict[tuple[AttemptRef, LogStream], LogTimes] = {}
        self._passed = False

    async def run(self) -> None:
        """Send pieces, the logs in turn; with `follow` until the pipeline has ended, or the time is over.

        An agent reports an end after its last words, so a pipeline that has ended has all its logs.

        Raises:
            UnknownPipelineError: there is none of that name.
            UnknownJobError: it has no such job.
            ControlError: the watch of the pipeline broke.
        """
        self._check_job(await self._plane.shown.find(self._query.ref))
        with self._folder.follow(self._query.ref) as news:
            if not self._query.follow:
                await self._pass(await self._plane.shown.find(self._query.ref))
                return
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(news))
                await self._follow(news)
                watching.cancel()

    async def _follow(self, news: asyncio.Event) -> None:
        while True:
            news.clear()
            # Looked at before the pass: what ended now has its last words in the files already.
            view = await self._plane.shown.find(self._query.ref)
            over = self._end is not None and self._wall() >= self._end
            await self._pass(view)
            if view.state.terminal or over:
                return
            # No deadline of its own: a job may be silent for days; the caller's cancellation ends it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await news.wait()

    def _patience(self) -> float | None:
        """Return after how many seconds a follow looks again that nothing woke."""
        if self._end is None:
            return None
        return min(max(0.0, self._end - self._wall()), _LOOK_SECONDS)

    async def _watch(self, news: asyncio.Event) -> None:
        ref = self._query.ref
        with self._plane.watch_pipelines(ref.namespace, ref.pipeline) as changes:
            async for _ in changes:
                news.set()

    async def _pass(self, view: PipelineView) -> None:
        """Send what is there: first attempts first, of these a piece of each log at a time."""
        found = list(self._logs(view))
        for number in sorted({ref.number for ref, _ in found}):
            logs = [log for log in found if log[0].number == number]
            while logs:
                logs = [log for log in logs if await self._next(*log)]
        self._passed = True

    async def _next(self, ref: AttemptRef, stream: LogStream) -> bool:
        key = (ref, stream)
        if key not in self._read:
            self._read[key] = await self._begin(ref, stream)
        offset = self._read[key]
        times = self._times.get(key)
        if times is not None and times.end is not None and offset >= times.end:
            return False
        data = await self._folder.read(ref, stream, offset)
        if data and (self._query.times or self._query.until is not None):
            if times is None:
                times = self._folder.times(ref, stream, self._query.until)
                self._times[key] = times
            # Times are noted before what they are of, so all that was read has its own.
            await asyncio.to_thread(times.refresh)
            if times.end is not None:
                data = data[: max(0, times.end - offset)]
        if data and times is not None and self._query.times:
            for begin, piece, moment in times.cut(offset, data):
                await self._send(LogChunk(ref.name, stream, begin, piece, ref.epoch, moment))
        elif data:
            await self._send(LogChunk(ref.name, stream, offset, data, ref.epoch))
        self._read[key] = offset + len(data)
        return bool(data)

    async def _begin(self, ref: AttemptRef, stream: LogStream) -> int:
        """Return from where on a log is wanted."""
        query, folder = self._query, self._folder
        if (place := query.places.get((ref, stream))) is not None:
            return place
        begin = 0
        if self._passed:  # what begins while it is followed is new, and comes whole
            return begin
        if query.tail_bytes:
            begin = max(begin, folder.size(ref, stream) - query.tail_bytes)
        if query.tail_lines:
            begin = max(begin, await folder.last_lines(ref, stream, query.tail_lines))
        if query.since is not None:
            begin = max(begin, await folder.since(ref, stream, query.since))
        return begin

    def _logs(self, view: PipelineView) -> Iterator[tuple[AttemptRef, LogStream]]:
        for job in view.jobs:
            if self._query.job not in {"", job.id, job.spec_name}:
                continue
            for attempt in job.attempts:
                ref = AttemptRef(view.namespace, view.id, job.id, attempt.number, attempt.epoch)
                for stream in LogStream:
                    yield ref, stream

    def _check_job(self, view: PipelineView) -> None:
        wanted = self._query.job
        if wanted and all(wanted not in {job.id, job.spec_name} for job in view.jobs):
            known = ", ".join(job.id for job in view.jobs)
            raise UnknownJobError(f"{view.name} has no job {wanted!r}: its jobs are {known}")
