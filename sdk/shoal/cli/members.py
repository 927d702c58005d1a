"""`shoal members`: the gossip cluster."""

import asyncio
from datetime import UTC, datetime

import click

from shoal.cli.controller_option import Target, controller_options, run_async

_PERIOD_SECONDS = 1.0


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Dead ones and those that left, too.")
@click.option("--watch", "-w", is_flag=True, help="Go on until Ctrl-C, with a line a change.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each member.")
@controller_options
def members(target: Target, *, everyone: bool, watch: bool, as_json: bool) -> None:
    r"""List the members of the gossip cluster, as the controller's own member sees them.

    \b
        shoal members
        shoal members --all --watch
    """
    run_async(_members(target, everyone=everyone, watch=watch, as_json=as_json))


async def _members(target: Target, *, everyone: bool, watch: bool, as_json: bool) -> None:
    from shoal.cli.document import print_document
    from shoal.cli.figures import state_word
    from shoal.cli.tables import members_table, show
    from shoal.view import MemberView

    async with target.client() as client:
        found = await client.members(everyone=everyone or watch)
        if as_json:
            for member in found:
                print_document(member)
        else:
            show(members_table(found, datetime.now(UTC)))
        known: dict[str, MemberView] = {member.name: member for member in found}
        while watch:
            await asyncio.sleep(_PERIOD_SECONDS)
            now = {member.name: member for member in await client.members(everyone=True)}
            for name in sorted({*known, *now}):
                before, after = known.get(name), now.get(name)
                if before == after:
                    continue
                if as_json:
                    print_document(after or {"name": name, "state": "GONE"})
                elif after is None:
                    click.echo(f"{_clock()}  {name}  forgotten")
                elif before is None or before.state is not after.state:
                    was = f"was {state_word(before.state)}, " if before else "new, "
                    click.echo(f"{_clock()}  {name}  {was}is {state_word(after.state)}")
            known = now


def _clock() -> str:
    return datetime.now(UTC).astimezone().strftime("%H:%M:%S")
