"""`shoal cancel`: end pipelines early."""

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import state_word


@click.command()
@click.argument(
    "pipelines",
    metavar="PIPELINE…",
    nargs=-1,
    required=True,
    shell_complete=name_completion.open_pipelines,
)
@click.option("--reason", default="", help="Why; shown to whoever looks at the pipeline.")
@click.option("--wait", is_flag=True, help="Return once they have ended.")
@controller_options
async def cancel(target: Target, pipelines: tuple[str, ...], *, reason: str, wait: bool) -> None:
    r"""End pipelines early: SIGTERM to their programs, SIGKILL after their grace.

    \b
        shoal cancel people-counter-4f2a
        shoal cancel --reason 'wrong video' --wait latest

    If one of the names is wrong, nothing is cancelled. One that has ended already stays as it is.
    """
    async with target.client() as client:
        found = [await chosen(client, name) for name in pipelines]
        for before in found:
            if before.state.terminal:
                click.echo(
                    f"{before.name} {state_word(before.state)} before, so nothing is cancelled"
                )
                continue
            pipeline = await client.cancel(before.id, reason)
            if wait and not pipeline.state.terminal:
                pipeline = await client.wait(pipeline.id, deadline_seconds=600)
            word = state_word(pipeline.state) if pipeline.state.terminal else "is being cancelled"
            click.echo(f"{pipeline.name} {word}")
