"""How much is kept of stored pipelines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredLimits:
    """The most that there may be.

    Attributes:
        versions: of a name; beyond it the oldest one goes.
        names: of a namespace.
        size_bytes: of the content of all versions of a namespace.
        remembered: names of all namespaces, those that were deleted counted; beyond it, the one that was deleted
            first goes.
    """

    versions: int = 50
    names: int = 1_000
    size_bytes: int = 256 << 20
    remembered: int = 10_000
