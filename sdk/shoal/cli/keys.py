"""`shoal keys`: the keys that seal gossip, changed on all members at once."""

import secrets
from pathlib import Path
from typing import TextIO

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.gossip_key import key_id, parse_key, write_key
from shoal.view import KeysReport


@click.group(cls=SuggestingGroup)
def keys() -> None:
    r"""Rotate the keys that seal gossip, on all members at once, Serf's agents included.

    \b
        shoal keys rotate                   with identity: a new key, over the sessions of agents
        shoal keys generate > new.key       else: make a key; it goes to every new member, too
        shoal keys install new.key          all members can open with it
        shoal keys use 5f3a                 all members seal with it
        shoal keys remove 91bc              no member opens with the old one any more
        shoal keys list                     which keys there are, and how many have them

    Keys are named by the first digits of their SHA-256, and never shown. Members keep what was rotated
    in their keyring, and agents with an identity that were away get it with their next session. With
    --insecure a new key travels to the controller in the clear: install it on the controller's machine.
    """


@keys.command()
@click.option(
    "--bits",
    type=click.Choice(["128", "192", "256"]),
    default="256",
    show_default=True,
    help="AES-128, AES-192 or AES-256.",
)
def generate(bits: str) -> None:
    """Print a new random key in base64, as a file for --gossip-keyring or `shoal keys install`."""
    click.echo(write_key(secrets.token_bytes(int(bits) // 8)))


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each key.")
@controller_options
async def list_keys(target: Target, *, as_json: bool) -> None:
    """List the keys by name, the one in use first, with how many members have them."""
    from shoal.cli.tables import keys_table, show

    async with target.client() as client:
        report = await client.gossip_keys()
    if as_json:
        for key in report.keys:
            print_document(key)
    else:
        show(keys_table(report))
    _check(report)


@keys.command()
@click.argument("file", type=click.File("r", encoding="utf-8-sig"), metavar="FILE")
@controller_options
async def install(target: Target, file: TextIO) -> None:
    """Have every member install the key in FILE (- for stdin), in base64 or hexadecimal."""
    try:
        key = parse_key(file.read())
    except ValueError as error:
        raise click.ClickException(f"{Path(file.name)}: {error}") from None
    async with target.client() as client:
        report = await client.install_gossip_key(key)
    _check(report)
    identity = key_id(key)
    click.echo(
        f"{identity} is installed on {counted(report.members, 'member')}; next: shoal keys use {identity}"
    )


@keys.command()
@click.argument("key", metavar="ID")
@controller_options
async def use(target: Target, key: str) -> None:
    """Have every member seal with an installed key, named by its first digits."""
    async with target.client() as client:
        report = await client.use_gossip_key(key)
    _check(report)
    click.echo(f"{key} seals on {counted(report.members, 'member')}")


@keys.command()
@click.argument("key", metavar="ID")
@controller_options
async def remove(target: Target, key: str) -> None:
    """Have every member drop a key that none seals with, named by its first digits."""
    async with target.client() as client:
        report = await client.remove_gossip_key(key)
    _check(report)
    click.echo(f"{key} is removed from {counted(report.members, 'member')}")


@keys.command()
@controller_options
async def rotate(target: Target) -> None:
    """Replace all keys by a new one over the sessions of agents: a holder of an old key does not hear it."""
    async with target.client() as client:
        identity, report = await client.rotate_gossip_key()
    click.echo(f"{identity} seals on {report.answered} of {counted(report.members, 'member')}")
    if not report.complete:
        click.echo(
            "An agent without a session gets it with its next one. Any other member, such as an agent of Serf, "
            "needs the keyring of the controller anew.",
            err=True,
        )


def _check(report: KeysReport) -> None:
    """Fail unless every member did what was asked.

    Raises:
        click.ClickException: some did not; says which, or how many.
    """
    for name, said in sorted(report.messages.items()):
        click.echo(f"{name}: {said}", err=True)
    if not report.complete:
        silent = max(0, report.members - report.answered)
        raise click.ClickException(
            f"of {counted(report.members, 'member')} {report.failed} refused and {silent} did not answer; "
            "try again, what is done stays done"
        )
