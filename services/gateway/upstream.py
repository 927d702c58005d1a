"""The gateway's connection to a controller, with an identity whose certificate is kept fresh.

Rule: a call begins on the newest connection and stays on it. A renewed certificate makes a new connection, and the old
one is closed when the last call on it has ended, so that no watch is cut by a renewal.

What a user may is decided before (`door.py`). The user is named in the metadata of each call, so that the controller
has it in its events, and as the creator of a pipeline.
"""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import grpc.aio
from google.protobuf.message import Message

from services.gateway.gateway_counts import GatewayCounts
from services.gateway.resumption import resumption_of
from services.identity.access.caller import USER_KEY
from services.runtime.process import StartRefusedError
from shoal.cli.identity_folder import credentials_in
from shoal.cli.renewal import renew_if_due
from shoal.connection import Connection
from shoal.credentials import Credentials
from shoal.errors import ShoalError
from shoal.identity import Role


@dataclass(frozen=True, slots=True)
class UpstreamMethod:
    """A method of the contract as it is called on a channel.

    Attributes:
        path: `/shoal.v1.NodesService/ListNodes`.
        response: class of its answers.
        safe: whether it changes nothing, so that it may be asked again after a cut.
    """

    path: str
    response: type[Message]
    safe: bool


@dataclass(eq=False, slots=True)
class _Held:
    """A connection, and how many calls are on it."""

    connection: Connection
    calls: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    stubs: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(eq=False)
class Upstream:
    """Calls one controller; let `run` run beside the calls.

    Args:
        address: `host:port`.
        identity: folder of the credentials of a gateway; None for a controller with --insecure.
        call_seconds: most that a call may take which is answered once.
        now: the time.
        clock: seconds on a monotonic clock.
        counts: where calls are counted.
        renew_seconds: how often it looks whether its certificate is to be renewed.
    """

    address: str
    identity: Path | None
    call_seconds: float
    now: Callable[[], dt.datetime]
    clock: Callable[[], float]
    counts: GatewayCounts
    renew_seconds: float = 3600.0
    credentials: Credentials | None = field(default=None, init=False)
    """What it proves; None before `run`, and for a controller with --insecure."""
    _held: _Held | None = field(default=None, init=False)

    @property
    def cluster(self) -> str:
        """Id of the cluster; empty for one without identity."""
        return "" if self.credentials is None else self.credentials.identity.cluster

    async def run(self, ready: Callable[[], None]) -> NoReturn:
        """Hold a connection and renew the identity in time, until cancelled.

        Args:
            ready: called once calls may be made.

        Raises:
            StartRefusedError: the identity cannot be used, or is no gateway's.
        """
        held = self._held = _Held(await self._connection())
        try:
            ready()
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await asyncio.sleep(self.renew_seconds)
                    if self.identity is None or not await renew_if_due(
                        self.identity, self.address, self.now()
                    ):
                        continue
                    old, held = held, _Held(await self._connection())
                    self._held = held
                    tasks.create_task(_retire(old))
        finally:
            self._held = None
            await held.connection.channel.close()

    async def call(self, method: UpstreamMethod, request: Message, user: str) -> Any:
        """Make one call, and return its answer.

        Raises:
            ShoalError: the controller refused, did not answer in time or cannot be reached.
        """
        begun = self.clock()
        with self._using() as held:
            stub = _for(_stub(held, method, held.connection.channel.unary_unary), user)
            if method.safe:
                answer = await held.connection.call(
                    stub, request, deadline_seconds=self.call_seconds
                )
            else:
                try:
                    answer = await stub(request, timeout=self.call_seconds)
                except grpc.aio.AioRpcError as error:
                    raise held.connection.error(error, self.call_seconds) from error
        self.counts.answers.add(self.clock() - begun)
        return answer

    async def stream(
        self, method: UpstreamMethod, request: Message, user: str
    ) -> AsyncGenerator[Any, None]:
        """Read a stream of answers; after a cut it goes on where it was, if it can be resumed.

        Raises:
            ShoalError: the controller refused, or stayed away for longer than the patience.
        """
        with self._using() as held:
            stub = _for(_stub(held, method, held.connection.channel.unary_stream), user)
            resumption = resumption_of(request, method.response)
            if resumption is None:
                stream = _read(held.connection, stub(request))
            else:
                stream = held.connection.stream(
                    stub, resumption.request, endless=resumption.endless
                )
            async with contextlib.aclosing(stream) as responses:
                async for response in responses:
                    new = response if resumption is None else resumption.unseen(response)
                    if new is not None:
                        self.counts.messages += 1
                        yield new

    @contextmanager
    def _using(self) -> Iterator[_Held]:
        held = self._held
        if held is None:
            raise ShoalError(
                "STOPPING",
                "the gateway is stopping, or has just started; try again",
                code="UNAVAILABLE",
            )
        held.calls += 1
        held.idle.clear()
        try:
            yield held
        except ShoalError as error:
            self.counts.failed[error.code] += 1
            raise
        finally:
            held.calls -= 1
            if not held.calls:
                held.idle.set()

    async def _connection(self) -> Connection:
        proved = None
        if self.identity is not None:
            try:
                proved = await asyncio.to_thread(credentials_in, self.identity)
            except ShoalError as error:
                raise StartRefusedError(error.message) from error
            if proved.identity.role is not Role.GATEWAY:
                raise StartRefusedError(
                    f"{self.identity} holds the identity {proved.identity.described}, and a gateway speaks for "
                    "users only as a gateway: make a token with `shoal token create --role gateway`, join with "
                    "`shoal login --identity FOLDER`, and name that folder with --identity"
                )
            self.credentials = proved
        return Connection(self.address, deadline_seconds=self.call_seconds, credentials=proved)


async def _retire(held: _Held) -> None:
    """Close a connection that another one has replaced, once the last call on it is over."""
    if held.calls:
        await held.idle.wait()
    await held.connection.channel.close()


def _stub(held: _Held, method: UpstreamMethod, make: Callable[..., Any]) -> Any:
    stub = held.stubs.get(method.path)
    if stub is None:
        stub = held.stubs[method.path] = make(
            method.path,
            request_serializer=_serialized,
            response_deserializer=method.response.FromString,
        )
    return stub


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _for(stub: Any, user: str) -> Any:
    """Return a method that names a user with each call."""
    return partial(stub, metadata=((USER_KEY, user),))


async def _read(connection: Connection, call: Any) -> AsyncGenerator[Any, None]:
    """Read a stream that cannot be resumed, and end its call with it."""
    try:
        while True:
            response = await call.read()
            if response is grpc.aio.EOF:
                break
            yield response
        await call.code()
    except grpc.aio.AioRpcError as error:
        raise connection.error(error, 0.0) from error
    finally:
        call.cancel()
