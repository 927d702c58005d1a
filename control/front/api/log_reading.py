"""Reading the logs of a pipeline: what is kept, then what comes, until the pipeline has ended."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from control.core.errors import UnknownJobError
from control.front.control_plane import ControlPlane
from control.front.log_folder import LogFolder
from control.front.log_times import LogTimes
from shoal.names import AttemptRef, PipelineRef
from shoal.view import LogChunk, LogStream, PipelineView


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Whose logs: a pipeline's, or those of one of its jobs (`job` is an id, or a spec's name).

    `tail_bytes`, `tail_lines` and `since` leave out what comes before; with `times` each chunk says when
    it was printed.
    """

    ref: PipelineRef
    job: str = ""
    follow: bool = False
    tail_bytes: int = 0
    tail_lines: int = 0
    since: datetime | None = None
    times: bool = False


class LogReading:
    """One reading; it remembers how far it has come in each log.

    Args:
        plane: knows the attempts, and when the pipeline has ended.
        folder: has the logs.
        query: what is asked for.
        send: takes the next piece, and as much time as the reader needs.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: LogFolder,
        query: LogQuery,
        send: Callable[[LogChunk], Awaitable[None]],
    ) -> None:
        self._plane = plane
        self._folder = folder
        self._query = query
        self._send = send
        self._read: dict[tuple[AttemptRef, LogStream], int] = {}
        self._times: dict[tuple[AttemptRef, LogStream], LogTimes] = {}
        self._passed = False

    async def run(self) -> None:
        """Send pieces, the logs in turn; with `follow` until the pipeline has ended.

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
            await self._pass(view)
            if view.state.terminal:
                return
            # No deadline: a job may be silent for days; the caller's cancellation ends it.
            await news.wait()

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
            # What begins while it is followed is new, and comes whole.
            self._read[key] = 0 if self._passed else await self._begin(ref, stream)
        offset = self._read[key]
        data = await self._folder.read(ref, stream, offset)
        if data and self._query.times:
            times = self._times.setdefault(key, self._folder.times(ref, stream))
            await asyncio.to_thread(times.refresh)
            for begin, piece, moment in times.cut(offset, data):
                await self._send(LogChunk(ref.name, stream, begin, piece, ref.epoch, moment))
        elif data:
            await self._send(LogChunk(ref.name, stream, offset, data, ref.epoch))
        self._read[key] = offset + len(data)
        return bool(data)

    async def _begin(self, ref: AttemptRef, stream: LogStream) -> int:
        """Return from where on a log is wanted."""
        query, folder = self._query, self._folder
        begin = 0
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
