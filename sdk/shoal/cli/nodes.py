"""`shoal nodes`: the machines that can run jobs."""

from datetime import UTC, datetime

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.suggesting_group import SuggestingGroup


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each node.")
@controller_options
@click.pass_context
async def nodes(context: click.Context, target: Target, *, as_json: bool) -> None:
    r"""List the nodes: what they have, what is claimed of it, and how they stand.

    \b
        shoal nodes
        shoal nodes adopt node-2            let it follow this controller
        shoal drain node-2                  place nothing more on it

    A node is `ready` while its agent has a session, `away` while it has none, and `drained` when
    nothing is to be placed on it. It is `quarantined` when its agent was told more than this
    controller's store knows: it keeps what it has, and you decide. `member` is what gossip says.
    """
    if context.invoked_subcommand is not None:
        return
    from shoal.cli.document import print_document
    from shoal.cli.tables import nodes_table, show

    async with target.client() as client:
        found = await client.nodes()
    if as_json:
        for node in found:
            print_document(node)
    elif found:
        show(nodes_table(found, datetime.now(UTC)))
        for remark in (said for node in found for said in (node.quarantine, node.conflict)):
            if remark:
                click.echo(remark)
    else:
        click.echo("no agent has connected yet; start one with: shoal agent", err=True)


@nodes.command()
@click.argument("node")
@controller_options
async def adopt(target: Target, node: str) -> None:
    r"""Let a quarantined node end and delete what it has, and follow this controller.

    \b
        shoal nodes                         says which nodes are quarantined, and why
        shoal nodes adopt node-2

    A node is quarantined when its agent followed another controller before, or this one with a
    newer store than it has now. If the right store can be had, start the controller with that
    instead: then the node goes on as if nothing had been.
    """
    async with target.client() as client:
        await client.adopt(node)
    click.echo(f"{node} gives up what it has and follows this controller, as soon as it dials in")
