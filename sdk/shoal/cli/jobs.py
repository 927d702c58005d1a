"""`shoal jobs`: jobs of many pipelines."""

import contextlib
from datetime import UTC, datetime

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.filter_options import filter_options, node_option, state_option
from shoal.model import JobState
from shoal.pipeline_filter import PipelineFilter
from shoal.view import JobView

_LISTED = 100


@click.command()
@click.argument("pipeline", required=False, shell_complete=name_completion.pipelines)
@state_option(JobState)
@node_option("Only those whose newest attempt is, or was, on this node.")
@filter_options
@click.option(
    "--limit", type=click.IntRange(1), default=_LISTED, show_default=True, help="How many to list."
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each job.")
@controller_options
async def jobs(
    target: Target,
    pipeline: str | None,
    *,
    states: tuple[str, ...],
    node: str,
    where: PipelineFilter,
    limit: int,
    as_json: bool,
) -> None:
    r"""List jobs of all pipelines of the namespace, or of one: the newest pipelines first.

    \b
        shoal jobs --node node-2 --state running    what runs on a node now
        shoal jobs --node node-2                    all that is known to have been there
        shoal jobs --state failed --since 1h        what failed of the last hour's submissions
        shoal jobs latest --state retry_wait

    Each is shown with its newest attempt. The names, labels, creators and times are those of pipelines.
    """
    from shoal.cli.tables import listed_jobs_table, show

    found: list[JobView] = []
    async with target.client() as client:
        one = (await chosen(client, pipeline)).id if pipeline else ""
        listed = client.jobs(
            pipeline=one,
            node=node,
            states=[JobState[state.upper()] for state in states],
            where=where,
            page_size=min(limit + 1, 1_000),
        )
        async with contextlib.aclosing(listed) as every:
            async for job in every:
                if len(found) == limit:
                    click.echo(f"there are more than {limit}; see them with --limit", err=True)
                    break
                found.append(job)
    if as_json:
        for job in found:
            print_document(job)
    elif found:
        show(listed_jobs_table(found, datetime.now(UTC)))
    else:
        click.echo("there are no such jobs", err=True)
