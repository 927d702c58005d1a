"""What the gateway costs: CPU for 1,000 updates of a watch, and how much later they come, by each protocol.

A server of gRPC shows 1,000 changes of a node, RATE a second; each says when it left. A gateway stands before it, a
process of its own, and one client after the other reads by Connect in JSON, Connect in binary, and gRPC-Web. CPU is
that of the gateway's process, from /proc; latency is from the server's write to the client's read, on one clock.

Run it with `make bench-gateway`; RATE=200 and UPDATES=1000 say how much. The bar: 0.4 s in JSON, 0.3 s in binary.
"""

import asyncio
import json
import os
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import aiohttp
import grpc
import grpc.aio

from shoal.v1 import nodes_service_pb2 as v1
from tests.kit.running_gateway import RunningGateway

RATE: Final = int(os.environ.get("RATE", "200"))
UPDATES: Final = int(os.environ.get("UPDATES", "1000"))
TICKS: Final = os.sysconf("SC_CLK_TCK")
KINDS: Final = {
    "Connect, JSON": ("application/connect+json", b"{}", 0.4),
    "Connect, binary": ("application/connect+proto", b"", 0.3),
    "gRPC-Web": ("application/grpc-web+proto", b"", 0.3),
}


class ChangingNode:
    """Shows a node that changes; the revision of an answer is the moment at which it left, in ns."""

    async def watch(
        self, request: v1.WatchNodesRequest, context: Any
    ) -> AsyncIterator[v1.WatchNodesResponse]:
        """Show UPDATES changes."""
        del request, context
        node = v1.Node(
            name="jetson-1",
            connected=True,
            member_state=v1.MEMBER_STATE_ALIVE,
            labels={"site": "roof", "camera": "front"},
            attempts=["pipelines/detect-1/jobs/detector-0/attempts/1"],
            agent_version="0.1.0",
            architecture="aarch64",
            stream_address="10.0.0.11:7947",
        )
        node.capacity.cpus, node.capacity.memory_bytes = 4, 8 << 30
        begin = time.monotonic()
        for number in range(UPDATES):
            await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            node.last_seen_time.GetCurrentTime()
            node.revision = number + 1
            yield v1.WatchNodesResponse(node=node, revision=time.monotonic_ns())


def revision(kind: str, data: bytes) -> int:
    """Return the revision of an answer."""
    if kind.endswith("json"):
        return int(json.loads(data)["revision"])
    return int(v1.WatchNodesResponse.FromString(data).revision)


async def read(gateway: RunningGateway, token: str, kind: str, request: bytes) -> list[float]:
    """Read UPDATES changes, and return how late each came, in ms."""
    late: list[float] = []
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{gateway.url}/shoal.v1.NodesService/WatchNodes",
            data=struct.pack(">BI", 0, len(request)) + request,
            headers={"content-type": kind, "authorization": f"Bearer {token}"},
        ) as answer,
    ):
        while len(late) < UPDATES:
            _, size = struct.unpack(">BI", await answer.content.readexactly(5))
            data = await answer.content.readexactly(size)
            late.append((time.monotonic_ns() - revision(kind, data)) / 1e6)
    return late


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


async def main() -> None:
    """Measure each protocol."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        ChangingNode().watch,
        request_deserializer=v1.WatchNodesRequest.FromString,
        response_serializer=v1.WatchNodesResponse.SerializeToString,
    )
    methods = {"WatchNodes": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("shoal.v1.NodesService", methods),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with tempfile.TemporaryDirectory() as folder:
        gateway = RunningGateway(Path(folder), f"127.0.0.1:{port}", "--insecure")
        token = gateway.allow("bench")
        async with gateway:
            process = gateway.process
            pid = 0 if process is None else process.pid
            print(f"{UPDATES} updates, {RATE} a second, load {os.getloadavg()[0]:.1f}")
            print("| protocol | CPU-s for 1,000 | bar | p50 ms | p99 ms |")
            print("|---|---|---|---|---|")
            for name, (kind, request, bar) in KINDS.items():
                before = cpu_seconds(pid)
                late = await read(gateway, token, kind, request)
                cost = (cpu_seconds(pid) - before) / UPDATES * 1000
                parts = quantiles(late, n=100)
                print(f"| {name} | {cost:.2f} | {bar} | {parts[49]:.2f} | {parts[98]:.2f} |")
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
