"""Bidirectional gRPC calls between hosts in memory, with links that are slow, cut or torn down.

A call is two pipes. What one end writes arrives at the other after the latency of the link, in
order and whole, or never: then the call breaks at both ends, as TCP and HTTP/2 have it. A link that
is cut in one direction holds messages back in it; they arrive when it heals, unless keepalive has
ended the call before. Duplicates and reordering happen between calls, not within one.

A call breaks at once when a process at its end dies (its kernel resets the connection), and after
the keepalive when a host loses power or a link is cut. A server's handler is cancelled then, as
grpc.aio does, and its client's next read or write raises AioRpcError.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import grpc.aio
from grpc.aio import Metadata

from services.runtime.rpc import RpcError
from tests.simulation.mesh.loop import OWNER, VirtualLoop
from tests.simulation.mesh.process import Process

IN_FLIGHT_MAX = 64
"""Messages on their way or unread in one direction; a writer waits for room, as HTTP/2 has it."""

LATENCY_SECONDS = 0.002
LOCAL_SECONDS = 0.0001
CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 2.0

Handler = Callable[["ServerContext"], Awaitable[None]]


def broken(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """What gRPC raises at a client whose call has failed."""
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(), details)


@dataclass(slots=True)
class _Service:
    handler: Handler
    process: Process


class _Pipe:
    """One direction of a call."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self.source = source
        self.target = target
        self._arrived: deque[Any] = deque()
        self._on_the_way: deque[Any] = deque()
        self._last = 0.0
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()

    def has_room(self) -> bool:
        return len(self._arrived) + len(self._on_the_way) < IN_FLIGHT_MAX

    def push(self, message: Any) -> None:
        """Send a message, or the mark of the end."""
        self._on_the_way.append(message)
        network = self._network
        if (self.source, self.target) in network.cuts:
            return
        self._last = max(
            self._last, network.loop.time() + network.latency(self.source, self.target)
        )
        network.loop.call_at(self._last, self._arrive, context=network.context)

    def release(self) -> None:
        """Let what a cut held back go on its way."""
        network = self._network
        self._last = max(self._last, network.loop.time())
        for _ in self._on_the_way:
            self._last += network.latency(self.source, self.target)
            network.loop.call_at(self._last, self._arrive, context=network.context)

    def _arrive(self) -> None:
        if not self._on_the_way or (self.source, self.target) in self._network.cuts:
            return
        self._arrived.append(self._on_the_way.popleft())
        self.wake()

    def wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def wake_writers(self) -> None:
        while self._writers:
            writer = self._writers.popleft()
            if not writer.done():
                writer.set_result(None)

    def take(self) -> Any:
        message = self._arrived.popleft()
        if self._writers:
            self.wake_writers()
        return message

    @property
    def readable(self) -> bool:
        return bool(self._arrived)

    async def wait_readable(self) -> None:
        self._reader = self._network.loop.create_future()
        await self._reader

    async def wait_room(self) -> None:
        future = self._network.loop.create_future()
        self._writers.append(future)
        await future


