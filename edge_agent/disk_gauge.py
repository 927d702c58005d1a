"""Looks at the disk of a state folder, in a thread of its own: a disk that hangs stalls nothing."""

import asyncio
import contextlib
import math
import os
import stat
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from edge_agent.deleted_files import deleted_files
from edge_agent.disk_claim import FILE_BYTES_MIN, ClaimedFolder
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
        processes: the processes of an attempt, as far as its control group tells.
    """

    def __init__(
        self,
        state: Path,
        proof: Path,
        trouble: Callable[[], str],
        clock: Callable[[], float],
        processes: Callable[[AttemptRef], Sequence[int]] = lambda _: (),
    ) -> None:
        self._state = state
        self._proof = proof
        self._trouble = trouble
        self._clock = clock
        self._processes = processes
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

    async def claimed(self, folders: Iterable[ClaimedFolder]) -> tuple[FolderUse, ...]:
        """What attempts have of what they claim, no further than where it is more; see `disk_claim`."""
        asked = tuple(folders)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._claimed, asked)

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
        found: list[FolderUse] = []
        for ref, path in asked:
            use = _Use()
            self._use(path, until, use)
            found.append(FolderUse(ref, use.size_bytes, use.files))
        return tuple(found)

    def _claimed(self, asked: tuple[ClaimedFolder, ...]) -> tuple[FolderUse, ...]:
        until = self._clock() + _LOOK_SECONDS
        return tuple(self._claimed_one(one, until) for one in asked)

    def _claimed_one(self, folder: ClaimedFolder, until: float) -> FolderUse:
        work = _Use(0, FILE_BYTES_MIN, folder.size_bytes)
        # Records that wait for a consumer are the stream worker's.
        self._use(folder.path, until, work, ("spool",))
        if work.size_bytes <= folder.size_bytes:
            size, files = deleted_files(self._processes(folder.ref), work.device)
            work.size_bytes += size
            work.files += files
        return FolderUse(folder.ref, work.size_bytes, work.files)

    def _use(self, folder: Path, until: float, use: "_Use", but: Collection[str] = ()) -> None:
        """Count what lies beneath a folder, on its own disk alone, whatever a job makes there meanwhile."""
        try:
            descent = Descent(folder)
        except OSError:
            return
        use.device = os.fstat(descent.descriptor).st_dev
        try:
            trail = [[name for name in use.look(descent.descriptor) if name not in but]]
            while trail and not use.beyond and self._clock() < until:
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


@dataclass(slots=True)
class _Use:
    """What was found so far on one disk; each file counts for at least `least`, and after `most` bytes it is enough."""

    device: int = 0
    least: int = 0
    most: float = math.inf
    size_bytes: int = 0
    files: int = 0
    linked: set[int] = field(default_factory=set[int])
    """Files with several names that were counted."""

    @property
    def beyond(self) -> bool:
        """Whether it is enough."""
        return self.size_bytes > self.most

    def look(self, descriptor: int) -> list[str]:
        """Count what lies in a folder, and return the folders among it; one that cannot be read is empty."""
        folders: list[str] = []
        with contextlib.suppress(OSError), os.scandir(descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_dev != self.device:
                        continue
                    self.size_bytes += max(self._size(status), self.least)
                    self.files += 1
                    if self.beyond:
                        break
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.name)
        return folders

    def _size(self, status: os.stat_result) -> int:
        """What a file takes; of one with several names its share, or for a claim all of it, once.

        Some names of a job's file may be in folders that are not counted.
        """
        size = status.st_blocks * 512
        if status.st_nlink <= 1 or stat.S_ISDIR(status.st_mode):
            return size
        if not self.least:
            return size // status.st_nlink
        known = status.st_ino in self.linked
        self.linked.add(status.st_ino)
        return 0 if known else size
