"""Does to a local cluster what a fault says, when it is due."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, assert_never

from compose.local_cluster import LocalCluster
from compose.simulate_fault import AfterSeconds, Fault, Kill, KillAgent, Stop, due, target
from edge_agent.keeper.strays import KEEPER_VARIABLE, environment
from shoal.client import Client
from shoal.view import PipelineView

_WORKER: Final = b"services.streams.worker"


class Injector:
    """Waits for each fault's moment, and acts.

    Args:
        cluster: What is to suffer.
        client: An open client of it.
        say: Told what was done, in a sentence.
    """

    def __init__(self, cluster: LocalCluster, client: Client, say: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._client = client
        self._say = say
        self.waiting: list[Fault] = []

    async def run(self, faults: Sequence[Fault], pipeline: str) -> None:
        """Do everything that is due until the pipeline has ended; `waiting` is what never was.

        Args:
            faults: What is to happen.
            pipeline: Id of the pipeline, which was submitted just now.
        """
        self.waiting = list(faults)
        begin = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._one(fault, pipeline, begin))

    async def _one(self, fault: Fault, pipeline: str, begin: float) -> None:
        if isinstance(fault.when, AfterSeconds):
            await asyncio.sleep(
                max(0.0, begin + fault.when.seconds - asyncio.get_running_loop().time())
            )
        async with contextlib.aclosing(self._client.watch(pipeline)) as changes:
            async for change in changes:
                if not isinstance(change, PipelineView):
                    continue
                if change.state.terminal:
                    return
                job = target(fault, change)
                if job is not None and due(fault, job):
                    self.waiting.remove(fault)
                    await self._do(fault, job.node)
                    return

    async def _do(self, fault: Fault, node: str) -> None:
        match fault:
            case Kill():
                self._say(f"{fault.sentence}: pulling the plug of {node}")
                await self._cluster.kill_board(node)
            case KillAgent():
                self._say(f"{fault.sentence}: killing the agent of {node}, and starting it again")
                await self._cluster.agents[node].kill()
                await self._cluster.agents[node].start()
            case Stop(seconds=seconds):
                self._say(f"{fault.sentence}: the streams of {node} stand still for {seconds:g} s")
                await self._stand_still(node, seconds)
            case _:
                assert_never(fault)

    async def _stand_still(self, node: str, seconds: float) -> None:
        socket = str(self._cluster.state_of(node) / "keeper.sock")
        workers = await asyncio.to_thread(_stream_workers, socket)
        try:
            for pid in workers:
                _send(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            for pid in workers:
                _send(pid, signal.SIGCONT)
        self._say(f"the streams of {node} go on")


def _stream_workers(socket: str) -> list[int]:
    """Process ids of the stream workers below the keeper that listens at `socket`."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if _WORKER in words and environment(pid).get(KEEPER_VARIABLE) == socket:
            found.append(pid)
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
