"""A pipeline while it runs: a live table where there is a terminal, one line a change elsewhere."""

import asyncio
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from shoal.cli.progress import ProgressRows
from shoal.cli.tables import pipeline_group
from shoal.view import PipelineView


class Display(Protocol):
    """Shows one pipeline on stderr for as long as it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, pipeline: PipelineView) -> None:
        """Show how it stands now."""
        ...

    def say(self, text: str) -> None:
        """Say something beside it."""
        ...


class PlainDisplay:
    """One line a change of state, and one every few seconds while records move."""

    def __init__(self) -> None:
        self._progress = ProgressRows()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, pipeline: PipelineView) -> None:
        """Write a line for each job that changed."""
        for line in self._progress.lines(pipeline, asyncio.get_running_loop().time()):
            click.echo(click.style(line, dim=True), err=True)

    def say(self, text: str) -> None:
        """Write a line."""
        click.echo(text, err=True)


class LiveDisplay:
    """A table that is drawn anew."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = ProgressRows()
        self._pipeline: PipelineView | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, pipeline: PipelineView) -> None:
        """Draw the table."""
        self._pipeline = pipeline
        self._progress.rows(pipeline, asyncio.get_running_loop().time())
        self._live.refresh()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(Text(text, style="bold"))

    def _render(self) -> RenderableType:
        if self._pipeline is None:
            return Text("")
        now = datetime.now(UTC)
        rows = self._progress.last_rows(self._pipeline)
        return pipeline_group(self._pipeline, rows, now)


def display_for(console: Console, *, live: bool) -> Display:
    """Choose how to show a pipeline on this console."""
    return LiveDisplay(console) if live and console.is_terminal else PlainDisplay()
