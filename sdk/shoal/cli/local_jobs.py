"""Jobs that run beside a command: which there are, and what a command that does not stay says."""

import sys
import time
from functools import partial
from pathlib import Path

import click

from shoal import spec
from shoal.cli.state_home import state_home
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.local.local_run import LocalFolders, LocalRun, by_hand, stdin_reader, with_programs
from shoal.view import PipelineView


def client_epoch() -> int:
    """Milliseconds since 1970: of two clients, the one that began later has the lanes."""
    return int(time.time() * 1000)


def refuse_local(pipeline: spec.Pipeline) -> None:
    """Refuse to submit and leave a pipeline that needs this command.

    Raises:
        ShoalError: It has local jobs with programs.
    """
    names = ", ".join(job.name for job in with_programs(pipeline))
    if names:
        raise ShoalError(
            "LOCAL_JOBS",
            f"local jobs run beside `shoal run` for as long as the pipeline does: {names}; "
            "use shoal run without --detach",
        )


def local_run(
    client: Client, pipeline: PipelineView, folder: Path, results: Path
) -> LocalRun | None:
    """Make the session of a pipeline's local jobs, and say which of them wait for `shoal send`."""
    for job in by_hand(pipeline.spec):
        port = f"{job.name}.{job.outputs[0].name}"
        click.echo(f"{job.name} waits for: shoal send {pipeline.id} {port}", err=True)
    if not with_programs(pipeline.spec):
        return None
    folders = LocalFolders(folder, results.absolute(), state_home())
    return LocalRun(client, pipeline, folders, client_epoch(), partial(click.echo, err=True))


def typing_job(pipeline: PipelineView) -> str:
    """Return the local job that reads this terminal, and say that it is not disturbed; empty for none."""
    reader = stdin_reader(pipeline.spec)
    if reader is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return ""
    click.echo(
        f"{reader.name} reads this terminal, so until it ends only what goes wrong is shown; "
        f"all of it: shoal status --watch {pipeline.id}",
        err=True,
    )
    return reader.name
