"""Peer: one grpc.aio stream between two processes, one record a message, nothing acknowledged.

The messages are protobuf messages, read and written by generated code, as in a service of anybody's.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any, cast

import grpc
import grpc.aio

from bench.streams.passed import Passed
from shoal.v1.streams_service_pb2 import PullResponse

METHOD = "/bench.Records/Pull"
LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def pass_records(count: int, size: int, rate: float = 0.0) -> Passed:
    """Pass records from a server to a client process, so many a second if `rate` is given."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.streams.plain_grpc",
        str(count),
        str(size),
        str(rate),
        stdout=asyncio.subprocess.PIPE,
    )
    if server.stdout is None:
        raise RuntimeError("the server has no output")
    port = int(await server.stdout.readline())
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.streams.plain_grpc",
        str(count),
        str(port),
        "timed" if rate else "take",
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await client.communicate()
    server.terminate()
    await server.wait()
    return Passed.told(0.0, json.loads(told), count)


async def serve(count: int, size: int, rate: float) -> None:
    """Serve the records to whoever asks."""
    record = b"x" * size

    async def pull(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        start = time.monotonic()
        for number in range(count):
            wait = start + number / rate - time.monotonic() if rate else 0
            if wait > 0:
                await asyncio.sleep(wait)
            block = struct.pack("<Q", time.monotonic_ns()) + record[8:] if rate else record
            await context.write(PullResponse(block=block))

    handler = cast("Any", grpc).unary_stream_rpc_method_handler(
        pull, response_serializer=PullResponse.SerializeToString
    )
    server = grpc.aio.server(options=LIMIT)
    generic = cast("Any", grpc).method_handlers_generic_handler("bench.Records", {"Pull": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


async def take(count: int, port: int, *, timed: bool) -> None:
    """Read all records and print how long it took."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LIMIT) as channel:
        pull = cast(
            "Any", channel.unary_stream(METHOD, response_deserializer=PullResponse.FromString)
        )
        await channel.channel_ready()
        start = time.monotonic()
        call = pull(b"")
        taken = size = 0
        late: list[int] = []
        while (response := await call.read()) is not grpc.aio.EOF:
            taken += 1
            size += len(response.block)
            if timed:
                late.append(time.monotonic_ns() - int.from_bytes(response.block[:8], "little"))
        seconds = time.monotonic() - start
    if taken != count:
        raise SystemExit(f"{taken} of {count} records came")
    late.sort()
    told = {"end": seconds, "records": taken}
    if late:
        told |= {
            "p50_ms": late[taken // 2] / 1e6,
            "p99_ms": late[taken * 99 // 100] / 1e6,
            "max_ms": late[-1] / 1e6,
        }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[3] in {"take", "timed"}:
        asyncio.run(take(int(sys.argv[1]), int(sys.argv[2]), timed=sys.argv[3] == "timed"))
    else:
        asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
