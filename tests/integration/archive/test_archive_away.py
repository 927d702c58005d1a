"""R9: a folder that goes away, and comes back, while the archive is open."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from services.archive.directory_store import INCOMING, DirectoryStore
from services.archive.object_store import (
    ArchiveFullError,
    ArchiveUnavailableError,
    ObjectMissingError,
    PutOutcome,
)
from services.archive.opening import OpenArchive
from tests.kit.archive import served_archive
from tests.kit.small_disk import SmallDisk, small_disk

DATA = b"x" * 200_000


def opening(folder: Path) -> AbstractAsyncContextManager[OpenArchive]:
    return served_archive(f"file://{folder}")


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenArchive]:
    async with opening(tmp_path / "archive") as archive:
        yield archive


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "1m") as mounted:
        yield mounted


async def put_status(archive: OpenArchive, key: str) -> int:
    """What the endpoint answers to a PUT of `DATA`."""
    put = await archive.store.presign_put(
        key,
        size_bytes=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        expires_seconds=60,
    )
    async with aiohttp.ClientSession() as http, http.put(put.url, data=DATA) as answer:
        return answer.status


async def get_status(archive: OpenArchive, key: str) -> int:
    """What the endpoint answers to a GET."""
    url = await archive.store.presign_get(key, expires_seconds=60)
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


async def pieces() -> AsyncIterator[bytes]:
    """A stream of `DATA`."""
    yield DATA


async def test_r9_a_missing_folder_of_incoming_files_is_made_again(
    opened: OpenArchive, tmp_path: Path
) -> None:
    await opened.store.put("a/first", DATA)
    (tmp_path / "archive" / INCOMING).rmdir()
    assert await opened.store.put("a/second", DATA) is PutOutcome.STORED
    (tmp_path / "archive" / INCOMING).rmdir()
    await opened.store.put_stream("a/third", pieces())
    (tmp_path / "archive" / INCOMING).rmdir()
    assert await put_status(opened, "a/fourth") == 200
    (tmp_path / "archive" / INCOMING).rmdir()
    assert await opened.store.head("a/nothing") is None
    assert await opened.store.get("a/fourth") == DATA


async def test_r9_a_folder_that_was_moved_is_away_and_back(
    opened: OpenArchive, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    await opened.store.put("a/b", DATA)
    folder.rename(elsewhere)
    for call in (
        opened.store.put("a/c", DATA),
        opened.store.put("a/c", DATA, if_absent=True),
        opened.store.put_stream("a/c", pieces()),
        opened.store.get("a/b"),
        opened.store.head("a/b"),
    ):
        with pytest.raises(ArchiveUnavailableError, match="is away"):
            await call
    # A 404 would be believed, and would fail a job for good.
    assert await get_status(opened, "a/b") == 503
    assert await put_status(opened, "a/c") == 503
    assert not folder.exists(), "nothing is written where the archive was"
    elsewhere.rename(folder)
    assert await get_status(opened, "a/b") == 200
    assert await put_status(opened, "a/c") == 200
    with pytest.raises(ObjectMissingError):
        await opened.store.get("a/d")


async def test_r9_nothing_is_written_below_the_place_of_an_unmounted_disk(disk: SmallDisk) -> None:
    async with opening(disk.path) as archive:
        await archive.store.put("a/b", DATA)
        disk.unmount()
        with pytest.raises(ArchiveUnavailableError, match="another file system"):
            await archive.store.put("a/c", DATA)
        with pytest.raises(ArchiveUnavailableError, match="another file system"):
            await archive.store.get("a/b")
        assert list(disk.path.iterdir()) == []


async def test_r9_a_full_or_read_only_disk_is_waited_for(disk: SmallDisk) -> None:
    async with opening(disk.path / "archive") as archive:
        await archive.store.put("a/b", DATA)
        disk.fill()
        with pytest.raises(ArchiveFullError, match=r"is full: .*No space left"):
            await archive.store.put("a/c", DATA)
        assert await put_status(archive, "a/c") == 507
        assert list((disk.path / "archive" / INCOMING).iterdir()) == []
        disk.empty()
        assert await put_status(archive, "a/c") == 200
        disk.remount("ro")
        with pytest.raises(ArchiveUnavailableError, match=r"is away: .*Read-only"):
            await archive.store.put("a/d", DATA)
        assert await put_status(archive, "a/d") == 503
        assert await get_status(archive, "a/b") == 200
        disk.remount("rw")
        assert await put_status(archive, "a/d") == 200
    disk.remount("ro")
    async with opening(disk.path / "archive") as archive:
        assert await get_status(archive, "a/b") == 200
        disk.remount("rw")
        assert await archive.store.put("a/e", b"x", if_absent=True) is PutOutcome.STORED
        assert isinstance(archive.store, DirectoryStore)
        assert archive.store.conditional_put
