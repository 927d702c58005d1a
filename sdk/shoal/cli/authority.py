"""`shoal authority`: which authorities sign and are believed."""

import re
from datetime import UTC, datetime
from pathlib import Path

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted
from shoal.cli.suggesting_group import SuggestingGroup

_SHOWN = 16
_BYTES_MAX = 64 << 10


@click.group(cls=SuggestingGroup)
def authority() -> None:
    r"""Let another authority take over, while everything runs.

    \b
        shoal authority list
        shoal authority add                 believe a new one, which does not sign yet
        shoal authority add --file own.pem  or one of your own: key and certificate in PEM
        shoal authority use 5f3a91c2        it signs from now on, and everything is renewed
        shoal authority list                until the old one has signed nothing that is good
        shoal authority remove 91bc04de

    Authorities are named by the first digits of the SHA-256 of their certificates. Tokens name the one that
    signed when they were made: make new ones after `use`.
    """


@authority.command("list")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each authority.")
@controller_options
async def list_authorities(target: Target, *, as_json: bool) -> None:
    """List the authorities that are believed, the one that signs first."""
    from shoal.cli.identity_tables import authorities_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.authorities()
    if as_json:
        for one in found:
            print_document(one)
    else:
        show(authorities_table(found, datetime.now(UTC)))


@authority.command()
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Key and certificate (PEM, P-256) of one of your own.  [default: a new one is made]",
)
@controller_options
async def add(target: Target, *, path: Path | None) -> None:
    """Believe one more authority; it signs only after `use`."""
    key, certificate = (b"", b"") if path is None else _read(path)
    async with target.client() as client:
        added = await client.add_authority(key, certificate)
    name = added.fingerprint[:_SHOWN]
    click.echo(f"{name} is believed; once every node has heard of it: shoal authority use {name}")


@authority.command()
@click.argument("fingerprint", metavar="ID")
@controller_options
async def use(target: Target, fingerprint: str) -> None:
    """Let an authority sign from now on, and renew what others signed."""
    async with target.client() as client:
        used = await client.use_authority(fingerprint)
    click.echo(f"{used.fingerprint[:_SHOWN]} signs; tokens that were made before are good no more")


@authority.command()
@click.argument("fingerprint", metavar="ID")
@click.option("--yes", is_flag=True, help="Although it has signed certificates that are good.")
@controller_options
async def remove(target: Target, fingerprint: str, *, yes: bool) -> None:
    """Believe an authority no more; what it signed is refused from then on."""
    async with target.client() as client:
        meant = [
            one for one in await client.authorities() if one.fingerprint.startswith(fingerprint)
        ]
        if len(meant) == 1 and meant[0].certificates and not yes:
            raise click.ClickException(
                f"{counted(meant[0].certificates, 'certificate')} that are good were signed by it, and would be "
                "refused: wait until they are renewed (`shoal authority list`), or give --yes"
            )
        await client.remove_authority(fingerprint)
    click.echo(f"{fingerprint} is believed no more")


def _read(path: Path) -> tuple[bytes, bytes]:
    """Split a file into the key and the certificates, in whichever order they stand."""
    with path.open("rb") as file:
        data = file.read(_BYTES_MAX)
    found = re.finditer(
        rb"-----BEGIN (?P<what>[A-Z0-9 ]+)-----.+?-----END (?P=what)-----\n?", data, re.DOTALL
    )
    keys: list[bytes] = []
    certificates: list[bytes] = []
    for block in found:
        (certificates if block["what"] == b"CERTIFICATE" else keys).append(block[0])
    if len(keys) != 1 or not certificates:
        raise click.ClickException(
            f"{path} has {counted(len(keys), 'key')} and {counted(len(certificates), 'certificate')}: put the key "
            "of the authority and its certificate into it, in PEM"
        )
    return keys[0], b"".join(certificates)
