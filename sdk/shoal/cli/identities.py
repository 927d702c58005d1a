"""`shoal identities`: certificates that a cluster has issued."""

from datetime import UTC, datetime

import click

from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.figures import counted
from shoal.cli.suggesting_group import SuggestingGroup
from shoal.identity import Role
from shoal.identity_view import IdentityView


@click.group(cls=SuggestingGroup)
def identities() -> None:
    r"""List the certificates that the cluster has issued, and revoke those of an identity.

    \b
        shoal identities list
        shoal identities list --role node
        shoal identities revoke submitter/ann
        shoal identities revoke viewer/lab/bob     one that is bound to the namespace lab
    """


@identities.command("list")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="Only those of it.")
@click.option("--name", default="", metavar="PATTERN", help="Only those: a part, or as in 'cam-*'.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each certificate.")
@controller_options
async def list_certificates(target: Target, *, role: str | None, name: str, as_json: bool) -> None:
    """List the certificates that are not over, newest first, revoked ones too."""
    from shoal.cli.identity_tables import certificates_table
    from shoal.cli.tables import show

    async with target.client() as client:
        found = await client.certificates(Role(role) if role else None, name=name)
    if as_json:
        for one in found:
            print_document(one)
    elif found:
        show(certificates_table(found, datetime.now(UTC)))
    else:
        said = "there is no such certificate" if role or name else "no certificate was issued yet"
        click.echo(said, err=True)


@identities.command()
@click.argument("words", metavar="ROLE/NAME")
@controller_options
async def revoke(target: Target, words: str) -> None:
    """Revoke every certificate of an identity; a new token lets it join again."""
    parts = words.split("/")
    if len(parts) not in {2, 3} or parts[0] not in set(Role) or not all(parts):
        raise click.UsageError(
            f"{words!r} is no identity: write ROLE/NAME or ROLE/NAMESPACE/NAME as `shoal identities list` "
            "shows it, as in submitter/ann"
        )
    named = IdentityView(Role(parts[0]), parts[-1], parts[1] if len(parts) == 3 else "")
    async with target.client() as client:
        count = await client.revoke_identity(named)
    click.echo(f"{named.described} is believed no more: {counted(count, 'certificate')} revoked")
