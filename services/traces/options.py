"""Where a process sends traces, as its operator says it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def traces_options(command: CommandT) -> CommandT:
    """Give a command `--traces` and `--traces-share`."""
    for option in (
        click.option(
            "--traces-share",
            type=float,
            default=1.0,
            help="The share of pipelines that get a trace of their own if they are submitted in none, 0 to 1.",
        ),
        click.option(
            "--traces",
            default="",
            show_default=False,
            metavar="URL",
            help="Where to send the spans of pipelines: http://HOST:PORT or https://HOST:PORT of a collector that "
            "takes OTLP over gRPC.  [default: nowhere]",
        ),
    ):
        command = option(command)
    return command
