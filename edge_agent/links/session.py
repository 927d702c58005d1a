"""The link from an agent to a controller: one bidirectional call of `SessionService.Connect`."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeAlias, cast

import grpc

from shoal.channel import SESSION, channel_options, open_channel
from shoal.credentials import Credentials
from shoal.v1 import session_service_pb2, session_service_pb2_grpc


class SessionCall(Protocol):
    """What is used of a bidirectional call: as `grpc.aio.StreamStreamCall`, with its errors and its EOF."""

    async def read(self) -> session_service_pb2.ConnectResponse:
        """The next message, or `grpc.aio.EOF`."""
        ...

    async def write(self, request: session_service_pb2.ConnectRequest) -> None:
        """Send a message; returning is not delivery."""
        ...

    async def done_writing(self) -> None:
        """Half-close."""
        ...

    async def code(self) -> grpc.StatusCode:
        """How the call ended, once it has."""
        ...

    async def details(self) -> str:
        """What the other side said of its end."""
        ...

    def cancel(self) -> bool:
        """End the call at once."""
        ...


SessionDialler: TypeAlias = Callable[[str], contextlib.AbstractAsyncContextManager[SessionCall]]
"""Opens a call to the controller at an address, `host:port`; leaving the context ends the connection."""

HandshakeExplainer: TypeAlias = Callable[[str, str], str]
"""Says why a handshake failed, by the details of gRPC's error and the address; empty if it was no handshake."""


def no_explanation(_details: str, _address: str) -> str:
    """Explain nothing, as where no process has to prove anything."""
    return ""


@contextlib.asynccontextmanager
async def dial_session(
    address: str, credentials: Credentials | None = None
) -> AsyncIterator[SessionCall]:
    """Open a call over a gRPC channel of its own; with credentials, a controller of the cluster has to answer."""
    async with open_channel(address, channel_options(SESSION), credentials) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        yield cast("SessionCall", stub.Connect())
