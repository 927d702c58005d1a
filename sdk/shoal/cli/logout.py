"""`shoal logout`: forget an identity."""

import contextlib

import click

from shoal.cli.controller_option import DEFAULT_ADDRESS
from shoal.cli.identity_folder import login_folder


@click.command()
@click.option(
    "--controller",
    envvar="SHOAL_CONTROLLER",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    help="The controller that you logged in to.",
)
def logout(controller: str) -> None:
    r"""Forget the identity that `shoal login` got from a controller.

    \b
        shoal logout --controller 10.0.0.1:7470
        shoal identities revoke submitter/ann    the operator, where a copy may be somewhere

    The key and the certificate on this machine are deleted. The certificate itself stays good until an
    operator revokes it.
    """
    folder = login_folder(controller)
    if not folder.is_dir():
        click.echo(f"you are not logged in to {controller}")
        return
    try:
        for path in folder.iterdir():
            path.unlink()
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be deleted: {error.strerror}"
        ) from None
    with contextlib.suppress(OSError):
        folder.rmdir()
    click.echo(f"the identity for {controller} is forgotten")
