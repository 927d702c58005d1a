"""A folder as an archive: one file an object, under the object's key.

An object appears by one rename or link of a file that is already on disk, so that neither a reader
nor a power cut ever sees half of it. Everything that touches the disk runs in a thread.

The folder may go away while it is open: a disk is pulled out or full, a share unmounted, a folder
moved. Then the archive is away, as a bucket is that does not answer, and it is there again as soon
as the folder is. The folder differs from the empty place where it was mounted by its folder of
incoming files: where it is missing, it is made again, but only on the file system on which it was
last seen, so that nothing is ever written below a mount point and hidden by the next mount.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from services.archive.key import InvalidKeyError, check_key
from services.archive.object_store import (
    ArchiveFullError,
    ArchiveUnavailableError,
    ObjectDigestError,
    ObjectInfo,
    ObjectMissingError,
    PresignedPut,
    PutOutcome,
)
from services.archive.signature import PathSigner, SignedPut
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

INCOMING = ".incoming"
"""Folder of the files that are being written; no key leads there."""

CHUNK_BYTES = 256 * 1024
_SHA256_ATTRIBUTE = "user.shoal.sha256"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MISTAKES = frozenset({errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})
"""What does not pass by itself: at the start it is a wrong address, and is refused."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class DirectoryStore:
    """Objects as files under `root`; use it with `async with`.

    Args:
        root: the folder; made if it is not there.
        signer: makes the addresses under which an `ObjectEndpoint` serves the folder.
        wall: Unix time in seconds; addresses expire by it.
        new_id: names of files that are being written; never the same twice.
    """

    root: Path
    _: KW_ONLY
    signer: PathSigner
    wall: Callable[[], float]
    new_id: Callable[[], str]
    # Whether the file system can place a file only where there is none.
    conditional_put: bool = False
    # The file system on which the folder was last seen whole; None until it was opened.
    _device: int | None = None
    # Where the file system has no hard links, one process at least does not race with itself.
    _placing: threading.Lock = field(default_factory=threading.Lock)

    async def __aenter__(self) -> Self:
        """Make the folder, clear what a killed process left behind, and probe the file system.

        A disk that is full, read-only or broken is waited for: the archive begins away.

        Raises:
            ArchiveUnavailableError: The folder cannot be one, whatever its disk does.
        """
        try:
            await self._in_thread(self._ready)
        except ArchiveUnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _MISTAKES:
                raise
            LOG.warning("the archive is away", extra=fields(folder=self.root, why=error))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing stays open between calls."""

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> PutOutcome:
        """Store `data`, on disk when this returns."""
        return await self._in_thread(self._put, key, self.path(key), data, if_absent=if_absent)

    async def put_stream(
        self, key: str, chunks: AsyncIterator[bytes], *, sha256: str = ""
    ) -> ObjectInfo:
        """Store what `chunks` yields, on disk when this returns."""
        path = self.path(key)
        incoming = await self._in_thread(self._begin)
        try:
            async for chunk in chunks:
                await self._in_thread(incoming.write, chunk)
            received = incoming.sha256()
            if sha256 and received != sha256:
                raise ObjectDigestError(key, announced=sha256, received=received)
            await self._in_thread(self._place, key, incoming, path, if_absent=False)
        finally:
            # A thread may still be writing when this task is cancelled; `discard` waits for it.
            await asyncio.shield(asyncio.to_thread(incoming.discard))
        return ObjectInfo(key, incoming.size_bytes, received)

    async def get(self, key: str) -> bytes:
        """Return the whole object."""
        return await self._in_thread(self._found, key, self.path(key).read_bytes)

    async def get_stream(self, key: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the object from byte `offset` on."""
        path = self.path(key)
        reader = await self._in_thread(self._found, key, lambda: _Reader(path, offset))
        try:
            while chunk := await self._in_thread(reader.read):
                yield chunk
        finally:
            await asyncio.shield(asyncio.to_thread(reader.close))

    async def head(self, key: str) -> ObjectInfo | None:
        """Return size and, where the file system keeps attributes, SHA-256."""
        return await self._in_thread(self._head, key, self.path(key))

    async def presign_put(
        self, key: str, *, size_bytes: int, sha256: str, expires_seconds: int
    ) -> PresignedPut:
        """Return an address of the endpoint that takes exactly this object."""
        self.path(key)
        put = SignedPut(size_bytes, sha256)
        url = self.signer.put_url(key, put, int(self.wall()) + expires_seconds)
        return PresignedPut(url, {"Content-Length": str(size_bytes)})

    async def presign_get(self, key: str, *, expires_seconds: int) -> str:
        """Return an address of the endpoint."""
        self.path(key)
        return self.signer.get_url(key, int(self.wall()) + expires_seconds)

    def path(self, key: str) -> Path:
        """Return the file of `key`, which is always beneath the folder.

        Raises:
            InvalidKeyError: when the key would lead elsewhere.
        """
        segments = check_key(key).split("/")
        if segments[0] == INCOMING:
            raise InvalidKeyError(f"key {key!r}: {INCOMING} is where files are being written")
        return self.root.joinpath(*segments)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except OSError as error:
            if error.errno in _FULL:
                raise ArchiveFullError(
                    f"the archive {self.root} is full: {error}; remove what is not needed any "
                    "more, or enlarge its disk"
                ) from error
            raise ArchiveUnavailableError(
                f"the archive {self.root} is away: {error}; check that it is mounted and "
                "writable, and that its disk is healthy"
            ) from error

    def _ready(self) -> None:
        """See that files can be written: at first make and probe the folder, later only look.

        Raises:
            OSError: The folder is away.
        """
        if self._device is None:
            self._open()
        elif not self._whole():
            (self.root / INCOMING).mkdir(exist_ok=True)
            LOG.warning("the folder of incoming files was made again", extra=self._as_fields())

    def _whole(self) -> bool:
        """Whether the folder is there with its folder of incoming files; False if that is missing.

        Raises:
            OSError: The folder itself is not there, or another file system is in its place.
        """
        try:
            self._device = (self.root / INCOMING).stat().st_dev
        except FileNotFoundError:
            device = self.root.stat().st_dev
            if self._device not in {None, device}:
                raise OSError(
                    errno.ENODEV,
                    f"another file system is in its place; mount it, or make {INCOMING} there",
                    str(self.root),
                ) from None
            return False
        return True

    def _open(self) -> None:
        incoming = self.root / INCOMING
        incoming.mkdir(parents=True, exist_ok=True)
        for leftover in incoming.iterdir():
            _clear(leftover)
        first, second = self._incoming(), self._incoming()
        try:
            second.path.unlink()
            os.link(first.path, second.path)
            self.conditional_put = True
        except OSError as error:
            if error.errno in _FULL:
                raise
            self.conditional_put = False
        finally:
            first.discard()
            second.discard()
        self._device = incoming.stat().st_dev

    def _as_fields(self) -> dict[str, dict[str, object]]:
        return fields(folder=self.root / INCOMING)

    def _incoming(self) -> "_Incoming":
        return _Incoming(self.root / INCOMING / self.new_id())

    def _begin(self) -> "_Incoming":
        self._ready()
        return self._incoming()

    def _found(self, key: str, read: Callable[[], T]) -> T:
        """Return what `read` reads; what is missing is missing only where the archive is there."""
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._ready()
            raise ObjectMissingError(key) from None

    def _head(self, key: str, path: Path) -> ObjectInfo | None:
        info = _info(key, path)
        if info is None:
            self._ready()
        return info

    def _put(self, key: str, path: Path, data: bytes, *, if_absent: bool) -> PutOutcome:
        if if_absent and path.is_file():
            return PutOutcome.EXISTS
        incoming = self._begin()
        try:
            incoming.write(data)
            return self._place(key, incoming, path, if_absent=if_absent)
        finally:
            incoming.discard()

    def _place(self, key: str, incoming: "_Incoming", path: Path, *, if_absent: bool) -> PutOutcome:
        incoming.finish()
        self._ready()  # or the folders above the object would be made where the archive was
        try:
            made = _make_folders(path.parent)
            with self._placing:
                if if_absent and self.conditional_put:
                    os.link(incoming.path, path)
                elif if_absent and path.is_file():
                    return PutOutcome.EXISTS
                else:
                    incoming.path.replace(path)
        except FileExistsError:
            if path.is_file():
                return PutOutcome.EXISTS
            raise self._in_the_way(key) from None
        except (NotADirectoryError, IsADirectoryError):
            self._ready()  # or it is the archive itself that is no folder any more
            raise self._in_the_way(key) from None
        for folder in made:
            _sync_folder(folder)
        return PutOutcome.STORED

    @staticmethod
    def _in_the_way(key: str) -> InvalidKeyError:
        return InvalidKeyError(
            f"key {key!r} cannot be stored in a folder: another key is the beginning of it, "
            "or it is the beginning of another key"
        )


