"""The TOML file of a process: what neither a flag nor a variable says."""

import tomllib
from pathlib import Path

import click


def read_settings(
    context: click.Context, path: Path, *, tables: tuple[str, ...] = ()
) -> dict[str, object]:
    """Read a file whose keys are the long names of a command's options, with underscores.

    Args:
        context: the command's.
        path: the file.
        tables: keys that are none of its options, and allowed.

    Raises:
        click.BadParameter: it cannot be read, or sets what is no setting.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} cannot be read: {error}") from error
    options = {parameter.name for parameter in context.command.params if parameter.name}
    known = (options | set(tables)) - {"config"}
    if unknown := sorted(set(values) - known):
        raise click.BadParameter(
            f"{path} sets {', '.join(unknown)}, which is no setting; "
            f"there are: {', '.join(sorted(known))}"
        )
    return values


def use_settings(context: click.Context, values: dict[str, object]) -> None:
    """Let a command's options have these values where nothing else says theirs."""
    context.default_map = {**(context.default_map or {}), **values}
