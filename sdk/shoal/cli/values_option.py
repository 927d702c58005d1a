"""`--set NAME=VALUE` and `--values FILE`: values of parameters, for commands that read a specification."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from shoal.specfile.values import GivenValue

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def values_options(command: CommandT) -> CommandT:
    """Give a command --set and --values, and pass it what they say as `given`, by name."""

    def valued(**values: Any) -> Any:
        given = _given(values.pop("settings"), values.pop("values_files"))
        return command(given=given, **values)

    valued.__doc__ = command.__doc__
    valued.__name__ = command.__name__
    # The decorators of click above and below keep their parameters on the function.
    valued.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    with_values = click.option(
        "--values",
        "values_files",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="File with values of parameters, *.yaml or *.toml; of several, a later one wins.",
    )(valued)
    return click.option(
        "--set",
        "settings",
        multiple=True,
        type=_setting,
        metavar="NAME=VALUE",
        help="Value of a parameter of the specification; it wins over --values.",
    )(with_values)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


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


def _given(settings: Sequence[tuple[str, str]], files: Sequence[Path]) -> "dict[str, GivenValue]":
    if not settings and not files:
        return {}
    from shoal.cli.packing import BadSpecError
    from shoal.parameter import shown_value
    from shoal.specfile.mark import SpecFileError
    from shoal.specfile.values import GivenValue
    from shoal.specfile.values_file import load_values

    given: dict[str, GivenValue] = {}
    errors: list[SpecFileError] = []
    for path in files:
        try:
            given.update(load_values(path))
        except SpecFileError as error:
            errors.append(error)
    if errors:
        raise BadSpecError(errors)
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
