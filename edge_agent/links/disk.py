"""The link from an agent to the disk of its node."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from edge_agent.disk_claim import ClaimedFolder
from edge_agent.disk_watch import DiskReading, FolderUse
from shoal.names import AttemptRef


class DiskMeter(Protocol):
    """Measures the disk that the attempts of a node write to."""

    async def read(self) -> DiskReading:
        """What the disk has left."""
        ...

    async def claimed(self, folders: Iterable[ClaimedFolder]) -> tuple[FolderUse, ...]:
        """What attempts have of what they claim, no further than where it is more; see `disk_claim`."""
        ...

    async def folders(self, paths: Iterable[tuple[AttemptRef, Path]]) -> tuple[FolderUse, ...]:
        """What attempts have in their folders."""
        ...
