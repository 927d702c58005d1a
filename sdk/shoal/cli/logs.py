"""`shoal logs`: what jobs print."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.log_files import LogFiles
from shoal.cli.log_printer import standard_printer, tell_cut
from shoal.cli.moment_option import moment
from shoal.cli.naming import pipeline_or_job
from shoal.names import JobRef
from shoal.view import JobView, LogChunk, PipelineView

if TYPE_CHECKING:
    from shoal.client import Client


_TAIL_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be shown: of which attempts (0 means all), how much, for how long, and with times."""

    follow: bool
    tail: int
    attempt: int
    since: datetime | None
    until: datetime | None
    times: bool


@click.command()
@click.argument(
    "name",
    metavar="PIPELINE[/JOB]",
    required=False,
    shell_complete=name_completion.pipelines_or_jobs,
)
@click.option("--follow", "-f", is_flag=True, help="Go on until the pipeline has ended.")
@click.option(
    "--tail",
    type=click.IntRange(0, _TAIL_MAX),
    default=0,
    metavar="LINES",
    help="Only the last so many lines of each output of each attempt.",
)
@click.option(
    "--since",
    type=moment,
    metavar="TIME",
    help="Only lines printed since then: 5m, 15:03, 2026-11-29T15:03:20Z.",
)
@click.option("--until", type=moment, metavar="TIME", help="Only what was printed before then.")
@click.option(
    "--timestamps",
    "-t",
    "times",
    is_flag=True,
    help="Begin each line with the time it was printed.",
)
@click.option(
    "--attempt",
    type=click.IntRange(1),
    metavar="N",
    help="Only the N-th attempt of each job.  [default: all]",
)
@click.option("--all", "every", is_flag=True, help="The logs of every pipeline.")
@click.option(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write files, DIR/PIPELINE/JOB/ATTEMPT/stdout and stderr, instead of showing them.",
)
@controller_options
async def logs(
    target: Target,
    name: str | None,
    *,
    follow: bool,
    tail: int,
    attempt: int | None,
    since: datetime | None,
    until: datetime | None,
    times: bool,
    every: bool,
    save: Path | None,
) -> None:
    r"""Show what the jobs of a pipeline print, also after they or their nodes are gone.

    \b
        shoal logs people-counter-4f2a
        shoal logs -f people-counter-4f2a/detector-1
        shoal logs people-counter-4f2a/detector         all of its replicas
        shoal logs --attempt 2 people-counter-4f2a/detector-1
        shoal logs --since 5m --timestamps latest
        shoal logs --since 15:00 --until 15:05 latest
        shoal logs --tail 20 -f latest/detector
        shoal logs --all --save collected

    A job's stdout goes to stdout, its stderr to stderr. If there are several jobs, each line begins
    with the job it came from, and with #2 from its second attempt on; of a single job, a line on
    stderr says where its second attempt begins. Times are those of the clock of the board, in UTC, to
    a tenth of a second; `-` stands where none is known. Everything is shown, or saved,
    that a job printed: what the controller does not keep comes from the archive, to which the logs of
    an attempt that failed go after its end. What cannot be had is said, and the exit status is 1 then.
    """
    if every == (name is not None):
        raise click.UsageError("name a PIPELINE or PIPELINE/JOB, or say --all for every pipeline")
    if every and follow:
        raise click.UsageError("--follow goes with one pipeline; name it, or leave out --follow")
    if follow and until is not None:
        raise click.UsageError("--follow goes on with what comes; leave out --until")
    if since is not None and until is not None and until <= since:
        raise click.UsageError(
            "--until is not later than --since; write a later moment, or leave one out"
        )
    wholly = {"--tail": tail, "--since": since, "--until": until, "--timestamps": times}
    for option, given in wholly.items():
        if save is not None and given:
            raise click.UsageError(f"--save writes whole logs; leave out {option}")
    wish = _Wish(follow, tail, attempt or 0, since, until, times)
    if save:
        await _save(target, name, wish, save)
    else:
        await _show(target, name, wish)


async def _show(target: Target, name: str | None, wish: _Wish) -> None:
    async with target.client() as client:
        found = await _found(client, target, name)
        _check_attempt(found, wish)
        prefixed = name is None or sum(len(jobs) for _, jobs in found.values()) > 1
        printer = standard_printer(prefixed=prefixed, pipelines=name is None, timed=wish.times)
        try:
            for read in found:
                await _read(client, read, wish, printer.write)
        finally:
            printer.close()
        # Anew, because manifests have come while logs were followed; `latest` may be another now.
        anew = await _found(client, target, next(iter(found)) if name else None)
        if tell_cut(printer, [job for _, jobs in anew.values() for job in jobs]):
            raise click.exceptions.Exit(1)


async def _save(target: Target, name: str | None, wish: _Wish, folder: Path) -> None:
    files = LogFiles(folder)
    async with target.client() as client:
        found = await _found(client, target, name)
        _check_attempt(found, wish)
        for read in found:
            await _read(client, read, wish, files.write)
    for path in files.paths:
        click.echo(str(path))
    if not files.paths:
        click.echo("nothing was printed", err=True)


async def _found(
    client: "Client", target: Target, name: str | None
) -> dict[str, tuple[PipelineView, Sequence[JobView]]]:
    """By the name to read: the pipeline and its jobs that are meant; oldest pipelines first."""
    if name is None:
        pipelines = [pipeline async for pipeline in client.list()]
        return {one.name: (one, one.jobs) for one in reversed(pipelines)}
    ref = pipeline_or_job(name, target.namespace)
    pipeline = await chosen(client, ref.pipeline)
    if isinstance(ref, JobRef):  # a job, or all replicas of one of the spec
        jobs = replicas_of(pipeline, ref.job)
        return {f"{pipeline.name}/jobs/{ref.job}": (pipeline, jobs)}
    return {pipeline.name: (pipeline, pipeline.jobs)}


def _check_attempt(found: dict[str, tuple[PipelineView, Sequence[JobView]]], wish: _Wish) -> None:
    """Refuse an attempt that there is not; while logs are followed it may still come.

    Raises:
        click.ClickException: no job has so many.
    """
    most = max((len(job.attempts) for _, jobs in found.values() for job in jobs), default=0)
    if wish.attempt > most and not wish.follow:
        what = f"in {next(iter(found))}" if len(found) == 1 else "in any pipeline"
        have = f"--attempt 1 to {most} can be shown" if most else "none has begun"
        raise click.ClickException(f"there is no attempt {wish.attempt} {what}; {have}")


async def _read(
    client: "Client", name: str, wish: _Wish, write: Callable[[LogChunk], None]
) -> None:
    stream = client.logs(
        name,
        follow=wish.follow,
        tail_lines=wish.tail,
        since=wish.since,
        until=wish.until,
        times=wish.times,
    )
    async with contextlib.aclosing(stream) as chunks:
        async for chunk in chunks:
            if not wish.attempt or chunk.attempt.endswith(f"/attempts/{wish.attempt}"):
                write(chunk)
