"""Options whose values are secrets: where they came from, and how they are read from a file."""

import logging
from collections.abc import Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from services.runtime.log import fields

LOG = logging.getLogger(__name__)


def warn_of_visible(context: click.Context, secrets: Mapping[str, str]) -> None:
    """Say in the log which secrets stand on the command line, which all users of the machine read.

    Args:
        context: of the command.
        secrets: by the name of a parameter that holds one now, what to use instead.
    """
    for name, instead in secrets.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            LOG.warning(
                "a secret stands on the command line, which every user of this machine can read",
                extra=fields(option=f"--{name.replace('_', '-')}", instead=instead),
            )


class SecretFileError(ValueError):
    """A file of a secret that has none; the message says why, and never what stands in it."""


def first_line(path: Path) -> str:
    """Read a secret of one line from a file.

    Raises:
        SecretFileError: the file cannot be read, or its first line is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SecretFileError(f"the file {path} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise SecretFileError(f"the file {path} cannot be read: it is not text in UTF-8") from None
    secret = text.splitlines()[0] if text.strip() else ""
    if not secret:
        raise SecretFileError(f"the file {path} is empty; put the password into its first line")
    return secret


def check_secret(path: Path) -> None:
    """Refuse a file of a secret that has none.

    Raises:
        click.UsageError: the file cannot be read, or its first line is empty.
    """
    try:
        first_line(path)
    except SecretFileError as error:
        raise click.UsageError(str(error)) from None
