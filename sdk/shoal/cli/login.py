"""`shoal login`: get an identity from a controller."""

import getpass
import os
import re
import sys
from pathlib import Path

import click

from shoal.cli.controller_option import DEFAULT_ADDRESS
from shoal.cli.identity_folder import login_folder

_ABOVE = 2
"""A controller lets newcomers join so many ports above its API, unless it is told another one."""
_TOKEN_BYTES_MAX = 4_096


@click.command()
@click.option(
    "--controller",
    envvar="SHOAL_CONTROLLER",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    help="Where the controller listens.",
)
@click.option(
    "--newcomers",
    metavar="HOST:PORT",
    help="Where it lets newcomers join.  [default: two ports above --controller]",
)
@click.option(
    "--token-file",
    "source",
    metavar="FILE",
    help="File with the token, - for stdin.  [default: the variable SHOAL_TOKEN]",
)
@click.option(
    "--name",
    metavar="NAME",
    help="What you are called; the token may allow only some names.  [default: that of your user]",
)
@click.option(
    "--identity",
    envvar="SHOAL_IDENTITY",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where to keep what you prove.  [default: a folder for this controller, which every command finds]",
)
def login(
    controller: str,
    newcomers: str | None,
    source: str | None,
    name: str | None,
    identity: Path | None,
) -> None:
    r"""Join a cluster as a person, with a token from its operator.

    \b
        shoal token create --role submitter > ann.token            the operator
        shoal login --controller 10.0.0.1:7470 --token-file ann.token
        ssh pi@10.0.0.1 shoal token create --role viewer … | shoal login --token-file -
        shoal whoami

    A key is made here and stays here; the token is sent to no one but a controller that proves to be
    the one that the token names. Then every command finds the identity by the controller's address, and
    renews it in time. A token is no option of the command line, which every user of a machine may read.
    """
    from shoal.credentials import write_credentials
    from shoal.join_token import JoinTokenError, parse_token
    from shoal.joining import JoiningError, join

    word = _word(source)
    where = newcomers or _newcomers_of(controller)
    try:
        joined = join(where, parse_token(word), name or _own_name(), role="person")
    except (JoinTokenError, JoiningError) as error:
        raise click.ClickException(str(error)) from None
    own = joined.credentials
    folder = identity or login_folder(controller)
    try:
        write_credentials(folder, own)
    except OSError as error:
        raise click.ClickException(
            f"the identity cannot be kept in {folder}: {error.strerror}; let this user write there, or "
            "name another folder with --identity"
        ) from error
    click.echo(
        f"you are {own.identity.described} in cluster {own.identity.cluster} at {controller}, until "
        f"{own.end:%Y-%m-%d} (kept in {folder}, and renewed in time)"
    )


def _word(source: str | None) -> str:
    """Read the token; a line of it, whatever blanks there are."""
    if source is None:
        word = os.environ.get("SHOAL_TOKEN", "")
        if not word:
            raise click.UsageError(
                "a token is needed: name its file with --token-file FILE (- for stdin), or set SHOAL_TOKEN; "
                "an operator makes one with `shoal token create --role viewer`"
            )
        return word
    try:
        if source == "-":
            return sys.stdin.read(_TOKEN_BYTES_MAX)
        with Path(source).open(encoding="utf-8-sig") as file:
            return file.read(_TOKEN_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(
            f"the token in {source} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None


def _newcomers_of(controller: str) -> str:
    from shoal.address import check_address

    host, _, port = check_address(controller).rpartition(":")
    return f"{host}:{int(port) + _ABOVE}"


def _own_name() -> str:
    """Turn the name of the user into an id."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        user = ""
    words = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")
    name = words if words[:1].isalpha() else f"user-{words}".strip("-")
    return name[:63]
