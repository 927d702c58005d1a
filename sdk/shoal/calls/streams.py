"""Requests for what programs print, and for records that pass on a port."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

from shoal import limits, view
from shoal.calls.pipelines import PipelineCalls
from shoal.connection import Pause, decoded
from shoal.download import open_at, read_piece
from shoal.errors import DownloadError
from shoal.model import Artifact, JobState
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1 import records_service_pb2
from shoal.wire.fields import encode_time
from shoal.wire.records import TAP_WISH, decode_tap_news
from shoal.wire.state import LOG_STREAM
from shoal.wire.view import decode_log_chunk

_READ_FAILURES_MAX = 3
_LATE_SECONDS = 30.0
"""How long the logs of what failed are waited for, which go to the archive after its end."""
_LOGS = {"stdout": view.LogStream.STDOUT, "stderr": view.LogStream.STDERR}
_EVERYTHING = view.TapWish()
_LINES_BYTES = 256 << 10
"""How much of an archived log is read first to find its last lines."""

_Log = tuple[str, int, view.LogStream]
"""One of the two outputs of an attempt, by its name and epoch."""


def _places(seen: dict[_Log, int]) -> "list[v1.LogPlace]":
    """Return where to go on, in the logs that grew last."""
    return [
        v1.LogPlace(attempt=attempt, epoch=epoch, stream=LOG_STREAM.encode(stream), offset=offset)
        for (attempt, epoch, stream), offset in islice(
            reversed(seen.items()), limits.LOG_PLACES_MAX
        )
    ]


class StreamCalls(PipelineCalls):
    """What can be read while it comes: logs and records."""

    async def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        tail_lines: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
        times: bool = False,
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read what the attempts of a pipeline, or of one of its jobs, print.

        After a cut or a restart of the controller it goes on where it was: nothing is left out, and
        nothing comes twice. Of a very long log only the
        beginning comes live (`view.LIVE_LOG_BYTES_MAX`); the rest follows at the end, from the
        archive. What failed is archived after its end, and is waited for a while.

        Args:
            name: `pipelines/{p}`, `pipelines/{p}/jobs/{j}`, or an id.
            follow: whether to go on until the pipeline has ended.
            tail_lines: only the last of each log; 0 means all.
            since: only lines that were printed then or later, by the clock of their node; aware. A log
                of which no times are known, since its agent is older, comes whole.
            until: only what was printed before, by the clock of its node; aware, and later than `since`.
                Following ends some seconds after it, too.
            times: whether chunks say when they were printed; they are as short as that takes.

        Raises:
            ShoalError: there is no such pipeline or job, the controller stayed away, or the
                archive cannot be read.
        """
        seen: dict[_Log, int] = {}
        # Of these, what the controller keeps has no end, so the last words are in the archive.
        apart = await self._archived_logs(name) if tail_lines and not follow else {}
        since_time, until_time = encode_time(since), encode_time(until)

        def request() -> v1.ReadLogsRequest:
            return v1.ReadLogsRequest(
                name=name,
                namespace=self.namespace,
                follow=follow,
                # Once something was seen, nothing of what follows is left out.
                tail_lines=0 if seen else tail_lines,
                since_time=since_time,
                times=times,
                until_time=until_time,
                places=_places(seen),
            )

        stream = self._held.connection.stream(self._held.pipelines.ReadLogs, request, endless=False)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                chunk = decoded(decode_log_chunk, response.chunk)
                key = (chunk.attempt, chunk.epoch, chunk.stream)
                if key in apart:
                    continue
                end = chunk.offset + len(chunk.data)
                known = seen.pop(key, 0)
                seen[key] = max(known, end)  # as the one that grew last
                # An older controller sends all of a log again, as of what is not named among the places.
                if end <= known:
                    continue
                if chunk.offset < known:
                    data = chunk.data[known - chunk.offset :]
                    chunk = replace(chunk, offset=known, data=data)
                yield chunk
        for key, (artifact, end_time) in (apart or await self._late_logs(name, seen)).items():
            begin = seen.get(key, 0)
            if until is not None and (end_time is None or end_time > until):
                # Of what follows no times are known but the end, which is later.
                continue
            if since is not None and not begin:
                # Nothing of its beginning is as new; of what follows no times are known but the end.
                if end_time is not None and end_time < since:
                    continue
                begin = view.LIVE_LOG_BYTES_MAX
            if key in apart:
                begin = max(begin, await self._last_lines(key, artifact, tail_lines))
            async with contextlib.aclosing(self._read_archived(key, artifact, begin)) as rest:
                async for chunk in rest:
                    yield chunk

    async def _last_lines(self, key: _Log, artifact: Artifact, count: int) -> int:
        """Return where the last lines of an archived log begin, of which ever more is read."""
        span = _LINES_BYTES
        while True:
            begin = max(0, artifact.size_bytes - span)
            breaks: deque[int] = deque(maxlen=count + 1)
            async with contextlib.aclosing(self._read_archived(key, artifact, begin)) as chunks:
                async for chunk in chunks:
                    place = chunk.data.find(b"\n")
                    while place >= 0:
                        # The last line may have its end, or not.
                        if chunk.offset + place + 1 < artifact.size_bytes:
                            breaks.append(chunk.offset + place + 1)
                        place = chunk.data.find(b"\n", place + 1)
            if len(breaks) >= count:
                return breaks[-count]
            if not begin:
                return 0
            span *= 16

    async def _late_logs(
        self, name: str, seen: "Mapping[_Log, int]"
    ) -> "dict[_Log, tuple[Artifact, datetime | None]]":
        """Find the logs in the archive, those too that are on their way there after a failure."""
        pause = Pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LATE_SECONDS):
                while True:
                    found = await self._archived_logs(name)
                    cut = {
                        (attempt, epoch)
                        for (attempt, epoch, stream), end in seen.items()
                        if end >= view.LIVE_LOG_BYTES_MAX and (attempt, epoch, stream) not in found
                    }
                    if not cut or not await self._ended_now(name, cut):
                        return found
                    await pause.wait()
        return await self._archived_logs(name)

    async def _ended_now(self, name: str, attempts: Collection[tuple[str, int]]) -> bool:
        """Whether one of these attempts did not succeed, and ended so lately that its logs may still come."""
        pipeline = await self.get(name.split("/")[1] if "/" in name else name)
        since = datetime.now(UTC) - timedelta(seconds=_LATE_SECONDS)
        return any(
            (one.name, one.epoch) in attempts
            and one.state in {JobState.FAILED, JobState.CANCELLED}
            and one.end_time is not None
            and one.end_time > since
            for job in pipeline.jobs
            for one in job.attempts
        )

    async def _archived_logs(self, name: str) -> "dict[_Log, tuple[Artifact, datetime | None]]":
        """Find the logs in the archive of which the controller keeps the beginning alone.

        With each comes the moment at which its attempt ended.
        """
        parts = name.split("/")
        pipeline, job = (parts[1:2], parts[3:4]) if len(parts) > 1 else (parts, [])
        found: dict[_Log, tuple[Artifact, datetime | None]] = {}
        for one in (await self.get(pipeline[0])).jobs:
            if job and job[0] not in {one.id, one.spec_name}:
                continue
            ends = {attempt.name: attempt.end_time for attempt in one.attempts}
            manifests = (one.manifest, *[attempt.manifest for attempt in one.attempts])
            for manifest in filter(None, manifests):
                for artifact in manifest.artifacts:
                    stream = _LOGS.get(artifact.path)
                    if stream is not None and artifact.size_bytes > view.LIVE_LOG_BYTES_MAX:
                        key = (manifest.attempt, manifest.epoch, stream)
                        found[key] = (artifact, ends.get(manifest.attempt))
        return found

    async def _read_archived(
        self, key: _Log, artifact: Artifact, offset: int
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read a log from a byte on; where the archive breaks off, it is asked again."""
        attempt, epoch, stream = key
        pause = Pause()
        failures = 0
        while offset < artifact.size_bytes:
            before = offset
            try:
                url = await self.artifact_url(artifact)
                response = await asyncio.to_thread(
                    open_at, url, offset, authorities=self._authorities
                )
                with contextlib.closing(response):
                    while data := await asyncio.to_thread(read_piece, response):
                        yield view.LogChunk(attempt, stream, offset, data, epoch)
                        offset += len(data)
                if offset < artifact.size_bytes:
                    raise DownloadError(
                        f"{artifact.path} of {attempt} ends after {offset} of "
                        f"{artifact.size_bytes} bytes; try again"
                    )
            except DownloadError:
                failures = 1 if offset > before else failures + 1
                if failures > _READ_FAILURES_MAX:
                    raise
                await pause.wait()

    async def tap(
        self, name: str, port: str, wish: view.TapWish = _EVERYTHING
    ) -> AsyncGenerator[view.TapNews, None]:
        """Look at the records of an output port while they pass, until its stream ends.

        It shows what passes from now on, some of it where much passes, and never slows the stream.

        Args:
            name: the producer, `pipelines/{p}/jobs/{j}`; a job of the specification stands for all
                its replicas.
            port: its output port.
            wish: how much of it.

        Raises:
            ShoalError: there is no such pipeline, job or port, or the controller stayed away.
        """

        def request() -> records_service_pb2.TapPortRequest:
            return records_service_pb2.TapPortRequest(
                name=name, namespace=self.namespace, port=port, wish=TAP_WISH.encode(wish)
            )

        stream = self._held.connection.stream(self._held.records.TapPort, request, endless=False)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                yield decoded(decode_tap_news, response)
