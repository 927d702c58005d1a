"""Multiplies the numbers of three streams: the k-th of each, together."""

from shoal import job


@job.main
def product(a: int, b: int, c: int) -> int:
    """Return one product a round."""
    return a * b * c
