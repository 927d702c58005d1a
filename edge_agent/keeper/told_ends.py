"""The ends of programs that a starter tells its keeper: memory that both processes have.

Theory. An end has to be told before its program is reaped, so that it is known though the starter be killed in between,
and the keeper is to wake only afterwards. A message would do the first and a second one the second. What stands in
memory of both is told by a few stores, and costs no call of the kernel: the starter writes an end here, reaps the
program, and rings a bell, which is the only message.

Rule. One process tells and one takes. Each end has the next place of a ring, and `told` grows once it stands there. The
bell's byte is written after that, and read before the end is taken, so the kernel orders the stores of the one before
the loads of the other. All that a starter has told can be taken once it is gone.

Invariant. What is told and not taken never exceeds `ENDS_MAX`: its keeper starts no more programs than that by one
starter.

Example: the starter tells 7, is killed, and never rings. Its keeper sees the pipe of the bell closed, finds that one
more end was told than it has taken, and takes it.
"""

import mmap
import struct
from typing import Final

from edge_agent.keeper.child import ChildEnd

ENDS_MAX: Final = 1024

_COUNT: Final = struct.Struct("=Q")
_END: Final = struct.Struct("=i?3xi")
_ROOM: Final = _COUNT.size + ENDS_MAX * _END.size


class ToldEnds:
    """Made before the fork; the starter calls `tell`, the keeper all else."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROOM)
        self._told = 0
        self._taken = 0

    def tell(self, end: ChildEnd) -> None:
        """Say how a program ended."""
        place = _COUNT.size + self._told % ENDS_MAX * _END.size
        _END.pack_into(self._memory, place, end.pid, end.exited, end.status)
        self._told += 1
        _COUNT.pack_into(self._memory, 0, self._told)

    @property
    def taken(self) -> int:
        """How many were taken so far."""
        return self._taken

    def left(self) -> bool:
        """Whether more were told than taken."""
        return int(_COUNT.unpack_from(self._memory)[0]) > self._taken

    def take(self) -> ChildEnd:
        """Take the next one, which was told."""
        place = _COUNT.size + self._taken % ENDS_MAX * _END.size
        pid, exited, status = _END.unpack_from(self._memory, place)
        self._taken += 1
        return ChildEnd(pid, exited, status)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
