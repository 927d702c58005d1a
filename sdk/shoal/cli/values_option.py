"""`--set NAME=VALUE` and `--values FILE`: values of parameters, for commands that read a specification."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from shoal.parameter import shown_value
from shoal.specfile.values import GivenValue

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def values_options(command: CommandT) -> CommandT:
    """Give a command --set and --values, and pass it what they say as `given`, by name."""

    @click.option(
        "--set",
        "settings",
        multiple=True,
        type=_setting,
        metavar="NAME=VALUE",
        help="Value of a parameter of the specification; it wins over --values.",
    )
    @click.option(
        "--values",
        "values_files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File with values of parameters, *.yaml or *.toml; of several, a later one wins.",
    )
    @functools.wraps(command)  # with its parameters, which click keeps on it
    def valued(**values: Any) -> Any:
        given = _given(values.pop("settings"), values.pop("values_files"))
        return command(given=given, **values)

    return cast("CommandT", valued)


def refuse_values(given: object, remedy: str) -> None:
    """Refuse values where no specification is read.

    Raises:
        click.UsageError: there are some; `remedy` completes "they belong to a specification; …".
    """
    if given:
        raise click.UsageError(f"--set and --values belong to a specification; {remedy}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE; write for example --set limit=20")
    return name, value


def _given(settings: Sequence[tuple[str, str]], files: Sequence[Path]) -> dict[str, GivenValue]:
    if not settings and not files:
        return {}
    from shoal.cli.packing import read_all
    from shoal.specfile.values_file import load_values

    given: dict[str, GivenValue] = {}
    for values in read_all(load_values, files):
        given.update(values)
    said: dict[str, str] = {}
    for name, value in settings:
        if name in said:
            raise click.UsageError(
                f"--set gives {name!r} twice, {shown_value(said[name])} and {shown_value(value)}; "
                "leave one of them"
            )
        said[name] = value
        given[name] = GivenValue(value, "--set")
    return given
