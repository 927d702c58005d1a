"""A TCP proxy whose connections a test can cut, mute or refuse."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class TcpProxy:
    """Passes bytes from a free port on 127.0.0.1 to `host:port`, while it is entered as a context."""

    def __init__(self, target: str) -> None:
        self._target = _address(target)
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self.open = True
        """Whether new connections are passed on; a closed proxy hangs up on them."""
        self.accepted = 0
        self.carried = 0
        """Bytes that were passed on, both ways."""
        self.cut_at = 0
        """Once so many bytes were passed on, every connection is cut, one time; 0 for never."""
        self._asking, self._answering = _flowing(), _flowing()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    @property
    def address(self) -> str:
        """`host:port` where it listens."""
        if self._server is None:
            raise RuntimeError("enter the proxy first")
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def turn(self, target: str) -> None:
        """Pass further connections on to another `host:port`."""
        self._target = _address(target)

    def stall(self) -> None:
        """Let nothing pass on the connections there are, as a cable does that is pulled."""
        self.mute()
        self._asking.clear()
        self._asking = _flowing()

    def mute(self) -> None:
        """Let no answer pass on the connections there are, and what is asked all the same."""
        self._answering.clear()
        self._answering = _flowing()

    def cut(self) -> None:
        """Cut every connection there is, without a word."""
        for link in self._links:
            link.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if not self.open or task is None:
            writer.transport.abort()
            return
        self.accepted += 1
        self._links.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pass(reader, onward, self._asking)),
                    group.create_task(self._pass(back, writer, self._answering)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(task)
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await flowing.wait()
                self.carried += len(data)
                if 0 < self.cut_at <= self.carried:
                    self.cut_at = 0
                    self.cut()
                sink.write(data)
                await sink.drain()


def _flowing() -> asyncio.Event:
    flowing = asyncio.Event()
    flowing.set()
    return flowing


def _address(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host, int(port)
