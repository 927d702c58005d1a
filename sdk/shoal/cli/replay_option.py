"""`--replay JOB.PORT=FILE`: recordings in place of jobs, for commands that run a specification."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from shoal.local.replay import Recording

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def recording(text: str) -> "Recording":
    """Read `JOB.PORT=FILE`.

    Raises:
        click.BadParameter: it is none.
    """
    from shoal.local.replay import Recording

    port, equals, path = text.partition("=")
    job, dot, name = port.partition(".")
    if not equals or not dot or not job or not name:
        raise click.BadParameter(f"{text!r} is not JOB.PORT=FILE")
    return Recording(job, name, Path(path))


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
        type=recording,
        metavar="JOB.PORT=FILE",
        help="Send a recording of `shoal record` in place of the job; several times for several.",
    )(with_pace)
