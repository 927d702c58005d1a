"""Copies of what output ports send, made while a pipeline runs.

This is imported before a pipeline is submitted: a recorder that comes late may find that the first
records were let go of.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from shoal import spec
from shoal.affix import beside
from shoal.cli.chosen_pipeline import one_replica
from shoal.cli.figures import bytes_text
from shoal.cli.local_jobs import client_epoch
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.port_file import PortFile
from shoal.local.recorder import Recorder
from shoal.suggestion import did_you_mean
from shoal.view import PipelineView


def check_copies(pipeline: spec.Pipeline, wanted: Sequence[PortFile], *, may_go_on: bool) -> None:
    """Refuse, before anything is submitted, what cannot be recorded or written.

    Args:
        pipeline: what will be submitted.
        wanted: what is to be recorded.
        may_go_on: whether this may be a pipeline that was submitted before, with part of its copies.

    Raises:
        click.UsageError: it names the job, port or file, and which there are.
    """
    ports = {
        f"{name}.{output.name}": (job.name, output.name)
        for job in pipeline.jobs
        for output in job.outputs
        for name in _replicas(job)
    }
    several = {job.name: _replicas(job) for job in pipeline.jobs if job.replicas > 1}
    paths: set[Path] = set()
    for one in wanted:
        if one.job in several:
            names = ", ".join(f"{name}.{one.port}" for name in several[one.job])
            raise click.UsageError(
                f"--record {one.name}: the job {one.job!r} has {len(several[one.job])} replicas; "
                f"name one of {names}"
            )
        if one.name not in ports:
            raise click.UsageError(
                f"--record: there is no output {one.name!r}; {did_you_mean(one.name, ports)}"
            )
        path = one.path.absolute()
        if path in paths:
            raise click.UsageError(f"--record: {one.path} is named twice; name another file")
        paths.add(path)
        if path.exists():
            raise click.UsageError(
                f"--record: {one.path} is there already; remove it, or name another file"
            )
        part = beside(path, ".part")
        if part.exists() and not may_go_on:
            raise click.UsageError(
                f"--record: {part} is left of another recording; move it away, or name another file"
            )
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise click.UsageError(
                f"--record: {one.path} cannot be written: {path.parent} is no folder that this user "
                "may write; make it, or name another file"
            )


def _replicas(job: spec.Job) -> list[str]:
    return [job.replica_id(replica) for replica in range(job.replicas)]


@dataclass(slots=True)
class Copies:
    """What became of recordings.

    Attributes:
        complete: a sentence for each that is complete.
        failed: how many are not.
    """

    complete: list[str] = field(default_factory=list[str])
    failed: int = 0
    _recorders: list[Recorder] = field(default_factory=list[Recorder])

    def stop(self) -> None:
        """Complete the files with the records that they have."""
        for recorder in self._recorders:
            recorder.stop()

    async def record(
        self, wanted: PortFile, recorder: Recorder, say: Callable[[str], None]
    ) -> None:
        """Record to the end of the stream; a failure is said at once, and the pipeline goes on."""
        self._recorders.append(recorder)
        with contextlib.closing(recorder):
            try:
                await recorder.run(from_start=True)
            except ShoalError as error:
                self.failed += 1
                say(f"{wanted.name} is not recorded: {error.message}")
                return
            file = recorder.file
            self.complete.append(
                f"{wanted.path}: records {file.base} to {file.next - 1} of {wanted.name}, "
                f"{bytes_text(file.size_bytes)}, digest {file.digest}"
            )


@contextlib.asynccontextmanager
async def recording(
    client: Client,
    pipeline: PipelineView,
    wanted: Sequence[PortFile],
    say: Callable[[str], None],
) -> AsyncIterator[Copies]:
    """Record ports of a pipeline that was just submitted; behind the block all recordings are over.

    Args:
        client: an open client.
        pipeline: whose streams they are.
        wanted: what `check_copies` let through.
        say: says that one has failed.

    Raises:
        ShoalError: a file is taken or cannot be written.
    """
    copies = Copies()
    async with asyncio.TaskGroup() as group:
        for one in wanted:
            recorder = Recorder(
                client,
                pipeline,
                one_replica(pipeline, one.job, one.port),
                one.port,
                one.path,
                epoch=client_epoch(),
                clock=asyncio.get_running_loop().time,
            )
            group.create_task(copies.record(one, recorder, say))
        yield copies
