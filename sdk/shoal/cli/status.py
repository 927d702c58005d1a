"""`shoal status`: how pipelines stand."""

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.broker_line import show_broker
from shoal.cli.caller_line import show_caller
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted, state_word
from shoal.cli.progress import ProgressRows
from shoal.cli.streams import remarks
from shoal.model import JobState
from shoal.view import PipelineView

if TYPE_CHECKING:
    from shoal.client import Client

_LISTED = 20


@click.command()
@click.argument("pipeline", required=False, shell_complete=name_completion.pipelines)
@click.option(
    "--watch",
    "-w",
    is_flag=True,
    help="Go on until the pipeline has ended; with the list, until Ctrl-C.",
)
@click.option(
    "--limit", type=click.IntRange(1), help=f"How many pipelines to list.  [default: {_LISTED}]"
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each pipeline.")
@controller_options
async def status(
    target: Target, pipeline: str | None, *, watch: bool, limit: int | None, as_json: bool
) -> None:
    r"""Show the latest pipelines, or one pipeline with its jobs.

    \b
        shoal status                        the latest pipelines
        shoal status people-counter-4f2a    its jobs, streams and artifacts
        shoal status latest                 the newest one; the beginning of a name does as well
        shoal status --watch people-counter-4f2a
        shoal status --watch                all of them as they change, until Ctrl-C

    The list ends with the cluster and what it takes you for, on stderr; a controller that was started
    with --insecure is told out loud, and so is a broker that does not take all events.

    On a terminal, --watch draws one table anew; elsewhere, and with --json, every change is a line.
    """
    if limit is not None and pipeline is not None:
        raise click.UsageError(f"--limit goes with the list of pipelines; leave out {pipeline!r}")
    async with target.client() as client:
        if pipeline is None and watch:
            await _watch_all(client, limit or _LISTED, as_json=as_json)
            return
        if pipeline is None:
            await _list(client, limit or _LISTED, as_json=as_json)
            return
        found = await chosen(client, pipeline)
        if watch:
            await _watch(client, found.id, as_json=as_json)
        else:
            _show(found, as_json=as_json)


async def _list(client: "Client", limit: int, *, as_json: bool) -> None:
    from shoal.cli.tables import pipelines_table, show

    found: list[PipelineView] = []
    listed = client.list(page_size=min(100, limit))
    async with contextlib.aclosing(listed) as pipelines:
        async for pipeline in pipelines:
            if len(found) == limit:
                break
            found.append(pipeline)
    if as_json:
        for pipeline in found:
            print_document(pipeline)
    elif found:
        show(pipelines_table(found, datetime.now(UTC)))
    else:
        click.echo("there are no pipelines yet; try: shoal run -- echo hello", err=True)
    if not as_json:
        await show_caller(client)
        await show_broker(client)


def _show(pipeline: PipelineView, *, as_json: bool) -> None:
    from shoal.cli.tables import artifacts_table, pipeline_group, show

    if as_json:
        print_document(pipeline)
        return
    rows = ProgressRows().rows(pipeline, 0.0)
    show(pipeline_group(pipeline, rows, datetime.now(UTC)))
    for remark in remarks(pipeline.jobs):
        click.echo(remark)
    if pipeline.reason.message:
        click.echo(f"{pipeline.reason.short}: {pipeline.reason.message}")
    if any(job.artifacts for job in pipeline.jobs):
        click.echo()
        show(artifacts_table(pipeline.jobs))
    if pipeline.final_event_id:
        click.echo(f"event {pipeline.final_event_id}")


async def _watch_all(client: "Client", limit: int, *, as_json: bool) -> None:
    from shoal.cli.tables import pipelines_table
    from shoal.cli.watched_list import Listing, watch_list

    def newest(pipelines: Iterable[PipelineView]) -> Sequence[PipelineView]:
        never = datetime.min.replace(tzinfo=UTC)
        ordered = sorted(pipelines, key=lambda one: one.create_time or never, reverse=True)
        return ordered[:limit]

    listing = Listing(lambda one: one.id, newest, pipelines_table, _news)
    await watch_list(client.watch(), listing, as_json=as_json)


def _news(pipeline: PipelineView) -> str:
    done = sum(job.state is JobState.SUCCEEDED for job in pipeline.jobs)
    said = f"{state_word(pipeline.state)}, {done} of {counted(len(pipeline.jobs), 'job')} done"
    if pipeline.finish_time is not None and not pipeline.state.terminal:
        said += ", finishing"
    return f"{said}: {pipeline.reason.short}" if pipeline.reason.code else said


async def _watch(client: "Client", name: str, *, as_json: bool) -> None:
    from shoal.cli.display import display_for
    from shoal.cli.tables import console

    with display_for(console(stderr=as_json), live=not as_json) as display:

        def shown(pipeline: PipelineView) -> bool:
            if as_json:
                print_document(pipeline)
            else:
                display.show(pipeline)
            return pipeline.state.terminal

        await client.when(name, shown)
