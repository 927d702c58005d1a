"""`shoal events`: the facts that leave over MQTT."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from shoal.cli import name_completion
from shoal.cli.chosen_pipeline import chosen
from shoal.cli.controller_option import Target, controller_options
from shoal.cli.document import print_document
from shoal.cli.moment_option import moment
from shoal.errors import ShoalError
from shoal.view import Event

if TYPE_CHECKING:
    from shoal.client import Client

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which events are shown: of one pipeline or all, at most so many of those that are there, and of when."""

    pipeline: str
    types: tuple[str, ...]
    limit: int
    since: datetime | None
    until: datetime | None
    as_json: bool


@click.command()
@click.argument("pipeline", required=False, default="", shell_complete=name_completion.pipelines)
@click.option("--follow", "-f", is_flag=True, help="Go on with each event as it is recorded.")
@click.option(
    "--since",
    type=moment,
    metavar="TIME",
    help="Only those recorded since then: 5m, 15:03, 2026-11-29T15:03:20Z.",
)
@click.option("--until", type=moment, metavar="TIME", help="Only those recorded before then.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only those of this type: shoal.job.failed, or 'shoal.job.*'; may be repeated.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="At most the last so many of those that are there.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each event.")
@controller_options
async def events(
    target: Target,
    pipeline: str,
    *,
    follow: bool,
    since: datetime | None,
    until: datetime | None,
    types: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    r"""List events of pipelines, jobs and nodes, and say whether the broker has acknowledged them.

    \b
        shoal events
        shoal events people-counter-4f2a --json
        shoal events --since 1h --type 'shoal.job.*'
        shoal events --follow --type shoal.pipeline.failed

    The oldest comes first. Without a broker events are kept, and published once there is one. With --follow each one
    is a line as it is recorded, none is left out or shown twice, also while the controller is started anew.
    """
    if follow and until is not None:
        raise click.UsageError("--follow goes on with what comes; leave out --until")
    wish = _Wish(pipeline, types, limit, since, until, as_json)
    async with target.client() as client:
        unknown = None
        if pipeline:
            try:
                wish = _Wish(
                    (await chosen(client, pipeline)).id, types, limit, since, until, as_json
                )
            except ShoalError as error:  # its events may have outlived it
                unknown = error
        found, publisher_state = await _found(client, wish)
        if unknown is not None and not found:
            raise unknown
        if follow:
            await _follow(client, wish, found)
        elif as_json:
            for event in found:
                print_document(event)
        else:
            _show(found, publisher_state)


async def _found(client: "Client", wish: _Wish) -> tuple[list[Event], str]:
    """The last events that are there, oldest first, and how it stands with the broker."""
    found: list[Event] = []
    token = ""
    while True:
        page = await client.events(
            wish.pipeline,
            page_token=token,
            page_size=min(_PAGE, wish.limit - len(found)),
            types=wish.types,
            since=wish.since,
            until=wish.until,
            newest_first=True,
        )
        found += page.events
        token = page.next_page_token
        if not token or len(found) >= wish.limit:
            return found[::-1], page.publisher_state


def _show(found: list[Event], publisher_state: str) -> None:
    from shoal.cli.tables import events_table, show

    if found:
        show(events_table(found))
    click.echo(f"broker: {publisher_state}", err=True)


async def _follow(client: "Client", wish: _Wish, found: list[Event]) -> None:
    """Show those that are there, then each one that comes, until it is cancelled."""
    for event in found:
        _print(event, as_json=wish.as_json)
    # Where there is none yet, the first that comes is found by its time.
    after = found[-1].sequence if found else 0
    watch = client.watch_events(wish.pipeline, types=wish.types, after=after, since=wish.since)
    async with contextlib.aclosing(watch) as news:
        async for told in news:
            if told.missing:
                click.echo("events in between are not remembered any more", err=True)
            for event in told.events:
                _print(event, as_json=wish.as_json)


def _print(event: Event, *, as_json: bool) -> None:
    if as_json:
        print_document(event)
        return
    time = "" if event.time is None else event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{time}  {event.type}  {event.id}")
