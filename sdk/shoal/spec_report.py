"""What a controller says of a specification that it was asked to look at."""

from dataclasses import dataclass

from shoal.parameter import Parameter
from shoal.spec import Pipeline


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """One thing that is wrong.

    Attributes:
        field: what it is about, as in `jobs.camera.timeout`; empty for all of it.
        message: what is wrong, and what would be right.
        line: in the text, from 1; 0 where there is no text.
        column: in the line, from 1; 0 where there is no text.
    """

    field: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """`12:7: jobs.camera.timeout: …`."""
        place = f"{self.line}:{self.column}: " if self.line else ""
        return f"{place}{self.field}: {self.message}" if self.field else f"{place}{self.message}"


@dataclass(frozen=True, slots=True)
class SpecReport:
    """What was found.

    Attributes:
        problems: everything that is wrong, in the order of the text; none if it would be taken now.
        left_out: how many more there are.
        pipeline: the specification as it would run; None if it cannot be read.
        parameters: those that the text declares.
    """

    problems: tuple[SpecProblem, ...] = ()
    left_out: int = 0
    pipeline: Pipeline | None = None
    parameters: tuple[Parameter, ...] = ()
