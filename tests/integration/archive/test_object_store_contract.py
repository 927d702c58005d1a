"""What every archive promises, on every archive: a folder and two S3 servers."""

import asyncio
import hashlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from services.archive.key import InvalidKeyError
from services.archive.object_store import (
    ArchiveUnavailableError,
    ObjectDigestError,
    ObjectMissingError,
    ObjectStore,
    PutOutcome,
    SmallObject,
    UploadMissingError,
)
from services.archive.parts import PartedObject
from services.archive.s3_server import S3Server
from tests.kit.archive import served_archive
from tests.kit.s3_servers import CREDENTIALS, make_bucket

KINDS = ("directory", "moto", "ministack")
UNVERIFIED = ("moto", "radosgw")
"""Servers that take what has another SHA-256 than was signed; radosgw is tried in a lane of its own."""
LARGE = 20 * 1024 * 1024 + 17


@dataclass(frozen=True)
class Archive:
    store: ObjectStore
    kind: str


@pytest.fixture(params=KINDS)
async def archive(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Archive]:
    kind = str(request.param)
    if kind == "directory":
        url = f"file://{tmp_path}/archive"
    else:
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        # A server that believes nobody sets keys of its own.
        endpoint = request.getfixturevalue(f"{kind}_endpoint")
        bucket = await make_bucket(S3Server(endpoint))
        url = f"s3://{bucket}/a/prefix?endpoint={endpoint}"
    async with served_archive(url) as opened:
        yield Archive(opened.store, kind)


