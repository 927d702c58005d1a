"""`shoal scale`: another number of replicas of a running job."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import counted
from shoal.errors import ShoalError, TooLateError
from shoal.model import ScaleState
from shoal.suggestion import did_you_mean
from shoal.view import PipelineView, ScaleView

if TYPE_CHECKING:
    from shoal.client import Client

SETTLE_SECONDS = 60.0
"""Longer than the controller lets streams stand still."""


@click.command()
@click.argument("pipeline", shell_complete=name_completion.open_pipelines)
@click.argument("wish", metavar="JOB=REPLICAS")
@controller_options
async def scale(target: Target, pipeline: str, wish: str) -> None:
    r"""Change how many replicas of a job run, while its pipeline goes on.

    \b
        shoal scale people-counter-4f2a detector=4
        shoal scale people-counter-4f2a detector=1

    No record is lost, repeated or reordered. The streams around the job stand still for a moment;
    then the new replicas take the records from there on, and the old ones end by themselves when
    they have done what is before. Until then both need room. The new ones have names of their own
    (detector-2, detector-3, …), and the files of the old ones are kept.

    The job needs stream inputs and `recovery: resume`. Jobs whose records are spread by key cannot
    be scaled while they run.
    """
    job, sign, number = wish.partition("=")
    if not sign or not number.isdecimal():
        raise click.UsageError(f"{wish!r} is not JOB=REPLICAS; write for example: detector=4")
    replicas = int(number)
    async with target.client() as client:
        before = await chosen(client, pipeline)
        known = [one.name for one in before.spec.jobs]
        if job not in known:
            raise click.ClickException(
                f"the specification of {before.name} has no job {job!r}; {did_you_mean(job, known)}"
            )
        view = await client.scale(before.id, job, replicas)
        if len(view.scales) == len(before.scales) and not _under_way(view):
            click.echo(f"job {job} of {view.name} has {counted(replicas, 'replica')} already")
            return
        settled = await _settled(client, view, len(view.scales))
    if settled.state is ScaleState.ABANDONED:
        raise ShoalError("SCALE_ABANDONED", f"job {job} keeps its replicas: {settled.message}")
    click.echo(
        f"job {job} of {view.name} has {counted(replicas, 'replica')} from now on; "
        f"each of those before ends after round {settled.rounds}"
    )


async def _settled(client: "Client", pipeline: PipelineView, number: int) -> ScaleView:
    """Wait until a scale is settled or abandoned."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            settled = await client.when(
                pipeline.id,
                lambda one: one.scales[number - 1].state is not ScaleState.HOLDING,
            )
            return settled.scales[number - 1]
    raise TooLateError(f"scale {number} of {pipeline.name} was not settled", SETTLE_SECONDS)


def _under_way(pipeline: PipelineView) -> bool:
    return bool(pipeline.scales) and pipeline.scales[-1].state is ScaleState.HOLDING
