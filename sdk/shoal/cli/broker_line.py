"""A line that says what is wrong with the broker of a cluster; none where nothing is."""

import contextlib
from typing import TYPE_CHECKING

import click

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from shoal.client import Client

_FINE = "connected to "
_NONE = "no broker"


def broker_line(state: str) -> str:
    """`broker: …` unless there is none, or it takes all events."""
    well = state.startswith(_FINE) and ";" not in state
    return "" if well or state.startswith(_NONE) else f"broker: {state}"


async def show_broker(client: "Client") -> None:
    """Write the line to stderr; a controller that does not say it says nothing."""
    with contextlib.suppress(ShoalError):
        page = await client.events(page_size=1)
        if line := broker_line(page.publisher_state):
            click.echo(line, err=True)
