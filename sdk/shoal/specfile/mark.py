"""Where something stands in a specification file, and what is wrong there."""

from dataclasses import dataclass

from shoal.checks.problem import Path


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Line and column, both from 1."""

    line: int
    column: int


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

    def __init__(self, source: str, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join(f"{source}:{finding}" for finding in findings))
        self.source = source
        self.findings = findings
