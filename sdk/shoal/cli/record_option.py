"""`--record JOB.PORT=FILE`: which ports are recorded while a pipeline runs, and to which files."""

from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class WantedCopy:
    """An output port, and the file that its records are copied to; `job` is one of the spec or a replica."""

    job: str
    port: str
    path: Path

    @property
    def name(self) -> str:
        """`JOB.PORT`."""
        return f"{self.job}.{self.port}"


def wanted_copy(text: str) -> WantedCopy:
    """Read `JOB.PORT=FILE`.

    Raises:
        click.BadParameter: it is none.
    """
    port, equals, path = text.partition("=")
    job, dot, name = port.partition(".")
    if not equals or not dot or not job or not name or not path:
        raise click.BadParameter(f"{text!r} is not JOB.PORT=FILE")
    return WantedCopy(job, name, Path(path))
