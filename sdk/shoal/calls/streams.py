"""Requests for what programs print, and for records that pass on a port."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from shoal import view
from shoal.calls.pipelines import PipelineCalls
from shoal.connection import Pause, decoded
from shoal.download import open_at, read_piece
from shoal.errors import DownloadError
from shoal.model import Artifact
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.v1 import records_service_pb2
from shoal.wire.records import TAP_WISH, decode_tap_news
from shoal.wire.view import decode_log_chunk

_READ_FAILURES_MAX = 3
_LOGS = {"stdout": view.LogStream.STDOUT, "stderr": view.LogStream.STDERR}
_EVERYTHING = view.TapWish()


class StreamCalls(PipelineCalls):
    """What can be read while it comes: logs and records."""

    async def logs(
        self, name: str, *, follow: bool = False, tail_bytes: int = 0
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read what the attempts of a pipeline, or of one of its jobs, print.

        After a cut it goes on where it was: nothing comes twice. Of a very long log only the
        beginning comes live (`view.LIVE_LOG_BYTES_MAX`); the rest follows at the end, from the
        archive, which has the logs of attempts that succeeded, and of no others.

        Args:
            name: `pipelines/{p}`, `pipelines/{p}/jobs/{j}`, or an id.
            follow: whether to go on until the pipeline has ended.
            tail_bytes: only the last of each log; 0 means all.

        Raises:
            ShoalError: there is no such pipeline or job, the controller stayed away, or the
                archive cannot be read.
        """
        seen: dict[tuple[str, int, view.LogStream], int] = {}
        # Of these, what the controller keeps has no end, so the last words are in the archive.
        apart = await self._archived_logs(name) if tail_bytes and not follow else {}

        def request() -> v1.ReadLogsRequest:
            return v1.ReadLogsRequest(
                name=name,
                namespace=self.namespace,
                follow=follow,
                # Once something was seen, all is asked for: what is known is dropped below.
                tail_bytes=0 if seen else tail_bytes,
            )

        stream = self._held.connection.stream(self._held.pipelines.ReadLogs, request, endless=False)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                chunk = decoded(decode_log_chunk, response.chunk)
                key = (chunk.attempt, chunk.epoch, chunk.stream)
                if key in apart:
                    continue
                end = chunk.offset + len(chunk.data)
                known = seen.get(key, 0)
                if end <= known:
                    continue
                seen[key] = end
                if chunk.offset < known:
                    data = chunk.data[known - chunk.offset :]
                    chunk = view.LogChunk(chunk.attempt, chunk.stream, known, data, chunk.epoch)
                yield chunk
        for key, artifact in (apart or await self._archived_logs(name)).items():
            begin = seen.get(key, 0)
            if key in apart:
                begin = max(0, artifact.size_bytes - tail_bytes)
            async with contextlib.aclosing(self._read_archived(key, artifact, begin)) as rest:
                async for chunk in rest:
                    yield chunk

    async def _archived_logs(self, name: str) -> dict[tuple[str, int, view.LogStream], Artifact]:
        """Find the logs in the archive of which the controller keeps the beginning alone."""
        parts = name.split("/")
        pipeline, job = (parts[1:2], parts[3:4]) if len(parts) > 1 else (parts, [])
        found: dict[tuple[str, int, view.LogStream], Artifact] = {}
        for one in (await self.get(pipeline[0])).jobs:
            if one.manifest is None or (job and job[0] not in {one.id, one.spec_name}):
                continue
            for artifact in one.manifest.artifacts:
                stream = _LOGS.get(artifact.path)
                if stream is not None and artifact.size_bytes > view.LIVE_LOG_BYTES_MAX:
                    found[one.manifest.attempt, one.manifest.epoch, stream] = artifact
        return found

    async def _read_archived(
        self, key: tuple[str, int, view.LogStream], artifact: Artifact, offset: int
    ) -> AsyncGenerator[view.LogChunk, None]:
        """Read a log from a byte on; where the archive breaks off, it is asked again."""
        attempt, epoch, stream = key
        pause = Pause()
        failures = 0
        while offset < artifact.size_bytes:
            before = offset
            try:
                url = await self.artifact_url(artifact)
                response = await asyncio.to_thread(open_at, url, offset)
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
