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
from edge_agent.bundles.prefetch import Prefetch
from edge_agent.content_cache import ContentCache
from edge_agent.download import Downloader
from edge_agent.file_inputs import FileInputs
from edge_agent.long_work import LongWork
from edge_agent.web_sessions import WebSessions
from shoal.session.bundles import BundlesWanted, WantedBundle
from shoal.spec import FileInput
from tests.kit.object_server import ObjectServer
from tests.kit.until import until

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


async def test_what_is_pinned_goes_last(tmp_path: Path) -> None:
    async with opened(tmp_path, 3 * MIB) as (server, cache):
        contents = [bytes([number]) * MIB for number in range(5)]
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        cache.pin(digests[:1])
        for number, content in enumerate(contents):
            digest, url = server.add(content)
            async with cache.borrow(digest, url) as kept:
                os.utime(kept, (number, number))
        assert set(cache.digests()) == {digests[0], digests[3], digests[4]}
        cache.pin(())
        digest, url = server.add(b"y" * MIB)
        async with cache.borrow(digest, url):
            assert digests[0] not in cache.digests()


async def test_what_is_wanted_is_fetched_before_it_is_needed(tmp_path: Path) -> None:
    """F3."""
    async with opened(tmp_path, 3 * MIB) as (server, cache):
        contents = [bytes([number]) * MIB for number in range(3)]
        wanted = [WantedBundle(*server.add(content)) for content in contents]
        prefetch = Prefetch(cache, lambda: 0.0)
        running = asyncio.create_task(prefetch.run())
        # One of an earlier life of the agent has no address, and one that is not there holds up no other.
        prefetch.want(BundlesWanted((WantedBundle("0" * 64), *wanted[:2])))
        await until(lambda: len(cache.digests()) == 2)
        assert set(cache.digests()) == {one.digest for one in wanted[:2]}
        # What there is no room for is tried once.
        large = WantedBundle(*server.add(b"z" * 4 * MIB))
        prefetch.want(BundlesWanted((*wanted, large)))
        await until(lambda: len(cache.digests()) == 3 and server.gets == 4)
        prefetch.want(BundlesWanted(()))
        assert len(cache.digests()) == 3
        gone, late = WantedBundle("1" * 64, server.url("gone")), WantedBundle(*server.add(b"late"))
        prefetch.want(BundlesWanted((gone, late)))
        await until(lambda: late.digest in cache.digests())
        assert not running.done()
        running.cancel()


async def test_a_fetch_that_is_not_wanted_any_more_is_left(tmp_path: Path) -> None:
    async with opened(tmp_path, 9 * MIB) as (server, cache):
        server.away = True
        first, second = (WantedBundle(*server.add(bytes([number]) * MIB)) for number in range(2))
        prefetch = Prefetch(cache, lambda: 0.0)
        running = asyncio.create_task(prefetch.run())
        prefetch.want(BundlesWanted((first,)))
        await until(lambda: server.gets > 0)
        prefetch.want(BundlesWanted((second,)))
        server.away = False
        await until(lambda: cache.digests() == (second.digest,))
        running.cancel()