class _Incoming:
    """A file that is being written; locked, so that no process takes it for a leftover."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._file = path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._digest.update(data)
            self.size_bytes += len(data)

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Bring everything to the disk."""
        with self._lock:
            # Not every file system keeps attributes; then the digest is unknown, and no more.
            with contextlib.suppress(OSError):
                os.setxattr(self._file.fileno(), _SHA256_ATTRIBUTE, self.sha256().encode())
            os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Close the file and remove what of it is still here; harmless after a rename."""
        with self._lock:
            # Where the folder is away, it is cleared when it is opened the next time.
            with contextlib.suppress(OSError):
                self.path.unlink()
            with contextlib.suppress(OSError):
                self._file.close()


class _Reader:
    def __init__(self, path: Path, offset: int) -> None:
        self._lock = threading.Lock()
        self._file = path.open("rb", buffering=0)
        self._file.seek(offset)

    def read(self) -> bytes:
        with self._lock:
            return self._file.read(CHUNK_BYTES)

    def close(self) -> None:
        with self._lock:
            self._file.close()


def _clear(leftover: Path) -> None:
    """Remove a file that no process is writing any more."""
    try:
        with leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
    except (BlockingIOError, FileNotFoundError):
        return


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents and return those whose entries changed or will."""
    changed = [folder]
    missing = folder
    while not missing.exists():
        missing = missing.parent
        changed.append(missing)
    folder.mkdir(parents=True, exist_ok=True)
    return changed


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _info(key: str, path: Path) -> ObjectInfo | None:
    try:
        if not path.is_file():
            return None
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return None
    try:
        sha256 = os.getxattr(path, _SHA256_ATTRIBUTE).decode()
    except OSError:
        sha256 = ""
    return ObjectInfo(key, size_bytes, sha256)
