"""Calls between the stream workers of nodes, as what dials and what serves them uses them.

gRPC stands behind these protocols in the product (`pull.Channels`, `grpc.aio.ServicerContext`). What
stands in for it keeps its rules: messages of one call arrive in order or the call breaks, `read`
returns `grpc.aio.EOF` at the end, and a call that is over raises one of `BROKEN_CALL`.
"""

import asyncio
from typing import Any, Protocol

import grpc
import grpc.aio

from shoal.v1.streams_service_pb2 import PullRequest

BROKEN_CALL = (
    grpc.RpcError,
    grpc.aio.UsageError,
    grpc.aio.InternalError,
    asyncio.InvalidStateError,
)
"""What grpc.aio raises from `read` and `write` of a call that is over."""


class PeerUnknownError(Exception):
    """A peer that is not dialled, since it could not be told from another; the message says why."""


class ServerContext(Protocol):
    """A call as its server holds it. One task reads, one writes."""

    async def read(self) -> Any:
        """Return the next message, as the method's deserializer made it; EOF at the end."""
        ...

    async def write(self, message: Any, /) -> None:
        """Send a message; returns when there is room for the next one."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any, /) -> Any:
        """End the call with an error; does not return."""
        ...


class PullCall(Protocol):
    """A call of StreamsService.Pull as its consumer holds it. One task reads, one writes."""

    async def read(self) -> Any:
        """Return what `wire.read_message` made of the next message; EOF at the end."""
        ...

    async def write(self, request: PullRequest, /) -> None:
        """Send a request; returns when there is room for the next one."""
        ...

    def cancel(self) -> bool:
        """End the call; harmless when it is over."""
        ...


class PeerConnection(Protocol):
    """A way to one peer, for any number of calls.

    `cut` says that the peer was left, and its calls were ended: they raise `CancelledError` then, as a
    call that was cancelled here does.
    """

    cut: bool

    def pull(self) -> PullCall:
        """Begin a call of StreamsService.Pull; that the peer does not answer shows when it is used."""
        ...


class PeerConnections(Protocol):
    """Connections to peers, shared by the lanes that are open to them."""

    async def take(self, address: str, *, node: str, bulk: bool) -> PeerConnection:
        """Return a connection to `node` at an address of a stream worker; give it back with `leave`.

        Lanes with large records are `bulk`, and have a connection of their own. `node` is the one that
        the ticket names, and empty without a ticket.

        Raises:
            PeerUnknownError: there is no way to dial that is safe.
            OSError: the peer does not answer.
        """
        ...

    async def leave(self, connection: PeerConnection, *, broken: bool) -> None:
        """Give a connection back; one that is broken is not used again."""
        ...
