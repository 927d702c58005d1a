"""`shoal drain`: take a node out of use, or back."""

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import counted
from shoal.errors import ShoalError
from shoal.names import parse_attempt
from shoal.specfile.units import parse_duration
from shoal.view import NodeView, SnapshotEnd

if TYPE_CHECKING:
    from shoal.client import Client


def _span(_: click.Context, parameter: click.Parameter, text: str) -> float | None:
    if not text:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}", param=parameter) from None


@click.command()
@click.argument("node", shell_complete=name_completion.nodes)
@click.option("--undo", is_flag=True, help="Place on it again.")
@click.option(
    "--deadline",
    "seconds",
    default="",
    callback=_span,
    metavar="TIME",
    help="After so long, such as 10m, end what still runs there, and begin it anew elsewhere.",
)
@click.option("--move", is_flag=True, help="The same, at once.")
@click.option("--wait", is_flag=True, help="Go on until nothing is left there, and say what is.")
@controller_options
async def drain(
    target: Target, node: str, *, undo: bool, seconds: float | None, move: bool, wait: bool
) -> None:
    r"""Place nothing more on a node; what runs there goes on to its end, or is moved after a while.

    \b
        shoal drain node-2                        what runs there goes on to its end
        shoal drain node-2 --deadline 10m --wait  what still runs in ten minutes goes elsewhere
        shoal drain node-2 --move                 it goes elsewhere now
        shoal drain --undo node-2

    What is moved is ended there as a job that is cancelled (SIGTERM, its grace, SIGKILL), and begins
    anew on another node once it has ended: streams go on where they were, and no retry of the job is
    used up. What has no other node waits for one. What is pinned to the node stays until it ends.
    """
    if move and seconds is not None:
        raise click.UsageError("--move is a deadline of 0s: leave out one of it and --deadline")
    if undo and (move or wait or seconds is not None):
        raise click.UsageError("--undo takes the node back: leave out the other options")
    async with target.client() as client:
        view = await client.drain(node, drained=not undo, move_seconds=0.0 if move else seconds)
        if not view.drained:
            click.echo(f"{view.name} is in use again")
            return
        running = counted(len(view.attempts), "attempt")
        click.echo(f"{view.name} is drained; {running} there still to end{_until(view)}")
        if wait:
            await _wait(client, view)
            click.echo(f"nothing is left on {view.name}")


def _until(view: NodeView) -> str:
    """Say when what runs there is moved."""
    if view.move_time is None or not view.attempts:
        return ""
    if view.move_time <= datetime.now(UTC):
        return ", and what still runs is moved now"
    return f", and what still runs at {view.move_time.astimezone():%H:%M:%S} is moved"


async def _wait(client: "Client", view: NodeView) -> None:
    """Say what is left on a node, each time that this changes, until nothing is."""
    left: tuple[str, ...] = ()
    async with contextlib.aclosing(client.watch_nodes()) as changes:
        async for change in changes:
            if isinstance(change, SnapshotEnd) or change.name != view.name:
                continue
            if change.forgotten or not change.attempts:
                return
            if change.attempts != left:
                left = change.attempts
                click.echo(f"waiting for {counted(len(left), 'attempt')}{_until(change)}:")
                for name in left:
                    click.echo(f"  {name}{await _stands(client, name)}")


async def _stands(client: "Client", attempt: str) -> str:
    """Say how the job of an attempt stands, where it is of the caller's namespace."""
    ref = parse_attempt(attempt, client.namespace, 0)
    try:
        pipeline = await client.get(ref.pipeline)
    except ShoalError:
        return ""
    job = next((one for one in pipeline.jobs if one.name == ref.job_ref.name), None)
    if job is None:
        return ""
    return f"  {job.state.name}{f': {job.waiting_for}' if job.waiting_for else ''}"
