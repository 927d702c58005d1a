"""Folder inputs of attempts: the files that were found at the submission, and no others.

Rule: what is fetched is what was listed, or the attempt fails before any of its code runs. A file whose
hash is known is checked by it and kept by it. Of any other its store is asked for the very content that
was listed (`If-Match`), and what comes has to have its size, and its MD5 where the ETag is one.

A few files are fetched at a time. Their addresses are asked for as they are needed, a batch after the
other, since an address is good for a while only and a listing may be long.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.address_requests import Ask
from edge_agent.attempt_folder import AttemptFolder
from edge_agent.content_cache import ContentCache
from edge_agent.download import AddressRefusedError, Downloader, FetchError, Pin
from edge_agent.file_inputs import read_fetched, write_fetched
from shoal.folder_listing import FolderListing, ListedFile, ListingError
from shoal.limits import ADDRESSES_MAX
from shoal.placed_folder import PlacedFolder
from shoal.session.assignment import Assignment
from shoal.session.folder_files import FilesWanted

_AT_ONCE: Final = 8
_ADDRESSES_TRIED: Final = 3
_MEGABYTE: Final = 1_000_000


class FolderInputs:
    """Puts folder inputs into the folders of attempts.

    Args:
        cache: keeps listings and files.
        downloader: fetches files without a hash.
    """

    def __init__(self, cache: ContentCache, downloader: Downloader) -> None:
        self._cache = cache
        self._downloader = downloader

    async def listed(
        self, assignment: Assignment, waiting: Callable[[str], None] = lambda _: None
    ) -> dict[str, PlacedFolder]:
        """Return what was found for each folder input of a job, by its name.

        Raises:
            ChecksumError, FetchError: a list cannot be had.
        """
        placed: dict[str, PlacedFolder] = {}
        for folder in assignment.job.folders:
            digest = assignment.listings.get(folder.name, "")
            if not digest:
                raise FetchError(
                    f"the controller does not say what was found for the input {folder.name!r}"
                )
            url = assignment.file_urls.get(folder.name, "")
            what = f"the list of the input {folder.name!r}"
            async with self._cache.borrow(digest, url, what, waiting) as path:
                data = await asyncio.to_thread(path.read_bytes)
            try:
                listing = await asyncio.to_thread(FolderListing.decode, data)
            except ListingError as error:
                raise FetchError(f"{what}: {error}") from error
            placed[folder.name] = PlacedFolder(folder, listing)
        return placed

    async def place(
        self,
        assignment: Assignment,
        placed: PlacedFolder,
        folder: AttemptFolder,
        target: Callable[[str], Path],
        ask: Ask,
        waiting: Callable[[str], None],
    ) -> None:
        """Put the files of one input where the job finds them.

        Args:
            assignment: whose attempt.
            placed: the input, and what was found for it.
            folder: the folder of the attempt.
            target: where a path of the job's folder lies, which has to be inside of it.
            ask: asks for addresses.
            waiting: hears how far it is.

        Raises:
            ChecksumError: what came is not what was listed.
            FetchError: it cannot be had.
        """
        files = list(placed.places())
        fetching = _Fetching(
            self._cache,
            self._downloader,
            assignment,
            placed.folder.name,
            folder,
            target,
            ask,
            _Progress(len(files), placed.listing.size_bytes, waiting),
            dict(await asyncio.to_thread(read_fetched, folder)),
        )
        for first in range(0, len(files), ADDRESSES_MAX):
            await fetching.batch(first, files[first : first + ADDRESSES_MAX])


@dataclass(slots=True)
class _Progress:
    """How far the fetching of an input is, for people."""

    files: int
    size_bytes: int
    waiting: Callable[[str], None]
    done: int = 0
    bytes_done: int = 0
    on_the_way: dict[int, int] = field(default_factory=dict[int, int])

    def say(self, words: str = "") -> None:
        received = self.bytes_done + sum(self.on_the_way.values())
        now = min(self.done + 1, self.files)
        self.waiting(
            f"fetching {now} of {self.files} files, {received // _MEGABYTE} of "
            f"{-(-self.size_bytes // _MEGABYTE)} MB{f': {words}' if words else ''}"
        )

    def received(self, number: int, count: int) -> None:
        before = self.on_the_way.get(number, 0) // _MEGABYTE
        self.on_the_way[number] = count
        if count // _MEGABYTE != before:
            self.say()

    def finished(self, number: int, size_bytes: int) -> None:
        self.on_the_way.pop(number, None)
        self.done += 1
        self.bytes_done += size_bytes


@dataclass(slots=True)
class _Fetching:
    """One input on its way into the folder of one attempt."""

    cache: ContentCache
    downloader: Downloader
    assignment: Assignment
    name: str
    folder: AttemptFolder
    target: Callable[[str], Path]
    ask: Ask
    progress: _Progress
    fetched: dict[str, str]
    """The SHA-256 of what came for this attempt before, by the name of the input and its key."""

    async def batch(self, first: int, files: list[tuple[str, ListedFile]]) -> None:
        """Fetch some files, a few at a time."""
        known = len(self.fetched)
        urls: tuple[str, ...] = ("",) * len(files)
        if not all(self._is_here(file) for _, file in files):
            self.progress.say("waiting for the controller to say where files are")
            urls = await self.ask(self._wanted(first, len(files)))
        left = enumerate(zip(files, urls, strict=True), first)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(files))):
                group.create_task(self._each(left))
        if len(self.fetched) != known:
            await asyncio.to_thread(write_fetched, self.folder, self.fetched)

    async def _each(self, left: Iterator[tuple[int, tuple[tuple[str, ListedFile], str]]]) -> None:
        """Fetch one file after the other of what several of us share."""
        for number, ((place, file), url) in left:
            part = self.folder.path / f"input.{number}"
            self.progress.say(f"{file.key}")
            await self._fetch(number, file, url, part)
            await asyncio.to_thread(move, part, self.target(place))
            self.progress.finished(number, file.size_bytes)

    async def _fetch(self, number: int, file: ListedFile, url: str, part: Path) -> None:
        tried = 0
        while True:
            try:
                await self._fetch_from(number, file, url, part)
            except AddressRefusedError:
                # An address is good for a while, and others were fetched before.
                tried += 1
                if tried == _ADDRESSES_TRIED:
                    raise
                (url,) = await self.ask(self._wanted(number, 1))
            else:
                return

    async def _fetch_from(self, number: int, file: ListedFile, url: str, part: Path) -> None:
        digest = file.sha256 or self.fetched.get(self._key(file), "")
        if file.sha256 or (digest and self.cache.has(digest)):
            await self.cache.take(digest, url, part, file.key, self.progress.say)
            return
        fetched = await self.downloader.fetch(
            url,
            part,
            what=file.key,
            pin=Pin(file.size_bytes, file.etag),
            waiting=self.progress.say,
            received=lambda count: self.progress.received(number, count),
        )
        await self.cache.keep(part, fetched.sha256)
        self.fetched[self._key(file)] = fetched.sha256

    def _is_here(self, file: ListedFile) -> bool:
        digest = file.sha256 or self.fetched.get(self._key(file), "")
        return bool(digest) and self.cache.has(digest)

    def _key(self, file: ListedFile) -> str:
        return f"{self.name}/{file.key}"

    def _wanted(self, first: int, count: int) -> FilesWanted:
        return FilesWanted(self.assignment.ref, self.name, first, count)


def move(path: Path, target: Path) -> None:
    """Put a file in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
