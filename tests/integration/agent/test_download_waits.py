"""K17: what may come right is tried again and said meanwhile, what cannot fails at once."""

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edge_agent.download import Downloader, FetchError
from edge_agent.web_sessions import WebSessions
from shoal.backoff import Backoff
from tests.kit.certificate import write_certificate


@asynccontextmanager
async def served(status: int, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that answers so to everything."""

    async def answer(request: web.Request) -> web.Response:
        if status == 302:
            raise web.HTTPFound(str(request.url))
        return web.Response(status=status, text="no such luck")

    application = web.Application()
    application.router.add_get("/{key:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        yield f"{scheme}://user:s3cr3t@127.0.0.1:{runner.addresses[0][1]}/model.bin?X-Signature=s3cr3t"
    finally:
        await runner.cleanup()


async def failed(url: str, folder: Path, patience_seconds: float) -> tuple[str, list[str]]:
    """Fetch in vain; returns the reason, and what was said before it."""
    said: list[str] = []
    async with aiohttp.ClientSession() as client:
        downloader = Downloader(
            WebSessions(client, client),
            chance=lambda: 0.5,
            backoff=Backoff(0.1, 0.2),
            patience_seconds=patience_seconds,
        )
        with pytest.raises(FetchError) as raised:
            await downloader.fetch(url, folder / "x", what="model.bin", waiting=said.append)
    assert not any("s3cr3t" in words for words in (str(raised.value), *said))
    return str(raised.value), said


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://127.0.0.1/x", "no address of http"),
        ("http://", "no address of http"),
        ("nonsense", "no address of http"),
        ("http://127.0.0.1:99999/x", "no address of http"),
        ("http://exa mple/x", "cannot be the name of a host"),
        ("http://" + "a" * 70 + ".invalid/x", "cannot be the name of a host|no address of http"),
    ],
)
async def test_k17_what_is_no_address_fails_at_once(url: str, word: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client:
        downloader = Downloader(
            WebSessions(client, client), chance=lambda: 0.5, patience_seconds=3600.0
        )
        with pytest.raises(FetchError, match=word):
            await downloader.fetch(url, tmp_path / "x")


@pytest.mark.parametrize("status", [401, 403, 404, 410, 501, 302])
async def test_k17_an_answer_that_says_no_fails_at_once(status: int, tmp_path: Path) -> None:
    async with served(status) as url:
        reason, said = await failed(url, tmp_path, 3600.0)
    assert (str(status) in reason) if status != 302 else ("redirects without end" in reason)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("begins_in", "patience_seconds", "word"),
    [
        (-dt.timedelta(hours=1), 3600.0, "self-signed certificate"),
        (dt.timedelta(days=1), 3600.0, "self-signed certificate"),
    ],
)
async def test_k17_a_certificate_that_is_not_trusted_fails_at_once(
    begins_in: dt.timedelta, patience_seconds: float, word: str, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(tmp_path, begins_in=begins_in))
    async with served(200, context) as url:
        reason, said = await failed(url, tmp_path, patience_seconds)
    assert word in reason
    assert "SSL_CERT_FILE" in reason
    assert len(said) == 1


async def test_k17_a_certificate_that_begins_later_may_come_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board without a battery begins in 1970, until it has heard the time."""
    certificate, key = write_certificate(tmp_path, begins_in=dt.timedelta(days=1))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with served(200, context) as url:
        trusting = ssl.create_default_context(cafile=str(certificate))
        said: list[str] = []
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=connector) as client:
            downloader = Downloader(
                WebSessions(client, client),
                chance=lambda: 0.5,
                backoff=Backoff(0.1, 0.2),
                patience_seconds=0.5,
            )
            with pytest.raises(FetchError, match="is the clock of this node right"):
                await downloader.fetch(url, tmp_path / "x", waiting=said.append)
    assert len(said) > 2


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://no-such-host.invalid/x.bin", "cannot resolve no-such-host.invalid"),
        ("http://127.0.0.1:1/x.bin", "cannot connect to 127.0.0.1:1"),
    ],
)
async def test_k17_what_may_come_right_is_said_with_its_end(
    url: str, word: str, tmp_path: Path
) -> None:
    reason, said = await failed(url, tmp_path, 1.0)
    assert word in reason
    assert said[0] == f"fetching model.bin from {url}, given up after 1 s without a byte"
    assert len(said) > 2
    for words in said[1:]:
        assert words.startswith(f"fetching model.bin from {url}: {word}")
        assert "again in 0 s, given up in" in words


async def test_k17_a_busy_server_is_said(tmp_path: Path) -> None:
    async with served(503) as url:
        reason, said = await failed(url, tmp_path, 0.5)
    assert "status 503" in reason
    assert "status 503" in said[1]
