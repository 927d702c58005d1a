"""Our options and errors on real gRPC connections."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.runtime import rpc
from shoal.channel import STREAM, channel_options
from tests.kit.until import until

Context = grpc.aio.ServicerContext[bytes, bytes]
Channel = grpc.aio.Channel

KINDS = ["unary_unary", "unary_stream", "unary_written", "stream_unary", "stream_stream"]


class Refusing:
    """A service whose every method refuses, once of each kind that gRPC has."""

    async def unary(self, _request: bytes, _context: Context) -> bytes:
        raise refusal()

    async def yielding(self, _request: bytes, _context: Context) -> AsyncIterator[bytes]:
        yield b"first"
        raise refusal()

    async def written(self, _request: bytes, context: Context) -> None:
        await context.write(b"first")
        raise refusal()

    async def failing(self, _request: bytes, _context: Context) -> bytes:
        raise OSError("a mistake of ours")

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test",
            {
                "unary_unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "unary_stream": grpc.unary_stream_rpc_method_handler(self.yielding),
                "unary_written": grpc.unary_stream_rpc_method_handler(self.written),
                "stream_unary": grpc.stream_unary_rpc_method_handler(self.unary),
                "stream_stream": grpc.stream_stream_rpc_method_handler(self.yielding),
                "failing": grpc.unary_unary_rpc_method_handler(self.failing),
            },
        )


def refusal() -> rpc.RpcError:
    return rpc.rpc_error(
        grpc.StatusCode.FAILED_PRECONDITION, "FENCED", "epoch 3 is over", {"epoch": "3"}
    )


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server = grpc.aio.server(
        interceptors=[rpc.ErrorInterceptor()], options=rpc.server_options(STREAM)
    )
    server.add_generic_rpc_handlers([Refusing().handlers()])
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected() -> AsyncIterator[Channel]:
    async with (
        serving() as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options(STREAM)) as channel,
    ):
        yield channel


async def call(channel: Channel, method: str) -> list[bytes]:
    """Call one method of the service and return all that it answered."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"request"

    path = f"/test/{method}"
    many: AsyncIterable[bytes]
    match method:
        case "stream_unary":
            one_for_many: grpc.aio.StreamUnaryMultiCallable[bytes, bytes]
            one_for_many = channel.stream_unary(path)
            return [await one_for_many(requests(), timeout=10)]
        case "stream_stream":
            many_for_many: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
            many_for_many = channel.stream_stream(path)
            many = many_for_many(requests(), timeout=10)
            return [answer async for answer in many]
        case "unary_stream" | "unary_written":
            many_for_one: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
            many_for_one = channel.unary_stream(path)
            many = many_for_one(b"request", timeout=10)
            return [answer async for answer in many]
        case _:
            one_for_one: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            one_for_one = channel.unary_unary(path)
            return [await one_for_one(b"request", timeout=10)]


@pytest.mark.parametrize("method", KINDS)
async def test_a_raised_error_reaches_the_caller_whole(method: str) -> None:
    async with connected() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, method)
    error = caught.value
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "epoch 3 is over"
    metadata: dict[str, Any] = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata[rpc.STATUS_DETAILS])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message) == (9, "epoch 3 is over")
    assert (info.reason, info.domain, dict(info.metadata)) == ("FENCED", "shoal", {"epoch": "3"})


@pytest.mark.parametrize(
    ("method", "code"),
    [("failing", grpc.StatusCode.UNKNOWN), ("nobody", grpc.StatusCode.UNIMPLEMENTED)],
)
async def test_other_failures_stay_as_grpc_has_them(method: str, code: grpc.StatusCode) -> None:
    async with connected() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, method)
    assert caught.value.code() is code


def test_ok_is_not_an_error() -> None:
    with pytest.raises(ValueError, match="OK is not an error"):
        rpc.rpc_error(grpc.StatusCode.OK, "FINE", "all is well")


async def test_a_port_is_had_once() -> None:
    async with serving() as port:
        second = grpc.aio.server(options=rpc.server_options(STREAM))
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            rpc.bind(second, f"127.0.0.1:{port}")
        await second.stop(None)


class Silent:
    """A relay to a server that can fall silent without closing, as a cut link does."""

    def __init__(self, port: int) -> None:
        self.carried = 0
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        self._open.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, to_writer]
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(reader, to_writer))
            pumps.create_task(self._pump(to_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._open.wait()
            self.carried += 1
            sink.write(data)
        sink.close()

    async def close(self) -> None:
        self._open.set()
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            await writer.wait_closed()


@asynccontextmanager
async def through_a_relay() -> AsyncIterator[tuple[Silent, Channel]]:
    async with serving() as port:
        relay = Silent(port)
        listener = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
        address: tuple[str, int] = listener.sockets[0].getsockname()
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{address[1]}", options=channel_options(STREAM)
        )
        try:
            yield relay, channel
        finally:
            await channel.close(None)
            await relay.close()
            listener.close()


async def _state(channel: Channel, wanted: Callable[[grpc.ChannelConnectivity], bool]) -> None:
    async with asyncio.timeout(10):
        state = channel.get_state(try_to_connect=True)
        while not wanted(state):
            await channel.wait_for_state_change(state)
            state = channel.get_state()


async def test_pings_find_a_link_that_fell_silent_even_without_calls() -> None:
    async with through_a_relay() as (relay, channel):
        await _state(channel, lambda state: state is grpc.ChannelConnectivity.READY)
        relay.cut()
        await _state(channel, lambda state: state is not grpc.ChannelConnectivity.READY)


async def test_a_server_bears_our_pings() -> None:
    async with through_a_relay() as (relay, channel):
        await _state(channel, lambda state: state is grpc.ChannelConnectivity.READY)
        begun = relay.carried
        # Ten pings and ten answers; a server that minds hangs up at the third.
        await until(lambda: relay.carried >= begun + 20, what="ten pings answered")
        assert channel.get_state() is grpc.ChannelConnectivity.READY
