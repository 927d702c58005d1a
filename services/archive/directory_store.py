"""A folder as an archive: one file an object, under the object's key.

An object appears by one rename or link of a file that is already on disk, so that neither a reader
nor a power cut ever sees half of it. Everything that touches the disk runs in a thread. What is stored from memory
goes many at a time (`file_batch.py`).

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
import itertools
import logging
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from services.archive.disk_sync import sync_folder
from services.archive.file_batch import SHA256_ATTRIBUTE, FileBatch, InTheWayError
from services.archive.key import InvalidKeyError, check_key
from services.archive.object_store import (
    ArchiveFullError,
    ArchiveUnavailableError,
    ListedObject,
    ObjectDigestError,
    ObjectInfo,
    ObjectMissingError,
    PresignedPut,
    PutOutcome,
    SmallObject,
    UnfinishedUpload,
    UploadMissingError,
)
from services.archive.parts import PartedObject
from services.archive.signature import PathSigner, SignedPart, SignedPut
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

INCOMING = ".incoming"
"""Folder of the files that are being written; no key leads there."""

UPLOADS = ".uploads"
"""Folder of the objects that come in parts: one file each, with a note for each part that is on disk."""

LISTED_AT_ONCE = 1_000
CHUNK_BYTES = 256 * 1024
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
        [outcome] = await self.put_many([SmallObject(key, data)], if_absent=if_absent)
        return outcome

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """Store objects, all of them on disk when this returns."""
        for one in objects:
            _check(one.key)
        return await self._in_thread(self._put, objects, if_absent=if_absent)

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
            await self._in_thread(self._place, key, incoming, path)
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

    async def read(self, key: str, *, offset: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield `size_bytes` of the object from byte `offset` on."""
        left = size_bytes
        async with contextlib.aclosing(self.get_stream(key, offset=offset)) as chunks:
            async for chunk in chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return

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

    async def begin_upload(self, key: str, whole: PartedObject) -> str:
        """Make a folder for an upload in parts."""
        self.path(key)
        upload_id = self.new_id()
        await self._in_thread(self._begin_upload, key, upload_id, whole)
        return upload_id

    async def presign_part(
        self, key: str, upload_id: str, whole: PartedObject, number: int, *, expires_seconds: int
    ) -> PresignedPut:
        """Return an address of the endpoint that takes exactly this part."""
        self.path(key)
        size_bytes = whole.size(number)
        part = SignedPart(upload_id, number, whole.offset(number))
        put = SignedPut(size_bytes, whole.part_hash(number), part)
        url = self.signer.put_url(key, put, int(self.wall()) + expires_seconds)
        return PresignedPut(url, {"Content-Length": str(size_bytes)})

    async def put_part(
        self, key: str, put: SignedPut, part: SignedPart, chunks: AsyncIterator[bytes]
    ) -> None:
        """Store a part that `chunks` yields, on disk when this returns.

        Raises:
            ObjectDigestError: when it is not what was announced; it counts as missing then.
            UploadMissingError: when there is no such upload (any more).
            ArchiveUnavailableError: when the archive is away.
        """
        upload = self._upload(part.upload_id)
        writer = await self._in_thread(self._found_upload, key, lambda: _Part(upload, put, part))
        try:
            async for chunk in chunks:
                await self._in_thread(writer.write, chunk)
            received = writer.sha256()
            if received != put.sha256:
                raise ObjectDigestError(key, announced=put.sha256, received=received)
            await self._in_thread(self._found_upload, key, writer.finish)
        finally:
            await asyncio.shield(asyncio.to_thread(writer.close))

    async def stored_parts(self, key: str, upload_id: str, whole: PartedObject) -> Collection[int]:
        """Return the parts that are on disk with the right hash."""
        upload = self._upload(upload_id)
        noted = await self._in_thread(self._found_upload, key, lambda: _noted(upload))
        return [n for n in whole.numbers if noted.get(n) == whole.part_hash(n)]

    async def complete_upload(self, key: str, upload_id: str, whole: PartedObject) -> None:
        """Let the file of an upload become the object, by one rename."""
        stored = await self.stored_parts(key, upload_id, whole)
        if len(stored) != len(whole.numbers):
            raise ArchiveUnavailableError(
                f"object {key!r}: {len(stored)} of its {len(whole.numbers)} parts are there; "
                "send the others"
            )
        upload, path = self._upload(upload_id), self.path(key)
        await self._in_thread(self._complete, key, upload, path, whole)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Remove the folder of an upload; harmless if there is none."""
        LOG.info("an upload is given up", extra=fields(key=key, upload=upload_id))
        await self._in_thread(_remove_upload, self._upload(upload_id))

    async def unfinished_uploads(self) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield the uploads that have a folder."""
        for upload in await self._in_thread(lambda: list(_uploads(self.root / UPLOADS))):
            yield upload

    async def list_objects(self, prefix: str = "") -> AsyncGenerator[ListedObject, None]:
        """Yield objects, in the order of the folders."""
        await self._in_thread(self._ready)
        walk = self._walk(prefix)
        while page := await self._in_thread(lambda: list(itertools.islice(walk, LISTED_AT_ONCE))):
            for one in page:
                yield one

    async def delete(self, keys: Collection[str]) -> None:
        """Remove objects, and folders that are empty then."""
        await self._in_thread(self._delete, [self.path(key) for key in keys])

    async def refresh(self, key: str) -> None:
        """Set the time of the file."""
        path = self.path(key)

        def touch() -> None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(path)

        await self._in_thread(touch)

    async def copy(self, key: str, to: str) -> None:
        """Copy a file; the disk shares what it can."""
        await self._in_thread(self._copy, key, self.path(key), to, self.path(to))

    def path(self, key: str) -> Path:
        """Return the file of `key`, which is always beneath the folder.

        Raises:
            InvalidKeyError: when the key would lead elsewhere.
        """
        _check(key)
        return self.root / key

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

    def _upload(self, upload_id: str) -> Path:
        check_key(upload_id)
        if "/" in upload_id:
            raise InvalidKeyError(f"upload {upload_id!r} is no name of a folder")
        return self.root / UPLOADS / upload_id

    def _begin_upload(self, key: str, upload_id: str, whole: PartedObject) -> None:
        self._ready()
        folder = self._upload(upload_id)
        folder.mkdir(parents=True)
        with (folder / _DATA).open("xb") as file:
            file.truncate(whole.size_bytes)
            os.fsync(file.fileno())
        # Written last: what has no key is no upload.
        with (folder / _KEY).open("x", encoding="utf-8") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        sync_folder(folder.parent)

    def _found_upload(self, key: str, act: Callable[[], T]) -> T:
        try:
            return act()
        except FileNotFoundError:
            self._ready()
            raise UploadMissingError(key) from None

    def _complete(self, key: str, upload: Path, path: Path, whole: PartedObject) -> None:
        self._ready()
        data = upload / _DATA
        with contextlib.suppress(OSError):
            os.setxattr(data, SHA256_ATTRIBUTE, whole.sha256.encode())
        try:
            with self._placing:
                made = _make_folders(path.parent)
                self._found_upload(key, lambda: data.replace(path))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self._ready()
            raise self._in_the_way(key) from None
        for folder in made:
            sync_folder(folder)
        _remove_upload(upload)

    def _walk(self, prefix: str) -> Iterator[ListedObject]:
        """Go through the folders that may hold keys with this beginning."""
        begin = prefix.rpartition("/")[0]
        waiting = [self.root / begin if begin else self.root]
        while waiting:
            folder = waiting.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                key = os.path.relpath(entry.path, self.root)
                if key in {INCOMING, UPLOADS} or not (
                    key.startswith(prefix) or prefix.startswith(f"{key}/")
                ):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):
                        seen = entry.stat(follow_symlinks=False)
                        yield ListedObject(key, seen.st_size, seen.st_mtime)

    def _delete(self, paths: list[Path]) -> None:
        self._ready()
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
            with self._placing:  # or a folder would go between its making and its first file
                for folder in path.parents:
                    if folder == self.root:
                        break
                    try:
                        folder.rmdir()
                    except OSError:
                        break

    def _copy(self, key: str, source: Path, to: str, target: Path) -> None:
        incoming = self._begin()
        try:
            with self._found(key, lambda: source.open("rb", buffering=0)) as file:
                while chunk := file.read(CHUNK_BYTES):
                    incoming.write(chunk)
            self._place(to, incoming, target)
        finally:
            incoming.discard()

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

    def _put(self, objects: Sequence[SmallObject], *, if_absent: bool) -> Sequence[PutOutcome]:
        self._ready()  # or it would not be known yet whether there are links
        root = str(self.root)
        batch = FileBatch(
            root,
            f"{root}/{INCOMING}",
            self.new_id,
            links=self.conditional_put,
            ready=self._ready,
            placing=self._placing,
        )
        try:
            return batch.put(objects, if_absent=if_absent)
        except InTheWayError as error:
            self._ready()  # or it is the archive itself that is no folder any more
            raise self._in_the_way(error.key) from None

    def _place(self, key: str, incoming: "_Incoming", path: Path) -> None:
        incoming.finish()
        self._ready()  # or the folders above the object would be made where the archive was
        try:
            with self._placing:
                made = _make_folders(path.parent)
                incoming.path.replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self._ready()  # or it is the archive itself that is no folder any more
            raise self._in_the_way(key) from None
        for folder in made:
            sync_folder(folder)

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
                os.setxattr(self._file.fileno(), SHA256_ATTRIBUTE, self.sha256().encode())
            os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Close the file and remove what of it is still here; harmless after a rename."""
        with self._lock:
            # Where the folder is away, it is cleared when it is opened the next time.
            with contextlib.suppress(OSError):
                self.path.unlink()
            with contextlib.suppress(OSError):
                self._file.close()


_DATA = "data"
_KEY = "key"
_PART = "part-"


class _Part:
    """One part that is being written into the file of its upload.

    A note with its hash says that it is on disk. It is taken away before the part is written again.
    """

    def __init__(self, upload: Path, put: SignedPut, part: SignedPart) -> None:
        self._put = put
        self._note = upload / f"{_PART}{part.number}"
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._at = part.offset
        self._file = (upload / _DATA).open("r+b", buffering=0)
        try:
            # One that is there already stays as it is: the same bytes come again.
            self._kept = self._note.read_text() == put.sha256
        except FileNotFoundError:
            self._kept = False
        if not self._kept:
            self._note.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        with self._lock:
            self._digest.update(data)
            view = memoryview(data)
            while view and not self._kept:
                written = os.pwrite(self._file.fileno(), view, self._at)
                self._at += written
                view = view[written:]

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        with self._lock:
            if self._kept:
                return
            os.fsync(self._file.fileno())
            with self._note.open("w") as note:
                note.write(self._put.sha256)
                note.flush()
                os.fsync(note.fileno())
            sync_folder(self._note.parent)

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._file.close()


def _noted(upload: Path) -> dict[int, str]:
    """Return the hashes of the parts that are on disk, by their numbers."""
    notes = [one for one in upload.iterdir() if one.name.startswith(_PART)]
    return {int(one.name.removeprefix(_PART)): one.read_text() for one in notes}


def _uploads(folder: Path) -> Iterator[UnfinishedUpload]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for one in entries:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            begun = one.stat().st_mtime
            try:
                key = (one / _KEY).read_text(encoding="utf-8")
            except FileNotFoundError:
                key = UPLOADS  # it was being made or removed as its process ended
            yield UnfinishedUpload(key, one.name, begun)


def _remove_upload(upload: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Without its key it is no upload any more, however far this gets.
        for one in sorted(upload.iterdir(), key=lambda path: path.name != _KEY):
            one.unlink(missing_ok=True)
        upload.rmdir()


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


def _check(key: str) -> None:
    """Raise `InvalidKeyError` for a key that leads nowhere, or elsewhere than to objects."""
    segment = check_key(key).partition("/")[0]
    if segment in {INCOMING, UPLOADS}:
        raise InvalidKeyError(f"key {key!r}: {segment} is where files are being written")


def _info(key: str, path: Path) -> ObjectInfo | None:
    try:
        if not path.is_file():
            return None
        seen = path.stat()
    except FileNotFoundError:
        return None
    try:
        sha256 = os.getxattr(path, SHA256_ATTRIBUTE).decode()
    except OSError:
        sha256 = ""
    return ObjectInfo(key, seen.st_size, sha256, seen.st_mtime)
