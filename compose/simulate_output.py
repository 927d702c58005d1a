"""The folder that a simulation leaves: one folder per job with its artifacts and what it printed."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoal.view import JobView, LogStream, PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

MARK: Final = ".shoal-simulation"
"""A file that tells a folder of ours, which the next simulation may replace, from any other folder."""

_STREAMS: Final = {LogStream.STDOUT: "stdout", LogStream.STDERR: "stderr"}


class OutputTakenError(Exception):
    """The folder holds files that no simulation wrote."""


class OutputFolder:
    """`FOLDER/JOB/results/…`, `FOLDER/JOB/stdout` and `stderr`; `FOLDER/JOB/attempts/N/` of lost ones."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        """Make the folder, and remove what an earlier simulation left in it.

        Raises:
            OutputTakenError: something stands there that no simulation made, or it cannot be made.
        """
        try:
            if os.path.lexists(self.path):
                self._check()
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
            (self.path / MARK).write_text("The next simulation replaces this folder.\n")
        except OSError as error:
            raise OutputTakenError(
                f"{error.filename or self.path}: {error.strerror}; choose another folder with --out"
            ) from None

    async def fill(self, client: "Client", pipeline: PipelineView) -> None:
        """Fetch everything that a pipeline left.

        Raises:
            ShoalError: it cannot be fetched.
        """
        for job in pipeline.jobs:
            await self._logs(client, job)
            for artifact in job.artifacts:
                await client.fetch(artifact, self.path / job.id / artifact.path)

    def _check(self) -> None:
        ours = self.path.is_dir() and not self.path.is_symlink()
        if ours and not (self.path / MARK).is_file() and any(self.path.iterdir()):
            ours = False
        if not ours:
            raise OutputTakenError(
                f"{self.path} exists and no simulation made it, so it is left alone; choose another "
                "folder with --out, or move it away"
            )

    async def _logs(self, client: "Client", job: JobView) -> None:
        """Write what came of the logs; the archive's copy of a whole log takes its place later."""
        folder = self.path / job.id
        for path in (folder / name for name in _STREAMS.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        last = job.attempts[-1].name if job.attempts else ""
        async with contextlib.aclosing(client.logs(job.name)) as chunks:
            async for chunk in chunks:
                where = folder
                if chunk.attempt != last:
                    where = folder / "attempts" / chunk.attempt.rpartition("/")[2]
                    where.mkdir(parents=True, exist_ok=True)
                with (where / _STREAMS[chunk.stream]).open("ab") as file:
                    file.write(chunk.data)
