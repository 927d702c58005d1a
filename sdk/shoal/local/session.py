"""All local jobs of a pipeline, for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from shoal import spec
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.local_job import LocalJob, spool_folder
from shoal.local.program import Surroundings, library
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


class LocalSession:
    """Runs local jobs beside a pipeline.

    Args:
        client: an open client.
        pipeline: as it was recorded.
        folders: where jobs work.
        epoch: of this client; milliseconds since 1970 let a later client win.
        say: is told what happens, a sentence each.
    """

    def __init__(
        self,
        client: Client,
        pipeline: PipelineView,
        folders: LocalFolders,
        *,
        epoch: int,
        say: Callable[[str], None],
    ) -> None:
        self._client = client
        self._pipeline = pipeline
        self._folders = folders
        self._epoch = epoch
        self._say = say
        self._spool = spool_folder(folders.state, pipeline.namespace, pipeline.id)

    async def run(self) -> None:
        """Run all of them until this is cancelled; the first that fails ends the others.

        Raises:
            ProgramFailedError: A program did not end well.
            ShoalError: The controller refuses, or a later client took over.
        """
        jobs = with_programs(self._pipeline.spec)
        readers = [job for job in jobs if _reads_terminal(job)]
        with (
            tempfile.TemporaryDirectory(prefix="shoal-local-") as folder,
            library(Path(folder)) as sdk,
        ):
            try:
                async with asyncio.TaskGroup() as tasks:
                    for job in jobs:
                        tasks.create_task(self._job(job, sdk, terminal=readers == [job]).run())
            except* ShoalError as group:
                raise _first(group) from group

    def forget(self) -> None:
        """Remove what was kept for the pipeline, which has ended."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._spool)

    def _job(self, job: spec.Job, sdk: Path, *, terminal: bool) -> LocalJob:
        around = Surroundings(
            self._pipeline.namespace,
            self._pipeline.id,
            self._folders.work,
            self._folders.results / job.name,
            sdk,
            terminal,
        )

        def say(text: str) -> None:
            self._say(f"{job.name}: {text}")

        return LocalJob(
            self._client,
            self._pipeline.spec,
            job,
            around,
            epoch=self._epoch,
            spool=self._spool,
            say=say,
        )


def _reads_terminal(job: spec.Job) -> bool:
    """Whether the program may read the standard input of the client."""
    stdio = spec.PortAttachment.STDIO
    taken = bool(job.stdin) or any(one.binding.attachment is stdio for one in job.streams)
    return not taken and bool(job.outputs)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
