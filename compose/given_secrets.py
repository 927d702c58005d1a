"""`--secret NAME=FILE`: values of secrets for a cluster that has none yet."""

from collections.abc import Mapping
from pathlib import Path

import click

from shoal.secret import SECRET_BYTES_MAX, secret_name_problem, value_problem
from shoal.spec import Pipeline


def read_secrets(
    _context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]
) -> Mapping[str, bytes]:
    """Read the values from their files, by the names of the secrets.

    Raises:
        click.BadParameter: a word is not NAME=FILE, a file cannot be read, or it cannot be a value.
    """
    found: dict[str, bytes] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or secret_name_problem(name):
            raise click.BadParameter(
                "write NAME=FILE: the name of a secret, and a file with its value"
            )
        try:
            with Path(path).open("rb") as file:
                value = file.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            raise click.BadParameter(
                f"the value of secret {name} in {path} cannot be read: {error.strerror}"
            ) from None
        if problem := value_problem(value):
            raise click.BadParameter(f"the value of secret {name} in {path} {problem}")
        found[name] = value
    return found


def check_given(pipeline: Pipeline, given: Mapping[str, bytes]) -> None:
    """Compare what jobs name with what was given.

    Raises:
        click.UsageError: a value is missing, or no job names one.
    """
    named = {use.name: job.name for job in pipeline.jobs for use in job.secrets}
    for name, job in named.items():
        if name not in given:
            raise click.UsageError(
                f"{job} gets the secret {name}, which this cluster does not have; give it a value with "
                f"--secret {name}=FILE"
            )
    for name in given:
        if name not in named:
            raise click.UsageError(f"no job gets the secret {name}; leave --secret {name}=… out")
