"""When a disk is too short for new work, and which attempt has to go before it is full: decided here.

Two marks, as kubelet's soft and hard eviction have them. Below the upper one (`reserve_bytes`, or a
twentieth of a smaller disk) the node takes no new work, and takes it again once there is a quarter
more than that. Below the lower one, a quarter of the upper, the attempt with the most in its folder
is failed, one at a time, if it alone holds as much as the lower mark: then the others go on. An
attempt that writes faster than this looks meets the full disk itself. Inodes likewise: the upper
mark is a fiftieth of them, 1024 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.attempts.events import DiskFull
from shoal.model import Reason, ReasonCode
from shoal.names import AttemptRef

_SHARE: Final = 20
_INODE_SHARE: Final = 50
_INODES_MAX: Final = 1024
_LOWER: Final = 4
_PATIENCE_SECONDS: Final = 30.0
"""How long the end of one attempt is waited for before the next is failed."""


@dataclass(frozen=True, slots=True)
class DiskReading:
    """What a disk has left; no inodes at all where a file system does not count them.

    `trouble` says for people why nothing can be written, whatever is left; else it is empty.
    """

    free_bytes: int
    total_bytes: int
    free_inodes: int = 0
    total_inodes: int = 0
    trouble: str = ""

    @property
    def sentence(self) -> str:
        """What is left, for people."""
        inodes = f", {self.free_inodes} inodes" if self.total_inodes else ""
        return f"{size_text(self.free_bytes)} of {size_text(self.total_bytes)} free{inodes}"


@dataclass(frozen=True, slots=True)
class FolderUse:
    """What an attempt has in its folder."""

    ref: AttemptRef
    size_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class DiskMark:
    """A mark that a disk may fall below: the upper one, from where on no new work is taken, or its `lower`."""

    size_bytes: int
    inodes: int

    @classmethod
    def upper(cls, reading: DiskReading, reserve_bytes: int) -> DiskMark:
        """The upper mark for a disk of that size; it is 0 where the reserve is."""
        inodes = min(_INODES_MAX, reading.total_inodes // _INODE_SHARE) if reserve_bytes else 0
        return cls(min(reserve_bytes, reading.total_bytes // _SHARE), inodes)

    @property
    def lower(self) -> DiskMark:
        """Below it an attempt has to go, or one that failed may have failed for this."""
        return DiskMark(self.size_bytes // _LOWER, self.inodes // _LOWER)

    def is_above(self, reading: DiskReading) -> bool:
        """Whether so little is left; inodes count where the file system counts them."""
        few_inodes = reading.total_inodes > 0 and reading.free_inodes < self.inodes
        return reading.free_bytes < self.size_bytes or few_inodes


class DiskWatch:
    """Decides what a node does about its disk.

    Args:
        folder: the state folder, for people.
        reserve_bytes: the upper mark of a large disk; 0 lets everything be.
    """

    def __init__(self, folder: str, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._reading = DiskReading(0, 0)
        self._upper = DiskMark(0, 0)
        self._failed_until: float | None = None
        self.refusal = ""
        """Why nothing new is taken; empty while it is."""

    @property
    def reading(self) -> DiskReading:
        """What was left when it was looked at last."""
        return self._reading

    @property
    def short(self) -> bool:
        """Whether room is what is lacking; a disk that takes no writes may have enough of it."""
        return bool(self.refusal) and not self._reading.trouble

    @property
    def full(self) -> str:
        """What is left, in words, if the disk was full when it was last looked at; else empty."""
        return self.full_at(self._reading)

    def full_at(self, reading: DiskReading) -> str:
        """What is left, in words, if the disk is full then; else empty."""
        lower = DiskMark.upper(reading, self._reserve_bytes).lower
        return reading.sentence if lower.is_above(reading) else ""

    def measured(self, reading: DiskReading, now: float) -> bool:
        """Take a reading; say whether an attempt has to go, for which `choose` takes their folders."""
        self._reading = reading
        self._upper = DiskMark.upper(reading, self._reserve_bytes)
        why = self._why(reading)
        if bool(why) != bool(self.refusal) or reading.trouble:
            self.refusal = why
        if not self._upper.lower.is_above(reading):
            self._failed_until = None
            return False
        return self._failed_until is None or now >= self._failed_until

    def _why(self, reading: DiskReading) -> str:
        if reading.trouble:
            return reading.trouble
        upper, lower = self._upper, self._upper.lower
        again = DiskMark(upper.size_bytes + lower.size_bytes, upper.inodes + lower.inodes)
        if not (again if self.refusal else upper).is_above(reading):
            return ""
        inodes = f" and {again.inodes} inodes" if reading.total_inodes else ""
        return (
            f"its disk is short: {reading.sentence} in {self._folder}; it takes work again from "
            f"{size_text(again.size_bytes)}{inodes} on, so make room there"
        )

    def choose(self, uses: Sequence[FolderUse], now: float) -> DiskFull | None:
        """Return which attempt to end for what it has written; None where the end of none would help.

        Args:
            uses: the folders of the attempts that can still be failed.
            now: seconds on a monotonic clock.
        """
        reading, lower = self._reading, self._upper.lower
        if not lower.is_above(reading):
            return None
        if reading.free_bytes < lower.size_bytes:
            most = max(uses, key=lambda use: use.size_bytes, default=None)
            guilty = most is not None and most.size_bytes >= lower.size_bytes
        else:
            most = max(uses, key=lambda use: use.files, default=None)
            guilty = most is not None and most.files >= lower.inodes
        if most is None or not guilty:
            return None
        self._failed_until = now + _PATIENCE_SECONDS
        words = (
            f"the disk of the node is full ({reading.sentence} in {self._folder}), and of all "
            f"attempts there this one has the most in its folder: {size_text(most.size_bytes)} in "
            f"{most.files} files; write less, or place the job where there is more room"
        )
        return DiskFull(most.ref, Reason(ReasonCode.DISK, 0, words))


def size_text(size_bytes: float) -> str:
    """`1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
