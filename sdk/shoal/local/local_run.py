"""All local jobs of a pipeline, for as long as it runs."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal import spec
from shoal.cause import causes
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.local_job import LocalJob, spool_folder
from shoal.local.local_program import Surroundings, library
from shoal.view import PipelineView


@dataclass(frozen=True, slots=True)
class LocalFolders:
    """Where local jobs work, leave their results, and where this user's state is kept."""

    work: Path
    results: Path
    state: Path


def with_programs(pipeline: spec.Pipeline) -> tuple[spec.Job, ...]:
    """Return the local jobs that have a program to be run here."""
    return tuple(job for job in pipeline.jobs if job.local and job.run)


def by_hand(pipeline: spec.Pipeline) -> tuple[spec.Job, ...]:
    """Return the local jobs that `shoal send` feeds."""
    return tuple(job for job in pipeline.jobs if job.local and not job.run)


def stdin_reader(pipeline: spec.Pipeline) -> spec.Job | None:
    """Return the job that reads the client's standard input.

    It is the one that says so, or the only one that could. Where several could and none says so, none
    has it: two readers would each get a part of the lines.
    """
    could = _could_read(with_programs(pipeline))
    return could[0] if len(could) == 1 else None


def _could_read(jobs: Sequence[spec.Job]) -> Sequence[spec.Job]:
    marked = [job for job in jobs if job.stdin == spec.TERMINAL]
    return marked or [job for job in jobs if may_read_terminal(job)]


@dataclass(frozen=True, slots=True)
class LocalRun:
    """Runs local jobs beside a pipeline.

    Args:
        client: an open client.
        pipeline: as it was recorded.
        folders: where jobs work.
        epoch: of this client; milliseconds since 1970 let a later client win.
        say: takes what happens, a sentence each.
    """

    client: Client
    pipeline: PipelineView
    folders: LocalFolders
    epoch: int
    say: Callable[[str], None]

    async def run(self) -> None:
        """Run all of them until this is cancelled; the first that fails ends the others.

        Raises:
            ProgramFailedError: A program did not end well.
            ShoalError: The controller refuses, or a later client took over.
        """
        jobs = with_programs(self.pipeline.spec)
        could = _could_read(jobs)
        if len(could) > 1:
            self.say(
                f"none of {', '.join(job.name for job in could)} gets the standard input, because "
                f"each of them could read it: write `stdin: {spec.TERMINAL}` at the one that does"
            )
        reader = stdin_reader(self.pipeline.spec)
        with (
            tempfile.TemporaryDirectory(prefix="shoal-local-") as folder,
            library(Path(folder)) as sdk,
        ):
            try:
                async with asyncio.TaskGroup() as tasks:
                    for job in jobs:
                        tasks.create_task(self._job(job, sdk, terminal=job is reader).run())
            except* ShoalError as group:
                raise causes(group)[0] from group

    def left(self) -> Sequence[Path]:
        """Return the folders in which local jobs left something."""
        folders = [self.folders.results / job.name for job in with_programs(self.pipeline.spec)]
        return [folder for folder in folders if folder.is_dir() and any(folder.iterdir())]

    def forget(self) -> None:
        """Remove what was kept for the pipeline, which has ended."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._spool())

    def _spool(self) -> Path:
        return spool_folder(self.folders.state, self.pipeline.namespace, self.pipeline.id)

    def _job(self, job: spec.Job, sdk: Path, *, terminal: bool) -> LocalJob:
        around = Surroundings(
            self.pipeline.namespace,
            self.pipeline.id,
            self.folders.work,
            self.folders.results / job.name,
            sdk,
            terminal,
        )

        def say(text: str) -> None:
            self.say(f"{job.name}: {text}")

        return LocalJob(
            client=self.client,
            pipeline=self.pipeline.spec,
            job=job,
            around=around,
            epoch=self.epoch,
            spool=self._spool(),
            say=say,
        )


def may_read_terminal(job: spec.Job) -> bool:
    """Say whether a local job's standard input could be its client's: it is nothing else, and it sends."""
    stdio = spec.PortAttachment.STDIO
    if job.stdin == spec.TERMINAL:
        return True
    taken = bool(job.stdin) or any(one.binding.attachment is stdio for one in job.streams)
    return not taken and bool(job.outputs)
