"""P13: a stream worker whose port refuses is found dead at once, even if it was hard to reach before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

from control.front.sessions.worker_watch import WorkerWatch, listens
from tests.kit.until import until


class _Watched:
    """A watch that runs, and the nodes that it has given up."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.watch = WorkerWatch(
            self._note, patience_seconds=60.0, clock=time.monotonic, listens=listens
        )

    async def _note(self, node: str) -> None:
        self.gone.append(node)


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[_Watched]:
    """Run a watch."""
    watched = _Watched()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(watched.watch.run())
        yield watched
        running.cancel()


class _Port:
    """A port that somebody listens on, or not; counts who came."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # refuses until somebody listens
        self.visits = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._visited, sock=self._socket)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._socket.close()

    async def _visited(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        writer.close()


async def test_p13_a_worker_that_was_reached_and_refuses_is_gone() -> None:
    port = _Port()
    await port.listen()
    async with watching() as watched:
        watched.watch.opened("node-1", "session", port.address)
        await until(lambda: port.visits, 5, "the worker reached")
        await port.close()
        watched.watch.closed("node-1", "session")
        await until(lambda: watched.gone == ["node-1"], 5, "the worker found dead")


async def test_p13_a_worker_that_could_not_be_reached_at_first_is_tried_again() -> None:
    port = _Port()
    async with watching() as watched:
        watched.watch.opened("node-1", "session", port.address)
        await port.listen()
        await until(lambda: port.visits, 5, "the worker reached")
        await port.close()
        watched.watch.closed("node-1", "session")
        await until(lambda: watched.gone == ["node-1"], 5, "the worker found dead")


async def test_a_worker_that_goes_on_after_its_session_is_not_gone() -> None:
    port = _Port()
    await port.listen()
    async with watching() as watched:
        watched.watch.opened("node-1", "session", port.address)
        await until(lambda: port.visits, 5, "the worker reached")
        watched.watch.closed("node-1", "session")
        before = port.visits
        await until(lambda: port.visits > before + 1, 5, "the worker looked at twice")
        watched.watch.opened("node-1", "another", port.address)
        before = port.visits
        await until(lambda: port.visits > before, 5, "the worker reached again")
        await port.close()
        assert watched.gone == []


async def test_a_worker_that_was_never_reached_is_left_to_the_lease() -> None:
    """Behind a NAT a refusal says nothing about the worker."""
    unreachable, port = _Port(), _Port()
    await port.listen()
    async with watching() as watched:
        watched.watch.opened("node-1", "session", unreachable.address)
        watched.watch.opened("node-2", "session", port.address)
        await until(lambda: port.visits, 5, "the other worker reached")
        watched.watch.closed("node-1", "session")
        await port.close()
        watched.watch.closed("node-2", "session")
        await until(lambda: watched.gone, 5, "the other worker found dead")
        assert watched.gone == ["node-2"]
    await unreachable.close()
