"""An archive in a folder over HTTPS: each client of ours reads and writes there, and a stranger is not believed."""

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edge_agent.download import Downloader, FetchError
from edge_agent.tree import PlainFile
from edge_agent.uploads.uploader import Uploader
from edge_agent.web_sessions import WebSessions
from services.archive.opening import OpenArchive
from services.identity.cluster_identity import ClusterIdentity
from shoal.download import download, open_at, read_piece
from shoal.errors import DownloadError
from shoal.model import Artifact
from shoal.session.uploads import UploadGrant
from shoal.tls import ClientTls
from tests.kit.archive import served_archive
from tests.kit.object_server import ObjectServer
from tests.kit.programs import program

DATA = bytes(range(256)) * 64
SHA256 = hashlib.sha256(DATA).hexdigest()


def wall() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def identity(tmp_path: Path) -> ClusterIdentity:
    return ClusterIdentity(tmp_path / "identity", "c1", "main", wall, hosts=("127.0.0.1",))


@pytest.fixture
async def archive(tmp_path: Path, identity: ClusterIdentity) -> AsyncIterator[OpenArchive]:
    url = f"file://{tmp_path}/archive"
    async with served_archive(url, lambda: identity.credentials) as archive:
        yield archive


async def test_an_agent_stores_and_fetches_with_the_authorities_of_its_cluster(
    tmp_path: Path, identity: ClusterIdentity, archive: OpenArchive
) -> None:
    put = await archive.store.presign_put(
        "a/b", size_bytes=len(DATA), sha256=SHA256, expires_seconds=60
    )
    assert put.url.startswith("https://127.0.0.1:")
    (tmp_path / "x").write_bytes(DATA)
    tls = ClientTls(lambda: identity.bundle)
    async with aiohttp.ClientSession(trust_env=True) as client:
        uploader = Uploader(WebSessions(client, client), chance=lambda: 0.5, tls=tls)
        grant = UploadGrant("a/b", url=put.url, headers=put.headers, key="a/b")
        await uploader.store(PlainFile(tmp_path, "x"), Artifact("x", len(DATA), SHA256), grant)
        url = await archive.store.presign_get("a/b", expires_seconds=60)
        downloader = Downloader(WebSessions(client, client), chance=lambda: 0.5, tls=tls)
        fetched = await downloader.fetch(url, tmp_path / "y", sha256=SHA256)
        assert fetched.size_bytes == len(DATA)
        # The same client still reads what no cluster has signed: another host, in the clear.
        async with ObjectServer() as other:
            _, elsewhere = other.add(b"other")
            await downloader.fetch(elsewhere, tmp_path / "z")
        assert (tmp_path / "z").read_bytes() == b"other"


async def test_an_agent_of_another_cluster_does_not_believe_it(
    tmp_path: Path, archive: OpenArchive
) -> None:
    await archive.store.put("a/b", DATA)
    url = await archive.store.presign_get("a/b", expires_seconds=60)
    stranger = ClusterIdentity(tmp_path / "stranger", "c1", "main", wall, hosts=("127.0.0.1",))
    async with aiohttp.ClientSession() as client:
        for tls in (ClientTls(lambda: stranger.bundle), ClientTls()):
            downloader = Downloader(WebSessions(client, client), chance=lambda: 0.5, tls=tls)
            with pytest.raises(FetchError, match=r"the certificate of 127.0.0.1 is not trusted"):
                await downloader.fetch(url, tmp_path / "y")
    assert not (tmp_path / "y").exists()


async def test_it_is_not_believed_at_an_address_that_its_certificate_does_not_name(
    tmp_path: Path, identity: ClusterIdentity, archive: OpenArchive
) -> None:
    await archive.store.put("a/b", DATA)
    url = await archive.store.presign_get("a/b", expires_seconds=60)
    moved = url.replace("127.0.0.1", "localhost")
    async with aiohttp.ClientSession() as client:
        downloader = Downloader(
            WebSessions(client, client), chance=lambda: 0.5, tls=ClientTls(lambda: identity.bundle)
        )
        with pytest.raises(FetchError, match=r"is not trusted: .*mismatch"):
            await downloader.fetch(moved, tmp_path / "y")


async def test_people_fetch_with_the_client_and_with_curl(
    tmp_path: Path, identity: ClusterIdentity, archive: OpenArchive
) -> None:
    await archive.store.put("a/b", DATA)
    url = await archive.store.presign_get("a/b", expires_seconds=60)
    target, bundle = tmp_path / "y", identity.bundle
    await asyncio.to_thread(download, url, target, sha256=SHA256, authorities=bundle)
    assert target.read_bytes() == DATA
    rest = await asyncio.to_thread(open_at, url, 1000, authorities=bundle)
    assert await asyncio.to_thread(read_piece, rest) == DATA[1000:]
    rest.close()
    with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(download, url, tmp_path / "z", sha256=SHA256)
    (tmp_path / "bundle.pem").write_bytes(bundle)
    curl = await asyncio.create_subprocess_exec(
        program("curl"), "--silent", "--fail", "--cacert", str(tmp_path / "bundle.pem"), url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await curl.communicate()
    assert said == DATA


async def test_plain_http_to_it_gets_no_answer(archive: OpenArchive) -> None:
    host, _, port = archive.endpoint.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /objects/a HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(30):
        said = await reader.read()
    writer.close()
    assert b"HTTP" not in said
