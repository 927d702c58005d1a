"""`shoal members`: the gossip cluster."""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import state_word
from shoal.model import MemberState
from shoal.view import MemberView, SnapshotEnd

if TYPE_CHECKING:
    from shoal.client import Client


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Dead ones and those that left, too.")
@click.option("--watch", "-w", is_flag=True, help="Go on until Ctrl-C, with a line a change.")
@click.option("--name", default="", metavar="PATTERN", help="Only those: a part, or as in 'cam-*'.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(["alive", "suspect", "dead", "left"]),
    help="Only those in this state; again for more.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each member.")
@controller_options
async def members(
    target: Target,
    *,
    everyone: bool,
    watch: bool,
    name: str,
    states: tuple[str, ...],
    as_json: bool,
) -> None:
    r"""List the members of the gossip cluster, as the controller's own member sees them.

    \b
        shoal members
        shoal members --all --watch
        shoal members --state dead --state left

    A member is `alive`; `suspect` while it does not answer and may still refute; `dead` when it did
    not; `left` when it said goodbye. The incarnation rises with each refutation, and `since` says
    for how long it has been in its state.
    """
    if watch and (name or states):
        raise click.UsageError("--watch shows all members: leave out --name and --state")
    wanted = [MemberState[state.upper()] for state in states]
    async with target.client() as client:
        if watch:
            await _watch(client, everyone=everyone, as_json=as_json)
            return
        found = await client.members(everyone=everyone, name=name, states=wanted)
    _print(found, as_json=as_json)


async def _watch(client: "Client", *, everyone: bool, as_json: bool) -> None:
    """Print the members once they are all known, and then what changes."""
    known: dict[str, MemberView] = {}
    begun = False
    async with aclosing(client.watch_members()) as changes:
        async for change in changes:
            if isinstance(change, SnapshotEnd):
                if not begun:
                    ended = {MemberState.DEAD, MemberState.LEFT}
                    found = [known[name] for name in sorted(known)]
                    shown = [one for one in found if everyone or one.state not in ended]
                    _print(shown, as_json=as_json)
                begun = True
                continue
            before = known.get(change.name)
            known[change.name] = change
            if begun:
                _print_change(before, change, as_json=as_json)
            if change.state is MemberState.UNKNOWN:
                del known[change.name]


def _print(found: Iterable[MemberView], *, as_json: bool) -> None:
    from shoal.cli.tables import members_table, show

    if as_json:
        for member in found:
            print_document(member)
    else:
        show(members_table(found, datetime.now(UTC)))


def _print_change(before: MemberView | None, after: MemberView, *, as_json: bool) -> None:
    """Say in a line what is new; what a cut repeats is not."""
    # The time is computed anew, and differs by microseconds.
    if before is not None and replace(before, state_time=None) == replace(after, state_time=None):
        return
    if as_json:
        print_document(after)
        return
    if after.state is MemberState.UNKNOWN:
        news = "forgotten"
    elif before is None:
        news = f"new, is {state_word(after.state)}"
    elif before.state is not after.state:
        news = f"was {state_word(before.state)}, is {state_word(after.state)}"
    elif (before.address, before.port) != (after.address, after.port):
        news = f"moved to {after.address}:{after.port}"
    elif before.tags != after.tags:
        news = "says " + " ".join(f"{key}={value}" for key, value in sorted(after.tags.items()))
    else:
        news = f"has incarnation {after.incarnation}"
    moment = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    click.echo(f"{moment}  {after.name}  {news}")
