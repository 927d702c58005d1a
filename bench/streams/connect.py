"""What a connection costs: dial a stream worker anew, call it, and hear its answer; in the clear and under TLS.

The call is a tap of a job that is not there, which is answered at once: without TLS that is one
connection and one call, with it a handshake with certificates at both ends and a ticket beside.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from bench.streams.figure import Figure
from shoal.channel import STREAM, channel_options, open_channel
from shoal.identity import Role, dns_name
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.streams_service_pb2_grpc import StreamsServiceStub
from tests.kit.board import Board, boards
from tests.kit.identities import ProvenCluster

DIALS = 60
LEFT_OUT = 10
"""The first of them, which load code and find no session to go on with."""


async def figures() -> list[Figure]:
    """Measure both, in turns."""
    cluster = ProvenCluster()
    with tempfile.TemporaryDirectory(prefix="sc", dir="/tmp") as folder:
        async with (
            boards(Path(folder) / "clear", 1) as clear,
            boards(Path(folder) / "tls", 1, cluster=cluster) as proven,
        ):
            times: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(DIALS):
                times[False].append(await _dial(clear[0], None))
                times[True].append(await _dial(proven[0], cluster))
    plain, under = (statistics.median(times[tls][LEFT_OUT:]) * 1e3 for tls in (False, True))
    return [
        Figure(
            "TLS",
            "dial anew and hear the first answer, against in the clear",
            f"{under:.2f} ms",
            f"{plain:.2f} ms",
            f"{under / plain:.2f}",
            "",
            None,
            {
                "connect_ms": [round(under, 3), round(plain, 3)],
                "connect_ratio": round(under / plain, 3),
            },
            f"median of {DIALS - LEFT_OUT}",
        )
    ]


async def _dial(board: Board, cluster: ProvenCluster | None) -> float:
    asked = v1.TapRequest(namespace="default", pipeline="p", job="none", epoch=1, port="out")
    credentials, expect = None, ""
    if cluster is not None:
        credentials = cluster.credentials(Role.CONTROLLER, "main")
        expect = dns_name(cluster.cluster, Role.NODE, "board-0")
        asked.ticket = cluster.ticket(
            v1.LaneTicket(
                cluster=cluster.cluster,
                namespace="default",
                pipeline="p",
                lane="none.out",
                kind=v1.LANE_KIND_TAP,
                producer_node="board-0",
                producer_epoch=1,
            )
        )
    began = time.perf_counter()
    channel = open_channel(board.address, channel_options(STREAM), credentials, expect=expect)
    async with channel:
        call: Any = StreamsServiceStub(channel).Tap(asked)
        if await call.code() is not grpc.StatusCode.NOT_FOUND:
            raise RuntimeError(f"the worker said {await call.code()}: {await call.details()}")
        return time.perf_counter() - began
