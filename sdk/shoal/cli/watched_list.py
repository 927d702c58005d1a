"""A list that is shown anew as it changes: one table on a terminal, a line for each change elsewhere."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import click
from rich.console import RenderableType

from shoal.cli.document import print_document
from shoal.cli.tables import console, redrawn, show
from shoal.view import SnapshotEnd

ValueT = TypeVar("ValueT")

_SPARE = 100
"""So many more than are shown are kept before the rest is let go."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[ValueT]):
    """How things of one kind are listed.

    Attributes:
        name: Names a thing.
        shown: Puts those that the table has in order.
        table: Draws them; it is given the time, for ages.
        news: Says how a thing stands; the same words again are no news.
        gone: Whether a thing is not there any more.
    """

    name: Callable[[ValueT], str]
    shown: Callable[[Iterable[ValueT]], Sequence[ValueT]]
    table: Callable[[Sequence[ValueT], datetime], RenderableType]
    news: Callable[[ValueT], str]
    gone: Callable[[ValueT], bool] = lambda _: False


async def watch_list(
    changes: AsyncGenerator[ValueT | SnapshotEnd, None], listing: Listing[ValueT], *, as_json: bool
) -> None:
    """Show a list and its changes until it is cancelled.

    Args:
        changes: a watch of the client: all things, a mark, then what changes.
        listing: how they are listed.
        as_json: one line of JSON for each thing and each change instead.

    Raises:
        ShoalError: the controller stayed away.
    """
    shown = _Shown(listing)
    with contextlib.ExitStack() as stack:
        async with contextlib.aclosing(changes):
            async for change in changes:
                if as_json:
                    if not isinstance(change, SnapshotEnd):
                        print_document(change)
                elif not isinstance(change, SnapshotEnd):
                    shown.take(change)
                elif not shown.begun:
                    shown.begin(stack)


class _Shown(Generic[ValueT]):
    """What is shown of a list."""

    def __init__(self, listing: Listing[ValueT]) -> None:
        self._listing = listing
        self._known: dict[str, ValueT] = {}
        self._words: dict[str, str] = {}
        self._table: Sequence[ValueT] = ()
        self._lines = False
        self.begun = False

    def begin(self, stack: contextlib.ExitStack) -> None:
        """Draw the table, now that everything is known, and on a terminal again and again."""
        self.begun = True
        self._table = self._listing.shown(self._known.values())
        screen = console()
        self._lines = not screen.is_terminal
        if self._lines:
            show(self._draw())
            return
        stack.enter_context(redrawn(screen, self._draw))

    def take(self, thing: ValueT) -> None:
        """Take a thing as it is now."""
        listing = self._listing
        name, news = listing.name(thing), listing.news(thing)
        if listing.gone(thing) and name not in self._known:
            return  # a watch may tell of things that it never showed
        fresh = self._words.get(name) != news
        self._known[name], self._words[name] = thing, news
        if listing.gone(thing):
            del self._known[name], self._words[name]
        if self.begun or len(self._known) > 2 * len(self._table) + _SPARE:
            self._table = listing.shown(self._known.values())
            if len(self._known) > len(self._table) + _SPARE:
                self._known = {listing.name(one): one for one in self._table}
        if self._lines and fresh:
            moment = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
            click.echo(f"{moment}  {name}  {news}")

    def _draw(self) -> RenderableType:
        return self._listing.table(self._table, datetime.now(UTC))
