"""Multiplies the k-th numbers of three streams, and says what they were."""

from shoal import job


@job.main
def product(a: int, b: int, c: int) -> dict[str, object]:
    """Return a record for each output, by its name."""
    return {"rows": [a, b, c, a * b * c], "products": a * b * c}
