"""`shoal token`: words that let boards and people join."""

from datetime import UTC, datetime

import click

from shoal.cli.controller_option import Target, controller_options, on_command_line
from shoal.cli.document import print_document, to_document
from shoal.cli.figures import counted
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.cli.unit_option import unit
from shoal.identity import IN_NAMESPACE, Role
from shoal.identity_view import TokenView
from shoal.specfile.units import parse_duration

_ROLES = [role.value for role in Role if role is not Role.CONTROLLER]
_HOUR = "1h"
_FILE = "join.token"


@click.group(cls=SuggestingGroup)
def token() -> None:
    r"""Make tokens that let boards and people join, list them, and end them.

    \b
        shoal token create --role node --name 'cam-*' --uses 20 > join.token
        shoal token create --role submitter --name ann --namespace lab > ann.token
        shoal token list
        shoal token revoke 7fq2m0xk

    A token is good for an hour and for one use, unless you say more. Which authority is believed stands in it, so
    that no false controller gets it. Copy it on a way that others cannot read.
    """


@token.command()
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    required=True,
    help="What joins with it: a board is a node; a viewer reads, a submitter runs pipelines, an operator "
    "does everything.",
)
@click.option(
    "--name",
    default="",
    metavar="PATTERN",
    help="Which names it may take, as in 'cam-*'.  [default: any]",
)
@click.option(
    "--ttl",
    metavar="DURATION",
    type=unit(parse_duration),
    default=_HOUR,
    show_default=True,
    help="How long it is good, as in 30m or 7d.",
)
@click.option(
    "--uses",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="How often it may be used.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="The token and what it is, as a line of JSON."
)
@controller_options
async def create(
    target: Target, *, role: str, name: str, ttl: float, uses: int, as_json: bool
) -> None:
    r"""Make a token, and print it alone, so that it can be piped into a file.

    \b
        shoal token create --role node --name 'cam-*' --uses 20 > join.token
        shoal token create --role submitter --name ann --namespace lab > ann.token
        shoal token create --role viewer --ttl 10m | ssh ann@laptop shoal login --token-file -

    With --namespace a viewer or a submitter has its role in that namespace alone. What to do with
    the token is said on stderr.
    """
    chosen = Role(role)
    bound = target.namespace if on_command_line("namespace") else ""
    if bound and chosen not in IN_NAMESPACE:
        raise click.UsageError(
            f"a {role} is not bound to a namespace: leave --namespace {bound} out, or make it a viewer or "
            "a submitter"
        )
    async with target.client() as client:
        word, made = await client.create_token(
            chosen, name_pattern=name, namespace=bound, ttl_seconds=ttl, uses=uses
        )
    if as_json:
        print_document({"token": word, **to_document(made)})
    else:
        click.echo(word)
    click.echo(_advice(made, target.address), err=True)


def _advice(made: TokenView, address: str) -> str:
    """Say what to do with a token, in words that can be typed."""
    what = f"token {made.id}: {counted(made.uses_left, 'use')}"
    if made.expire_time is not None:
        what += f", until {made.expire_time.astimezone():%Y-%m-%d %H:%M}"
    if made.role is Role.NODE:
        pattern = made.name_pattern
        name = pattern if pattern and not set(pattern) & set("*?[") else "NAME"
        use = (
            f"on the board:  shoal agent --name {name} --controller {address} --token-file {_FILE}"
        )
    else:
        use = f"then:  shoal login --controller {address} --token-file {_FILE}"
    return f"{what}. Put it into a file that only its user can read ({_FILE}); {use}"


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each token.")
@controller_options
async def list_tokens(target: Target, *, as_json: bool) -> None:
    """List the tokens that are good, newest first; their secrets are kept nowhere."""
    from shoal.cli.identity_tables import tokens_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.tokens()
    if as_json:
        for one in found:
            print_document(one)
    elif found:
        show(tokens_table(found, datetime.now(UTC)))
    else:
        click.echo("there are no tokens; make one with: shoal token create --role node", err=True)


@token.command()
@click.argument("identifier", metavar="ID")
@controller_options
async def revoke(target: Target, identifier: str) -> None:
    """End a token before its time; what joined with it stays (`shoal identities revoke` ends that)."""
    async with target.client() as client:
        await client.revoke_token(identifier)
    click.echo(f"nothing joins with the token {identifier} any more")
