"""`shoal gateway`: the root of a gateway's process, and the commands about its users."""

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click

from services.metrics.options import metrics_option
from services.runtime.process import run
from services.runtime.process_options import begin_log, process_options
from services.runtime.settings_file import read_settings, use_settings

_STATE = "~/.local/state/shoal/gateway"


def _use_file(context: click.Context, path: Path) -> None:
    use_settings(context, read_settings(context, path))


@click.group(
    invoke_without_command=True,
    context_settings={"auto_envvar_prefix": "SHOAL_GATEWAY", "show_default": True},
)
@process_options(_STATE, "the gateway", "written with underscores", _use_file)
@click.option(
    "--listen",
    default="127.0.0.1:7480",
    metavar="HOST:PORT",
    help="Where it listens; port 0 takes any. Beyond this machine it needs TLS, or a proxy that ends it.",
)
@click.option(
    "--controller",
    default="127.0.0.1:7470",
    metavar="HOST:PORT",
    help="Where the controller listens.",
)
@click.option(
    "--identity",
    default="",
    show_default=False,
    metavar="FOLDER",
    help="Credentials of a gateway, as `shoal login --identity FOLDER` makes them.  [default: those of "
    "`shoal login`]",
)
@click.option(
    "--insecure/--no-insecure",
    default=False,
    help="Prove nothing, as a controller with --insecure wants it. Users still sign in.",
)
@click.option(
    "--tls-certificate",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    metavar="FILE",
    help="Certificate (PEM, with its chain) that it shows browsers; read at the start.",
)
@click.option(
    "--tls-key",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    show_default=False,
    metavar="FILE",
    help="Key (PEM) of that certificate; chmod 600.",
)
@click.option(
    "--proxy",
    default="",
    show_default=False,
    metavar="ADDRESS",
    help="Proxy that ends TLS before it; its X-Forwarded-For is believed, and cookies are for TLS alone.",
)
@click.option(
    "--origin",
    multiple=True,
    metavar="ORIGIN",
    help="Origin of pages of others that may call it, such as https://app.example; may be repeated.  [default: none]",
)
@click.option(
    "--anonymous",
    type=click.Choice(["none", "viewer"]),
    default="none",
    help="Role of callers that have not signed in.",
)
@click.option(
    "--request-bytes",
    type=int,
    default=4 << 20,
    help="Most bytes of a request, packed and unpacked.",
)
@click.option(
    "--call-seconds",
    type=float,
    default=30.0,
    help="Most that a call may take which is answered once.",
)
@click.option(
    "--calls-per-second",
    type=float,
    default=50.0,
    help="How many calls a user may begin a second; twice as many at once.",
)
@click.option(
    "--watches", type=int, default=32, help="How many watches and logs a user may have open."
)
@click.option("--connections", type=int, default=1000, help="How many connections there may be.")
@click.option(
    "--unread-seconds",
    type=float,
    default=60.0,
    help="How long a connection may take nothing of what is sent to it, before it is ended.",
)
@click.option("--session-hours", type=float, default=12.0, help="How long a sign-in lasts.")
@metrics_option("127.0.0.1:7475")
@click.pass_context
def gateway(context: click.Context, /, **given: Any) -> None:
    """Serve the contract to browsers and curl: Connect, gRPC-Web and JSON.

    It calls the controller with an identity of the role `gateway`, and names the user of each call. Users sign in
    with tokens that `shoal gateway allow` makes; they are viewers or submitters.

    Every option can also be set by a variable (SHOAL_GATEWAY_LISTEN, several values between blanks) or in the
    file of --config. Flags win over variables, and those over the file.

    \b
    Examples:
      shoal gateway --controller 10.0.0.1:7470 --tls-certificate web.pem --tls-key web.key --listen 0.0.0.0:7480
      shoal gateway allow ann --role submitter
      curl -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{}' \\
        http://127.0.0.1:7480/shoal.v1.NodesService/ListNodes
    """  # noqa: D301 - click wants the control character
    if context.invoked_subcommand is not None:
        context.obj = given["state"]
        return
    from services.gateway.config import GatewayConfig, GatewayConfigError  # noqa: PLC0415 - for a quick --help
    from services.runtime.secret_option import check_secret  # noqa: PLC0415
    from shoal.cli.identity_folder import identity_folder  # noqa: PLC0415
    from shoal.identity import Role  # noqa: PLC0415

    begin_log("gateway", given)
    if given["tls_key"] is not None:
        check_secret(given["tls_key"])
    try:
        config = GatewayConfig(
            state=given["state"],
            listen=given["listen"],
            controller=given["controller"],
            identity=None
            if given["insecure"]
            else identity_folder(given["identity"], given["controller"]),
            certificate=given["tls_certificate"],
            key=given["tls_key"],
            proxy=given["proxy"],
            origins=given["origin"],
            anonymous=None if given["anonymous"] == "none" else Role(given["anonymous"]),
            request_bytes=given["request_bytes"],
            call_seconds=given["call_seconds"],
            calls_per_second=given["calls_per_second"],
            watches=given["watches"],
            connections=given["connections"],
            unread_seconds=given["unread_seconds"],
            session_hours=given["session_hours"],
            metrics=given["metrics"],
            health_file=given["health_file"],
        )
    except GatewayConfigError as error:
        raise click.UsageError(str(error)) from error
    try:
        from services.gateway.gateway import Gateway, GatewayProcess  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the package {error.name} is missing, which a gateway needs and a board does not: install the extra, "
            "as in `pip install shoal-server[gateway]`, or with requirements/gateway.lock (docs/gateway.md)"
        ) from error

    process = GatewayProcess(
        clock=time.monotonic,
        boottime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall=time.time,
    )
    ready = Gateway(config, process, lambda address: click.echo(f"gateway ready {address}"))
    sys.exit(run(ready.run, uvloop=True))


