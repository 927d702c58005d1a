"""An object store in memory: all or nothing, conditional, presigned, and now and then away.

What was put is durable once the put returns; one that fails has either been stored or not, as with
an S3 whose answer was lost.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote, unquote

from services.archive.object_store import (
    ArchiveUnavailableError,
    ObjectDigestError,
    ObjectInfo,
    ObjectMissingError,
    PresignedPut,
    PutOutcome,
)

PUT_SECONDS = 0.02
SCHEME = "memory://"


class ExpiredError(Exception):
    """A presigned address is no longer good."""


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

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object."""
        await self._answer(key)
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), _sha256(data))

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
        await self.put(key, data)

    def _put(self, key: str, data: bytes, *, if_absent: bool) -> PutOutcome:
        if if_absent and key in self.objects:
            return PutOutcome.EXISTS
        self.objects[key] = data
        self.stored(key, data, self.objects)
        return PutOutcome.STORED

    async def _answer(self, key: str) -> None:
        await asyncio.sleep(PUT_SECONDS * (0.5 + self.rng.random()))
        if self.away or self.rng.random() < self.errors:
            raise ArchiveUnavailableError(f"the archive does not answer about {key!r}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
