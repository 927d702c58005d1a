"""Sends 0, 1, 2, … as four bytes each; COUNT numbers in all."""

import os
import struct
from collections.abc import Iterator

from shoal import job

COUNT = int(os.environ.get("COUNT", "25"))


@job.source
def count() -> Iterator[bytes]:
    """Yield the numbers; the other end has `format: u32`, so a record is its four bytes."""
    for number in range(COUNT):
        yield struct.pack("=I", number)
