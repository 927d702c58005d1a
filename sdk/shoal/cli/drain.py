"""`shoal drain`: take a node out of use, or back."""

import click

from shoal.cli.controller_option import Target, controller_options, run_async


@click.command()
@click.argument("node")
@click.option("--undo", is_flag=True, help="Place on it again.")
@controller_options
def drain(target: Target, node: str, *, undo: bool) -> None:
    r"""Place nothing more on a node; what runs there goes on to its end.

    \b
        shoal drain node-2
        shoal drain --undo node-2
    """
    run_async(_drain(target, node, drained=not undo))


async def _drain(target: Target, name: str, *, drained: bool) -> None:
    async with target.client() as client:
        node = await client.drain(name, drained=drained)
    if node.drained:
        running = len(node.attempts)
        click.echo(f"{node.name} is drained; {running} attempts on it have not ended")
    else:
        click.echo(f"{node.name} is in use again")
