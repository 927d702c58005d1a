"""`--record JOB.PORT=FILE` and `--replay JOB.PORT=FILE`: a port, and a file of its records."""

from pathlib import Path

import click

from shoal.local.port_file import PortFile


def port_file(text: str) -> PortFile:
    """Read `JOB.PORT=FILE`.

    Raises:
        click.BadParameter: it is none.
    """
    port, equals, path = text.partition("=")
    job, dot, name = port.partition(".")
    if not equals or not dot or not job or not name or not path:
        raise click.BadParameter(f"{text!r} is not JOB.PORT=FILE")
    return PortFile(job, name, Path(path))