class Link:
    """One call: its two pipes and how it ended."""

    def __init__(self, network: Network, client: Process, server: Process) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.up = _Pipe(network, client.host, server.host)
        self.down = _Pipe(network, server.host, client.host)
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.handling: asyncio.Task[None] | None = None
        self.over = False
        self._forget = [
            client.on_end(lambda: self.end(grpc.StatusCode.UNAVAILABLE, "the client is gone")),
            server.on_end(
                lambda: self.end(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
            ),
        ]
        network.links[self] = None

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Break it, at both ends."""
        if self.over:
            return
        self.over = True
        if self.code is None:
            self.code, self.details = code, details
        self.network.links.pop(self, None)
        self.forget_processes()
        for pipe in (self.up, self.down):
            pipe.wake()
            pipe.wake_writers()
        if self.handling is not None and not self.handling.done() and not self.server.dead:
            self.handling.cancel()

    def forget_processes(self) -> None:
        """Let the end of a process at either end break nothing."""
        for forget in self._forget:
            forget()
        self._forget = []

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """The server has answered: the client reads what is on its way, then the status."""
        if self.over or self.code is not None:
            return
        self.code, self.details = code, details
        self.down.push(grpc.aio.EOF)


class ClientCall:
    """The client's end of a call, as `grpc.aio.StreamStreamCall`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ended = False

    async def read(self) -> Any:
        """Return the next message, or EOF.

        Raises:
            AioRpcError: the call has failed.
        """
        link = self._link
        while not link.down.readable:
            if link.over or self._ended:
                return self._status()
            await link.down.wait_readable()
        message = link.down.take()
        if message is grpc.aio.EOF:
            self._ended = True
            link.end(grpc.StatusCode.OK, "")
            return self._status()
        return message

    def _status(self) -> Any:
        link = self._link
        if link.code is grpc.StatusCode.CANCELLED:
            raise asyncio.CancelledError
        if link.code is not None and link.code is not grpc.StatusCode.OK:
            raise broken(link.code, link.details)
        return grpc.aio.EOF

    async def write(self, message: Any) -> None:
        """Send a message; returning is not delivery.

        Raises:
            AioRpcError: the call has failed.
            InvalidStateError: it has ended.
        """
        link = self._link
        while not link.over and not self._ended and not link.up.has_room():
            await link.up.wait_room()
        if link.over or self._ended:
            self._status()
            raise asyncio.InvalidStateError("RPC already finished")
        link.up.push(message)

    async def done_writing(self) -> None:
        """Half-close."""
        if not self._link.over:
            self._link.up.push(grpc.aio.EOF)

    async def code(self) -> grpc.StatusCode:
        """How it ended."""
        return self._link.code or grpc.StatusCode.OK

    async def details(self) -> str:
        """The server's words for that."""
        return self._link.details

    def cancel(self) -> bool:
        """End it; the server's handler is cancelled a little later."""
        link = self._link
        if link.over:
            return False
        network = link.network
        if link.code is None:
            link.code = grpc.StatusCode.CANCELLED
        seconds = network.latency(link.up.source, link.up.target)
        words = "Locally cancelled by application!"
        network.later(seconds, link.end, grpc.StatusCode.CANCELLED, words)
        return True


class ServerContext:
    """The server's end of a call, as `grpc.aio.ServicerContext`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def read(self) -> Any:
        """Return the next message, or EOF once the client has half-closed."""
        link = self._link
        while not link.up.readable:
            if link.over:
                raise asyncio.CancelledError
            await link.up.wait_readable()
        return link.up.take()

    async def write(self, message: Any) -> None:
        """Send a message; returning is not delivery."""
        link = self._link
        while not link.over and not link.down.has_room():
            await link.down.wait_room()
        if link.over:
            raise asyncio.CancelledError
        link.down.push(message)

    def peer(self) -> str:
        """Who called."""
        return f"ipv4:{self._link.client.host}:40000"

    async def abort(self, code: grpc.StatusCode, details: str = "", _metadata: Any = ()) -> None:
        """End the call with an error."""
        raise _AbortedError(code, details)


class _AbortedError(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Network:
    """All links of one world.

    Args:
        loop: the loop of the world.
        rng: draws latencies.
    """

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        self.loop = loop
        self.context = _no_owner()
        self.cuts: dict[tuple[str, str], None] = {}
        """Directions, from host to host, in which nothing passes."""
        self.links: dict[Link, None] = {}
        self.dark: dict[str, None] = {}
        """Hosts without power."""
        self.slow = 1.0
        """By how much every link is slower than usual."""
        self.failures: list[tuple[str, BaseException]] = []
        """What handlers raised that is no answer: a mistake of ours."""
        self._rng = rng
        self._services: dict[tuple[str, str], _Service] = {}

    def latency(self, source: str, target: str) -> float:
        """How long a message takes now, in seconds."""
        if source == target:
            return LOCAL_SECONDS
        return LATENCY_SECONDS * self.slow * (0.5 + self._rng.random())

    def serve(self, address: str, method: str, handler: Handler, process: Process) -> None:
        """Let a process take calls at an address until it ends."""
        service = _Service(handler, process)
        self._services[address, method] = service

        def gone() -> None:
            if self._services.get((address, method)) is service:
                del self._services[address, method]

        process.on_end(gone)

    async def call(self, address: str, method: str) -> ClientCall:
        """Open a call from the running process.

        Raises:
            AioRpcError: nothing listens there, or nothing of it is heard.
        """
        client = OWNER.get()
        if not isinstance(client, Process):
            raise TypeError("only a process of the world can call")
        target = address.rpartition(":")[0]
        patience = CONNECT_SECONDS
        while not self.reachable(client.host, target):
            if patience <= 0:
                raise broken(grpc.StatusCode.UNAVAILABLE, f"{address}: connection timed out")
            patience -= 1.0
            await asyncio.sleep(1.0)
        await asyncio.sleep(2 * self.latency(client.host, target))
        service = self._services.get((address, method))
        if service is None or service.process.dead:
            raise broken(grpc.StatusCode.UNAVAILABLE, f"{address}: connection refused")
        link = Link(self, client, service.process)
        link.handling = service.process.spawn(self._handle(link, service.handler))
        return ClientCall(link)

    async def listens(self, address: str) -> bool | None:
        """Whether an address accepts connections of the running process; None if nothing is heard."""
        client = OWNER.get()
        target = address.rpartition(":")[0]
        if not isinstance(client, Process) or not self.reachable(client.host, target):
            await asyncio.sleep(1.0)
            return None
        await asyncio.sleep(2 * self.latency(client.host, target))
        return any(
            at == address and not one.process.dead for (at, _), one in self._services.items()
        )

    async def _handle(self, link: Link, handler: Handler) -> None:
        try:
            await handler(ServerContext(link))
        except asyncio.CancelledError:
            link.finish(grpc.StatusCode.CANCELLED, "the handler was cancelled")
            raise
        except RpcError as error:
            link.finish(error.code, error.message)
        except _AbortedError as error:
            link.finish(error.code, error.details)
        except Exception as error:  # noqa: BLE001 - as gRPC has it: UNKNOWN, and logged
            self.failures.append((link.server.name, error))
            link.finish(grpc.StatusCode.UNKNOWN, repr(error))
        else:
            link.finish(grpc.StatusCode.OK, "")

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Let something happen after a while, whichever process is alive then."""
        self.loop.call_later(seconds, callback, *args, context=self.context)

    def reachable(self, source: str, target: str) -> bool:
        """Whether a connection can be made."""
        if source in self.dark or target in self.dark:
            return False
        return (source, target) not in self.cuts and (target, source) not in self.cuts

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from one host to another; keepalive ends their calls, unless it heals."""
        if source == target:
            return
        self.cuts[source, target] = None
        for link in tuple(self.links):
            hosts = {(link.client.host, link.server.host), (link.server.host, link.client.host)}
            if (source, target) in hosts:
                self.later(KEEPALIVE_SECONDS * (0.5 + self._rng.random()), self._keepalive, link)

    def heal(self, source: str, target: str) -> None:
        """Let pass what was held back, and everything after it."""
        if self.cuts.pop((source, target), 1) is None:
            for link in tuple(self.links):
                for pipe in (link.up, link.down):
                    if (pipe.source, pipe.target) == (source, target):
                        pipe.release()

    def cut_both_ways(self, one: str, other: str) -> None:
        """Let nothing pass between two hosts."""
        self.cut(one, other)
        self.cut(other, one)

    def heal_both_ways(self, one: str, other: str) -> None:
        """Let everything pass between two hosts."""
        self.heal(one, other)
        self.heal(other, one)

    def tear(self, one: str, other: str) -> None:
        """Break every call between two hosts, as a Wi-Fi that changes its access point."""
        for link in tuple(self.links):
            if {link.client.host, link.server.host} == {one, other}:
                link.end(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")

    def power_off(self, host: str) -> None:
        """Let a host go silent, before its processes are killed: keepalive ends what called it."""
        self.dark[host] = None
        for link in tuple(self.links):
            if host in {link.client.host, link.server.host}:
                link.forget_processes()
                seconds = KEEPALIVE_SECONDS * (0.5 + self._rng.random())
                words = "keepalive watchdog timeout"
                self.later(seconds, link.end, grpc.StatusCode.UNAVAILABLE, words)

    def power_on(self, host: str) -> None:
        """Let a host be heard again."""
        self.dark.pop(host, None)

    def _keepalive(self, link: Link) -> None:
        """End a call that a cut has kept silent; a cut in one direction is found by both ends."""
        if not self.reachable(link.client.host, link.server.host):
            link.end(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout")


def _no_owner() -> Context:
    context = copy_context()
    context.run(OWNER.set, None)
    return context
