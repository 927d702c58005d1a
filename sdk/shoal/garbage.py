"""What a pass over the archive removed, or would remove."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """How many objects with how many bytes, and unfinished uploads; `keys` are those of the first objects."""

    objects: int
    size_bytes: int
    uploads: int
    keys: tuple[str, ...]
