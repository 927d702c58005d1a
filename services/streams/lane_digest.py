"""What a consumer has counted of a lane, to be compared with what the producer says at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.streams.block import Block
from services.streams.digest import Digest

_UNRECKONED_BYTES = 64 * 1024
"""A block that came without a checksum did not come from another node; a large one is not read."""


@dataclass(frozen=True, slots=True)
class LaneDigest:
    """A digest, None where it is not known, and between which producer epochs its records came."""

    digest: Digest | None
    oldest: int = 0
    newest: int = 0

    def after(self, block: Block, epoch: int) -> LaneDigest:
        """Count a block that came from a producer of this epoch."""
        if self.digest is None:
            return self
        if block.crc is None and len(block.body) >= _UNRECKONED_BYTES:
            return replace(self, digest=None)
        return LaneDigest(self.digest.after(block), self.oldest or epoch, epoch)

    def after_some(self, block: Block, count: int) -> LaneDigest:
        """Count the first `count` records of a block that was counted before."""
        if self.digest is None or count <= 0:
            return self
        return replace(self, digest=self.digest.after_some(block, count))

    def differs(self, digest: Digest | None) -> bool:
        """Whether the producer's records are others, as far as the two can be compared."""
        mine = self.digest
        return (
            mine is not None
            and digest is not None
            and mine.first == digest.first
            and mine != digest
        )
