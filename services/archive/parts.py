"""Large objects go up in parts, so that a cut costs a part and not the whole.

Each part is verified by its SHA-256 as it arrives, and the hashes of the parts are taken in the same
pass over the file as that of the whole, so parts that are right make a whole that is right. Example:
a file of 100 MiB has eleven parts of 9 MiB and one of 1 MiB. S3 takes 10,000 parts of 5 MiB to 5 GiB
(Amazon S3 User Guide, "Multipart upload limits").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20

PARTED_BYTES_MIN: Final = 64 * _MIB
"""From this size on an object goes up in parts."""

PART_BYTES_MIN: Final = 5 * _MIB
"""Smallest part but the last that S3 takes."""

PART_BYTES_MAX: Final = 5 * 1024 * _MIB
"""Largest part that S3 takes."""

PARTS_MAX: Final = 10_000
"""Most parts of an object."""

_FEW: Final = 1_000
_SHARE: Final = 12


class PartsError(ValueError):
    """Parts that no archive takes."""


def part_bytes(size_bytes: int) -> int:
    """Return how large the parts of an object are, in bytes: whole MiB, and the last one may be smaller.

    A twelfth up to 16 MiB, so that a cut costs less than a tenth; a thousandth up to 64 MiB; then more,
    where 10,000 of them would not be enough.
    """
    wanted = max(
        PART_BYTES_MIN,
        min(16 * _MIB, -(-size_bytes // _SHARE)),
        min(64 * _MIB, -(-size_bytes // _FEW)),
        -(-size_bytes // PARTS_MAX),
    )
    return -(-wanted // _MIB) * _MIB


@dataclass(frozen=True, slots=True)
class PartedObject:
    """An object and its parts: size in bytes, SHA-256 in hex of the whole and of each part.

    Raises:
        PartsError: The parts do not make up the object, or no archive takes them.
    """

    size_bytes: int
    sha256: str
    part_bytes: int
    part_sha256: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no object in parts."""
        if not PART_BYTES_MIN <= self.part_bytes <= PART_BYTES_MAX:
            raise PartsError(
                f"parts of {self.part_bytes} bytes: {PART_BYTES_MIN} to {PART_BYTES_MAX} are allowed"
            )
        count = -(-self.size_bytes // self.part_bytes)
        if not 1 <= count <= PARTS_MAX or len(self.part_sha256) != count:
            raise PartsError(
                f"{len(self.part_sha256)} parts of {self.part_bytes} bytes do not make "
                f"{self.size_bytes} bytes; 1 to {PARTS_MAX} parts are allowed"
            )

    @property
    def numbers(self) -> range:
        """The numbers of the parts, from 1."""
        return range(1, len(self.part_sha256) + 1)

    def offset(self, number: int) -> int:
        """Return where a part begins in the object."""
        return (number - 1) * self.part_bytes

    def size(self, number: int) -> int:
        """Return how many bytes a part has."""
        return min(self.part_bytes, self.size_bytes - self.offset(number))

    def part_hash(self, number: int) -> str:
        """Return the SHA-256 of a part in hex."""
        return self.part_sha256[number - 1]

    def missing(self, stored: "frozenset[int] | set[int]") -> Iterator[int]:
        """Yield the numbers of the parts that are not among those."""
        return (number for number in self.numbers if number not in stored)
