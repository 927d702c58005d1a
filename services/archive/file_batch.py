"""Many small objects that become files of a folder together, with one or two waits for the disk.

Rule. All files are written where no key leads, then brought to the disk, then named, then their names are brought
to the disk. So a power cut leaves of each object all or nothing, and when `put` has returned, it leaves all of all.
A key that cannot be a file keeps none of the others from it.

Folders are made only where a file finds none, which costs nothing for the second object of a folder.
"""

import fcntl
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from services.archive.disk_sync import DiskSync
from services.archive.object_store import PutOutcome, SmallObject

SHA256_ATTRIBUTE: Final = "user.shoal.sha256"
FILES_OPEN_MAX: Final = 128
"""Files that are open at a time: each is locked until it has its name, or another process would clear it away."""


class InTheWayError(Exception):
    """A key is the beginning of another one that is a file, or the other way round."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that waits for its name."""

    key: str
    path: str
    descriptor: int


class FileBatch:
    """Puts objects into a folder; it blocks.

    Args:
        root: the folder.
        incoming: a folder on the same file system for files without a name.
        new_id: names of these.
        links: whether the file system has hard links, by which a file is named only where there is none.
        ready: raises `OSError` where the folder is away, so that none is made in its place.
        placing: is held while files are named, and while folders that are empty are removed.
    """

    def __init__(
        self,
        root: str,
        incoming: str,
        new_id: Callable[[], str],
        *,
        links: bool,
        ready: Callable[[], None],
        placing: threading.Lock,
    ) -> None:
        self._root = root
        self._incoming = incoming
        self._new_id = new_id
        self._links = links
        self._ready = ready
        self._placing = placing
        self._changed: dict[str, None] = {}
        self._there = {root}
        """Folders that are known to be there, while none can be removed."""
        self._refused: list[str] = []

    def put(self, objects: Sequence[SmallObject], *, if_absent: bool) -> Sequence[PutOutcome]:
        """Store objects, and return what became of each.

        Args:
            objects: what is stored; of two with one key the later one stays, or with `if_absent` the earlier.
            if_absent: whether one that is there stays as it is.

        Raises:
            InTheWayError: One of them cannot be stored; the others are.
            OSError: The folder is away or full; some may be stored.
        """
        outcomes: list[PutOutcome] = []
        left = iter(objects)
        while some := list(itertools.islice(left, FILES_OPEN_MAX)):
            outcomes += self._put(some, if_absent=if_absent)
        if self._refused:
            raise InTheWayError(self._refused[0])
        return outcomes

    def _put(self, objects: Sequence[SmallObject], *, if_absent: bool) -> Sequence[PutOutcome]:
        written: list[_Written] = []
        self._ready()
        # Opened before anything is written, or errors of the disk would not be seen.
        with DiskSync(self._root) as disk:
            try:
                for one in objects:
                    self._write(one, written)
                disk.files([one.descriptor for one in written])
                self._ready()
                with self._placing:
                    self._there = {self._root}
                    outcomes = [*self._place_all(written, if_absent=if_absent)]
                disk.folders(self._changed)
                self._changed.clear()
            finally:
                for file in written:
                    # Where the folder is away, it is cleared when it is opened the next time.
                    with suppress(OSError):
                        os.unlink(file.path)  # noqa: PTH108 - often
                    os.close(file.descriptor)
        return outcomes

    def _write(self, one: SmallObject, written: list[_Written]) -> None:
        path = f"{self._incoming}/{self._new_id()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        written.append(_Written(one.key, path, descriptor))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = memoryview(one.data)
        while left:
            left = left[os.write(descriptor, left) :]
        # Not every file system keeps attributes; then the digest is unknown, and no more.
        with suppress(OSError):
            digest = hashlib.sha256(one.data).hexdigest()
            os.setxattr(descriptor, SHA256_ATTRIBUTE, digest.encode())

    def _place_all(self, written: Sequence[_Written], *, if_absent: bool) -> Iterator[PutOutcome]:
        for file in written:
            try:
                yield self._place(file, if_absent=if_absent)
            except InTheWayError as error:
                self._refused.append(error.key)

    def _place(self, file: _Written, *, if_absent: bool) -> PutOutcome:
        path = f"{self._root}/{file.key}"
        folder = path.rpartition("/")[0]
        try:
            try:
                self._name(file, path, if_absent=if_absent)
            except FileNotFoundError:
                self._make(folder)
                self._name(file, path, if_absent=if_absent)
        except FileExistsError:
            if not os.path.isfile(path):  # noqa: PTH113 - often
                raise InTheWayError(file.key) from None
            # The process that stored it may have ended before its names were on the disk.
            self._changed.update(dict.fromkeys(self._above(path)))
            return PutOutcome.EXISTS
        except (NotADirectoryError, IsADirectoryError):
            raise InTheWayError(file.key) from None
        self._changed[folder] = None
        return PutOutcome.STORED

    def _name(self, file: _Written, path: str, *, if_absent: bool) -> None:
        if if_absent and self._links:
            os.link(file.path, path)
        elif if_absent and os.path.lexists(path):
            raise FileExistsError(path)
        else:
            os.rename(file.path, path)  # noqa: PTH104 - often

    def _above(self, path: str) -> Iterator[str]:
        """The folders in which names lead to a file, from its own up to the archive's."""
        while path != self._root:
            path = path.rpartition("/")[0]
            yield path

    def _make(self, folder: str) -> None:
        """Make a folder and those above it; never the archive's own, which is away where it is not there."""
        missing: list[str] = []
        while folder not in self._there:
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for one in reversed(missing):
            try:
                os.mkdir(one)  # noqa: PTH102 - often
            except FileExistsError:
                pass
            else:
                self._changed[folder] = None
            self._there.add(one)
            folder = one
