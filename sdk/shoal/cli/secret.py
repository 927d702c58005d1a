"""`shoal secret`: values that jobs get and that no specification has."""

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from shoal.cli import name_completion
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.secret import SECRET_BYTES_MAX, value_problem

_READ_MAX = SECRET_BYTES_MAX + 3
"""A line break of two characters may follow the longest value, and one character shows that it is longer."""


@click.group(cls=SuggestingGroup)
def secret() -> None:
    r"""Keep values that jobs need and that stand in no specification: set, list and remove them.

    \b
        shoal secret set lab-token                    asks for the value
        pass show lab/token | shoal secret set lab-token
        shoal secret set lab-key --file key.pem
        shoal secret list

    A job names them, and gets them as variables or as files that it alone can read:

    \b
        secrets: {API_TOKEN: lab-token, KEY: {name: lab-key, as: file}}

    A value goes to the controller, which keeps it sealed, and to the nodes whose jobs name it; no command shows it
    again. A new value reaches the attempts that begin after it.
    """


def _value(context: click.Context, _parameter: click.Parameter, source: str | None) -> bytes:
    """Read the value before anything is asked of a controller; never from the command line, which others see."""
    if context.resilient_parsing:
        return b""
    name = str(context.params.get("name", ""))
    value = _read(name, source)
    if problem := value_problem(value):
        raise click.UsageError(f"the value of secret {name} {problem}")
    return value


def _read(name: str, source: str | None) -> bytes:
    if source is None and sys.stdin.isatty():
        typed = getpass.getpass(f"value of secret {name}: ")
        if getpass.getpass("once more: ") != typed:
            raise click.UsageError("the two values differ; nothing was set")
        return typed.encode("utf-8", "surrogateescape")
    if source is None:
        return sys.stdin.buffer.read(_READ_MAX).removesuffix(b"\n").removesuffix(b"\r")
    if source == "-":
        return sys.stdin.buffer.read(_READ_MAX)
    try:
        with Path(source).open("rb") as file:
            return file.read(_READ_MAX)
    except OSError as error:
        raise click.ClickException(f"{source} cannot be read: {error.strerror}") from None


def _no_value(context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> None:
    """Refuse a value among the words of the command, and do not repeat it."""
    if words and not context.resilient_parsing:
        raise click.UsageError(
            "a value is no word of the command line, which every user of the machine can read: leave it out, and "
            "the command asks for it, or reads stdin or --file FILE; what was given now is better changed"
        )


@secret.command("set")
@click.argument("name", shell_complete=name_completion.secrets)
@click.argument("words", nargs=-1, metavar="", expose_value=False, callback=_no_value)
@click.option(
    "--file",
    "value",
    metavar="FILE",
    callback=_value,
    help="File with the value, byte for byte; - for stdin.  [default: stdin without the line break at its end, or "
    "a question on a terminal]",
)
@controller_options
async def set_secret(target: Target, *, name: str, value: bytes) -> None:
    """Give the secret NAME a value, in the place of the one before."""
    async with target.client() as client:
        kept = await client.set_secret(name, value)
    click.echo(
        f"secret {kept.name} of namespace {kept.namespace} has version {kept.version}; attempts that begin from "
        "now on get it",
        err=True,
    )


@secret.command("list")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each secret.")
@controller_options
async def list_secrets(target: Target, *, as_json: bool) -> None:
    """List the secrets of the namespace by name, without their values."""
    from shoal.cli.secrets_table import secrets_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.secrets()
    if as_json:
        for one in found:
            print_document(one)
    elif found:
        show(secrets_table(found, datetime.now(UTC)))
    else:
        click.echo(
            f"there are no secrets in namespace {target.namespace}; set one with: shoal secret set NAME",
            err=True,
        )


@secret.command("rm")
@click.argument("name", shell_complete=name_completion.secrets)
@controller_options
async def remove(target: Target, *, name: str) -> None:
    """Remove the secret NAME; attempts that have it keep it, and jobs that name it wait."""
    async with target.client() as client:
        await client.remove_secret(name)
    click.echo(f"secret {name} of namespace {target.namespace} is removed", err=True)


@secret.command("rotate-key")
@controller_options
async def rotate_key(target: Target) -> None:
    """Seal the secrets of all namespaces under a new key, and let the others go; an operator may."""
    async with target.client() as client:
        key, sealed, unreadable = await client.rotate_secret_key()
    click.echo(f"key {key} seals {counted(sealed, 'secret')} now")
    if unreadable:
        raise click.ClickException(
            f"{counted(unreadable, 'secret')} stayed under keys that the controller does not have; see `shoal secret "
            "list` of each namespace, and set them again"
        )
