"""Which pipelines a command is about: the options that lists share."""

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar, cast

import click

from shoal.cli import name_completion
from shoal.cli.moment_option import moment
from shoal.model import JobState, PipelineState
from shoal.pipeline_filter import PipelineFilter

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_OPTIONS: Final = ("name", "label", "creator", "since", "until")


def _moment(_context: click.Context, _parameter: click.Parameter, text: str) -> datetime | None:
    return moment(text) if text else None


def read_labels(words: Iterable[str]) -> Mapping[str, str]:
    """Read `site=north`, or `site` for any value.

    Raises:
        click.UsageError: one of them has no name.
    """
    labels: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise click.UsageError(f"--label {word!r} has no name: write KEY or KEY=VALUE")
        labels[key] = value
    return labels


def label_option(command: CommandT) -> CommandT:
    """Give a command `--label`, as often as it is wanted."""
    return click.option(
        "--label",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="Only those with this label, of this value if one is given; again for more.",
    )(command)


def filter_options(command: CommandT) -> CommandT:
    """Give a command the options that say which pipelines are meant, and pass it a filter as `where`."""

    @click.option(
        "--name",
        default="",
        metavar="PATTERN",
        help="Only those whose specification has such a name: a part of it, or a pattern as in 'scan-*'.",
    )
    @label_option
    @click.option(
        "--creator",
        default="",
        metavar="PATTERN",
        help="Only those that such an identity submitted, as in ann or 'gateway/*'.",
    )
    @click.option(
        "--since",
        default="",
        callback=_moment,
        metavar="WHEN",
        help="Only those submitted since then: 5m, 15:03, 2026-11-29T15:03:20Z.",
    )
    @click.option(
        "--until",
        default="",
        callback=_moment,
        metavar="WHEN",
        help="Only those submitted before then.",
    )
    @functools.wraps(command)
    def filtered(**values: Any) -> Any:
        name, label, creator, since, until = (values.pop(option) for option in _OPTIONS)
        where = PipelineFilter(
            name, read_labels(label), creator, since_time=since, until_time=until
        )
        return command(where=where, **values)

    return cast("CommandT", filtered)


def node_option(text: str) -> Callable[[CommandT], CommandT]:
    """Give a command `--node`; `text` is its help."""
    return click.option(
        "--node", default="", metavar="NODE", help=text, shell_complete=name_completion.nodes
    )


def state_option(states: type[PipelineState | JobState]) -> Callable[[CommandT], CommandT]:
    """Give a command `--state`, as often as it is wanted."""
    words = [state.name.lower() for state in states if state is not JobState.LOST]
    return click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice(words, case_sensitive=False),
        help="Only those in this state; again for more.",
    )
