"""The options about gossip that `shoal controller` and `shoal agent` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from services.runtime.process_options import absolute_path, with_options
from shoal.gossip_key import parse_key

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def gossip_options(
    prefix: str, gossip: str | None, otherwise: str, towards: str
) -> Callable[[CommandT], CommandT]:
    """Give a command the options of `GossipSettings`, from `--gossip` to `--advertise`.

    Args:
        prefix: what the command's environment variables begin with, such as `SHOAL_AGENT`.
        gossip: the default of `--gossip`; None if the command finds it.
        otherwise: how the help tells that default, where it is found.
        towards: the options whose addresses say under which address others reach this process.
    """
    return with_options(
        click.option(
            "--gossip",
            default=gossip,
            metavar="HOST:PORT",
            help=f"Where to gossip, over UDP and TCP; 'off' for not at all.{otherwise}",
        ),
        click.option(
            "--gossip-preset",
            type=click.Choice(["lan", "wan", "local"]),
            default="lan",
            help="Timing of gossip.",
        ),
        click.option(
            "--gossip-key",
            multiple=True,
            callback=_read_keys,
            show_default=False,
            metavar="KEY",
            help="AES key that seals gossip, base64 or hexadecimal; the first of several seals. Every user "
            f"of the machine can read a command line: rather set {prefix}_GOSSIP_KEY, or use "
            "--gossip-keyring.  [default: that of the cluster; with --insecure gossip is not encrypted]",
        ),
        click.option(
            "--gossip-keyring",
            type=click.Path(dir_okay=False, path_type=Path),
            default=None,
            show_default=False,
            help="File of such keys (chmod 600), as Serf's: read again when it changes, written when "
            "`shoal keys` or `serf keys` rotate them. Made of --gossip-key if it is missing.  [default: "
            "identity/gossip.keyring in the state folder; none with --insecure]",
        ),
        click.option(
            "--gossip-encryption",
            type=click.Choice(["hear", "speak", "require"]),
            default="require",
            help="With keys: require sealed traffic; to move a plain cluster, first have every member "
            "hear it, then speak it, then require it.",
        ),
        _unset(
            "--gossip-label",
            "WORD",
            "Hears only members of the same label; Serf up to 0.9 has none.",
        ),
        _unset(
            "--serf-rpc",
            "HOST:PORT",
            "Where the stock `serf` command may ask and command this member.  [default: nowhere]",
        ),
        _unset(
            "--serf-rpc-auth",
            "WORD",
            f"What `serf -rpc-auth` has to give; rather set {prefix}_SERF_RPC_AUTH.",
        ),
        _unset(
            "--members-http",
            "HOST:PORT",
            "Where to serve GET /members and GET /info as JSON.  [default: nowhere]",
        ),
        click.option(
            "--join",
            multiple=True,
            metavar="HOST:PORT",
            help="A gossip member to join; may be repeated.",
        ),
        _unset(
            "--advertise",
            "HOST",
            f"Address that others reach this machine under.  [default: that towards {towards}, "
            "else that of the default route, else the only one there is]",
        ),
    )


def gossip_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of `given`, and return them as the fields of `GossipSettings`."""
    keyring = given.pop("gossip_keyring")
    gossip = given.pop("gossip")
    same = ("preset", "encryption", "label")
    return {
        "gossip": "" if gossip == "off" else gossip,
        "seeds": given.pop("join"),
        "gossip_keys": given.pop("gossip_key"),
        "gossip_keyring": keyring and absolute_path(keyring, "--gossip-keyring"),
        **{f"gossip_{name}": given.pop(f"gossip_{name}") for name in same},
        **{
            name: given.pop(name)
            for name in ("advertise", "serf_rpc", "serf_rpc_auth", "members_http")
        },
    }


def _unset(name: str, metavar: str, words: str) -> Callable[[CommandT], CommandT]:
    """An option that is empty unless it is given."""
    return click.option(name, default="", show_default=False, metavar=metavar, help=words)


def _read_keys(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> tuple[bytes, ...]:
    """Read keys; what is refused is not repeated."""
    try:
        return tuple(parse_key(word) for word in words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
