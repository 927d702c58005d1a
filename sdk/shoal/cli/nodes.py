"""`shoal nodes`: the machines that can run jobs."""

from datetime import UTC, datetime

import click

from shoal.cli.controller_option import Target, controller_options, run_async


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each node.")
@controller_options
def nodes(target: Target, *, as_json: bool) -> None:
    r"""List the nodes: what they have, what is claimed of it, and how they stand.

    \b
        shoal nodes
        shoal drain node-2                  place nothing more on it

    A node is `ready` while its agent has a session, `away` while it has none, and `drained` when
    nothing is to be placed on it. `member` is what gossip says.
    """
    run_async(_nodes(target, as_json=as_json))


async def _nodes(target: Target, *, as_json: bool) -> None:
    from shoal.cli.document import print_document
    from shoal.cli.tables import nodes_table, show

    async with target.client() as client:
        found = await client.nodes()
    if as_json:
        for node in found:
            print_document(node)
    elif found:
        show(nodes_table(found, datetime.now(UTC)))
    else:
        click.echo("no agent has connected yet; start one with: shoal agent", err=True)
