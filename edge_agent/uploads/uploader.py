"""Storing artifacts under the addresses that the controller granted, for as long as it takes.

The agent holds no keys: an address is presigned and carries its own right to one PUT.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from io import RawIOBase
from typing import Final

from edge_agent.tree import PlainFile
from edge_agent.uploads.upload_queue import UploadQueue, WaitingUpload
from edge_agent.uploads.upload_rate import UploadRate
from edge_agent.web_sessions import WebSessions
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.model import Artifact
from shoal.session.uploads import ArtifactParts, PartGrant, UploadGrant
from shoal.tls import ClientTls

LOG = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 10
"""What a slow link takes within the deadline."""
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


class GrantRefusedError(Exception):
    """The store does not take what is sent to this address; a new address may help."""


@dataclass(frozen=True, slots=True)
class _Put:
    """One request: what it is called, where it goes, and which bytes of a file it has."""

    path: str
    key: str
    url: str
    headers: dict[str, str]
    offset: int
    size_bytes: int
    part: bool
    salvaged: bool


@dataclass(eq=False)
class Uploader:
    """Stores files, a few at a time, trying again while the store is away.

    Args:
        web: open client sessions; their owner closes them.
        chance: draws from [0, 1) for the jitter between tries.
        tls: says which authorities are believed.
        rate: how fast all of them together may be.
    """

    web: WebSessions
    _: KW_ONLY
    chance: Callable[[], float]
    tls: ClientTls = field(default_factory=ClientTls)
    rate: UploadRate = field(default_factory=UploadRate)
    backoff: Backoff = Backoff(0.2, 10.0)  # noqa: RUF009 - frozen and slotted, as any value
    stall_seconds: float = 60.0
    _queue: UploadQueue = field(default_factory=UploadQueue)
    _turns: dict[int, asyncio.Event] = field(default_factory=dict[int, asyncio.Event])
    _asked: int = 0

    async def store(
        self,
        file: PlainFile,
        artifact: Artifact,
        grant: UploadGrant,
        waiting: Callable[[str], None] = lambda _: None,
        *,
        salvaged: bool = False,
    ) -> Artifact:
        """Store one file and return the artifact with its key.

        Args:
            file: what is stored.
            artifact: what it is called, its size and its hash.
            grant: where it may be put.
            waiting: is told why it has to be tried again.
            salvaged: whether it is of an attempt that did not succeed, and lets others go first.

        Raises:
            GrantRefusedError: the store answered, and not with success.
            OSError: the file cannot be read, or is no plain file any more.
        """
        put = _Put(
            artifact.path,
            grant.key,
            grant.url,
            dict(grant.headers),
            0,
            artifact.size_bytes,
            part=False,
            salvaged=salvaged,
        )
        await self._put_until_stored(file, put, waiting)
        return replace(artifact, key=grant.key)

    async def store_parts(
        self,
        file: PlainFile,
        artifact: Artifact,
        parts: ArtifactParts,
        grant: UploadGrant,
        waiting: Callable[[str], None] = lambda _: None,
        *,
        salvaged: bool = False,
    ) -> None:
        """Store the parts that were granted, one after the other: a cut costs one of them.

        Raises:
            GrantRefusedError: the store answered, and not with success.
            OSError: the file cannot be read, or is no plain file any more.
        """
        for part in grant.parts:
            offset = (part.number - 1) * parts.part_bytes
            size_bytes = min(parts.part_bytes, artifact.size_bytes - offset)
            if size_bytes <= 0:
                raise GrantRefusedError(f"{grant.key}: the file has no part {part.number}")
            put = _part(artifact, grant, part, offset, size_bytes, salvaged=salvaged)
            await self._put_until_stored(file, put, waiting)

    async def _put_until_stored(
        self, plain: PlainFile, put: _Put, waiting: Callable[[str], None]
    ) -> None:
        failures = 0
        while True:
            async with self._turn(put):
                descriptor = await asyncio.to_thread(plain.open)
                with os.fdopen(descriptor, "rb", buffering=0) as file:
                    file.seek(put.offset)
                    trouble = await self._put(file, put)
            if not trouble:
                return
            failures += 1
            LOG.warning(
                "the store is away, the upload is tried again",
                extra=fields(key=put.key, failures=failures, error=trouble),
            )
            delay = self.backoff.delay_seconds(failures, self.chance())
            waiting(
                f"{put.path!r} waits for the archive: {trouble}; tried {failures} times, again in "
                f"{delay:.0f} s, until the archive has taken it"
            )
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def _turn(self, put: _Put) -> AsyncIterator[None]:
        """Wait until it is the turn of an upload, and let the next begin at its end."""
        clock = asyncio.get_running_loop().time
        self._asked += 1
        number, turn = self._asked, asyncio.Event()
        self._turns[number] = turn
        self._queue.add(WaitingUpload(number, put.size_bytes, put.part, put.salvaged, clock()))
        try:
            self._start(clock())
            # No deadline: those before it have theirs.
            await turn.wait()
            yield
        finally:
            del self._turns[number]
            self._queue.remove(number)
            self._start(clock())

    def _start(self, now: float) -> None:
        for number in self._queue.start(now):
            self._turns[number].set()

    async def _put(self, file: RawIOBase, put: _Put) -> str:
        """Try once; return what was wrong if it is worth another try, or nothing."""
        session = await self.web.toward(put.url)
        import aiohttp  # noqa: PLC0415 - see WebSessions
        from yarl import URL  # noqa: PLC0415

        headers = {**put.headers, "Content-Length": str(put.size_bytes)}
        try:
            # One deadline, moved on by each piece that the network took: no matter how large a file
            # is, a store that takes nothing more, or says nothing at the end, is given up.
            async with asyncio.timeout(self.stall_seconds) as stalled:
                async with session.put(
                    # As it was signed: another spelling of the same key has another signature.
                    URL(put.url, encoded=True),
                    data=self._pieces(file, put.size_bytes, stalled) if put.size_bytes else b"",
                    headers=headers,
                    skip_auto_headers=("Content-Type",),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
                    allow_redirects=False,
                    ssl=self.tls.context(),
                ) as response:
                    if response.status in {200, 201, 204}:
                        return ""
                    words = (await response.content.read(500)).decode("utf-8", "replace")
                    said = f"status {response.status}: {' '.join(words.split())}"
        except TimeoutError:
            return f"it took nothing for {self.stall_seconds:g} s"
        except (aiohttp.ClientError, ConnectionError) as error:
            return str(error) or type(error).__name__
        if response.status in _TRANSIENT:
            return said
        raise GrantRefusedError(f"{put.key}: {said}")

    async def _pieces(
        self, file: RawIOBase, size_bytes: int, stalled: asyncio.Timeout
    ) -> AsyncIterator[bytes]:
        """Yield what was measured and no more: a program may still be writing to the file."""
        loop = asyncio.get_running_loop()
        left = size_bytes
        piece_bytes = self.rate.piece_bytes(_PIECE_BYTES)
        while left and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            for begin in range(0, len(chunk), piece_bytes):
                piece = chunk[begin : begin + piece_bytes]
                delay = self.rate.delay_seconds(len(piece), loop.time())
                if delay:
                    await asyncio.sleep(delay)
                    if not stalled.expired():  # our own rate is no silence of the store
                        stalled.reschedule(loop.time() + self.stall_seconds)
                yield piece
                if not stalled.expired():
                    stalled.reschedule(loop.time() + self.stall_seconds)


def _part(
    artifact: Artifact,
    grant: UploadGrant,
    part: PartGrant,
    offset: int,
    size_bytes: int,
    *,
    salvaged: bool,
) -> _Put:
    return _Put(
        f"{artifact.path} (part {part.number})",
        grant.key,
        part.url,
        dict(part.headers),
        offset,
        size_bytes,
        part=True,
        salvaged=salvaged,
    )
