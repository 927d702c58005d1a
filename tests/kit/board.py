"""A board without its agent: a real keeper, a real stream worker, and real programs between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Self, cast

import grpc.aio

import shoal.job
from edge_agent.keeper.client import KeeperClient, StartRequest, ensure_keeper
from edge_agent.keeper.launch import Port
from edge_agent.keeper.record import ProcessRecord
from shoal.job import worker_end
from shoal.program_ports import PortsDocument
from shoal.program_ports import described as described_ports
from shoal.spec import Job, PortAttachment
from shoal.v1 import session_service_pb2 as session
from shoal.v1 import streams_service_pb2 as v1
from shoal.v1.streams_service_pb2_grpc import StreamWorkerServiceStub
from shoal.wire.spec import decode_job_spec
from tests.kit.identities import ProvenCluster

SDK_PATH = str(Path(shoal.job.__file__).parents[2])
WORKER = "stream-worker"


class Board:
    """One node's keeper and stream worker, while it is entered as a context.

    Args:
        folder: of the node; short, since Unix sockets lie in it.
        arguments: further ones of the stream worker.
        listen: where the stream worker listens for other boards.
        module: the stream worker.
        prefix: words before the stream worker's command, such as those that enter a namespace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        arguments: Sequence[str] = (),
        listen: str = "127.0.0.1:0",
        module: str = "services.streams.worker",
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.address = ""
        self.attempts: dict[str, v1.AttemptStreams] = {}
        self.ended: dict[str, ProcessRecord] = {}
        self.changed = asyncio.Condition()
        self._command = (
            *(*prefix, sys.executable, "-m", module),
            *("--socket", str(folder / "w.sock"), "--listen", listen, *arguments),
        )
        self._keeper_path = folder / "k.sock"
        self._worker_path = folder / "w.sock"
        self._stack = contextlib.AsyncExitStack()
        self._keeper: KeeperClient | None = None
        self._stub: StreamWorkerServiceStub | None = None

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        await ensure_keeper(self._keeper_path, self.folder / "keeper.log")
        self._keeper = await self._stack.enter_async_context(KeeperClient(self._keeper_path))
        await self._keeper.watch()
        await self.start_worker()
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for watching in (tasks.create_task(self._exits()), tasks.create_task(self._news())):
            self._stack.callback(watching.cancel)
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: self.address)
        return self

    async def __aexit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            await self.keeper.shutdown()
        await self._stack.aclose()

    @property
    def keeper(self) -> KeeperClient:
        """The keeper, as the agent talks to it."""
        assert self._keeper is not None
        return self._keeper

    @property
    def stub(self) -> StreamWorkerServiceStub:
        """The stream worker, as the agent talks to it."""
        assert self._stub is not None
        return self._stub

    async def start_worker(self) -> int:
        """Start the stream worker and return its process id."""
        log = self.folder / "worker.log"
        return await self.keeper.spawn(
            StartRequest(
                attempt=WORKER,
                argv=self._command,
                env=dict(os.environ),
                cwd=Path.cwd(),
                stdout=log,
                stderr=log,
            )
        )

    async def run(
        self,
        assignment: session.Assignment,
        argv: Sequence[str],
        variables: Mapping[str, str] | None = None,
    ) -> int:
        """Start the program of an attempt, attach its ports, and return its process id."""
        job = decode_job_spec(assignment.job)
        name = assignment.ref.attempt
        folder = self.folder / f"{job.name}.{assignment.ref.epoch}"
        (folder / "results").mkdir(parents=True, exist_ok=True)
        ports, described = _ports(job)
        pid = await self.keeper.start(
            StartRequest(
                attempt=name,
                argv=argv,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": SDK_PATH,
                    "PYTHONUNBUFFERED": "1",
                    **worker_end.variables(
                        assignment.ref.namespace,
                        "p",
                        job.name,
                        job.recovery.value,
                        folder / "results",
                        described,
                    ),
                    "SHOAL_REPLICA": str(assignment.replica),
                    "SHOAL_REPLICAS": str(assignment.replicas),
                    "SHOAL_ATTEMPT": str(assignment.ref.epoch),
                    "SHOAL_EPOCH": str(assignment.ref.epoch),
                    "SHOAL_NAME": name,
                    **(variables or {}),
                },
                cwd=folder,
                stdout=folder / "stdout",
                stderr=folder / "stderr",
                ports=ports,
            )
        )
        await self.stub.Attach(
            v1.AttachRequest(
                assignment=assignment,
                spool_path=str(folder / "spool"),
                keeper_path=str(self._keeper_path),
                keeper_id=name,
            ),
            timeout=20,
        )
        return pid

    async def conclude(self, ref: session.AttemptRef, *, succeeded: bool | None = None) -> bool:
        """Wait for the end of a program, tell the worker, and return whether it ended well."""
        async with self.changed:
            await self.changed.wait_for(lambda: ref.attempt in self.ended)
        well = self.ended[ref.attempt].exit_code == 0 if succeeded is None else succeeded
        await self.stub.Conclude(v1.ConcludeRequest(ref=ref, succeeded=well), timeout=20)
        return well

    async def update(self, ref: session.AttemptRef, lanes: Sequence[session.Lane]) -> None:
        """Tell the worker where the peers of an attempt are now."""
        await self.stub.UpdateLanes(v1.UpdateLanesRequest(ref=ref, lanes=lanes), timeout=20)

    async def forget(self, ref: session.AttemptRef) -> None:
        """Let go of an attempt."""
        await self.stub.Detach(v1.DetachRequest(ref=ref), timeout=20)
        await self.keeper.forget(ref.attempt)

    def told(self, ref: session.AttemptRef) -> v1.AttemptStreams:
        """What the worker last told of an attempt; empty if nothing."""
        return self.attempts.get(ref.attempt, v1.AttemptStreams())

    def printed(self, job: str, epoch: int = 1) -> str:
        """What a program printed; what it complained of raises."""
        folder = self.folder / f"{job}.{epoch}"
        complaints = (folder / "stderr").read_text()
        if complaints:
            raise AssertionError(complaints)
        return (folder / "stdout").read_text()

    async def _exits(self) -> None:
        async for record in self.keeper.exits():
            async with self.changed:
                self.ended[record.attempt] = record
                self.changed.notify_all()

    async def _news(self) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(f"unix:{self._worker_path}") as channel:
                    self._stub = StreamWorkerServiceStub(channel)
                    call = self._stub.WatchAttempts(v1.WatchAttemptsRequest(), wait_for_ready=True)
                    while (answer := await call.read()) is not grpc.aio.EOF:
                        await self._hear(cast("v1.WatchAttemptsResponse", answer))
            self.address = ""
            # The next worker on the same socket is waited for by gRPC itself.

    async def _hear(self, news: v1.WatchAttemptsResponse) -> None:
        async with self.changed:
            self.address = news.stream_address
            for attempt in news.attempts:
                self.attempts[attempt.ref.attempt] = attempt
            self.changed.notify_all()


