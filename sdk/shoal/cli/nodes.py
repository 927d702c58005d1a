"""`shoal nodes`: the machines that can run jobs."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.caller_line import show_caller
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted, state_word
from shoal.cli.filter_options import label_option, read_labels
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.node_filter import EVERY_NODE, NodeFilter
from shoal.view import NodeView

if TYPE_CHECKING:
    from shoal.client import Client


@click.group(cls=SuggestingGroup, invoke_without_command=True)
@click.option("--watch", "-w", is_flag=True, help="Go on until Ctrl-C, as they change.")
@click.option("--name", default="", metavar="PATTERN", help="Only those: a part, or as in 'cam-*'.")
@label_option
@click.option("--connected/--away", default=None, help="Only those that have a session, or none.")
@click.option("--drained/--in-use", default=None, help="Only those that are drained, or are not.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each node.")
@controller_options
async def nodes(
    target: Target,
    *,
    watch: bool,
    name: str,
    label: tuple[str, ...],
    connected: bool | None,
    drained: bool | None,
    as_json: bool,
) -> None:
    r"""List the nodes: what they have, what is claimed of it, and how they stand.

    \b
        shoal nodes
        shoal nodes --watch                 one table, drawn anew; elsewhere a line a change
        shoal nodes --label site=north --away
        shoal nodes show node-2             its machine: memory, disks, temperatures, power
        shoal nodes adopt node-2            let it follow this controller
        shoal nodes forget node-2           it is gone for good
        shoal nodes revoke node-2           it is believed no more
        shoal drain node-2                  place nothing more on it

    A node is `ready` while its agent has a session, `away` while it has none, and `drained` when
    nothing is to be placed on it. It is `quarantined` when its agent was told more than this
    controller's store knows: it keeps what it has, and you decide. `member` is what gossip says.
    `version` is the agent's, and what of its keeper and stream worker is of another one.
    """
    from shoal.cli.tables import nodes_table, show

    where = NodeFilter(name, read_labels(label), connected, drained)
    if watch and where != EVERY_NODE:
        raise click.UsageError("--watch shows all nodes: leave out what chooses among them")
    async with target.client() as client:
        if watch:
            await _watch(client, as_json=as_json)
            return
        found = await client.nodes(where)
        if not as_json:
            await show_caller(client)
    if as_json:
        for node in found:
            print_document(node)
    elif found:
        show(nodes_table(found, datetime.now(UTC)))
        for remark in (said for node in found for said in (node.quarantine, node.conflict)):
            if remark:
                click.echo(remark)
        for node in found:
            if node.outdated:
                click.echo(f"{node.name}: {node.outdated}")
    elif where == EVERY_NODE:
        click.echo("no agent has connected yet; start one with: shoal agent", err=True)
    else:
        click.echo("there are no such nodes", err=True)


async def _watch(client: "Client", *, as_json: bool) -> None:
    from shoal.cli.tables import nodes_table
    from shoal.cli.watched_list import Listing, watch_list

    def by_name(found: Iterable[NodeView]) -> Sequence[NodeView]:
        return sorted(found, key=lambda one: one.name)

    table = partial(nodes_table, watched=True)
    listing = Listing(lambda one: one.name, by_name, table, _news, gone=lambda one: one.forgotten)
    await watch_list(client.watch_nodes(), listing, as_json=as_json)


def _news(node: NodeView) -> str:
    from shoal.cli.tables import node_state

    if node.forgotten:
        return "forgotten"
    said = f"{node_state(node)}, {counted(len(node.attempts), 'attempt')}"
    if node.member_state:
        said += f", member {state_word(node.member_state)}"
    why = node.quarantine or node.conflict or node.refuses or node.outdated
    return f"{said}: {why}" if why else said


@nodes.command("show")
@click.argument("node", shell_complete=name_completion.nodes)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@controller_options
async def show_node(target: Target, node: str, *, as_json: bool) -> None:
    r"""Show one node in full, with the facts of its machine as they are now.

    \b
        shoal nodes show node-2
        shoal nodes show node-2 --json

    Its agent is asked, and has a second to answer; `told` says how old the answer is. What the machine
    does not say is left out: temperatures, power and the load of a GPU are those of boards that have such
    sensors. `location` is the label of that name, which an operator gives with --label location=….
    """
    from shoal.cli.facts_table import node_details
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.node(node, fresh_facts=True)
    if as_json:
        print_document(found)
    else:
        show(node_details(found, datetime.now(UTC)))


@nodes.command()
@click.argument("node", shell_complete=name_completion.nodes)
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


@nodes.command()
@click.argument("node", shell_complete=name_completion.nodes)
@controller_options
async def forget(target: Target, node: str) -> None:
    r"""Forget a node that is gone for good, and have gossip forget it.

    \b
        shoal nodes                         says which nodes are away
        shoal nodes forget node-2

    A node that is alive is not forgotten: end its agent first. One that joins again after it was
    forgotten is a new node, which is not drained. What it archived stays.
    """
    async with target.client() as client:
        await client.forget_node(node)
    click.echo(f"{node} is forgotten")


@nodes.command()
@click.argument("node", shell_complete=name_completion.nodes)
@controller_options
async def revoke(target: Target, node: str) -> None:
    r"""Believe a node no more: its certificates are revoked, its session ends, and its jobs go elsewhere.

    \b
        shoal nodes revoke node-2           it was stolen, or its disk was copied
        shoal nodes forget node-2           afterwards, if it is gone for good
        shoal token create --role node --name node-2    lets it join again

    Other nodes hear of it over their sessions, and refuse its streams.
    """
    from shoal.identity import Role
    from shoal.identity_view import IdentityView

    async with target.client() as client:
        count = await client.revoke_identity(IdentityView(Role.NODE, node))
    click.echo(f"{node} is believed no more: {counted(count, 'certificate')} revoked")
