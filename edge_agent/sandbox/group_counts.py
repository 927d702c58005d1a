"""What the kernel has counted in the control group of an attempt."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Counted since the group was made; an attempt without a group of its own has none.

    Attributes:
        memory_kills: processes that the kernel killed for want of memory; None where the group does not count them.
        refused_processes: processes and threads that it refused, because there were as many as there may be.
        bounded_memory: whether the group ever met its own bound of memory; if not, a group above it or the machine
            had no more.
    """

    memory_kills: int | None = None
    refused_processes: int = 0
    bounded_memory: bool = False


NO_COUNTS = GroupCounts()
"""Those of an attempt without a group."""