@contextlib.asynccontextmanager
async def boards(
    folder: Path,
    count: int,
    *,
    arguments: Sequence[str] = (),
    module: str = "services.streams.worker",
    cluster: ProvenCluster | None = None,
) -> AsyncIterator[list[Board]]:
    """Start boards, and end them with everything on them; in a cluster they are nodes `board-0` and so on."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Board(
                    folder / str(number),
                    arguments=(*arguments, *joined(cluster, folder / str(number), number)),
                    module=module,
                )
            )
            for number in range(count)
        ]


def joined(cluster: ProvenCluster | None, folder: Path, number: int) -> Sequence[str]:
    """Let a board join a cluster, if there is one; returns what its stream worker is told of that."""
    if cluster is None:
        return ()
    identity = folder / "identity"
    cluster.join(identity, f"board-{number}")
    return ("--identity", str(identity))


def _ports(job: Job) -> tuple[list[Port], PortsDocument]:
    ports: dict[tuple[str, str], Port] = {}
    for way, direction, found in (("inputs", "in", job.streams), ("outputs", "out", job.outputs)):
        for one in found:
            standard = one.binding.attachment is PortAttachment.STDIO
            fd = int(way == "outputs") if standard else 3 + len(ports)
            ports[way, one.name] = Port(one.name, direction, fd)

    def place(direction: str, name: str) -> dict[str, object]:
        return {"fd": ports[direction, name].fd}

    described = described_ports(job, place, peers=lambda _direction, _name: ())
    return list(ports.values()), described
