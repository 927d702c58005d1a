"""The page of figures under bad scrapers: often, in crowds, without reading, without a proof."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from services.metrics.figure import COLLECTIONS, REFUSED, Figure, FigureKind, Readings
from services.metrics.page import LEAST_SECONDS, SCRAPES_MAX, SHARE, MetricsPage
from shoal.client import Client
from shoal.spec import Job, Pipeline
from tests.kit.running_controller import running_controller
from tests.kit.scripted_agent import connected_agent
from tests.kit.until import until

SERIES = Figure("shoal_x", FigureKind.GAUGE, "Much.", ("name",), 50_000)
ALSO = b"# TYPE shoal_x gauge"


class Source:
    """Reads figures when it may, and counts how often it was asked."""

    def __init__(self, series: int = 1) -> None:
        self.series = series
        self.reads = 0
        self.now = 100.0
        self.takes = 0.0
        self.may_read = asyncio.Event()
        self.may_read.set()

    def clock(self) -> float:
        return self.now

    async def read(self) -> Readings:
        self.reads += 1
        await self.may_read.wait()
        self.now += self.takes
        readings = Readings()
        readings.tell_each(SERIES, {f"{'x' * 2000}{number}": 1 for number in range(self.series)})
        return readings


@contextlib.asynccontextmanager
async def served(
    source: Source, answer_seconds: float = 60.0
) -> AsyncIterator[tuple[MetricsPage, aiohttp.ClientSession]]:
    async with (
        MetricsPage(
            source.read,
            clock=source.clock,
            host="127.0.0.1",
            port=0,
            answer_seconds=answer_seconds,
        ) as page,
        aiohttp.ClientSession(f"http://127.0.0.1:{page.port}") as session,
    ):
        yield page, session


async def scraped(session: aiohttp.ClientSession) -> bytes:
    async with session.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return await answer.read()


def value(text: bytes, figure: Figure) -> float:
    (line,) = [one for one in text.decode().splitlines() if one.startswith(f"{figure.name} ")]
    return float(line.rpartition(" ")[2])


async def test_a_crowd_that_asks_at_once_is_one_collection() -> None:
    source = Source()
    source.may_read.clear()
    async with served(source) as (_, session), asyncio.TaskGroup() as tasks:
        scrapes = [tasks.create_task(scraped(session)) for _ in range(SCRAPES_MAX)]
        await until(lambda: source.reads == 1, what="the collection begins")
        source.may_read.set()
    assert source.reads == 1
    assert len({scrape.result() for scrape in scrapes}) == 1


async def test_who_asks_often_gets_the_text_that_there_is() -> None:
    source = Source()
    async with served(source) as (_, session):
        first = await scraped(session)
        source.now += LEAST_SECONDS / 2
        assert await scraped(session) == first
        source.now += LEAST_SECONDS / 2
        assert value(await scraped(session), COLLECTIONS) == 2
    assert source.reads == 2


async def test_a_collection_that_takes_long_is_made_less_often() -> None:
    source = Source()
    source.takes = 1.0
    async with served(source) as (_, session):
        await scraped(session)
        source.now += SHARE - 1.5
        await scraped(session)
        assert source.reads == 1
        source.now += 1.0
        await scraped(session)
        assert source.reads == 2


async def test_what_is_too_much_is_refused_and_counted() -> None:
    source = Source()
    source.may_read.clear()
    async with served(source) as (page, session):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SCRAPES_MAX):
                tasks.create_task(scraped(session))
            await until(lambda: page._scrapes == SCRAPES_MAX, what="all places are taken")
            async with session.get("/metrics") as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
                assert "ask again" in await answer.text()
            source.may_read.set()
        source.now += 1000
        assert value(await scraped(session), REFUSED) == 1


async def test_scrapers_that_do_not_read_are_ended_and_hold_up_nobody() -> None:
    source = Source(series=4_000)
    async with served(source, answer_seconds=3.0) as (page, session):
        lazy: list[socket.socket] = []
        for _ in range(SCRAPES_MAX):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", page.port))
            one.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            lazy.append(one)

        async def is_answered() -> bool:
            async with session.get("/metrics") as answer:
                await answer.read()
                return answer.status == 200

        await until(is_answered, 30, "a scraper that reads is answered")
        source.now += 1000

        async def are_ended() -> bool:
            source.now += 1000
            return value(await scraped(session), REFUSED) >= SCRAPES_MAX

        await until(are_ended, 30, "those that do not read are ended")
        for one in lazy:
            one.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff" * 500,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_scrape_changes_nothing(request_bytes: bytes) -> None:
    source = Source()
    async with served(source) as (page, session):
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        writer.write(request_bytes)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                assert b"200 OK" not in await reader.read(4096)
        writer.close()
        assert ALSO in await scraped(session)


async def test_a_scraper_that_leaves_meanwhile_leaves_no_place_taken() -> None:
    source = Source()
    source.may_read.clear()
    async with served(source) as (_, session):
        for _ in range(SCRAPES_MAX * 2):
            gone = asyncio.create_task(scraped(session))
            await until(lambda: source.reads > 0, what="the collection begins")
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
        source.may_read.set()

        async def is_answered() -> bool:
            async with session.get("/metrics") as answer:
                return answer.status == 200

        await until(is_answered, what="it is answered")


async def test_a_connection_that_asks_nothing_is_ended() -> None:
    source = Source()
    async with (
        MetricsPage(
            source.read, clock=source.clock, host="127.0.0.1", port=0, first_seconds=0.3
        ) as page,
        asyncio.timeout(60),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", page.port)
        assert await reader.read() == b""
        writer.close()
    assert source.reads == 0


async def test_of_a_label_with_a_million_values_a_page_has_what_the_figure_may_have() -> None:
    labels = Figure("shoal_y", FigureKind.GAUGE, "By what users make.", ("name",), 100)

    async def read() -> Readings:
        readings = Readings()
        readings.tell_each(labels, dict.fromkeys(map(str, range(1_000_000)), 1.0))
        return readings

    clock = Source().clock
    async with (
        MetricsPage(read, clock=clock, host="127.0.0.1", port=0, answer_seconds=60.0) as page,
        aiohttp.ClientSession(f"http://127.0.0.1:{page.port}") as session,
    ):
        text = await scraped(session)
    assert text.count(b"\nshoal_y{") == 100
    assert b'\nshoal_y{name="_other"} 999901.0' in text
    assert b'\nshoal_metrics_left_out{figure="shoal_y"} 999901.0' in text


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0 * 400])
async def test_a_clock_of_the_world_that_jumps_changes_no_figure(
    tmp_path: Path, jump: float
) -> None:
    ahead = 0.0
    async with (
        running_controller(
            tmp_path, metrics="127.0.0.1:0", wall=lambda: time.time() + ahead
        ) as addresses,
        Client(addresses.grpc) as client,
        aiohttp.ClientSession(f"http://{addresses.metrics}") as session,
    ):
        name = (await client.submit(Pipeline("one", (Job("a", ("true",)),)))).pipeline.name
        ahead = jump
        async with connected_agent(addresses.grpc) as agent:
            await agent.run_to_success("a", {})
        await client.wait(name, deadline_seconds=20)

        async def counted() -> bytes:
            text = await scraped(session)
            return text if b"durations_odd_total 1.0" in text else b""

        text = await until(counted, 30, "a duration that no clock can have measured")
        assert b"shoal_controller_outbox_oldest_seconds -" not in text
        assert b"shoal_controller_job_wait_seconds_count 0.0" in text
