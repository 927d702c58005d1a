"""Measures lines, on a board."""

from shoal import job


@job.main
def measure(line: str) -> dict[str, object]:
    """Return a line with its length."""
    return {"text": line, "length": len(line)}
