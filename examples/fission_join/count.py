"""Counts from 1 to COUNT."""

import os
from collections.abc import Iterator

from shoal import job

COUNT = int(os.environ.get("COUNT", "25"))


@job.source
def count() -> Iterator[int]:
    """Yield the numbers."""
    yield from range(1, COUNT + 1)
