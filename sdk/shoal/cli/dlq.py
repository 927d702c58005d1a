"""`shoal dlq`: pipelines that failed, kept with every attempt's words until a person is done with them."""

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen, replicas_of
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.dead_letter import dead_jobs, letters
from shoal.cli.document import print_document
from shoal.cli.figures import age_text
from shoal.cli.filter_options import filter_options
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.pipeline_filter import PipelineFilter
from shoal.view import AttemptView, JobView, PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

_LISTED = 100


_limit = click.option(
    "--limit", type=click.IntRange(1), default=_LISTED, show_default=True, help="How many to list."
)
_json = click.option("--json", "as_json", is_flag=True, help="One line of JSON for each.")


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@filter_options
@_limit
@_json
@controller_options
async def dlq(target: Target, *, where: PipelineFilter, limit: int, as_json: bool) -> None:
    r"""List, show and discard dead letters: pipelines of which a job has used up its attempts.

    \b
        shoal dlq                      all of them, the newest first
        shoal dlq --creator ann --since 1h
        shoal dlq show count-4f2a      every attempt of the job that failed
        shoal revive count-4f2a        run the same again
        shoal dlq discard count-4f2a   be done with it

    They are kept, beyond other pipelines that have ended, until they are revived or discarded; the controller
    limits how many and for how long (--dead-letters, --dead-letter-days).
    """
    await _list(target, where, limit, as_json=as_json)


@dlq.command("list")
@filter_options
@_limit
@_json
@controller_options
async def list_letters(target: Target, *, where: PipelineFilter, limit: int, as_json: bool) -> None:
    """List the dead letters of the namespace, the newest first."""
    await _list(target, where, limit, as_json=as_json)


async def _list(target: Target, where: PipelineFilter, limit: int, *, as_json: bool) -> None:
    from shoal.cli.tables import make_table, show

    found: list[PipelineView] = []
    async with target.client() as client, contextlib.aclosing(letters(client, where)) as pipelines:
        async for pipeline in pipelines:
            if len(found) == limit:
                click.echo(f"there are more than {limit}; see them with --limit", err=True)
                break
            found.append(pipeline)
    if as_json:
        for pipeline in found:
            print_document(pipeline)
        return
    if not found:
        click.echo("there are no dead letters", err=True)
        return
    table = make_table("dead letter", ">age", ">attempts", "reason", "last words")
    now = datetime.now(UTC)
    for pipeline in found:
        for job in dead_jobs(pipeline):
            table.add_row(
                f"{pipeline.id}/{job.id}",
                age_text(pipeline.end_time, now),
                str(job.attempts[-1].number if job.attempts else 0),
                job.reason.short,
                job.reason.message.rstrip().rpartition("\n")[2],
            )
    show(table)


@dlq.command("show")
@click.argument("letter", metavar="PIPELINE[/JOB]", shell_complete=name_completion.pipelines)
@click.option("--json", "as_json", is_flag=True, help="The pipeline as a line of JSON.")
@controller_options
async def show_letter(target: Target, letter: str, *, as_json: bool) -> None:
    """Show every attempt of the job that failed: when and where it ran, why it failed, where its logs are."""
    async with target.client() as client:
        pipeline, jobs = await _found(client, letter)
    if as_json:
        print_document(pipeline)
        return
    for job in jobs:
        for attempt in job.attempts:
            for line in _lines(pipeline, job, attempt):
                click.echo(line)
    remedy = {
        "KEPT": f"run it again: shoal revive {pipeline.id}; be done with it: shoal dlq discard {pipeline.id}",
        "REVIVED": f"it was revived as {pipeline.revived_by}",
        "DISCARDED": "it was discarded",
    }
    click.echo(remedy.get(pipeline.dead_letter.name, "it is no dead letter"))


@dlq.command("discard")
@click.argument(
    "pipelines",
    metavar="PIPELINE…",
    nargs=-1,
    required=True,
    shell_complete=name_completion.pipelines,
)
@controller_options
async def discard(target: Target, pipelines: tuple[str, ...]) -> None:
    """Be done with dead letters: they are forgotten as other pipelines are that have ended.

    If one of the names is wrong, nothing is discarded.
    """
    async with target.client() as client:
        found = [(await _found(client, name))[0] for name in pipelines]
        for pipeline in found:
            await client.discard(pipeline.id)
            click.echo(f"{pipeline.name} is discarded")


async def _found(client: "Client", letter: str) -> tuple[PipelineView, tuple[JobView, ...]]:
    """Find a pipeline and the jobs that are meant: the one that is named, or those that failed."""
    name, slash, job = letter.removeprefix("pipelines/").partition("/")
    pipeline = await chosen(client, name)
    if slash:
        return pipeline, replicas_of(pipeline, job.removeprefix("jobs/"))
    return pipeline, tuple(dead_jobs(pipeline))


def _lines(pipeline: PipelineView, job: JobView, attempt: AttemptView) -> list[str]:
    began = attempt.start_time or attempt.create_time
    span = " to ".join(
        moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        for moment in (began, attempt.end_time)
        if moment is not None
    )
    logs = f"shoal logs {pipeline.id}/{job.id} --attempt {attempt.number}"
    return [
        f"attempt {attempt.number} on {attempt.node}, {span}: {attempt.reason.short}",
        *(f"    {line}" for line in attempt.reason.message.splitlines()),
        *([f"    logs: {logs}"] if attempt.start_time is not None else []),
    ]
