"""Files on this node, kept by the SHA-256 of their content, the oldest unused go first.

Bundles are lent out. File inputs are handed over, since jobs may write to what they get: as a copy
where the disk has room for two, else the kept one itself.
"""

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from edge_agent.bundles.local_pieces import PieceLists
from edge_agent.download import ChecksumError, Downloader
from edge_agent.file_copy import copy_file
from edge_agent.long_work import LongWork, Steps
from edge_agent.tree import children
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

_TRIES: Final = 2
_FREE_SHARE: Final = 10
"""A copy is made only where it leaves one part in so many of the file system free."""


class ContentCache:
    """Fetches contents once, and lends them out or hands them over.

    Args:
        folder: where they are kept, as `sha256/DIGEST`.
        downloader: how they are fetched.
        work: copies them.
        what: what one of them is called, such as `bundle`.
        bytes_max: how much may be kept; what is lent out is kept beyond it.
    """

    def __init__(
        self, folder: Path, downloader: Downloader, work: LongWork, *, what: str, bytes_max: int
    ) -> None:
        self._work = work
        self._what = what
        self._folder = folder / "sha256"
        self._downloader = downloader
        self._lists = PieceLists(self._folder, downloader)
        self._bytes_max = bytes_max
        # One at a time for a digest; a lock goes with the last one that holds it or waits for it.
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        self._lent: dict[str, int] = {}
        self._pinned: frozenset[str] = frozenset()
        self._here: tuple[str, ...] | None = None
        # No less than what is here; counted again where that may be too much. None before the first time.
        self._bytes_at_most: int | None = None

    def digests(self) -> tuple[str, ...]:
        """Everything that is here."""
        if self._here is None:
            self._here = tuple(path.name for path in children(self._folder) if not path.suffix)
        return self._here

    def pin(self, digests: Collection[str]) -> None:
        """Let these go last, where not all can be kept; those that were pinned before no more."""
        self._pinned = frozenset(digests)

    def has_room(self) -> bool:
        """Whether the disk has room for more than what is needed at once."""
        place = next(one for one in (self._folder, *self._folder.parents) if one.exists())
        disk = shutil.disk_usage(place)
        return disk.free >= disk.total // _FREE_SHARE

    @contextlib.asynccontextmanager
    async def borrow(
        self,
        digest: str,
        url: str,
        name: str = "",
        waiting: Callable[[str], None] = lambda _: None,
        *,
        pieces_url: str = "",
    ) -> AsyncIterator[Path]:
        """Lend a file out; it is fetched if it is not here, by one of the tasks that want it.

        Args:
            digest: its SHA-256 in hex.
            url: where it is.
            name: what people call it; its digest otherwise.
            waiting: hears for what it waits.
            pieces_url: where the list of its pieces is, by which what others here have is not fetched.

        Raises:
            ChecksumError: what came is not what was asked for.
            FetchError: it cannot be fetched.
        """
        self._lent[digest] = self._lent.get(digest, 0) + 1
        try:
            path = self._folder / digest
            if not _is_here(path):
                what = name or f"{self._what} {digest[:12]}"
                waiting(f"{what} is being fetched for another attempt here, until that one has it")
                async with self._locks.setdefault(digest, asyncio.Lock()):
                    await self._fetch(digest, url, path, what, waiting, pieces_url)
            os.utime(path)
            yield path
        finally:
            self._lent[digest] -= 1
            if not self._lent[digest]:
                del self._lent[digest]

    def has(self, digest: str) -> bool:
        """Whether it is here."""
        return _is_here(self._folder / digest)

    async def take(
        self,
        digest: str,
        url: str,
        target: Path,
        name: str = "",
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Put a content at `target`, on the same file system, where its reader may change it.

        `name` and `waiting` are those of `borrow`.

        Raises:
            ChecksumError: what came, or what lies here, is not what was asked for.
            FetchError: it cannot be fetched.
        """
        for _ in range(_TRIES):
            async with self.borrow(digest, url, name, waiting) as kept:
                if self._lent[digest] == 1 and not self._has_room(kept):
                    kept.replace(target)
                    self._here = None
                    return
                if await self._work.run(copy_file(kept, target)) == digest:
                    return
                LOG.warning("damaged on the disk", extra=fields(what=self._what, digest=digest))
                kept.unlink(missing_ok=True)
                self._here = None
        raise ChecksumError(
            f"the {self._what} {digest} was damaged on this node's disk {_TRIES} times: see to the disk"
        )

    async def keep(self, path: Path, digest: str) -> None:
        """Keep a copy of a file with this content, if there is room for one."""
        async with self._locks.setdefault(digest, asyncio.Lock()):
            await self._work.run(self._keep(path, digest))

    def _keep(self, path: Path, digest: str) -> Steps[None]:
        kept = self._folder / digest
        unfinished = self._folder / f"{digest}.copy"
        try:
            if not kept.exists() and self._has_room(path):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if (yield from copy_file(path, unfinished)) == digest:
                    unfinished.replace(kept)
                    self._here = None
                    self._grown(kept.stat().st_size)
        except OSError as error:
            # It was meant for another time; for this one the file is there.
            LOG.warning("not kept", extra=fields(what=self._what, digest=digest, error=error))
        finally:
            unfinished.unlink(missing_ok=True)

    def _has_room(self, path: Path) -> bool:
        size = path.stat().st_size
        disk = shutil.disk_usage(path)
        return size <= self._bytes_max and disk.free - size >= disk.total // _FREE_SHARE

    async def _fetch(
        self,
        digest: str,
        url: str,
        path: Path,
        name: str,
        waiting: Callable[[str], None],
        pieces_url: str,
    ) -> None:
        if _is_here(path):
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        here = await self._lists.find(digest, pieces_url, waiting) if pieces_url else None
        fetched = await self._downloader.fetch(
            url, path, sha256=digest, what=name, waiting=waiting, here=here
        )
        copied = 0 if here is None else here.copied
        said = fields(
            what=self._what, digest=digest, size_bytes=fetched.size_bytes, copied_bytes=copied
        )
        LOG.info("fetched", extra=said)
        await asyncio.to_thread(self._grown, fetched.size_bytes)
        self._here = None

    def _grown(self, size_bytes: int) -> None:
        """Let the oldest go where there may be too much; a folder input brings thousands of files."""
        if self._bytes_at_most is not None:
            self._bytes_at_most += size_bytes
            if self._bytes_at_most <= self._bytes_max:
                return
        self._evict()

    def _evict(self) -> None:
        kept = sorted(
            (
                (path.name in self._pinned, status.st_mtime, status.st_size, path)
                for path in self._folder.iterdir()
                if not path.suffix
                for status in (path.stat(),)
            ),
            reverse=True,
        )
        total = 0
        for _, _, size, path in kept:
            if size > self._bytes_max and path.name in self._lent:
                continue  # it does not stay, and is no reason for others to go
            total += size
            if total > self._bytes_max and path.name not in self._lent:
                path.unlink(missing_ok=True)
                total -= size
                said = fields(what=self._what, digest=path.name, size_bytes=size)
                LOG.info("evicted", extra=said)
        self._lists.forget({path.name for *_, path in kept if path.exists()} | set(self._lent))
        self._bytes_at_most = total


def _is_here(path: Path) -> bool:
    return path.exists()
