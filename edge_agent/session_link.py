"""The gRPC stream of a session: one reader, one writer, and nothing decided here.

The reader is one long-lived task without a timeout, since a timeout around `read()` cancels the
whole call; a dead link is found by keepalive instead. `write()` returning is not delivery: only an
acknowledgement is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

import grpc.aio

from edge_agent.assignment import FromController, Hello
from edge_agent.cause import first_cause
from edge_agent.messages import decode_message, encode_request
from edge_agent.session import LinkClosed, LinkOpened, Received, SessionEvent, Write
from services.runtime.log import CountedLog
from services.runtime.rpc import SESSION, channel_options
from shoal.v1 import session_service_pb2, session_service_pb2_grpc
from shoal.wire.fields import WireError

LOG = logging.getLogger(__name__)

_WRITES_MAX: Final = 1024
_GOODBYE_SECONDS: Final = 1.0


class _Call(Protocol):
    """What is used of a bidirectional call."""

    async def read(self) -> session_service_pb2.ConnectResponse: ...

    async def write(self, request: session_service_pb2.ConnectRequest) -> None: ...

    async def done_writing(self) -> None: ...

    async def code(self) -> grpc.StatusCode: ...

    async def details(self) -> str: ...

    def cancel(self) -> bool: ...


class SessionLink:
    """Opens streams to controllers, one at a time.

    Args:
        post: hands an event to the session.
        hello: says who the agent is and what it knows, at this moment.
        clock: monotonic seconds, for the log.
    """

    def __init__(
        self,
        post: Callable[[SessionEvent], Awaitable[None]],
        hello: Callable[[], Hello],
        clock: Callable[[], float],
    ) -> None:
        self._post = post
        self._hello = hello
        self._refused = CountedLog(LOG, clock)
        self._dials: asyncio.Queue[tuple[int, str]] = asyncio.Queue(4)
        self._writes: asyncio.Queue[Write | None] = asyncio.Queue(_WRITES_MAX)
        self._connection: asyncio.Task[None] | None = None
        self._leaving = False

    def dial(self, link: int, address: str) -> None:
        """Open the stream with this number, in place of the one before."""
        self.hang_up()
        if self._leaving:
            return
        self._dials.put_nowait((link, address))

    def hang_up(self) -> None:
        """Close the stream, if there is one."""
        while not self._dials.empty():
            self._dials.get_nowait()
        if self._connection is not None:
            self._connection.cancel()

    def write(self, batch: Write) -> None:
        """Send a batch on the stream; on one that is gone, nothing is.

        One that takes so little that batches find no room, and yet acknowledges them, is closed.
        """
        try:
            self._writes.put_nowait(batch)
        except asyncio.QueueFull:
            self._refused.warn(
                "the controller reads less than it acknowledges, and is left", waiting=_WRITES_MAX
            )
            self.hang_up()

    async def leave(self) -> None:
        """Half-close, so that the controller sees an end and not a break; nothing is dialled again."""
        self._leaving = True
        if self._connection is not None:
            self._writes.put_nowait(None)
            await asyncio.wait({self._connection}, timeout=_GOODBYE_SECONDS)

    async def run(self) -> None:
        """Serve dials until cancelled."""
        while True:
            link, address = await self._dials.get()
            while not self._writes.empty():
                self._writes.get_nowait()
            async with asyncio.TaskGroup() as group:
                self._connection = group.create_task(self._connect(link, address))
            self._connection = None

    async def _connect(self, link: int, address: str) -> None:
        reason = "the controller closed it"
        async with grpc.aio.insecure_channel(address, options=channel_options(SESSION)) as channel:
            stub = session_service_pb2_grpc.SessionServiceStub(channel)
            call = cast("_Call", stub.Connect())
            try:
                await self._post(LinkOpened(link, self._hello()))
                async with asyncio.TaskGroup() as group:
                    writer = group.create_task(self._write_all(call))
                    try:
                        await self._read_all(link, call)
                    finally:
                        writer.cancel()
                reason = f"{address}: {(await call.code()).name} {await call.details()}".strip()
            except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as errors:
                reason = f"{address}: {_say(errors)}"
            finally:
                call.cancel()
        await self._post(LinkClosed(link, reason))

    async def _read_all(self, link: int, call: _Call) -> None:
        while True:
            response = await call.read()
            if response is cast("Any", grpc.aio.EOF):
                return
            messages: list[FromController] = []
            for message in response.messages:
                try:
                    decoded = decode_message(message)
                except WireError as error:
                    self._refused.warn(
                        "a message of the controller is refused", error=error.problem, at=error.path
                    )
                    continue
                if decoded is not None:
                    messages.append(decoded)
            await self._post(
                Received(link, response.sequence, response.acknowledged, tuple(messages))
            )

    async def _write_all(self, call: _Call) -> None:
        while True:
            batch = await self._writes.get()
            if batch is None:
                await call.done_writing()
                return
            await call.write(encode_request(batch.sequence, batch.acknowledged, batch.messages))


def _say(errors: BaseExceptionGroup[BaseException]) -> str:
    first = first_cause(errors)
    if isinstance(first, grpc.aio.AioRpcError):
        return f"{first.code().name} {first.details() or ''}".strip()
    return str(first) or type(first).__name__
