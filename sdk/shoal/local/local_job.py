"""A job beside the client: its program, and the lanes between it and its portal on some node."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from shoal import spec
from shoal.client import Client
from shoal.local.checked_block import Records
from shoal.local.lane import Feeder, LaneName, Taker
from shoal.local.local_program import ProgramFailedError, ProgramPort, Surroundings, start
from shoal.local.record_file import RecordFile
from shoal.portal_names import input_lane, output_lane

_GRACE_SECONDS = 5.0


def spool_folder(home: Path, namespace: str, pipeline: str) -> Path:
    """Where a client keeps what it feeds into a pipeline, until that has ended."""
    return home / "local" / f"{namespace}.{pipeline}"


@dataclass(slots=True)
class LocalJob:
    """Runs the program of a local job and carries its records.

    Args:
        client: an open client.
        pipeline: what was submitted.
        job: one of its local jobs, which has a program.
        around: where it runs.
        epoch: of this client; a later one takes the lanes over.
        spool: folder for what is fed.
        say: takes the program's own progress.
    """

    client: Client
    pipeline: spec.Pipeline
    job: spec.Job
    around: Surroundings
    epoch: int
    spool: Path
    say: Callable[[str], None]
    _started: asyncio.Event = field(default_factory=asyncio.Event)
    _files: dict[str, RecordFile] = field(default_factory=dict[str, RecordFile])
    _feeders: dict[str, Feeder] = field(default_factory=dict[str, Feeder])
    _takers: dict[str, Taker] = field(default_factory=dict[str, Taker])
    _ports: dict[str, ProgramPort] = field(default_factory=dict[str, ProgramPort])

    @property
    def _resume(self) -> bool:
        return self.job.recovery is spec.Recovery.RESUME

    async def run(self) -> None:
        """Run the program to its end, and then keep its lanes until this is cancelled.

        Raises:
            ProgramFailedError: The program did not end well.
            ShoalError: The controller refuses, or a later client took over.
        """
        with contextlib.ExitStack() as stack:
            self._open(stack)
            async with asyncio.TaskGroup() as tasks:
                for feeder in self._feeders.values():
                    tasks.create_task(feeder.run())
                for taker in self._takers.values():
                    tasks.create_task(taker.run())
                if self._resume:
                    for feeder in self._feeders.values():
                        await feeder.begun.wait()
                    for taker in self._takers.values():
                        await taker.begun.wait()
                await self._start_ports()
                await self._run_program()
                for file in self._files.values():
                    file.end()
                for feeder in self._feeders.values():
                    feeder.grown()
                for taker in self._takers.values():
                    taker.done()
                # The pipeline may ask again for what it had, until it has ended.

    def _open(self, stack: contextlib.ExitStack) -> None:
        job = self.job
        for stream in job.streams:
            port = self._port(stack, stream.name, stream.binding)
            lane = self._lane(output_lane(job.name, stream.name))
            deliver, ended = partial(self._deliver, port, stream), partial(self._show_end, port)
            taker = Taker(self.client, lane, deliver, ended, kept=self._resume)
            self._takers[stream.name] = taker
        for output in job.outputs:
            self._port(stack, output.name, output.binding)
            file = RecordFile(
                self.spool / f"{job.name}.{output.name}.records",
                {"pipeline": self.around.pipeline, "job": job.name, "port": output.name},
            )
            stack.callback(file.close)
            self._files[output.name] = file
            lane = self._lane(input_lane(job.name, output.name))
            self._feeders[output.name] = Feeder(self.client, lane, file, adopt=self._resume)

    def _port(
        self, stack: contextlib.ExitStack, name: str, binding: spec.PortBinding
    ) -> ProgramPort:
        port = self._ports[name] = ProgramPort(name, binding)
        stack.callback(port.close)
        return port

    def _lane(self, lane: str) -> LaneName:
        return LaneName(self.around.namespace, self.around.pipeline, lane, self.epoch)

    async def _deliver(self, port: ProgramPort, stream: spec.StreamInput, records: Records) -> None:
        await self._started.wait()
        await port.write(records)
        if port.raw is not None:
            self._processed(stream, records.end)

    async def _show_end(self, port: ProgramPort, total: int) -> None:
        await self._started.wait()
        await port.end(total)

    async def _start_ports(self) -> None:
        """Say where each port begins, before anything passes."""
        recovery = self.job.recovery
        for stream in self.job.streams:
            first = self._takers[stream.name].next
            await self._ports[stream.name].start(first, recovery, stream.block_count)
        for output in self.job.outputs:
            await self._ports[output.name].start(self._first(output.name), recovery, 1)
        self._started.set()

    def _first(self, output: str) -> int:
        return self._files[output].next if self._resume else 0

    def _processed(self, stream: spec.StreamInput, sequence: int) -> None:
        """Let the pipeline go of whole rounds, unless a next run begins with record 0."""
        if self._resume:
            self._takers[stream.name].release(sequence - sequence % stream.block_count)

    async def _run_program(self) -> None:
        job = self.job
        process = await start(job, self.pipeline, self._ports, self.around, os.environ)
        try:
            async with asyncio.TaskGroup() as tasks:
                readers = [
                    tasks.create_task(self._read_output(output.name)) for output in job.outputs
                ]
                acknowledging = [
                    tasks.create_task(
                        self._ports[stream.name].read_acknowledgements(
                            partial(self._processed, stream), self.say
                        )
                    )
                    for stream in job.streams
                ]
                status = await process.wait()
                # What it has written is in its sockets; a child that it left behind has no say.
                if readers:
                    await asyncio.wait(readers, timeout=_GRACE_SECONDS)
                for task in (*readers, *acknowledging):
                    task.cancel()
        finally:
            await _end(process)
        if status:
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise ProgramFailedError(f"the local job {job.name} ended {how}")

    async def _read_output(self, name: str) -> None:
        port, file, feeder = self._ports[name], self._files[name], self._feeders[name]

        async def take(records: Records) -> None:
            await feeder.room()
            # A program that was run again sends again what is in the file already.
            fresh = records.without_head(min(records.count, file.next - records.first))
            if fresh.count > 0 and file.total is None:
                file.append(fresh)
                feeder.grown(len(fresh.body))

        await port.read_records(self._first(name), take, self.say)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program that still runs: SIGTERM, a grace, SIGKILL."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
