"""`shoal whoami`: the identity that commands prove."""

import click

from shoal.cli.caller_line import caller_line
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@controller_options
async def whoami(target: Target, *, as_json: bool) -> None:
    r"""Show what the controller takes you for, and where your identity is kept.

    \b
        shoal whoami
        shoal whoami --controller 10.0.0.1:7470
        shoal whoami --identity STATE/identity/operator    on the controller's machine
    """
    async with target.client() as client:
        caller = await client.caller()
    if as_json:
        print_document(caller)
        return
    click.echo(caller_line(caller))
    if target.identity is not None:
        from shoal.cli.identity_folder import credentials_in

        end = credentials_in(target.identity).end
        click.echo(f"kept in {target.identity}, good until {end:%Y-%m-%d}, and renewed in time")
