"""A line that says which cluster answered, and what it takes the caller for."""

import contextlib
from typing import TYPE_CHECKING

import click

from shoal.errors import ShoalError
from shoal.identity_view import CallerView

if TYPE_CHECKING:
    from shoal.client import Client

_SECONDS = 5.0


def caller_line(caller: CallerView) -> str:
    """`cluster 4f1c2a: you are operator/ann`, or, out loud, that no caller proves anything."""
    cluster = f"cluster {caller.cluster_id}"
    if caller.identity is None:
        return (
            f"{cluster} is INSECURE: its controller was started with --insecure, and believes every caller; "
            "start it without on a network that others reach"
        )
    return f"{cluster}: you are {caller.identity.described}"


async def show_caller(client: "Client") -> None:
    """Write the line to stderr; a controller that is too old to say it says nothing."""
    with contextlib.suppress(ShoalError):
        click.echo(caller_line(await client.caller(deadline_seconds=_SECONDS)), err=True)
