"""Counts from 0; COUNT numbers in all."""

import os
from collections.abc import Iterator

from shoal import job

COUNT = int(os.environ.get("COUNT", "25"))


@job.source
def count() -> Iterator[int]:
    """Yield the numbers."""
    yield from range(COUNT)
