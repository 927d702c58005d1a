"""What only a folder does: leftovers, its endpoint, and what it refuses."""

import asyncio
import hashlib
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from services.archive.directory_store import INCOMING, DirectoryStore
from services.archive.disk_sync import ONE_BY_ONE_MAX
from services.archive.file_batch import FILES_OPEN_MAX
from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveUnavailableError,
    ObjectMissingError,
    PutOutcome,
    SmallObject,
)
from services.archive.opening import OpenArchive
from services.archive.signature import PathSigner
from tests.kit.archive import served_archive
from tests.kit.power_cut import board_disk
from tests.kit.until import until

WRITER = """
import fcntl, signal, sys
file = open(sys.argv[1], "xb")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(b"x")
file.flush()
signal.pause()
"""
SECRET = b"0123456789abcdef"


def directory_store(folder: Path) -> DirectoryStore:
    return DirectoryStore(
        folder,
        signer=PathSigner("http://127.0.0.1:1", SECRET),
        wall=time.time,
        new_id=lambda: secrets.token_hex(8),
    )


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[OpenArchive]:
    async with served_archive(f"file://{tmp_path}/archive") as archive:
        yield archive


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_leftovers_of_the_killed_go_and_files_of_the_living_stay(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    (folder / INCOMING).mkdir(parents=True)
    (folder / INCOMING / "leftover").write_bytes(b"half an obj")
    living = str(folder / INCOMING / "living")
    writing = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, living)
    try:
        await until(lambda: size(folder / INCOMING / "living") == 1, what="the other writer")
        async with directory_store(folder):
            assert [path.name for path in (folder / INCOMING).iterdir()] == ["living"]
    finally:
        writing.kill()
        await writing.wait()
    async with directory_store(folder):
        assert list((folder / INCOMING).iterdir()) == []


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


async def test_a_cancelled_stream_leaves_nothing(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(1000)
        entered.set()
        await asyncio.Event().wait()

    async with directory_store(tmp_path) as store:
        task = asyncio.create_task(store.put_stream("a/b", endless()))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not list((tmp_path / INCOMING).iterdir()), what="the file is gone")
        assert await store.head("a/b") is None


async def test_a_file_is_read_from_an_offset(tmp_path: Path) -> None:
    data = secrets.token_bytes(700_000)
    async with directory_store(tmp_path) as store:
        await store.put("ns/x", data)
        for offset in (0, 1, 699_999, 700_000, 800_000):
            read = b"".join([chunk async for chunk in store.get_stream("ns/x", offset=offset)])
            assert read == data[offset:]
        with pytest.raises(ObjectMissingError):
            [chunk async for chunk in store.get_stream("no/such", offset=3)]


async def test_a_key_beneath_another_is_refused(tmp_path: Path) -> None:
    async with directory_store(tmp_path) as store:
        await store.put("a/b", b"1")
        with pytest.raises(InvalidKeyError, match="beginning"):
            await store.put("a/b/c", b"2")
        with pytest.raises(InvalidKeyError, match="beginning"):
            await store.put("a", b"3")
        with pytest.raises(InvalidKeyError, match="being written"):
            await store.put(f"{INCOMING}/x", b"4")


@pytest.mark.parametrize("links", [True, False])
async def test_a_key_in_the_way_keeps_no_other_of_its_batch_out(
    tmp_path: Path, *, links: bool
) -> None:
    async with directory_store(tmp_path) as store:
        store.conditional_put = links
        await store.put("a/b", b"1")
        keys = [f"n/{n}" for n in range(FILES_OPEN_MAX + 1)]
        batch = [SmallObject(key, b"2") for key in ("a/b/c", "a", *keys)]
        for if_absent in (True, False):
            with pytest.raises(InvalidKeyError, match="a/b/c"):
                await store.put_many(batch, if_absent=if_absent)
        assert [await store.get(key) for key in ("a/b", keys[0], keys[-1])] == [b"1", b"2", b"2"]
        assert list((tmp_path / INCOMING).iterdir()) == []


async def test_of_two_objects_with_one_key_the_last_stays_or_the_first(tmp_path: Path) -> None:
    async with directory_store(tmp_path) as store:
        twice = [SmallObject("a/b", b"1"), SmallObject("a/b", b"2")]
        stored = [PutOutcome.STORED, PutOutcome.EXISTS]
        assert await store.put_many(twice, if_absent=True) == stored
        assert await store.get("a/b") == b"1"
        assert await store.put_many(twice) == [PutOutcome.STORED] * 2
        assert await store.get("a/b") == b"2"


@pytest.mark.parametrize("count", [1, ONE_BY_ONE_MAX + 1, FILES_OPEN_MAX + 1])
async def test_what_was_stored_together_is_there_after_a_loss_of_power(
    tmp_path: Path, count: int
) -> None:
    """On a disk that commits for nothing but a sync: whole objects under their names, in folders that were made."""
    folder = tmp_path / "disk"
    with board_disk(folder, tmp_path / "disk.img", "64M") as disk:
        async with directory_store(folder) as store:
            await store.put_many([SmallObject("there/already", b"x")], if_absent=True)
            disk.cut([])
            objects = [SmallObject(f"ns/p/{n}/j/o", b"%d" % n * 1000) for n in range(count)]
            assert await store.put_many(objects, if_absent=True) == [PutOutcome.STORED] * count
            # It does not know whether that is on the disk, and says that it is there.
            Path(folder / "by").mkdir()
            Path(folder / "by" / "another").write_bytes(b"")
            there = [SmallObject("by/another", b"")]
            assert await store.put_many(there, if_absent=True) == [PutOutcome.EXISTS]
            disk.cut([])
            for one in objects:
                assert await store.get(one.key) == one.data
            assert (await store.get("by/another"), await store.get("there/already")) == (b"", b"x")


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((ArchiveUnavailableError, OSError), match="file"):
        async with directory_store(tmp_path / "file" / "archive"):
            pass


