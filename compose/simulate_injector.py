"""Does to a local cluster what a fault says, when it is due."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from compose import simulate_fault
from compose.local_cluster import LocalCluster
from compose.processes import running
from compose.simulate_link import NoLinkCutError, cut, heal
from edge_agent.keeper.strays import KEEPER_VARIABLE, environment, keeper_word
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
        self.waiting: list[simulate_fault.Fault] = []

    async def run(self, faults: Sequence[simulate_fault.Fault], pipeline: str) -> None:
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

    async def _one(self, fault: simulate_fault.Fault, pipeline: str, begin: float) -> None:
        if isinstance(fault.when, simulate_fault.AfterSeconds):
            await asyncio.sleep(
                max(0.0, begin + fault.when.seconds - asyncio.get_running_loop().time())
            )
        async with contextlib.aclosing(self._client.watch(pipeline)) as changes:
            async for change in changes:
                if not isinstance(change, PipelineView):
                    continue
                if change.state.terminal:
                    return
                jobs = simulate_fault.targets(fault, change)
                if jobs and all(simulate_fault.due(fault, job) for job in jobs):
                    self.waiting.remove(fault)
                    await self._do(fault, jobs[0].node, jobs[-1].node)
                    return

    async def _do(self, fault: simulate_fault.Fault, node: str, other: str) -> None:
        match fault:
            case simulate_fault.Kill():
                self._say(f"{fault.sentence}: pulling the plug of {node}")
                await self._cluster.kill_board(node)
            case simulate_fault.KillAgent():
                self._say(f"{fault.sentence}: killing the agent of {node}, and starting it again")
                await self._cluster.agents[node].kill()
                await self._cluster.agents[node].start()
            case simulate_fault.Stop(seconds=seconds):
                self._say(f"{fault.sentence}: the streams of {node} stand still for {seconds:g} s")
                await self._stand_still(node, seconds)
            case simulate_fault.Drop():
                await self._drop(fault, node, other)
            case _:
                assert_never(fault)

    async def _drop(self, fault: simulate_fault.Drop, node: str, other: str) -> None:
        if node == other:
            self._say(f"{fault.sentence}: both run on {node}, so there is no link to be cut")
            return
        ends = await self._workers(node), await self._workers(other)
        pairs = [(first, second) for first in ends[0] for second in ends[1]]
        self._say(f"{fault.sentence}: {node} and {other} lose each other for {fault.seconds:g} s")
        try:
            for pair in pairs:
                await asyncio.to_thread(cut, *pair)
            await asyncio.sleep(fault.seconds)
        except NoLinkCutError as error:
            self._say(f"the kernel cuts no single link ({error}): all links of both stand still")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stand_still(node, fault.seconds))
                group.create_task(self._stand_still(other, fault.seconds))
            return
        finally:
            for pair in pairs:
                heal(*pair)
        self._say(f"{node} and {other} hear each other again")

    async def _workers(self, node: str) -> list[int]:
        socket = str(self._cluster.state_of(node) / "keeper.sock")
        return await asyncio.to_thread(_stream_workers, socket)

    async def _stand_still(self, node: str, seconds: float) -> None:
        workers = await self._workers(node)
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
    return [
        pid
        for pid, _ in running(_WORKER)
        if environment(pid).get(KEEPER_VARIABLE) == keeper_word(socket)
    ]


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
