"""Which parts of a ring are in use: the account of a worker that trusts no job.

A ring is memory that the job of an output port and the stream worker share. The job puts a large
record into a free part of it, a *slot*, and says where; the worker says when no reader holds it any
more (docs/architecture.md, section 3).
"""

from bisect import bisect_left, insort

SLOTS_MAX = 4096
"""Most slots that may be in use at a time."""


class RingError(ValueError):
    """A job refers to something that is no slot; the message says why."""


class Slots:
    """The slots in use.

    Args:
        size: bytes of the ring.
        page: every slot begins at a multiple of it.
    """

    def __init__(self, size: int, page: int) -> None:
        self.size = size
        self._page = page
        self._starts: list[int] = []
        self._ends: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._starts)

    def take(self, offset: int, length: int) -> None:
        """Mark a slot as used.

        Raises:
            RingError: It does not lie within the ring, or part of it is in use.
        """
        end = offset + length
        if offset % self._page or length <= 0 or end > self.size:
            raise RingError(
                f"{length} bytes at {offset} are no slot: it begins at a multiple of {self._page} "
                f"and ends within the ring's {self.size}"
            )
        at = bisect_left(self._starts, offset)
        before = self._starts[at - 1] if at else None
        after = self._starts[at] if at < len(self._starts) else None
        if before is not None and self._ends[before] > offset:
            self._refuse(offset, length, before)
        if after is not None and after < end:
            self._refuse(offset, length, after)
        if len(self._starts) >= SLOTS_MAX:
            raise RingError(f"{len(self._starts)} slots are in use; there may be {SLOTS_MAX}")
        insort(self._starts, offset)
        self._ends[offset] = end

    def free(self, offset: int) -> None:
        """Mark the slot at `offset` as free.

        Raises:
            RingError: There is none.
        """
        if self._ends.pop(offset, None) is None:
            raise RingError(f"no slot in use begins at {offset}")
        del self._starts[bisect_left(self._starts, offset)]

    def _refuse(self, offset: int, length: int, other: int) -> None:
        raise RingError(
            f"{length} bytes at {offset} overlap the slot from {other} to {self._ends[other]}, "
            "which was not given back"
        )
