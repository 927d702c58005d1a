"""`shoal status`: how pipelines stand."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from shoal.cli.filter_options import filter_options, node_option, state_option
from shoal.cli.progress import ProgressRows
from shoal.cli.streams import remarks
from shoal.model import JobState, PipelineState
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.view import PipelineSummary, PipelineTotals, PipelineView, SnapshotEnd, Unlisted

if TYPE_CHECKING:
    from rich.console import RenderableType

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
@state_option(PipelineState)
@node_option("Only those with an attempt on this node that has not ended.")
@filter_options
@click.option(
    "--order",
    type=click.Choice([one.value for one in PipelineOrder]),
    help="Which come first; `ended` lists those that have ended, the last one first.  [default: newest]",
)
@click.option("--count", "counts", is_flag=True, help="Only say how many there are by state.")
@click.option("--light", is_flag=True, help="With --json: without specifications and jobs.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each pipeline.")
@controller_options
async def status(
    target: Target,
    pipeline: str | None,
    *,
    watch: bool,
    limit: int | None,
    states: tuple[str, ...],
    node: str,
    where: PipelineFilter,
    order: str | None,
    counts: bool,
    light: bool,
    as_json: bool,
) -> None:
    r"""Show the latest pipelines, or one pipeline with its jobs.

    \b
        shoal status                        the latest pipelines
        shoal status people-counter-4f2a    its jobs, streams and artifacts
        shoal status latest                 the newest one; the beginning of a name does as well
        shoal status --watch people-counter-4f2a
        shoal status --watch                all of them as they change, until Ctrl-C
        shoal status --state failed --since 1h --creator ann
        shoal status --label site=north --count

    The list ends with the cluster and what it takes you for, on stderr; a controller that was started
    with --insecure is told out loud, and so is a broker that does not take all events.

    On a terminal, --watch draws one table anew; elsewhere, and with --json, every change is a line.
    """
    where = replace(
        where, states=frozenset(PipelineState[state.upper()] for state in states), node=node
    )
    chooses = where != EVERY_PIPELINE
    if pipeline is not None:
        _refuse_with(pipeline, limit=limit, order=order, count=counts, light=light, filter=chooses)
    if watch and (counts or order):
        raise click.UsageError(
            "--count and --order go with a list that is shown once; leave out --watch"
        )
    if watch and as_json and chooses and not light:
        raise click.UsageError(
            "of a list that is chosen from, --watch --json says light pictures: add --light"
        )
    async with target.client() as client:
        if pipeline is not None:
            found = await chosen(client, pipeline)
            if watch:
                await _watch(client, found.id, as_json=as_json)
            else:
                _show(found, as_json=as_json)
        elif counts:
            _count(await client.totals(where), as_json=as_json)
        elif watch:
            await _watch_all(client, where, limit or _LISTED, as_json=as_json, light=light)
        else:
            how = PipelineOrder(order or PipelineOrder.NEWEST.value)
            if as_json and not light:
                await _print_whole(client, where, how, limit or _LISTED)
            else:
                await _list(client, where, how, limit or _LISTED, as_json=as_json)


def _refuse_with(pipeline: str, **given: object) -> None:
    for option, value in given.items():
        if value:
            what = "a filter goes" if option == "filter" else f"--{option} goes"
            raise click.UsageError(f"{what} with the list of pipelines; leave out {pipeline!r}")


def _count(totals: PipelineTotals, *, as_json: bool) -> None:
    from shoal.cli.tables import show, totals_table

    if as_json:
        print_document(totals)
        return
    show(totals_table(totals))
    if totals.dead_letters:
        click.echo(f"{counted(totals.dead_letters, 'dead letter')}: shoal dlq")


async def _print_whole(
    client: "Client", where: PipelineFilter, order: PipelineOrder, limit: int
) -> None:
    found = 0
    listed = client.list(page_size=min(100, limit), where=where, order=order)
    async with contextlib.aclosing(listed) as pipelines:
        async for pipeline in pipelines:
            print_document(pipeline)
            found += 1
            if found == limit:
                break


async def _list(
    client: "Client", where: PipelineFilter, order: PipelineOrder, limit: int, *, as_json: bool
) -> None:
    from shoal.cli.tables import pipelines_table, show

    found: list[PipelineSummary] = []
    listed = client.summaries(where, page_size=min(1_000, limit), order=order)
    async with contextlib.aclosing(listed) as pipelines:
        async for pipeline in pipelines:
            found.append(pipeline)
            if len(found) == limit:
                break
    if as_json:
        for pipeline in found:
            print_document(pipeline)
    elif found:
        show(pipelines_table(found, datetime.now(UTC)))
    elif where == EVERY_PIPELINE and order is not PipelineOrder.ENDED:
        click.echo("there are no pipelines yet; try: shoal run -- echo hello", err=True)
    else:
        click.echo("there are no such pipelines", err=True)
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


async def _watch_all(
    client: "Client", where: PipelineFilter, limit: int, *, as_json: bool, light: bool
) -> None:
    from shoal.cli.tables import pipelines_table
    from shoal.cli.watched_list import Listing, watch_list

    if as_json and not light:
        async with contextlib.aclosing(client.watch()) as changes:
            async for change in changes:
                if not isinstance(change, SnapshotEnd):
                    print_document(change)
        return

    def newest(pipelines: Iterable[PipelineSummary | Unlisted]) -> Sequence[PipelineSummary]:
        never = datetime.min.replace(tzinfo=UTC)
        listed = [one for one in pipelines if isinstance(one, PipelineSummary)]
        return sorted(listed, key=lambda one: one.create_time or never, reverse=True)[:limit]

    def table(pipelines: Sequence[PipelineSummary | Unlisted], now: datetime) -> "RenderableType":
        return pipelines_table([one for one in pipelines if isinstance(one, PipelineSummary)], now)

    listing: Listing[PipelineSummary | Unlisted] = Listing(
        lambda one: one.id, newest, table, _news, gone=lambda one: isinstance(one, Unlisted)
    )
    await watch_list(client.watch_summaries(where), listing, as_json=as_json)


def _news(pipeline: PipelineSummary | Unlisted) -> str:
    if isinstance(pipeline, Unlisted):
        return "is not listed any more"
    counts = pipeline.job_counts
    done = counts.get(JobState.SUCCEEDED, 0)
    said = f"{state_word(pipeline.state)}, {done} of {counted(sum(counts.values()), 'job')} done"
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
