"""`--replay JOB.PORT=FILE`: recordings in place of jobs, for commands that run a specification."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from shoal.cli.port_file_option import port_file

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def refuse_pace_alone(ctx: click.Context) -> None:
    """Refuse --pace without --replay.

    Raises:
        click.UsageError: it was given alone.
    """
    source = ctx.get_parameter_source("pace")
    if source is click.core.ParameterSource.COMMANDLINE and not ctx.params["replay"]:
        raise click.UsageError(
            f"--pace {ctx.params['pace']} is the pace of a recording; add --replay JOB.PORT=FILE, "
            "or leave it out"
        )


def replay_options(command: CommandT) -> CommandT:
    """Give a command --replay and --pace, as `replay` and `pace`."""
    with_pace = click.option(
        "--pace",
        type=click.Choice(["fast", "original"]),
        default="fast",
        show_default=True,
        help="How recordings are sent: as fast as they are taken, or as they were recorded.",
    )(command)
    return click.option(
        "--replay",
        multiple=True,
        type=port_file,
        metavar="JOB.PORT=FILE",
        help="Send a recording of `shoal record` in place of the job; several times for several.",
    )(with_pace)