async def chunks(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_what_is_put_is_got(archive: Archive) -> None:
    store = archive.store
    assert await store.put("ns/a b/ü+%.txt", b"hello") is PutOutcome.STORED
    assert await store.get("ns/a b/ü+%.txt") == b"hello"
    info = await store.head("ns/a b/ü+%.txt")
    assert info is not None
    assert info.size_bytes == 5
    assert info.sha256 in {"", sha256(b"hello")}
    assert await store.put("ns/a b/ü+%.txt", b"") is PutOutcome.STORED
    assert await store.get("ns/a b/ü+%.txt") == b""


async def test_a_missing_object_is_missing(archive: Archive) -> None:
    store = archive.store
    assert await store.head("no/such") is None
    with pytest.raises(ObjectMissingError, match="no/such"):
        await store.get("no/such")


async def test_the_first_of_many_conditional_puts_stays(archive: Archive) -> None:
    store = archive.store
    outcomes = await asyncio.gather(
        *(store.put("ns/manifest.json", b"%d" % number, if_absent=True) for number in range(8))
    )
    # moto answers each request in a thread of its own and does not lock: only the later matter.
    if archive.kind != "moto":
        assert outcomes.count(PutOutcome.STORED) == 1
        winner = outcomes.index(PutOutcome.STORED)
        assert await store.get("ns/manifest.json") == b"%d" % winner
    before = await store.get("ns/manifest.json")
    assert await store.put("ns/manifest.json", b"late", if_absent=True) is PutOutcome.EXISTS
    assert await store.get("ns/manifest.json") == before


async def test_objects_that_are_stored_together_are_all_there(archive: Archive) -> None:
    store = archive.store
    assert await store.put_many([]) == []
    objects = [SmallObject(f"ns/{n % 7}/{n}", b"%d" % n * (n % 3)) for n in range(150)]
    assert await store.put_many(objects) == [PutOutcome.STORED] * 150
    assert [await store.get(one.key) for one in objects[::29]] == [
        one.data for one in objects[::29]
    ]
    listed = {one.key async for one in store.list_objects("ns/")}
    assert listed == {one.key for one in objects}
    again = [SmallObject("ns/0/0", b"late"), SmallObject("ns/new", b"new")]
    outcomes = await store.put_many(again, if_absent=True)
    assert outcomes == [PutOutcome.EXISTS, PutOutcome.STORED]
    assert (await store.get("ns/0/0"), await store.get("ns/new")) == (b"", b"new")
    assert await store.put_many(again) == [PutOutcome.STORED] * 2
    assert await store.get("ns/0/0") == b"late"
    with pytest.raises(InvalidKeyError, match=r"\.\."):
        await store.put_many([SmallObject("../x", b"x")])


@pytest.mark.parametrize("size", [0, 1, 300_000, LARGE])
async def test_a_stream_of_any_size_arrives(archive: Archive, size: int) -> None:
    store = archive.store
    data = secrets.token_bytes(size)
    info = await store.put_stream("ns/large", chunks(data), sha256=sha256(data))
    assert (info.size_bytes, info.sha256) == (size, sha256(data))
    assert await store.get("ns/large") == data


async def test_a_part_of_an_object_is_read(archive: Archive) -> None:
    data = secrets.token_bytes(1_000_000)
    await archive.store.put("ns/x", data)
    for offset, size in ((0, 10), (999_990, 10), (5, 700_000), (999_990, 100), (1_000_000, 5)):
        read = archive.store.read("ns/x", offset=offset, size_bytes=size)
        assert b"".join([chunk async for chunk in read]) == data[offset : offset + size]
    with pytest.raises(ObjectMissingError, match="no/such"):
        _ = [chunk async for chunk in archive.store.read("no/such", offset=0, size_bytes=1)]


async def test_a_stream_with_the_wrong_digest_leaves_nothing(archive: Archive) -> None:
    for size in (10, LARGE):
        with pytest.raises(ObjectDigestError, match="nothing was stored"):
            await archive.store.put_stream("ns/x", chunks(bytes(size)), sha256=sha256(b"other"))
        assert await archive.store.head("ns/x") is None


async def test_a_stream_that_breaks_leaves_what_was_there(archive: Archive) -> None:
    async def broken(size: int) -> AsyncIterator[bytes]:
        async for chunk in chunks(bytes(size)):
            yield chunk
        raise ConnectionResetError("the sender is gone")

    await archive.store.put("ns/x", b"before")
    for size in (10, LARGE):
        with pytest.raises(ConnectionResetError):
            await archive.store.put_stream("ns/x", broken(size))
    assert await archive.store.get("ns/x") == b"before"


BAD_KEYS: Iterable[str] = (
    "",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../../b",
    "a/./b",
    "a\0b",
    "x" * 256,
    "/".join(itertools.repeat("x" * 100, 11)),
)


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_bad_key_is_refused_everywhere(archive: Archive, key: str) -> None:
    store = archive.store
    with pytest.raises(InvalidKeyError):
        await store.put(key, b"")
    with pytest.raises(InvalidKeyError):
        await store.put_stream(key, chunks(b""))
    with pytest.raises(InvalidKeyError):
        await store.get(key)
    with pytest.raises(InvalidKeyError):
        await store.presign_put(key, size_bytes=0, sha256=sha256(b""), expires_seconds=60)
    with pytest.raises(InvalidKeyError):
        await store.presign_get(key, expires_seconds=60)


@pytest.mark.parametrize(
    "name",
    [
        "ü b.bin",
        "a\nb\tc\r",
        "\\",
        "%0A%",
        "+?&=#;~!'()*[]\"<>",
        "x" * 255,
        "run[2024-01-15].csv",
        "-",
    ],
)
async def test_k6_presigned_addresses_need_no_credentials_whatever_the_name(
    archive: Archive, name: str
) -> None:
    if archive.kind == "moto" and "\n" in name:
        pytest.skip("moto finds no object behind a line break; the other servers do")
    store = archive.store
    data = secrets.token_bytes(300_000)
    key = f"ns/out/{name}"
    put = await store.presign_put(
        key, size_bytes=len(data), sha256=sha256(data), expires_seconds=60
    )
    async with aiohttp.ClientSession() as http:
        async with http.put(URL(put.url, encoded=True), data=data, headers=put.headers) as response:
            assert response.status == 200, await response.text()
        assert await store.get(key) == data
        url = await store.presign_get(key, expires_seconds=60)
        async with http.get(URL(url, encoded=True)) as response:
            assert response.status == 200
            assert await response.read() == data
        async with http.get(URL(url, encoded=True), headers={"Range": "bytes=100-199"}) as response:
            assert response.status == 206
            assert await response.read() == data[100:200]
    info = await store.head(key)
    assert info is not None
    assert (info.size_bytes, info.sha256) == (len(data), sha256(data))


async def test_a_presigned_put_takes_nothing_else(archive: Archive) -> None:
    if archive.kind in UNVERIFIED:
        pytest.skip(f"{archive.kind} does not verify SHA-256")
    store = archive.store
    put = await store.presign_put("ns/x", size_bytes=5, sha256=sha256(b"hello"), expires_seconds=60)
    async with (
        aiohttp.ClientSession() as http,
        http.put(put.url, data=b"HELLO", headers=put.headers) as response,
    ):
        assert response.status == 400
    assert await store.head("ns/x") is None


MIB = 1 << 20


def parted(data: bytes, part_bytes: int = 5 * MIB) -> PartedObject:
    pieces = [data[begin : begin + part_bytes] for begin in range(0, len(data), part_bytes)]
    return PartedObject(len(data), sha256(data), part_bytes, tuple(map(sha256, pieces)))


async def put_part(
    store: ObjectStore, upload_id: str, whole: PartedObject, number: int, data: bytes
) -> int:
    put = await store.presign_part("ns/big", upload_id, whole, number, expires_seconds=60)
    begin = whole.offset(number)
    piece = data[begin : begin + whole.size(number)]
    async with (
        aiohttp.ClientSession() as http,
        http.put(URL(put.url, encoded=True), data=BytesIO(piece), headers=put.headers) as response,
    ):
        return response.status


async def test_parts_become_an_object_once_all_are_there(archive: Archive) -> None:
    store = archive.store
    data = secrets.token_bytes(12 * MIB + 17)
    whole = parted(data)
    upload_id = await store.begin_upload("ns/big", whole)
    assert set(await store.stored_parts("ns/big", upload_id, whole)) == set()
    assert await put_part(store, upload_id, whole, 3, data) == 200
    assert await put_part(store, upload_id, whole, 1, data) == 200
    assert set(await store.stored_parts("ns/big", upload_id, whole)) == {1, 3}
    assert list(whole.missing({1, 3})) == [2]
    with pytest.raises(ArchiveUnavailableError, match="2 of its 3 parts"):
        await store.complete_upload("ns/big", upload_id, whole)
    assert await store.head("ns/big") is None
    assert [one async for one in store.list_objects("ns/")] == []
    found = [one async for one in store.unfinished_uploads()]
    assert [(one.key, one.upload_id) for one in found] == [("ns/big", upload_id)]
    if archive.kind != "moto":  # which says of every upload that it began in 2010
        assert abs(found[0].begin_time - time.time()) < 600
    assert await put_part(store, upload_id, whole, 2, data) == 200
    assert await put_part(store, upload_id, whole, 1, data) == 200  # once more harms nothing
    await store.complete_upload("ns/big", upload_id, whole)
    assert await store.get("ns/big") == data
    info = await store.head("ns/big")
    assert info is not None
    assert (info.size_bytes, info.sha256) == (len(data), sha256(data))
    assert [one async for one in store.unfinished_uploads()] == []
    with pytest.raises(UploadMissingError):
        await store.stored_parts("ns/big", upload_id, whole)


async def test_a_part_that_is_not_as_announced_is_refused(archive: Archive) -> None:
    if archive.kind in UNVERIFIED:
        pytest.skip(f"{archive.kind} does not verify SHA-256")
    store = archive.store
    data = secrets.token_bytes(6 * MIB)
    whole = parted(data)
    upload_id = await store.begin_upload("ns/big", whole)
    assert await put_part(store, upload_id, whole, 2, bytes(len(data))) == 400
    assert set(await store.stored_parts("ns/big", upload_id, whole)) == set()


async def test_an_upload_that_is_given_up_is_gone(archive: Archive) -> None:
    store = archive.store
    data = secrets.token_bytes(6 * MIB)
    whole = parted(data)
    upload_id = await store.begin_upload("ns/big", whole)
    assert await put_part(store, upload_id, whole, 1, data) == 200
    await store.abort_upload("ns/big", upload_id)
    await store.abort_upload("ns/big", upload_id)
    assert [one async for one in store.unfinished_uploads()] == []
    refused = 500 if archive.kind == "moto" else 404
    assert await put_part(store, upload_id, whole, 2, data) == refused
    with pytest.raises(UploadMissingError):
        await store.complete_upload("ns/big", upload_id, whole)


async def test_objects_are_listed_past_a_page_copied_and_removed(archive: Archive) -> None:
    store = archive.store
    wanted = [f"ns/a/{number:04}" for number in range(1_003)]
    for begin in range(0, len(wanted), 17):
        await asyncio.gather(*(store.put(key, b"x") for key in wanted[begin : begin + 17]))
    await store.put("ns/ab", b"hello")
    await store.put("other/a", b"")
    listed = [one async for one in store.list_objects("ns/a/")]
    assert sorted(one.key for one in listed) == wanted
    assert {one.size_bytes for one in listed} == {1}
    assert all(abs(one.modify_time - time.time()) < 600 for one in listed)
    assert len([one async for one in store.list_objects("ns/a")]) == len(wanted) + 1
    await store.copy("ns/ab", "to/somewhere else/ü.txt")
    assert await store.get("to/somewhere else/ü.txt") == b"hello"
    with pytest.raises(ObjectMissingError):
        await store.copy("ns/no", "to/x")
    before = await store.head("ns/ab")
    assert before is not None
    assert abs(before.modify_time - time.time()) < 600
    await store.refresh("ns/ab")
    await store.refresh("ns/no")
    after = await store.head("ns/ab")
    assert after is not None
    assert after.modify_time >= before.modify_time
    assert (after.size_bytes, after.sha256) == (before.size_bytes, before.sha256)
    assert await store.get("ns/ab") == b"hello"
    await store.delete([*wanted, "ns/no", "ns/a/no"])
    rest = [one.key async for one in store.list_objects()]
    assert sorted(rest) == ["ns/ab", "other/a", "to/somewhere else/ü.txt"]
    assert b"".join([one async for one in store.get_stream("ns/ab", offset=2)]) == b"llo"
