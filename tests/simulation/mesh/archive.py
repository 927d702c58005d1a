"""An object store in memory: all or nothing, conditional, presigned, and now and then away.

What was put is durable once the put returns; one that fails has either been stored or not, as with
an S3 whose answer was lost.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote, unquote

from services.archive.object_store import (
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

PUT_SECONDS = 0.02
SCHEME = "memory://"


class ExpiredError(Exception):
    """A presigned address is no longer good."""


@dataclass(slots=True)
class _Upload:
    key: str
    begin_time: float
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])


@dataclass(eq=False)
class MemoryArchive:
    """An `ObjectStore`.

    Args:
        rng: decides what fails.
        stored: is told of every object as it is stored.
    """

    rng: Random
    stored: Callable[[str, bytes, dict[str, bytes]], None] = lambda _key, _data, _all: None
    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    times: dict[str, float] = field(default_factory=dict[str, float])
    """When each object was stored."""
    uploads: dict[str, _Upload] = field(default_factory=dict[str, _Upload])
    away: bool = False
    errors: float = 0.0
    """Which part of all requests fails, from 0 to 1."""

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> PutOutcome:
        """Store `data`."""
        await self._answer(key)
        lost = self.rng.random() < self.errors
        outcome = self._put(key, data, if_absent=if_absent)
        if lost:
            raise ArchiveUnavailableError(f"the answer about {key!r} was lost")
        return outcome

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """Store objects, as a server does that is asked for each."""
        return [await self.put(one.key, one.data, if_absent=if_absent) for one in objects]

    async def put_stream(
        self, key: str, chunks: AsyncIterator[bytes], *, sha256: str = ""
    ) -> ObjectInfo:
        """Store what `chunks` yields."""
        data = b"".join([chunk async for chunk in chunks])
        received = hashlib.sha256(data).hexdigest()
        if sha256 and sha256 != received:
            raise ObjectDigestError(key, announced=sha256, received=received)
        await self.put(key, data)
        return ObjectInfo(key, len(data), received)

    async def get(self, key: str) -> bytes:
        """Return the whole object."""
        await self._answer(key)
        if key not in self.objects:
            raise ObjectMissingError(key)
        return self.objects[key]

    async def read(self, key: str, *, offset: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield a part of an object."""
        yield (await self.get(key))[offset : offset + size_bytes]

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object."""
        await self._answer(key)
        data = self.objects.get(key)
        if data is None:
            return None
        return ObjectInfo(key, len(data), _sha256(data), self.times.get(key, 0.0))

    async def presign_put(
        self, key: str, *, size_bytes: int, sha256: str, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for one PUT of exactly this object."""
        expires = asyncio.get_running_loop().time() + expires_seconds
        url = f"{SCHEME}{quote(key)}?expires={expires:.3f}"
        return PresignedPut(url, {"size": str(size_bytes), "sha256": sha256})

    async def presign_get(self, key: str, *, expires_seconds: int) -> str:
        """Return an address for GETs."""
        expires = asyncio.get_running_loop().time() + expires_seconds
        return f"{SCHEME}{quote(key)}?expires={expires:.3f}"

    async def get_stream(self, key: str, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the object from byte `offset` on."""
        yield (await self.get(key))[offset:]

    async def begin_upload(self, key: str, whole: PartedObject) -> str:
        """Begin an upload in parts."""
        await self._answer(key)
        upload_id = f"{self.rng.getrandbits(64):016x}"
        self.uploads[upload_id] = _Upload(key, _now())
        return upload_id

    async def presign_part(
        self, key: str, upload_id: str, whole: PartedObject, number: int, *, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for one part."""
        put = await self.presign_put(
            key,
            size_bytes=whole.size(number),
            sha256=whole.part_hash(number),
            expires_seconds=expires_seconds,
        )
        return PresignedPut(put.url, {**put.headers, "upload": upload_id, "part": str(number)})

    async def stored_parts(self, key: str, upload_id: str, whole: PartedObject) -> Collection[int]:
        """Return the parts that are there and right."""
        await self._answer(key)
        parts = self._upload(key, upload_id).parts
        return [n for n, data in parts.items() if _sha256(data) == whole.part_hash(n)]

    async def complete_upload(self, key: str, upload_id: str, whole: PartedObject) -> None:
        """Let the parts become the object."""
        await self._answer(key)
        parts = self._upload(key, upload_id).parts
        if sorted(parts) != list(whole.numbers):
            raise ArchiveUnavailableError(f"not all parts of {key!r} are there")
        lost = self.rng.random() < self.errors
        self._put(key, b"".join(parts[number] for number in whole.numbers), if_absent=False)
        del self.uploads[upload_id]
        if lost:
            raise ArchiveUnavailableError(f"the answer about {key!r} was lost")

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up."""
        await self._answer(key)
        self.uploads.pop(upload_id, None)

    async def unfinished_uploads(self) -> AsyncGenerator[UnfinishedUpload, None]:
        """Yield every upload."""
        await self._answer("")
        for upload_id, upload in [*self.uploads.items()]:
            yield UnfinishedUpload(upload.key, upload_id, upload.begin_time)

    async def list_objects(self, prefix: str = "") -> AsyncGenerator[ListedObject, None]:
        """Yield every object."""
        await self._answer(prefix)
        for key, data in [*self.objects.items()]:
            if key.startswith(prefix):
                yield ListedObject(key, len(data), self.times.get(key, 0.0))

    async def delete(self, keys: Collection[str]) -> None:
        """Remove objects."""
        for key in keys:
            await self._answer(key)
            self.objects.pop(key, None)

    async def refresh(self, key: str) -> None:
        """Let an object be young again."""
        await self._answer(key)
        if key in self.objects:
            self.times[key] = _now()

    async def copy(self, key: str, to: str) -> None:
        """Store an object under another key as well."""
        await self.put(to, await self.get(key))

    async def upload(self, url: str, headers: dict[str, str], data: bytes) -> None:
        """Do what a board does with a presigned PUT.

        Raises:
            ExpiredError: the address is no longer good.
            ArchiveUnavailableError: the archive does not answer, and may yet have stored it.
            ObjectDigestError: the data are not what was signed.
        """
        path, _, expires = url.removeprefix(SCHEME).partition("?expires=")
        key = unquote(path)
        if float(expires) < asyncio.get_running_loop().time():
            raise ExpiredError(url)
        if headers["sha256"] != _sha256(data) or headers["size"] != str(len(data)):
            raise ObjectDigestError(key, announced=headers["sha256"], received=_sha256(data))
        if "upload" in headers:
            await self._answer(key)
            self._upload(key, headers["upload"]).parts[int(headers["part"])] = data
            return
        await self.put(key, data)

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadMissingError(key)
        return upload

    def _put(self, key: str, data: bytes, *, if_absent: bool) -> PutOutcome:
        if if_absent and key in self.objects:
            return PutOutcome.EXISTS
        self.objects[key] = data
        self.times[key] = _now()
        self.stored(key, data, self.objects)
        return PutOutcome.STORED

    async def _answer(self, key: str) -> None:
        await asyncio.sleep(PUT_SECONDS * (0.5 + self.rng.random()))
        if self.away or self.rng.random() < self.errors:
            raise ArchiveUnavailableError(f"the archive does not answer about {key!r}")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
