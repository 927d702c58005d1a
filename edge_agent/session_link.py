"""The stream of a session: one reader, one writer, and nothing decided here.

The reader is one long-lived task without a timeout, since a timeout around `read()` cancels the
whole call; a dead link is found by keepalive instead. `write()` returning is not delivery: only an
acknowledgement is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import grpc.aio

from edge_agent.error_words import words_of
from edge_agent.links.session import (
    HandshakeExplainer,
    SessionCall,
    SessionDialler,
    no_explanation,
)
from edge_agent.session.effects import Write
from edge_agent.session.events import LinkClosed, LinkOpened, Received, SessionEvent
from services.runtime.log import CountedLog, fields
from shoal.cause import causes
from shoal.session.messages import FromController, Hello
from shoal.wire.fields import WireError
from shoal.wire.session import decode_controller_message, encode_request

LOG = logging.getLogger(__name__)

_WRITES_MAX: Final = 1024
_GOODBYE_SECONDS: Final = 1.0
_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
"""How a controller ends a session that it will not open again as things are."""


@dataclass(eq=False)
class SessionLink:
    """Opens streams to controllers, one at a time.

    Args:
        post: hands an event to the session.
        hello: says which agent it is and what it knows, at this moment.
        clock: monotonic seconds, for the log.
        open_call: opens the call to a controller.
        explain: says why what answers at an address does not prove to be a controller, by the details of
            gRPC's error and the address; empty where something else failed.
    """

    post: Callable[[SessionEvent], Awaitable[None]]
    hello: Callable[[], Hello]
    clock: Callable[[], float]
    open_call: SessionDialler
    explain: HandshakeExplainer = no_explanation
    _connection: asyncio.Task[None] | None = None
    _leaving: bool = False

    def __post_init__(self) -> None:
        self._refused = CountedLog(LOG, self.clock)
        self._dials: asyncio.Queue[tuple[int, str]] = asyncio.Queue(4)
        self._writes: asyncio.Queue[Write | None] = asyncio.Queue(_WRITES_MAX)

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
        reason = ""
        try:
            async with self.open_call(address) as call:
                await self.post(LinkOpened(link, self.hello()))
                reason = await self._talk(link, address, call)
        except* (grpc.aio.AioRpcError, asyncio.InvalidStateError) as errors:
            error = causes(errors)[0]
            reason = f"{address}: {words_of(error)}"
            if isinstance(error, grpc.aio.AioRpcError):
                self._say_refusal(address, error.code(), error.details() or "")
                why = self.explain(error.details() or "", address)
                if why:  # gossip may name any address as that of a controller
                    self._refused.warn(f"no controller is believed at {address}", why=why)
        LOG.debug("link closed", extra=fields(controller=address, reason=reason))
        await self.post(LinkClosed(link, reason))

    def _say_refusal(self, address: str, code: grpc.StatusCode, details: str) -> None:
        if code in _REFUSED:
            self._refused.warn(f"the controller at {address} refuses this agent", why=details)

    async def _talk(self, link: int, address: str, call: SessionCall) -> str:
        """Read and write until the other side ends the call; say how it did."""
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    writer = group.create_task(self._write_all(call))
                    try:
                        await self._read_all(link, call)
                    finally:
                        writer.cancel()
            except* asyncio.InvalidStateError:
                pass  # it has ended and takes no more; how it did is asked now
            code, details = await call.code(), await call.details()
            self._say_refusal(address, code, details)
            return f"{address}: {code.name} {details}".strip()
        finally:
            call.cancel()

    async def _read_all(self, link: int, call: SessionCall) -> None:
        while True:
            response = await call.read()
            if response is cast("Any", grpc.aio.EOF):
                return
            messages: list[FromController] = []
            for message in response.messages:
                try:
                    decoded = decode_controller_message(message)
                except WireError as error:
                    self._refused.warn(
                        "a message of the controller is refused", error=error.problem, at=error.path
                    )
                    continue
                if decoded is not None:
                    messages.append(decoded)
            await self.post(
                Received(link, response.sequence, response.acknowledged, tuple(messages))
            )

    async def _write_all(self, call: SessionCall) -> None:
        while True:
            batch = await self._writes.get()
            if batch is None:
                await call.done_writing()
                return
            await call.write(encode_request(batch.sequence, batch.acknowledged, batch.messages))
