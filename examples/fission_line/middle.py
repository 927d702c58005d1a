"""Passes on what comes."""

from shoal import job


@job.main
def middle(numbers: int) -> int:
    """Return the number."""
    return numbers
