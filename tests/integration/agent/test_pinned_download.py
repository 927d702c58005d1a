"""Files without a hash that are pinned by size and ETag: what is not what was listed is never taken (E3)."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from edge_agent.download import AddressRefusedError, ChecksumError, Downloader, Pin
from edge_agent.web_sessions import WebSessions
from shoal.backoff import Backoff

DATA = bytes(range(256)) * 2000
MD5 = f'"{hashlib.md5(DATA, usedforsecurity=False).hexdigest()}"'
PINNED = Pin(len(DATA), MD5)


class Bucket:
    """A server of one object, which may say one thing and send another."""

    def __init__(self) -> None:
        self.body = DATA
        self.etag = MD5
        self.headers: dict[str, str] = {}
        self.obeys = True
        self.refuses = False
        self.breaks_after = 0
        self.asked: list[str] = []

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer as S3 does, or not."""
        self.asked.append(request.headers.get("Range", ""))
        if self.refuses:
            return web.Response(status=403, text="Request has expired")
        if self.obeys and request.headers.get("If-Match", self.etag) != self.etag:
            return web.Response(status=412)
        begin = int(request.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        response = web.StreamResponse(
            status=206 if begin else 200,
            headers={"ETag": self.etag, "Content-Length": str(len(self.body) - begin)}
            | self.headers,
        )
        await response.prepare(request)
        if self.breaks_after:
            await response.write(self.body[begin : begin + self.breaks_after])
            self.breaks_after = 0
            if request.transport is not None:
                request.transport.abort()
            return response
        await response.write(self.body[begin:])
        return response


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest_asyncio.fixture
async def url(bucket: Bucket) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/object", bucket.get)
    async with TestServer(app) as server:
        yield str(server.make_url("/object"))


async def fetch(url: str, path: Path, pin: Pin = PINNED) -> bytes:
    """Fetch a pinned file."""
    async with aiohttp.ClientSession() as session:
        downloader = Downloader(
            WebSessions(session, session), chance=lambda: 0.0, backoff=Backoff(0.01, 0.01)
        )
        await downloader.fetch(url, path, pin=pin)
    return path.read_bytes()


async def test_what_was_listed_is_taken_and_goes_on_after_a_break(
    url: str, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.breaks_after = 300_000
    assert await fetch(url, tmp_path / "x") == DATA
    assert bucket.asked[0] == ""
    assert bucket.asked[-1].startswith("bytes=")


async def test_a_byte_that_flips_on_the_way_is_found_by_the_md5_of_its_etag(
    url: str, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.body = DATA[:1000] + b"\x01" + DATA[1001:]
    assert bucket.body != DATA
    with pytest.raises(ChecksumError, match="its MD5 is"):
        await fetch(url, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("obeys", [True, False])
async def test_an_object_that_has_another_etag_now_is_not_taken(
    url: str, bucket: Bucket, tmp_path: Path, *, obeys: bool
) -> None:
    """Some servers do not obey `If-Match`."""
    bucket.etag, bucket.obeys = '"other"', obeys
    with pytest.raises(ChecksumError, match="not what it was when the pipeline was submitted"):
        await fetch(url, tmp_path / "x")


@pytest.mark.parametrize("body", [DATA + b"x", DATA[:-1], b""])
async def test_another_size_is_not_taken(
    url: str, bucket: Bucket, tmp_path: Path, body: bytes
) -> None:
    """Of an object in several parts the ETag is no MD5."""
    bucket.etag, bucket.body = '"0123-2"', body
    with pytest.raises(ChecksumError, match="bytes"):
        await fetch(url, tmp_path / "x", Pin(len(DATA), bucket.etag))


async def test_an_etag_of_an_object_that_a_key_encrypts_is_no_md5(
    url: str, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.etag = f'"{"ab" * 16}"'
    bucket.headers = {"x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:::key/1"}
    assert await fetch(url, tmp_path / "x", Pin(len(DATA), bucket.etag)) == DATA


async def test_an_address_that_is_over_is_told_from_a_file_that_is_not_there(
    url: str, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.refuses = True
    with pytest.raises(AddressRefusedError, match="Request has expired"):
        await fetch(url, tmp_path / "x")
