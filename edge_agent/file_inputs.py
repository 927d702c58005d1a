"""File inputs of attempts: fetched, checked, and kept for when there is no network.

An input with a hash is the same for every attempt, so it is kept by its hash. One without may change at
its source at any time, so each attempt fetches it; but an attempt that runs again here, because the
machine was down, is still that attempt, and gets what it had.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.content_cache import ContentCache
from edge_agent.download import Downloader
from shoal.spec import FileInput


class FileInputs:
    """Puts file inputs into the folders of attempts.

    Args:
        cache: keeps them.
        downloader: fetches those without a hash.
    """

    def __init__(self, cache: ContentCache, downloader: Downloader) -> None:
        self._cache = cache
        self._downloader = downloader

    async def place(
        self,
        file: FileInput,
        url: str,
        target: Path,
        folder: AttemptFolder,
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Put an input at `target`, inside the attempt's folder; `waiting` hears for what it waits.

        Raises:
            ChecksumError: what came is not what was asked for.
            FetchError: it cannot be fetched.
        """
        known = await asyncio.to_thread(read_fetched, folder)
        digest = file.sha256 or known.get(file.name, "")
        if file.sha256 or (digest and self._cache.has(digest)):
            await self._cache.take(digest, url, folder.input, file.path, waiting)
        else:
            fetched = await self._downloader.fetch(
                url, folder.input, what=file.path, waiting=waiting
            )
            await self._cache.keep(folder.input, fetched.sha256)
            await asyncio.to_thread(write_fetched, folder, {**known, file.name: fetched.sha256})
        await asyncio.to_thread(_move, folder.input, target)


def read_fetched(folder: AttemptFolder) -> Mapping[str, str]:
    """The SHA-256 of what came for an attempt, by the input's name; what cannot be read is nothing."""
    try:
        return cast("Mapping[str, str]", json.loads(folder.fetched.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def write_fetched(folder: AttemptFolder, fetched: Mapping[str, str]) -> None:
    """Remember what came for an attempt."""
    if not fetched:
        return
    unfinished = folder.fetched.with_suffix(".new")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(dict(fetched), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder.fetched)


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
