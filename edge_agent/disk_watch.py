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
from typing import Final, assert_never

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
class DiskMarks:
    """Below `upper` no new work is taken, below `lower` an attempt has to go."""

    upper_bytes: int
    lower_bytes: int
    upper_inodes: int
    lower_inodes: int

    @classmethod
    def of(cls, reading: DiskReading, reserve_bytes: int) -> DiskMarks:
        """The marks for a disk of that size; all are 0 where the reserve is."""
        upper = min(reserve_bytes, reading.total_bytes // _SHARE)
        inodes = min(_INODES_MAX, reading.total_inodes // _INODE_SHARE) if reserve_bytes else 0
        return cls(upper, upper // _LOWER, inodes, inodes // _LOWER)

    def short(self, reading: DiskReading) -> bool:
        """Whether no new work is to be taken."""
        return reading.free_bytes < self.upper_bytes or self._few_inodes(reading, self.upper_inodes)

    def full(self, reading: DiskReading) -> bool:
        """Whether an attempt has to go, or one that failed may have failed for this."""
        return reading.free_bytes < self.lower_bytes or self._few_inodes(reading, self.lower_inodes)

    @staticmethod
    def _few_inodes(reading: DiskReading, mark: int) -> bool:
        return reading.total_inodes > 0 and reading.free_inodes < mark


# ---- events


@dataclass(frozen=True, slots=True)
class Measured:
    """The disk was looked at."""

    reading: DiskReading


@dataclass(frozen=True, slots=True)
class FoldersMeasured:
    """The folders of the attempts that can still be failed were looked at."""

    uses: tuple[FolderUse, ...]


DiskEvent = Measured | FoldersMeasured

# ---- effects


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the controller why nothing new is taken; empty for that it is."""

    why: str


@dataclass(frozen=True, slots=True)
class MeasureFolders:
    """Look at the folders of attempts."""


@dataclass(frozen=True, slots=True)
class FailAttempt:
    """End an attempt for what it has written."""

    ref: AttemptRef
    reason: Reason


DiskEffect = Refuse | MeasureFolders | FailAttempt


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
        self._marks = DiskMarks(0, 0, 0, 0)
        self._failed_until: float | None = None
        self.refusal = ""
        """Why nothing new is taken; empty while it is."""

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
        marks = DiskMarks.of(reading, self._reserve_bytes)
        return reading.sentence if marks.full(reading) else ""

    def handle(self, event: DiskEvent, now: float) -> Sequence[DiskEffect]:
        """Take one event and return what is to be done, in order."""
        match event:
            case Measured(reading):
                return self._measured(reading, now)
            case FoldersMeasured(uses):
                return self._choose(uses, now)
            case _:
                assert_never(event)

    def _measured(self, reading: DiskReading, now: float) -> list[DiskEffect]:
        self._reading = reading
        self._marks = DiskMarks.of(reading, self._reserve_bytes)
        effects: list[DiskEffect] = []
        why = self._why(reading)
        if bool(why) != bool(self.refusal) or (reading.trouble and why != self.refusal):
            self.refusal = why
            effects.append(Refuse(why))
        if not self._marks.full(reading):
            self._failed_until = None
        elif self._failed_until is None or now >= self._failed_until:
            effects.append(MeasureFolders())
        return effects

    def _why(self, reading: DiskReading) -> str:
        if reading.trouble:
            return reading.trouble
        marks = self._marks
        again = DiskMarks(
            marks.upper_bytes + marks.lower_bytes,
            0,
            marks.upper_inodes + marks.lower_inodes,
            0,
        )
        if not (again if self.refusal else marks).short(reading):
            return ""
        inodes = f" and {again.upper_inodes} inodes" if reading.total_inodes else ""
        return (
            f"its disk is short: {reading.sentence} in {self._folder}; it takes work again from "
            f"{size_text(again.upper_bytes)}{inodes} on, so make room there"
        )

    def _choose(self, uses: Sequence[FolderUse], now: float) -> list[DiskEffect]:
        reading, marks = self._reading, self._marks
        if not marks.full(reading):
            return []
        if reading.free_bytes < marks.lower_bytes:
            most = max(uses, key=lambda use: use.size_bytes, default=None)
            guilty = most is not None and most.size_bytes >= marks.lower_bytes
        else:
            most = max(uses, key=lambda use: use.files, default=None)
            guilty = most is not None and most.files >= marks.lower_inodes
        if most is None or not guilty:
            return []  # the end of no attempt would help
        self._failed_until = now + _PATIENCE_SECONDS
        words = (
            f"the disk of the node is full ({reading.sentence} in {self._folder}), and of all "
            f"attempts there this one has the most in its folder: {size_text(most.size_bytes)} in "
            f"{most.files} files; write less, or place the job where there is more room"
        )
        return [FailAttempt(most.ref, Reason(ReasonCode.DISK, 0, words))]


def size_text(size_bytes: float) -> str:
    """`1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
