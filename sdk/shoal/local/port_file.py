"""A file with the records of an output port: `JOB.PORT=FILE` on a command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PortFile:
    """An output port and a file of its records; `job` is one of the specification, or a replica."""

    job: str
    port: str
    path: Path

    @property
    def name(self) -> str:
        """`JOB.PORT`."""
        return f"{self.job}.{self.port}"
