"""A pipeline while it runs: a live table where there is a terminal, one line a change elsewhere."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import click
from rich.console import Console, RenderableType
from rich.text import Text

from shoal.cli.progress import ProgressRows
from shoal.cli.tables import pipeline_group, redrawn
from shoal.view import PipelineView


class Display:
    """Shows one pipeline on stderr: one line a change of state, and one every few seconds while records move.

    Args:
        typing: the local job that a person types for; until it has ended, little is said.
    """

    def __init__(self, typing: str = "") -> None:
        self._progress = ProgressRows()
        self._typing = typing

    def show(self, pipeline: PipelineView) -> None:
        """Show how it stands now."""
        now = asyncio.get_running_loop().time()
        for line in self._progress.lines(pipeline, now, typing=self._typing):
            click.echo(click.style(line, dim=True), err=True)

    def say(self, text: str) -> None:
        """Say something beside it."""
        click.echo(text, err=True)


class LiveDisplay(Display):
    """A table that is drawn anew while `live` is entered."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._pipeline: PipelineView | None = None
        self.live = redrawn(console, self._render)

    def show(self, pipeline: PipelineView) -> None:
        """Draw the table."""
        self._pipeline = pipeline
        self._progress.rows(pipeline, asyncio.get_running_loop().time())
        self.live.refresh()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(text, style="bold"))

    def _render(self) -> RenderableType:
        if self._pipeline is None:
            return Text("")
        now = datetime.now(UTC)
        rows = self._progress.last_rows(self._pipeline)
        return pipeline_group(self._pipeline, rows, now)


@contextlib.contextmanager
def display_for(console: Console, *, live: bool, typing: str = "") -> Iterator[Display]:
    """Choose how to show a pipeline on this console, and show it meanwhile.

    Args:
        console: where it is shown.
        live: whether a table may be drawn anew, where there is a terminal.
        typing: the local job that a person types for on this terminal, if there is one.
    """
    if not live or not console.is_terminal:
        yield Display(typing)
        return
    display = LiveDisplay(console)
    with display.live:
        yield display
