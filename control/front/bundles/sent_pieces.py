"""What clients have sent of bundles that are not whole yet: files, so that an upload goes on after a cut.

A piece is here whole or not at all. It is not brought to the disk: whatever a power cut left of it is
found when it is read, since its name is its hash.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shoal.pieces import Piece

BYTES_MAX: Final = 32 << 30
"""Most bytes of pieces that wait for the rest of their bundle."""

KEPT_SECONDS: Final = 86_400.0
"""How long pieces are kept of an upload that does not go on."""

_RESERVE_SHARE: Final = 20
"""One part in so many of the disk stays free."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoomError(Exception):
    """There is no room for what is to be sent; the message says why."""


@dataclass(frozen=True, slots=True)
class BundleUpload:
    """One bundle that is on its way into one namespace."""

    namespace: str
    digest: str


@dataclass(eq=False)
class SentPieces:
    """The pieces in a folder; every method waits for the disk, so call it in a thread.

    Args:
        folder: where; made when the first piece comes.
        wall: Unix time in seconds.
        new_id: names of files that are being written; never the same twice.
        bytes_max: most bytes of all pieces.
    """

    folder: Path
    wall: Callable[[], float]
    new_id: Callable[[], str]
    bytes_max: int = BYTES_MAX
    _open: Counter[BundleUpload] = field(default_factory=Counter[BundleUpload])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def held(self, upload: BundleUpload) -> Iterator[None]:
        """Keep the pieces of an upload while it goes on."""
        with self._lock:
            self._open[upload] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[upload] -= 1
                if not self._open[upload]:
                    del self._open[upload]

    def of(self, upload: BundleUpload) -> frozenset[str]:
        """Return the SHA-256 of every piece of an upload that is here."""
        try:
            with os.scandir(self._of(upload)) as found:
                return frozenset(one.name for one in found if "." not in one.name)
        except FileNotFoundError:
            return frozenset()

    def make_room(self, size_bytes: int) -> None:
        """See that so many bytes may come; what does not go on is dropped for it, the oldest first.

        Raises:
            NoRoomError: there is no room for them.
        """
        with self._lock:
            uses = sorted(self._uses(), key=lambda use: use.touched)
            total = sum(use.size_bytes for use in uses)
            while why := self._short(total + size_bytes, size_bytes):
                idle = next((use for use in uses if use.upload not in self._open), None)
                if idle is None:
                    raise NoRoomError(
                        f"a bundle of which {size_bytes} bytes are to be sent has no room beside the "
                        f"uploads that go on: {why}; try again when they are over"
                    )
                uses.remove(idle)
                total -= idle.size_bytes
                self.drop(idle.upload)

    def write(self, upload: BundleUpload, piece: Piece, data: bytes) -> None:
        """Keep a piece, which is known to be what it says.

        Raises:
            NoRoomError: the disk is full.
            OSError: it cannot be written.
        """
        folder = self._of(upload)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{piece.sha256}.{self.new_id()}"
        try:
            unfinished.write_bytes(data)
            unfinished.replace(folder / piece.sha256)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if error.errno in _FULL:
                raise NoRoomError(
                    f"the disk of the controller is full: {error}; make room there, and send the "
                    "bundle again: what has come of it stays"
                ) from error
            raise

    def read(self, upload: BundleUpload, piece: Piece) -> bytes | None:
        """Return a piece; None, and it is gone, if it is not here as it was sent."""
        path = self._of(upload) / piece.sha256
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() == piece.sha256:
            return data
        path.unlink(missing_ok=True)
        return None

    def drop(self, upload: BundleUpload) -> None:
        """Remove what is here of an upload."""
        shutil.rmtree(self._of(upload), ignore_errors=True)

    def clean(self, kept_seconds: float = KEPT_SECONDS) -> int:
        """Remove uploads that have not gone on for so long; return how many."""
        before = self.wall() - kept_seconds
        with self._lock:
            over = [
                use.upload
                for use in self._uses()
                if use.touched < before and use.upload not in self._open
            ]
            for upload in over:
                self.drop(upload)
        return len(over)

    def _of(self, upload: BundleUpload) -> Path:
        return self.folder / upload.namespace / upload.digest

    def _short(self, total: int, size_bytes: int) -> str:
        """Say why so many bytes are too many; empty if they are not."""
        if total > self.bytes_max:
            return f"at most {self.bytes_max} bytes of unfinished uploads are kept"
        place = next(one for one in (self.folder, *self.folder.parents) if one.exists())
        disk = shutil.disk_usage(place)
        if disk.free - size_bytes < disk.total // _RESERVE_SHARE:
            return f"{disk.free} of {disk.total} bytes are free at {place}"
        return ""

    def _uses(self) -> Iterator["_Use"]:
        for namespace in _folders(self.folder):
            for folder in _folders(namespace):
                size, touched = 0, 0.0
                with contextlib.suppress(FileNotFoundError):  # another upload has just ended
                    touched = folder.stat().st_mtime
                    with os.scandir(folder) as found:
                        size = sum(one.stat().st_size for one in found)
                yield _Use(BundleUpload(namespace.name, folder.name), size, touched)


@dataclass(frozen=True, slots=True)
class _Use:
    upload: BundleUpload
    size_bytes: int
    touched: float


def _folders(folder: Path) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if one.is_dir()]
    except FileNotFoundError:
        return []
