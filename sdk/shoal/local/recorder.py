"""A lossless copy of what an output port sends."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shoal.affix import beside
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.checked_block import Records
from shoal.local.lane import LaneName, Taker
from shoal.local.record_file import RecordFile
from shoal.model import JobState
from shoal.portal_names import recorder_lane
from shoal.record_text import codec_of
from shoal.view import JobView, PipelineView

_OVER = frozenset({JobState.ARCHIVING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
_LAST_SECONDS = 5.0
_MARK_MICROSECONDS = 1000


class RecordingError(ShoalError):
    """A copy that has a gap, or cannot begin; the message says why, and what is there."""

    def __init__(self, message: str) -> None:
        super().__init__("RECORDING", message)


class Recorder:
    """Copies a stream to a file; a copy that was broken off goes on.

    A copy that is closed before the stream has ended is as complete as any other: its end is where it was closed.

    Args:
        client: an open client.
        pipeline: whose stream it is.
        job: the replica that sends it.
        port: its output port.
        target: the file, which is there once it is complete; until then it is `FILE.part`.
        count: how many records are enough; None for all.
        epoch: of this client.
        clock: seconds on a monotonic clock.

    Raises:
        RecordFileError: Another program writes the file, or it is none of records.
        RecordingError: The file is complete already, or of another stream.
    """

    def __init__(
        self,
        client: Client,
        pipeline: PipelineView,
        job: JobView,
        port: str,
        target: Path,
        *,
        count: int | None = None,
        epoch: int,
        clock: Callable[[], float],
    ) -> None:
        if target.exists():
            raise RecordingError(f"{target} is there already; remove it, or name another file")
        self._client = client
        self._pipeline = pipeline
        self._job = job
        self._port = port
        self._target = target
        self._clock = clock
        header = _header(pipeline, job, port)
        self.file = RecordFile(beside(target, ".part"), header)
        if any(self.file.header.get(key) != value for key, value in header.items()):
            self.file.close()
            raise RecordingError(f"{self.file.path} is of another stream; move it away")
        self._began_at = clock() - self.file.marked / 1e6
        self._lane = LaneName(
            pipeline.namespace, pipeline.id, recorder_lane(job.id, port, epoch), epoch
        )
        self._taker: Taker | None = None
        self._count = count
        self._enough = asyncio.Event()

    def close(self) -> None:
        """Leave the file as it is; one that has no record would only be in the way of another try."""
        empty = self.file.total is None and not self.file.size_bytes
        self.file.close()
        if empty:
            self.file.path.unlink(missing_ok=True)

    def stop(self) -> None:
        """Take no more records, and complete the file with those that it has."""
        self._enough.set()

    async def run(self, *, from_start: bool) -> None:
        """Record to the end of the stream, or until there are enough records.

        Args:
            from_start: fail if record 0 is not kept any more, instead of beginning later.

        Raises:
            RecordingError: Records are gone that are wanted, the end of the stream did not come, or there is none.
            ShoalError: The controller refuses.
        """
        file = self.file
        fresh = not file.size_bytes and not file.base
        taker = self._taker = Taker(
            self._client,
            self._lane,
            self._deliver,
            self._ended,
            kept=fresh and not from_start,
            next=file.next,
            recorder=True,
        )
        taking = asyncio.ensure_future(taker.run())
        watching = asyncio.ensure_future(self._watch())
        stopping = asyncio.ensure_future(self._enough.wait())
        works: set[asyncio.Future[Any]] = {taking, watching, stopping}
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            if not taking.done():
                if not stopping.done():
                    watching.result()
                elif file.total is None and file.size_bytes:
                    await self._complete()
                # The job is over, or is told that no more is wanted; what is under way may still come.
                await asyncio.wait({taking}, timeout=_LAST_SECONDS)
            if taking.done():
                taking.result()
        except ShoalError as error:
            if error.reason != "BEHIND":
                raise
            raise RecordingError(f"{error.message}{self._dealt_out()}; {self._left()}") from error
        finally:
            for task in works:
                task.cancel()
            await asyncio.gather(*works, return_exceptions=True)
        if file.total is None and self._enough.is_set():
            raise RecordingError(
                f"no record of {self._job.id} came while it was recorded; {self._left()}"
            )
        if file.total is None:
            raise RecordingError(
                f"{self._job.id} is over, and the end of its stream did not come; {self._left()}"
            )

    async def _deliver(self, records: Records) -> None:
        file = self.file
        if self._enough.is_set():
            return
        with self._writing():
            if not file.size_bytes and records.first > file.next:
                file.begin(records.first)
            at = int((self._clock() - self._began_at) * 1e6)
            if at - file.marked >= _MARK_MICROSECONDS:
                file.mark(at)
            if self._count is not None:
                records = records.head(self._count - (file.next - file.base))
            file.append(records)
        if self._taker is not None:
            self._taker.release(records.end)
        if file.next - file.base == self._count:
            self._enough.set()

    async def _ended(self, total: int) -> None:
        file = self.file
        if self._enough.is_set():
            return
        if not file.size_bytes and total > file.next:
            raise RecordingError(
                f"{self._job.id} had sent all of its {total} records before this recording began, and "
                f"none of them is kept; {self._left()}"
            )
        await self._complete()

    async def _complete(self) -> None:
        file = self.file
        with self._writing():
            file.end()
            await asyncio.to_thread(file.sync)
            file.path.rename(self._target)
        if self._taker is not None:
            self._taker.done()

    async def _watch(self) -> None:
        """Return once the job is over."""
        await self._client.when(
            self._pipeline.id,
            lambda pipeline: (
                pipeline.state.terminal
                or any(job.id == self._job.id and job.state in _OVER for job in pipeline.jobs)
            ),
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordingError(
                f"{self.file.path} cannot be written: {error.strerror}; make room for it, and begin "
                f"again: the same command goes on where it was; {self._left()}"
            ) from error

    def _dealt_out(self) -> str:
        """Say of an output of which each replica of a consumer gets a part what can be recorded of it."""
        readers = self._pipeline.spec.readers(self._job.spec_name, self._port)
        if not readers or any(job.replicas == 1 for job, _ in readers):
            return ""
        return (
            f". The records of {self._job.spec_name}.{self._port} are dealt out to the replicas of "
            f"{', '.join(job.name for job, _ in readers)}, so nothing keeps all of them: record an "
            "output of one of those, give this one `distribute: broadcast`, or record what comes from "
            "now on with `shoal record`"
        )

    def _left(self) -> str:
        file = self.file
        if not file.size_bytes:
            return "nothing was recorded"
        return f"{file.path} holds records {file.base} to {file.next - 1}"


def _header(pipeline: PipelineView, job: JobView, port: str) -> dict[str, object]:
    [output] = [one for one in pipeline.spec.job(job.spec_name).outputs if one.name == port]
    return {
        "namespace": pipeline.namespace,
        "pipeline": pipeline.id,
        "spec": pipeline.spec.name,
        "job": job.id,
        "port": port,
        "format": output.binding.format_name,
        "codec": codec_of(pipeline.spec, job.spec_name, port),
    }
