"""Storing artifacts under the addresses that the controller granted, for as long as it takes.

The agent holds no keys: an address is presigned and carries its own right to one PUT.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import KW_ONLY, dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Final

from edge_agent.tree import open_plain
from edge_agent.web_sessions import WebSessions
from services.runtime.log import fields
from shoal.backoff import Backoff
from shoal.model import Artifact
from shoal.session.uploads import UploadGrant
from shoal.tls import ClientTls

LOG = logging.getLogger(__name__)

_PARALLEL: Final = 4
"""How many uploads of this node run at the same time."""
_CHUNK_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 64 << 10
"""What a slow link takes within the deadline."""
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


class GrantRefusedError(Exception):
    """The store does not take what is sent to this address; a new address may help."""


@dataclass(eq=False)
class Uploader:
    """Stores files, a few at a time, trying again while the store is away.

    Args:
        web: open client sessions; their owner closes them.
        chance: draws from [0, 1) for the jitter between tries.
        tls: says which authorities are believed.
    """

    web: WebSessions
    _: KW_ONLY
    chance: Callable[[], float]
    tls: ClientTls = field(default_factory=ClientTls)
    backoff: Backoff = Backoff(0.2, 10.0)  # noqa: RUF009 - frozen and slotted, as any value
    stall_seconds: float = 60.0
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PARALLEL))

    async def store(
        self,
        path: Path,
        artifact: Artifact,
        grant: UploadGrant,
        waiting: Callable[[str], None] = lambda _: None,
    ) -> Artifact:
        """Store one file and return the artifact with its key.

        Args:
            path: the file.
            artifact: what it is called, its size and its hash.
            grant: where it may be put.
            waiting: is told why it has to be tried again.

        Raises:
            GrantRefusedError: the store answered, and not with success.
            OSError: the file cannot be read, or is no plain file any more.
        """
        failures = 0
        while True:
            async with self._slots:
                descriptor = await asyncio.to_thread(open_plain, path)
                with os.fdopen(descriptor, "rb", buffering=0) as file:
                    trouble = await self._put(file, artifact, grant)
            if not trouble:
                return Artifact(artifact.path, artifact.size_bytes, artifact.sha256, grant.key)
            failures += 1
            LOG.warning(
                "the store is away, the upload is tried again",
                extra=fields(key=grant.key, failures=failures, error=trouble),
            )
            delay = self.backoff.delay_seconds(failures, self.chance())
            waiting(
                f"{artifact.path!r} waits for the archive: {trouble}; tried {failures} times, again in "
                f"{delay:.0f} s, until the archive has taken it"
            )
            await asyncio.sleep(delay)

    async def _put(self, file: RawIOBase, artifact: Artifact, grant: UploadGrant) -> str:
        """Try once; return what was wrong if it is worth another try, or nothing."""
        session = await self.web.toward(grant.url)
        import aiohttp  # noqa: PLC0415 - see WebSessions
        from yarl import URL  # noqa: PLC0415

        headers = {**grant.headers, "Content-Length": str(artifact.size_bytes)}
        try:
            # One deadline, moved on by each piece that the network took: no matter how large a file
            # is, a store that takes nothing more, or says nothing at the end, is given up.
            async with asyncio.timeout(self.stall_seconds) as stalled:
                async with session.put(
                    # As it was signed: another spelling of the same key has another signature.
                    URL(grant.url, encoded=True),
                    data=self._pieces(file, artifact.size_bytes, stalled)
                    if artifact.size_bytes
                    else b"",
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
        raise GrantRefusedError(f"{grant.key}: {said}")

    async def _pieces(
        self, file: RawIOBase, size_bytes: int, stalled: asyncio.Timeout
    ) -> AsyncIterator[bytes]:
        """Yield what was measured and no more: a program may still be writing to the file."""
        loop = asyncio.get_running_loop()
        left = size_bytes
        while left and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            for begin in range(0, len(chunk), _PIECE_BYTES):
                yield chunk[begin : begin + _PIECE_BYTES]
                if not stalled.expired():
                    stalled.reschedule(loop.time() + self.stall_seconds)
