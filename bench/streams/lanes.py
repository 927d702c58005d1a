"""Ours: program, worker, gRPC, worker, program; every record acknowledged and retained."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.streams.passed import Passed
from shoal.v1 import spec_pb2 as spec
from shoal.v1.streams_service_pb2 import LANE_KIND_JOB, LaneTicket
from tests.kit.board import Board, boards
from tests.kit.identities import ProvenCluster
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output

PROGRAMS = Path(__file__).parent / "programs"
WORKER, FORGETFUL = "services.streams.worker", "bench.streams.forgetful"
LARGE_BYTES = 64 * 1024
LANE = "send.out/take.in"


async def pass_records(
    count: int,
    size: int,
    *,
    nodes: int = 2,
    rate: float = 0.0,
    program: str = "send.py",
    consumer: str = "take.py",
    forgetful: bool = False,
    tls: bool = False,
) -> Passed:
    """Pass records from one job to another, on two nodes or on one.

    Args:
        count: how many.
        size: of each, in bytes.
        nodes: 2, or 1 for both jobs on one.
        rate: a second; 0 for as fast as it goes.
        program: sends.
        consumer: takes.
        forgetful: no job acknowledges, and nothing is retained; see `forgetful`.
        tls: whether both nodes prove themselves, and the lane has a ticket.
    """
    cluster = ProvenCluster() if tls else None
    # A short folder, since Unix sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:
        module = FORGETFUL if forgetful else WORKER
        async with boards(Path(folder), nodes, module=module, cluster=cluster) as made:
            return await between(
                made[0],
                made[-1],
                count,
                size,
                rate=rate,
                programs=(program, consumer),
                forgetful=forgetful,
                ticket=b"" if cluster is None else ticket(cluster),
            )


def ticket(cluster: ProvenCluster) -> bytes:
    """Sign the ticket of the lane from `board-0` to `board-1`."""
    return cluster.ticket(
        LaneTicket(
            cluster=cluster.cluster,
            namespace="default",
            pipeline="p",
            lane=LANE,
            kind=LANE_KIND_JOB,
            producer_node="board-0",
            producer_epoch=1,
            consumer_node="board-1",
            consumer_epoch=1,
        )
    )


async def between(
    left: Board,
    right: Board,
    count: int,
    size: int,
    *,
    rate: float = 0.0,
    programs: tuple[str, str] = ("send.py", "take.py"),
    forgetful: bool = False,
    ticket: bytes = b"",
) -> Passed:
    """Pass records from a job on one board to a job on another, or on the same."""
    taken = lane("send.out", "take.in", output=False, address=left.address, epoch=1)
    taken.ticket = ticket
    sender = assignment(
        "send",
        outputs=[stream_output("out")],
        lanes=[lane("send.out", "take.in", output=True, epoch=1)],
    )
    taker = assignment(
        "take",
        inputs=[stream_input("in", "send", "out")],
        lanes=[taken],
        # A consumer without state: what it acknowledged is let go, so nothing is spooled.
        recovery=spec.RECOVERY_RESUME,
    )
    how = "timed" if rate else "counted"
    if forgetful:
        how = "silent"
    repeats = str(8 if size >= LARGE_BYTES else count)
    await right.run(taker, [sys.executable, str(PROGRAMS / programs[1]), how, repeats])
    await left.run(
        sender, [sys.executable, str(PROGRAMS / programs[0]), str(count), str(size), str(rate)]
    )
    if not await left.conclude(sender.ref) or not await right.conclude(taker.ref):
        raise RuntimeError(f"a program failed: {left.folder} {right.folder}")
    start = float(left.printed("send"))
    told = json.loads(right.printed("take"))
    if told["records"] != count:
        raise RuntimeError(f"{told['records']} of {count} records came")
    if told["wrong"]:
        raise RuntimeError(f"{told['wrong']} records came out of order")
    return Passed.told(start, told, count)
