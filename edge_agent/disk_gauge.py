"""Looks at the disk of a state folder, in a thread of its own: a disk that hangs stalls nothing."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edge_agent.disk_watch import DiskReading, FolderUse
from edge_agent.tree import Descent
from shoal.names import AttemptRef

_LOOK_SECONDS: Final = 5.0


class DiskGauge:
    """Measures; `async with` it.

    Args:
        state: the state folder.
        proof: a file that lies there for as long as it is the same folder.
        trouble: why the journal cannot be written; empty while it can.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, state: Path, proof: Path, trouble: Callable[[], str], clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._proof = proof
        self._trouble = trouble
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk-gauge")

    async def __aenter__(self) -> Self:
        """Nothing is open before it is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the thread, without waiting for a disk that hangs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(self) -> DiskReading:
        """What the disk has left."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    async def folders(self, paths: Iterable[tuple[AttemptRef, Path]]) -> tuple[FolderUse, ...]:
        """What lies in each folder; where that takes long, what was found until then."""
        asked = tuple(paths)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, asked)

    def _read(self) -> DiskReading:
        try:
            found = os.statvfs(self._state)
        except OSError as error:
            return DiskReading(0, 0, trouble=f"its state folder cannot be looked at: {error}")
        trouble = self._trouble()
        if found.f_flag & os.ST_RDONLY:
            trouble = f"the disk of {self._state} is read-only: see why, and mount it writable"
        elif not self._proof.exists():
            trouble = (
                f"its state folder {self._state} was removed while it ran: start the agent again; "
                "what runs goes on until then"
            )
        return DiskReading(
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
            found.f_favail,
            found.f_files,
            trouble,
        )

    def _look(self, asked: tuple[tuple[AttemptRef, Path], ...]) -> tuple[FolderUse, ...]:
        until = self._clock() + _LOOK_SECONDS
        return tuple(FolderUse(ref, *self._use(path, until)) for ref, path in asked)

    def _use(self, folder: Path, until: float) -> tuple[int, int]:
        """Bytes and files beneath a folder, on its own disk alone, whatever a job makes there meanwhile."""
        try:
            descent = Descent(folder)
        except OSError:
            return 0, 0
        use = _Use(os.fstat(descent.descriptor).st_dev)
        try:
            trail = [use.look(descent.descriptor)]
            while trail and self._clock() < until:
                if trail[-1]:
                    # It went, or may not be looked into: a link in its place is not gone through.
                    with contextlib.suppress(OSError):
                        descent.enter(trail[-1].pop())
                        trail.append(use.look(descent.descriptor))
                    continue
                trail.pop()
                if trail:
                    descent.leave()
        except OSError:
            pass  # it was moved meanwhile: what was seen until then counts
        finally:
            descent.close()
        return use.size_bytes, use.files


@dataclass(slots=True)
class _Use:
    """What was found so far on one disk."""

    device: int
    size_bytes: int = 0
    files: int = 0

    def look(self, descriptor: int) -> list[str]:
        """Count what lies in a folder, and return the folders among it; one that cannot be read is empty."""
        folders: list[str] = []
        with contextlib.suppress(OSError), os.scandir(descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_dev != self.device:
                        continue
                    self.size_bytes += status.st_blocks * 512 // max(status.st_nlink, 1)
                    self.files += 1
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.name)
        return folders
