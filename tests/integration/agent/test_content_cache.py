"""What is kept of fetched files: by content, within a limit, and never at the cost of the job's own."""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from edge_agent.attempt_folder import AttemptFolder
from edge_agent.content_cache import ContentCache
from edge_agent.download import Downloader
from edge_agent.file_inputs import FileInputs
from edge_agent.long_work import LongWork
from edge_agent.web_sessions import WebSessions
from shoal.spec import FileInput
from tests.kit.object_server import ObjectServer

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@asynccontextmanager
async def opened(folder: Path, bytes_max: int) -> AsyncIterator[tuple[ObjectServer, ContentCache]]:
    async with (
        ObjectServer() as server,
        aiohttp.ClientSession() as client,
        LongWork(time.monotonic) as work,
    ):
        downloader = Downloader(WebSessions(client, client), chance=lambda: 0.5)
        cache = ContentCache(folder / "i", downloader, work, what="input", bytes_max=bytes_max)
        yield server, cache


async def test_a_content_is_fetched_once_and_handed_over_as_a_copy(tmp_path: Path) -> None:
    async with opened(tmp_path, 10 * MIB) as (server, cache):
        digest, url = server.add(b"x" * MIB)
        places = [tmp_path / f"out-{number}" for number in range(5)]
        await asyncio.gather(*(cache.take(digest, url, place) for place in places))
        assert server.gets == 1
        places[0].write_bytes(b"changed")
        await cache.take(digest, "http://127.0.0.1:9/", places[0])
        assert {place.read_bytes() for place in places} == {b"x" * MIB}


async def test_the_oldest_go_first_and_what_is_larger_than_the_limit_is_not_kept(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, 3 * MIB) as (server, cache):
        contents = [bytes([number]) * MIB for number in range(4)]
        for number, content in enumerate((*contents, b"y" * 4 * MIB)):
            digest, url = server.add(content)
            await cache.take(digest, url, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == content
            kept = tmp_path / "i/sha256" / digest
            if kept.exists():
                os.utime(kept, (number, number))
        here = {hashlib.sha256(content).hexdigest() for content in contents[1:]}
        assert set(cache.digests()) == here


async def test_where_the_disk_has_no_room_for_two_the_job_gets_the_only_one(
    small_disk: Path,
) -> None:
    """A board with a file as large as half of its disk runs as it did without a cache."""
    async with opened(small_disk, 100 * MIB) as (server, cache):
        data = os.urandom(12 * MIB)
        digest, url = server.add(data)
        await cache.take(digest, url, small_disk / "out")
        assert (small_disk / "out").read_bytes() == data
        assert cache.digests() == ()
        # One without a hash is merely not kept.
        (small_disk / "out").unlink()
        folder = AttemptFolder(small_disk / "attempt")
        folder.work.mkdir(parents=True)
        async with aiohttp.ClientSession() as client:
            inputs = FileInputs(cache, Downloader(WebSessions(client, client), chance=lambda: 0.5))
            target = folder.work / ("n" * 255)  # K8
            await inputs.place(FileInput("m", "k", target.name), url, target, folder)
        assert target.read_bytes() == data
        assert cache.digests() == ()
