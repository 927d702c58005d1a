"""Bundles on this node, kept by the SHA-256 of their content, the oldest unused go first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from edge_agent.download import Downloader
from edge_agent.single_flight import SingleFlight
from services.runtime.log import fields

LOG = logging.getLogger(__name__)


class BundleCache:
    """Fetches bundles once and lends them out.

    Args:
        folder: where they are kept, as `sha256/DIGEST`.
        downloader: how they are fetched.
        bytes_max: how much may be kept; bundles that are lent out are kept beyond it.
    """

    def __init__(self, folder: Path, downloader: Downloader, *, bytes_max: int) -> None:
        self._folder = folder / "sha256"
        self._downloader = downloader
        self._bytes_max = bytes_max
        self._flights: SingleFlight[str, None] = SingleFlight()
        self._lent: dict[str, int] = {}

    def digests(self) -> tuple[str, ...]:
        """Every bundle that is here."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._folder.iterdir() if not path.suffix))

    @contextlib.asynccontextmanager
    async def borrow(self, digest: str, url: str) -> AsyncIterator[Path]:
        """Lend the archive out; it is fetched if it is not here, by one of those who want it.

        Raises:
            ChecksumError: what came is not the bundle.
            DownloadError: it cannot be fetched.
        """
        self._lent[digest] = self._lent.get(digest, 0) + 1
        try:
            path = self._folder / digest
            if not _is_here(path):
                await self._flights.do(digest, lambda: self._fetch(digest, url, path))
            os.utime(path)
            yield path
        finally:
            self._lent[digest] -= 1
            if not self._lent[digest]:
                del self._lent[digest]

    async def _fetch(self, digest: str, url: str, path: Path) -> None:
        if _is_here(path):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        fetched = await self._downloader.fetch(url, path, sha256=digest)
        LOG.info("bundle fetched", extra=fields(digest=digest, size_bytes=fetched.size_bytes))
        await asyncio.to_thread(self._evict)

    def _evict(self) -> None:
        kept = sorted(
            (
                (status.st_mtime, status.st_size, path)
                for path in self._folder.iterdir()
                if not path.suffix
                for status in (path.stat(),)
            ),
            reverse=True,
        )
        total = 0
        for _, size, path in kept:
            total += size
            if total > self._bytes_max and path.name not in self._lent:
                path.unlink(missing_ok=True)
                total -= size
                LOG.info("bundle evicted", extra=fields(digest=path.name, size_bytes=size))


def _is_here(path: Path) -> bool:
    return path.exists()
