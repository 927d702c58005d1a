"""The options that every long-running process of ours has: its file of settings, its folder, its log."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from services.runtime import log

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def with_options(*options: Callable[[CommandT], CommandT]) -> Callable[[CommandT], CommandT]:
    """Return a decorator that gives a command these options, in this order."""

    def decorate(command: CommandT) -> CommandT:
        for option in reversed(options):  # as decorators, of which the last comes first
            command = option(command)
        return command

    return decorate


def process_options(
    state: str, keeps: str, keys: str, use_file: Callable[[click.Context, Path], None]
) -> Callable[[CommandT], CommandT]:
    """Give a command `--config`, `--state`, `--health-file`, `--log-level` and `--log-format`.

    Args:
        state: The default of `--state`.
        keeps: What keeps things there, such as "the agent".
        keys: What the file of `--config` has as keys.
        use_file: Takes the values of that file.
    """

    def read(context: click.Context, _: click.Parameter, path: Path | None) -> None:
        if path is not None:
            use_file(context, path)

    def absolute(_context: click.Context, _: click.Parameter, path: Path) -> Path:
        return absolute_path(path, "--state")

    return with_options(
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=read,
            help=f"TOML file with the long names below as keys, {keys}.",
        ),
        click.option(
            "--state",
            type=click.Path(file_okay=False, path_type=Path),
            default=state,
            callback=absolute,
            help=f"Folder for everything that {keeps} keeps.",
        ),
        click.option(
            "--health-file",
            type=click.Path(dir_okay=False, path_type=Path),
            default=None,
            show_default=False,
            help="File that holds the seconds since the machine started, as /proc/uptime has them, written every "
            "five seconds while all is well.",
        ),
        click.option(
            "--log-level",
            type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
            default="INFO",
            help="Lowest level that is logged.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            help="Form of log lines.",
        ),
    )


def absolute_path(path: Path, option: str) -> Path:
    """Return a path with the home folder in the place of a `~` that it begins with, and from the root.

    Args:
        path: as it was given.
        option: what gives it another one.

    Raises:
        click.UsageError: this user has no home folder.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise click.UsageError(
            f"{option} is {path}, and this user has no home folder: set HOME, or name a folder that it may write, "
            f"such as {option} /var/lib/shoal"
        ) from None


def begin_log(process: str, given: dict[str, Any]) -> None:
    """Log as the options say, and take these out of `given`."""
    log_format = log.LogFormat(given.pop("log_format"))
    log.setup(process, level=given.pop("log_level"), log_format=log_format)
