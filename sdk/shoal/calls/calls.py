"""What all requests of a client share: its connection, pages and watches."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

import grpc.aio

from shoal.address import check_address
from shoal.connection import Connection, Unary, decoded
from shoal.errors import ShoalError
from shoal.submitter import Submitter
from shoal.v1 import (
    archive_service_pb2_grpc,
    history_service_pb2_grpc,
    identity_service_pb2_grpc,
    keys_service_pb2_grpc,
    lanes_service_pb2_grpc,
    nodes_service_pb2_grpc,
    overview_service_pb2_grpc,
    pipelines_service_pb2_grpc,
    records_service_pb2_grpc,
    secrets_service_pb2_grpc,
    specs_service_pb2_grpc,
    stored_pipelines_service_pb2_grpc,
)
from shoal.view import SnapshotEnd

if TYPE_CHECKING:
    from shoal.credentials import Credentials

PAGE_SIZE_MAX: Final = 1_000
"""Most things that a controller puts on a page."""

ValueT = TypeVar("ValueT")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=_Page)


class _Open:
    """The services of a controller, on one connection."""

    def __init__(self, connection: Connection, group: asyncio.TaskGroup) -> None:
        channel = connection.channel
        self.connection = connection
        self.submitter = Submitter(connection)
        self.submitting = group.create_task(self.submitter.run())
        self.pipelines = pipelines_service_pb2_grpc.PipelinesServiceStub(channel)
        self.nodes = nodes_service_pb2_grpc.NodesServiceStub(channel)
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self.keys = keys_service_pb2_grpc.KeysServiceStub(channel)
        self.archive = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        self.overview = overview_service_pb2_grpc.OverviewServiceStub(channel)
        self.history = history_service_pb2_grpc.HistoryServiceStub(channel)
        self.secrets = secrets_service_pb2_grpc.SecretsServiceStub(channel)
        self.records = records_service_pb2_grpc.RecordsServiceStub(channel)
        self.specs = specs_service_pb2_grpc.SpecsServiceStub(channel)
        self.stored = stored_pipelines_service_pb2_grpc.StoredPipelinesServiceStub(channel)
        self.lanes = lanes_service_pb2_grpc.LanesServiceStub(channel)


class ControllerCalls:
    """A connection to one controller; use it with `async with`.

    Args:
        address: `host:port` of the controller.
        namespace: whose pipelines are meant.
        deadline_seconds: how long a request may take, with retries after a cut.
        patience_seconds: how long a watch may stay cut before it is given up.
        new_id: makes request ids; unique ones.
        credentials: what is proved to the controller (`shoal.credentials.read_credentials`); None for a
            controller with --insecure.

    Raises:
        ShoalError: the address is malformed.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str = "default",
        deadline_seconds: float = 30.0,
        patience_seconds: float = 120.0,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        credentials: "Credentials | None" = None,
    ) -> None:
        self.address = check_address(address)
        self.namespace = namespace
        self.credentials = credentials
        self._deadline_seconds = deadline_seconds
        self._patience_seconds = patience_seconds
        self._new_id = new_id
        self._group = asyncio.TaskGroup()
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        connection = Connection(
            self.address,
            deadline_seconds=self._deadline_seconds,
            patience_seconds=self._patience_seconds,
            credentials=self.credentials,
        )
        await self._group.__aenter__()
        self._open = _Open(connection, self._group)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        held = self._held
        self._open = None
        held.submitting.cancel()
        # The caller's own errors go by the group, which would wrap them; cancellation it must see.
        try:
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)
        finally:
            await held.connection.channel.close()

    @property
    def _authorities(self) -> bytes:
        """Certificates of the cluster's authorities, which sign for its archive too; empty for none."""
        return b"" if self.credentials is None else self.credentials.authorities

    @property
    def _held(self) -> _Open:
        if self._open is None:
            raise RuntimeError("the client is not open; use `async with Client(…) as client`")
        return self._open

    @property
    def lanes(self) -> lanes_service_pb2_grpc.LanesServiceStub:
        """Lanes between this client and pipelines; see `shoal.local`."""
        return self._held.lanes

    def error(self, error: grpc.aio.AioRpcError) -> ShoalError:
        """Translate gRPC's error of a call that was made on `lanes`."""
        return self._held.connection.error(error, 0.0)

    async def _call(
        self,
        method: Unary[RequestT, ResponseT],
        request: RequestT,
        deadline_seconds: float | None = None,
    ) -> ResponseT:
        return await self._held.connection.call(method, request, deadline_seconds=deadline_seconds)

    async def _pages(
        self,
        method: Unary[RequestT, PageT],
        request: Callable[[str], RequestT],
        page_token: str = "",
    ) -> AsyncGenerator[PageT, None]:
        """Read one page after the other; `request` asks for the page with a token."""
        while True:
            page = await self._call(method, request(page_token))
            yield page
            page_token = page.next_page_token
            if not page_token:
                return

    async def _watch(
        self,
        method: Any,
        request: Callable[[int], object],
        field: str,
        decode: Callable[[Any], ValueT],
        several: str = "",
    ) -> AsyncGenerator[ValueT | SnapshotEnd, None]:
        """Show things as they are and then as they change; after a cut, from the last revision on.

        Args:
            method: the method of a stub.
            request: asks for what is behind a revision.
            field: of the answers, the one that holds a thing.
            decode: reads it.
            several: the one that holds several things, if there is such a one.
        """
        revision = 0
        stream = self._held.connection.stream(method, lambda: request(revision), endless=True)
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                change = response.WhichOneof("change")
                if change == field:
                    yield decoded(decode, getattr(response, field))
                elif change is None and several:
                    for one in getattr(response, several):
                        yield decoded(decode, one)
                elif change == "snapshot_end":
                    yield SnapshotEnd(response.revision)
                # Anything else is something that a newer controller says.
                revision = max(revision, response.revision)