async def test_the_endpoint_refuses_what_was_not_announced(opened: OpenArchive) -> None:
    data = b"hello"
    put = await opened.store.presign_put(
        "a/b", size_bytes=5, sha256=sha256(data), expires_seconds=60
    )

    async def sent(body: bytes) -> AsyncIterator[bytes]:
        yield body

    async with aiohttp.ClientSession() as http:
        for body in (b"hell", b"hello!", b"HELLO"):
            # With a Content-Length, and without one.
            async with http.put(put.url, data=body) as response:
                assert response.status == 400, body
            async with http.put(put.url, data=sent(body)) as response:
                assert response.status == 400, body
        assert await opened.store.head("a/b") is None
        async with http.put(put.url, data=sent(data)) as response:
            assert response.status == 200
        assert await opened.store.get("a/b") == data


async def test_the_endpoint_refuses_addresses_that_it_did_not_make(opened: OpenArchive) -> None:
    await opened.store.put("a/b", b"secret")
    get = await opened.store.presign_get("a/b", expires_seconds=60)
    expired = await opened.store.presign_get("a/b", expires_seconds=-1)
    base, _, query = get.partition("/objects/a/b")
    async with aiohttp.ClientSession() as http:
        for url in (
            f"{base}/objects/a/b",
            f"{base}/objects/a/c{query}",
            f"{get}&expires=9999999999",
            expired,
        ):
            async with http.get(url) as response:
                assert response.status == 403, url
        async with http.put(get, data=b"other") as response:
            assert response.status == 403
        async with http.get(await opened.store.presign_get("a/c", expires_seconds=60)) as response:
            assert response.status == 404
        async with http.head(get) as response:
            assert (response.status, response.headers["Content-Length"]) == (200, "6")
    assert await opened.store.get("a/b") == b"secret"


@pytest.mark.parametrize(
    "path",
    ["/objects/../../etc/passwd", "/objects/%2e%2e/%2e%2e/etc/passwd", "/objects/a/..%2f..%2fx"],
)
async def test_traversal_is_refused(opened: OpenArchive, path: str) -> None:
    host, _, port = opened.endpoint.rpartition(":")
    signer = PathSigner("http://x", SECRET)
    # Even with a good signature for such a key, which nobody gets.
    query = signer.get_url(path.removeprefix("/objects/"), 9_999_999_999).partition("?")[2]
    for asked in (path, f"{path}?{query}"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET {asked} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] in {b"403", b"404"}, answer[:200]


async def test_random_bytes_do_not_stop_the_endpoint(opened: OpenArchive) -> None:
    host, _, port = opened.endpoint.rpartition(":")
    for _ in range(20):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(secrets.token_bytes(2000))
        writer.close()
    await opened.store.put("a", b"x")
    url = await opened.store.presign_get("a", expires_seconds=60)
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert await response.read() == b"x"


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-0", 206, b"0"),
        ("bytes=2-", 206, b"23456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=10-", 416, b""),
        ("bytes=5-2", 416, b""),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
async def test_ranges(opened: OpenArchive, wanted: str, status: int, body: bytes) -> None:
    await opened.store.put("a", b"0123456789")
    url = await opened.store.presign_get("a", expires_seconds=60)
    async with (
        aiohttp.ClientSession() as http,
        http.get(url, headers={"Range": wanted}) as response,
    ):
        assert (response.status, await response.read()) == (status, body)


async def test_an_upload_that_breaks_off_leaves_nothing(
    opened: OpenArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put = await opened.store.presign_put(
        "a/b", size_bytes=1_000_000, sha256=sha256(b"x"), expires_seconds=60
    )
    host, _, port = opened.endpoint.rpartition(":")
    target = put.url.removeprefix(f"http://{opened.endpoint}")
    incoming = tmp_path / "archive" / INCOMING
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + bytes(100_000))
    await until(lambda: any(size(path) > 0 for path in incoming.iterdir()), what="some bytes")
    writer.transport.abort()
    await until(lambda: not list(incoming.iterdir()), what="nothing is left")
    assert await opened.store.head("a/b") is None
    assert "Traceback" not in caplog.text


async def test_a_reader_that_goes_away_is_nobodys_error(
    opened: OpenArchive, caplog: pytest.LogCaptureFixture
) -> None:
    await opened.store.put("a/b", bytes(20_000_000))
    url = await opened.store.presign_get("a/b", expires_seconds=60)
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as response:
            await response.content.readany()
            response.close()
        async with http.get(url, headers={"Range": "bytes=0-9"}) as response:
            assert await response.read() == bytes(10)
    assert "Traceback" not in caplog.text
