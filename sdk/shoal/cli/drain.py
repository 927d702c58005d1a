"""`shoal drain`: take a node out of use, or back."""

import click

from shoal.cli import name_completion
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.figures import counted


@click.command()
@click.argument("node", shell_complete=name_completion.nodes)
@click.option("--undo", is_flag=True, help="Place on it again.")
@controller_options
async def drain(target: Target, node: str, *, undo: bool) -> None:
    r"""Place nothing more on a node; what runs there goes on to its end.

    \b
        shoal drain node-2
        shoal drain --undo node-2
    """
    async with target.client() as client:
        view = await client.drain(node, drained=not undo)
    if view.drained:
        running = counted(len(view.attempts), "attempt")
        click.echo(f"{view.name} is drained; {running} there still to end")
    else:
        click.echo(f"{view.name} is in use again")
