"""Storing artifacts under the addresses that the controller granted, for as long as it takes.

The agent holds no keys: an address is presigned and carries its own right to one PUT.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import aiohttp

from edge_agent.assignment import UploadGrant
from services.runtime.backoff import Backoff
from services.runtime.log import fields
from shoal.model import Artifact

LOG = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 20
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


class GrantRefusedError(Exception):
    """The store does not take what is sent to this address; a new address may help."""


class Uploader:
    """Stores files, a few at a time, trying again while the store is away.

    Args:
        client: an open client session; its owner closes it.
        chance: draws from [0, 1) for the jitter between tries.
        parallel: how many uploads of this node run at the same time.
    """

    def __init__(
        self,
        client: aiohttp.ClientSession,
        *,
        chance: Callable[[], float],
        backoff: Backoff | None = None,
        parallel: int = 4,
        stall_seconds: float = 60.0,
    ) -> None:
        self._client = client
        self._chance = chance
        self._backoff = backoff or Backoff(0.2, 10.0)
        self._slots = asyncio.Semaphore(parallel)
        self._stall_seconds = stall_seconds

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
            OSError: the file cannot be read.
        """
        failures = 0
        while True:
            async with self._slots:
                trouble = await self._put(path, artifact, grant)
            if not trouble:
                return Artifact(artifact.path, artifact.size_bytes, artifact.sha256, grant.key)
            failures += 1
            LOG.warning(
                "the store is away, the upload is tried again",
                extra=fields(key=grant.key, failures=failures, error=trouble),
            )
            waiting(f"{artifact.path} waits for the archive: {trouble}")
            await asyncio.sleep(self._backoff.delay_seconds(failures, self._chance()))

    async def _put(self, path: Path, artifact: Artifact, grant: UploadGrant) -> str:
        """Try once; return what was wrong if it is worth another try, or nothing."""
        headers = {**grant.headers, "Content-Length": str(artifact.size_bytes)}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=10.0, sock_read=self._stall_seconds
        )
        try:
            async with self._client.put(
                grant.url,
                data=_chunks(path) if artifact.size_bytes else b"",
                headers=headers,
                skip_auto_headers=("Content-Type",),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status in {200, 201, 204}:
                    return ""
                words = (await response.content.read(500)).decode("utf-8", "replace")
                said = f"status {response.status}: {' '.join(words.split())}"
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return str(error) or type(error).__name__
        if response.status in _TRANSIENT:
            return said
        raise GrantRefusedError(f"{grant.key}: {said}")


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
