"""A page under readers that come and ask nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web

from services.runtime.web_page import WebPage
from tests.kit.until import until

FIRST_SECONDS = 0.4


async def hello(_: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def served(
    idle_seconds: float = 600.0, first_seconds: float = FIRST_SECONDS
) -> AsyncIterator[WebPage]:
    async with WebPage(
        {"/hello": hello},
        host="127.0.0.1",
        port=0,
        first_seconds=first_seconds,
        idle_seconds=idle_seconds,
    ) as page:
        yield page


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection is ended."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(30):
            return await reader.read()
    return b""


@pytest.mark.parametrize("begun", [b"", b"GET /hel", b"GET /hello HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_that_asks_nothing_is_ended(begun: bytes) -> None:
    async with served() as page:
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(begun)
        assert await ended(reader) == b""
        writer.close()


async def test_a_header_that_comes_a_byte_at_a_time_does_not_keep_a_connection() -> None:
    async with served() as page:
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(b"GET /hello HTTP/1.1\r\n")

        async def is_ended() -> bool:
            with contextlib.suppress(ConnectionError):
                writer.write(b"x")
                await writer.drain()
            return reader.at_eof() or writer.is_closing()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(ended(reader))
            await until(is_ended, 30, "the connection is ended")
            assert b"hello" not in await reading
        writer.close()


async def test_connections_that_do_nothing_do_not_pile_up_and_a_reader_is_answered_meanwhile() -> (
    None
):
    async with served() as page, ClientSession(f"http://127.0.0.1:{page.port}") as session:
        quiet = [await asyncio.open_connection("127.0.0.1", page.port) for _ in range(200)]
        async with session.get("/hello") as answer:
            assert await answer.text() == "hello"
        assert [await ended(reader) for reader, _ in quiet] == [b""] * 200
        for _, writer in quiet:
            writer.close()
        await until(lambda: len(page._until) <= 1, 30, "nothing is remembered of them")


async def test_a_reader_that_comes_again_keeps_its_connection_until_it_is_idle() -> None:
    async with served(idle_seconds=3.0, first_seconds=0.2) as page:
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        for _ in range(2):
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.readuntil(b"hello")
            # Longer than the first question may take, as another connection shows.
            other, its_writer = await asyncio.open_connection("127.0.0.1", page.port)
            assert await ended(other) == b""
            its_writer.close()
        assert await ended(reader) == b"", "at last it is idle for too long"
        writer.close()


async def test_an_unknown_path_is_an_answer_as_any() -> None:
    async with served() as page, ClientSession(f"http://127.0.0.1:{page.port}") as session:
        for _ in range(2):
            async with session.get("/other") as answer:
                assert answer.status == 404
