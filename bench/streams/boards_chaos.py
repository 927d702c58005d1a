"""`python -m bench.streams.boards_chaos`: chaos without agents and controller, for a quick look.

A source, a stateless middle and a checking sink; programs and stream workers are killed and links
cut, from a seed. What stands in for the controller replaces what died, with a higher epoch. At the
end the sink has every record once and in order, or the seed is printed to run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from edge_agent.keeper.client import KeeperError
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import spec_pb2 as spec
from tests.kit.board import WORKER, Board, boards
from tests.kit.stream_worker import assignment, lane, stream_input, stream_output
from tests.kit.tcp_proxy import TcpProxy

PROGRAMS = Path(__file__).parent / "programs"
CHAIN = ("count", "square", "verify")


@dataclass
class Placed:
    """One job: where it is, and which attempt of it is the current one."""

    name: str
    board: Board
    proxy: TcpProxy
    epoch: int = 0
    pid: int = 0
    done: bool = False


@dataclass
class Outcome:
    """What the sink found, and what was done to it."""

    records: int
    wrong: int
    seconds: float
    attempts: int
    faults: dict[str, int] = field(default_factory=dict[str, int])


class Chaos:
    """The chain on its boards, and the hand that breaks it.

    Args:
        jobs: the jobs in the order of the chain.
        count: how many records the source sends.
        chance: draws what breaks, and when.
    """

    def __init__(self, jobs: Sequence[Placed], count: int, chance: random.Random) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._count = count
        self._chance = chance
        self._placing = asyncio.Lock()
        self.faults: dict[str, int] = {}
        self.attempts = len(jobs)

    async def run(self, faults: int) -> Outcome:
        """Stream everything, with so many faults on the way."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            breaking = tasks.create_task(self._break(faults))
            async with asyncio.TaskGroup() as lives:
                for job in self._jobs.values():
                    lives.create_task(self._live(job))
            breaking.cancel()
        sink = self._jobs["verify"]
        told = json.loads(sink.board.printed("verify", sink.epoch))
        return Outcome(
            told["records"], told["wrong"], time.monotonic() - began, self.attempts, self.faults
        )

    async def _live(self, job: Placed) -> None:
        """Run attempts of a job until one has drained."""
        while not await self._attempt(job):
            self.attempts += 1

    async def _attempt(self, job: Placed) -> bool:
        """Run one attempt, and say whether it came to its end."""
        await self._place(job)
        ref = self._assignment(job).ref
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(self._guard(job, ref))
            try:
                well = await job.board.conclude(ref)
            except grpc.aio.AioRpcError:
                well = False  # its worker was killed, and the next one does not know the attempt
            guarding.cancel()
        if well and await self._drained(job, ref):
            async with self._placing:
                job.done = True
                await self._tell()
            return True
        with contextlib.suppress(grpc.aio.AioRpcError, KeeperError):
            await job.board.forget(ref)
        return False

    async def _guard(self, job: Placed, ref: session.AttemptRef) -> None:
        """End a program whose streams cannot go on."""
        board = job.board
        async with board.changed:
            await board.changed.wait_for(lambda: board.told(ref).failure.code)
        code = board.told(ref).failure.code
        self.faults[code] = self.faults.get(code, 0) + 1
        _kill(job.pid)

    async def _place(self, job: Placed) -> None:
        async with self._placing:
            job.epoch += 1
            program = [sys.executable, str(PROGRAMS / f"{job.name}.py"), str(self._count)]
            job.pid = await job.board.run(self._assignment(job), program)
            await self._tell()

    async def _drained(self, job: Placed, ref: session.AttemptRef) -> bool:
        """Wait until nobody needs the attempt; say whether it came to that."""
        board = job.board
        async with board.changed:
            await board.changed.wait_for(
                lambda: board.told(ref).drained or board.told(ref).failure.code or not board.address
            )
            return board.told(ref).drained

    def _assignment(self, job: Placed) -> session.Assignment:
        return assignment(
            job.name,
            epoch=job.epoch,
            inputs=[stream_input("in", self._before(job), "out")] if self._before(job) else [],
            outputs=[stream_output("out")] if self._after(job) else [],
            lanes=self._lanes(job),
            recovery=spec.RECOVERY_RESUME if job.name == "square" else spec.RECOVERY_RESTART,
            replacement=job.epoch > 1,
        )

    def _lanes(self, job: Placed) -> list[session.Lane]:
        lanes: list[session.Lane] = []
        before, after = self._jobs.get(self._before(job)), self._jobs.get(self._after(job))
        if before is not None:
            lanes.append(
                lane(
                    f"{before.name}.out",
                    f"{job.name}.in",
                    output=False,
                    address=before.proxy.address,
                    epoch=before.epoch,
                )
            )
        if after is not None:
            lanes.append(
                lane(
                    f"{job.name}.out",
                    f"{after.name}.in",
                    output=True,
                    epoch=after.epoch,
                    done=after.done,
                )
            )
        return lanes

    @staticmethod
    def _before(job: Placed) -> str:
        at = CHAIN.index(job.name)
        return CHAIN[at - 1] if at else ""

    @staticmethod
    def _after(job: Placed) -> str:
        at = CHAIN.index(job.name)
        return CHAIN[at + 1] if at + 1 < len(CHAIN) else ""

    async def _tell(self) -> None:
        for job in self._jobs.values():
            # An attempt that is being replaced is told by its assignment instead.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await job.board.update(self._assignment(job).ref, self._lanes(job))

    # ---- what breaks ----------------------------------------------------------------------------

    async def _break(self, faults: int) -> None:
        for _ in range(faults):
            await asyncio.sleep(self._chance.uniform(0.05, 0.6))
            job = self._jobs[self._chance.choice(CHAIN)]
            kind = self._chance.choice(["program", "program", "worker", "link", "stall"])
            if job.done:
                continue
            self.faults[kind] = self.faults.get(kind, 0) + 1
            match kind:
                case "program":
                    _kill(job.pid)
                case "worker":
                    await self._kill_worker(job)
                case "link":
                    job.proxy.cut()
                case _:
                    job.proxy.stall()

    async def _kill_worker(self, job: Placed) -> None:
        """Kill the worker of a board, and the program with it, as their agent would."""
        async with self._placing:
            board = job.board
            [worker] = [one for one in await board.keeper.list() if one.attempt == WORKER]
            board.address = ""
            _kill(worker.pid)
            async with board.changed:
                await board.changed.wait_for(lambda: WORKER in board.ended)
                del board.ended[WORKER]
            await board.keeper.forget(WORKER)
            await board.start_worker()
            async with asyncio.timeout(30), board.changed:
                await board.changed.wait_for(lambda: board.address)
            job.proxy.turn(board.address)
            _kill(job.pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def chaos(count: int, faults: int, seed: int) -> Outcome:
    """Stream `count` records through three boards with faults from a seed."""
    async with contextlib.AsyncExitStack() as stack:
        # A short folder, since Unix sockets lie in it.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sc", dir="/tmp"))
        made = await stack.enter_async_context(boards(Path(folder), len(CHAIN)))
        jobs = [
            Placed(name, board, await stack.enter_async_context(TcpProxy(board.address)))
            for name, board in zip(CHAIN, made, strict=True)
        ]
        return await Chaos(jobs, count, random.Random(seed)).run(faults)


def main() -> int:
    """Run from the command line; exit code 1 when a record is lost, repeated or out of order."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m bench.streams.boards_chaos"
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    outcome = asyncio.run(chaos(given.records, given.faults, given.seed))
    lost = given.records - outcome.records
    print(f"{outcome.records} records in {outcome.seconds:.1f} s, faults {outcome.faults}")
    print(
        json.dumps(
            {
                "bench": "streams-boards-chaos",
                "seed": given.seed,
                "records": outcome.records,
                "faults": sum(outcome.faults.values()),
                "attempts": outcome.attempts,
                "lost": max(0, lost),
                "repeated": max(0, -lost),
                "wrong": outcome.wrong,
            }
        )
    )
    return 0 if lost == 0 and outcome.wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