@gateway.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "submitter"]),
    default="viewer",
    help="What the user may do.",
)
@click.option(
    "--namespace",
    default="",
    show_default=False,
    help="The only namespace in which it may.  [default: all]",
)
@click.pass_obj
def allow(state: Path, name: str, role: str, namespace: str) -> None:
    """Let a user in, and print its token, which is kept nowhere else.

    A user that was let in before has this token and this role from now on; what signed in with the old one is out.

    \b
    Example:
      shoal gateway --state /var/lib/shoal/gateway allow ann --role submitter --namespace lab
    """  # noqa: D301
    from services.gateway.config import ANONYMOUS  # noqa: PLC0415
    from services.gateway.user_file import (  # noqa: PLC0415
        USERS_NAME,
        WORD_PREFIX,
        GatewayUser,
        UserFile,
        UserFileError,
    )
    from shoal.identity import Role  # noqa: PLC0415

    if name == ANONYMOUS:
        raise click.UsageError(f"{name} is the user that has not signed in; choose another name")
    token = WORD_PREFIX + secrets.token_urlsafe(32)
    try:
        UserFile(state / USERS_NAME).allow(GatewayUser(name, Role(role), namespace), token)
    except (UserFileError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(token)


@gateway.command()
@click.argument("name")
@click.pass_obj
def forbid(state: Path, name: str) -> None:
    """Let a user in no more; what it watches ends within two seconds."""
    from services.gateway.user_file import USERS_NAME, UserFile, UserFileError  # noqa: PLC0415

    try:
        UserFile(state / USERS_NAME).forbid(name)
    except UserFileError as error:
        raise click.ClickException(str(error)) from error


@gateway.command()
@click.pass_obj
def users(state: Path) -> None:
    """List the users, one a line: name, role, and the namespace if there is only one."""
    from services.gateway.user_file import USERS_NAME, UserFile, UserFileError  # noqa: PLC0415

    try:
        found = UserFile(state / USERS_NAME).users()
    except UserFileError as error:
        raise click.ClickException(str(error)) from error
    for user in found:
        click.echo(" ".join(filter(None, (user.name, user.role, user.namespace))))
