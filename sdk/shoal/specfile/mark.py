"""Where something stands in a specification file, and what is wrong there."""

from collections.abc import Iterable
from dataclasses import dataclass

from shoal.checks.problem import Path


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Line and column, both from 1."""

    line: int
    column: int


BEGINNING = Mark(1, 1)
"""Where a mistake stands that has no place of its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: where it stands in the file, which field it is, and what would be right."""

    mark: Mark
    path: Path
    message: str

    def __str__(self) -> str:
        """`12:7: jobs.camera.timeout: …`."""
        field = f" {'.'.join(self.path)}:" if self.path else ""
        return f"{self.mark.line}:{self.mark.column}:{field} {self.message}"


class SpecFileError(ValueError):
    """A specification file that cannot be used, with everything that is wrong with it.

    Attributes:
        source: the file as its user named it.
        findings: at least one, in the order of the file.
    """

    def __init__(self, source: str, findings: Iterable[Finding]) -> None:
        self.source = source
        self.findings = tuple(sorted(findings, key=lambda finding: finding.mark))
        super().__init__("\n".join(f"{source}:{finding}" for finding in self.findings))


def unusable(source: str, message: str, mark: Mark = BEGINNING) -> SpecFileError:
    """Make the error of a file of which nothing can be read, because of one mistake."""
    return SpecFileError(source, [Finding(mark, (), message)])
