"""Signed addresses of an archive that others reach at another address than the controller does."""

import hashlib
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from services.archive.s3_server import S3Server
from tests.kit.archive import served_archive
from tests.kit.ports import free_port
from tests.kit.s3_servers import CREDENTIALS, make_bucket

DATA = b"people"


async def _exchanged(url: str, reached: str, port: int = 0) -> None:
    """Store and fetch an object by signed addresses, which have to name what is reached."""
    async with (
        served_archive(url, port=port, reached=reached) as archive,
        aiohttp.ClientSession() as http,
    ):
        digest = hashlib.sha256(DATA).hexdigest()
        put = await archive.store.presign_put(
            "ns/x", size_bytes=len(DATA), sha256=digest, expires_seconds=60
        )
        get = await archive.store.presign_get("ns/x", expires_seconds=60)
        assert put.url.startswith(f"{reached}/")
        assert get.startswith(f"{reached}/")
        async with http.put(URL(put.url, encoded=True), data=DATA, headers=put.headers) as answer:
            assert answer.status == 200, await answer.text()
        async with http.get(URL(get, encoded=True)) as answer:
            assert await answer.read() == DATA
        assert await archive.store.get("ns/x") == DATA  # which the controller reads at its own


async def test_a_bucket_is_reached_at_another_address(
    ministack_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is part of the signature, which this server verifies."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = await make_bucket(S3Server(ministack_endpoint))
    reached = ministack_endpoint.replace("127.0.0.1", "localhost")
    await _exchanged(f"s3://{bucket}/main?endpoint={ministack_endpoint}", reached)


async def test_a_folder_is_reached_at_another_address(tmp_path: Path) -> None:
    port = free_port()
    await _exchanged(f"file://{tmp_path}/archive", f"http://localhost:{port}", port)
