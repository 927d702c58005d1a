"""The attempts that a stream worker carries, by their names, and what its agent gets to know of them."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from services.runtime.log import CountedLog, fields
from services.streams.events import LanesChanged
from services.streams.machine import AttemptStreamsMachine
from services.streams.plan import StreamLimits, plan_of
from services.streams.worker.call import PeerConnections
from services.streams.worker.lane_registry import LaneRegistry
from services.streams.worker.port_link import PortSource
from services.streams.worker.rendezvous import Rendezvous
from services.streams.worker.shell import AttemptStreamsShell, Neighbours
from services.streams.worker.spool import Spool
from shoal.model import Reason
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.lane import Lane
from shoal.v1.streams_service_pb2 import AttemptStreams
from shoal.wire.attempt import encode_attempt_ref
from shoal.wire.port_hold import encode_port_hold
from shoal.wire.state import encode_reason, encode_stream_counters

LOG = logging.getLogger(__name__)

NEWS_SECONDS = 0.25
"""Counters are reported at most so often; a milestone of an attempt at once."""


@dataclass(frozen=True, slots=True)
class WorkerLinks:
    """What a worker reaches outside of its process.

    `connections` lead to the workers of other nodes, `ports` are those of the jobs beside it, and
    `spool` makes the spool of an attempt at a path.
    """

    connections: PeerConnections
    ports: PortSource
    spool: Callable[[str], Spool]


@dataclass(eq=False)
class StreamWorker:
    """The attempts that this process carries.

    Args:
        stream_address: where other nodes reach it (`services.runtime.stream_address`).
        limits: what each attempt may use.
        tasks: owns the calls that are dialled.
        links: what it reaches outside of its process.
        chance: draws a number from [0, 1).
    """

    stream_address: str
    limits: StreamLimits
    tasks: asyncio.TaskGroup
    links: WorkerLinks
    chance: Callable[[], float] = random.random
    registry: LaneRegistry = field(default_factory=LaneRegistry)
    """The lanes that attempts here produce."""
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    """Where producers that dial in wait for consumers here."""
    _shells: dict[AttemptRef, AttemptStreamsShell] = field(
        default_factory=dict[AttemptRef, AttemptStreamsShell]
    )
    # A lock lives for as long as an order holds it or waits for it.
    _locks: WeakValueDictionary[AttemptRef, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[AttemptRef, asyncio.Lock]
    )
    _neighbours: Neighbours = field(init=False)
    _watchers: dict[asyncio.Event, None] = field(default_factory=dict[asyncio.Event, None])
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def __post_init__(self) -> None:
        self._neighbours = Neighbours(
            self.stream_address,
            self.registry,
            self.links.connections,
            self.rendezvous,
            CountedLog(LOG, self._loop.time),
        )

    def lock(self, ref: AttemptRef) -> asyncio.Lock:
        """Return the lock of an attempt: each order about it holds this lock from begin to end.

        Attaching takes a while. An order that was carried out meanwhile would meet half of the
        ports, and streams that have not begun.
        """
        return self._locks.setdefault(ref, asyncio.Lock())

    async def attach(
        self,
        assignment: Assignment,
        *,
        spool_path: str,
        keeper_path: str,
        keeper_id: str,
    ) -> None:
        """Take an attempt over; one that is here already only learns where its peers are.

        Raises:
            KeeperAwayError: No keeper answers.
            KeeperRefusedError: The keeper does not hand over the ports.
            LookupError: It lacks one of them.
            ValueError: A lane's replica is not below their number.
        """
        ref = assignment.ref
        if ref in self._shells:
            await self.update(self._shells[ref], assignment.lanes)
            return
        plan = plan_of(assignment)
        ends = await self.links.ports.fetch(keeper_path, keeper_id)
        shell = AttemptStreamsShell(
            ref,
            plan,
            AttemptStreamsMachine(plan, self.limits, self.chance),
            spool=self.links.spool(spool_path),
            neighbours=self._neighbours,
            ring_bytes=self.limits.ring_bytes,
            tasks=self.tasks,
            on_milestone=self._wake_watchers,
        )
        self._shells[ref] = shell
        self.registry.add(ref, shell.machine.output_lanes, shell)
        try:
            await shell.attach(ends)
        except BaseException:
            self.detach(ref)
            for end in ends.values():
                end.close()
            raise
        await self.registry.announce()
        LOG.info("attached", extra=fields(attempt=ref.name, epoch=ref.epoch))

    def shell(self, ref: AttemptRef) -> AttemptStreamsShell | None:
        """Return the shell of an attempt; None if the attempt is not here."""
        return self._shells.get(ref)

    def find(
        self, namespace: str, pipeline: str, job: str, epoch: int, output: str
    ) -> AttemptStreamsShell | None:
        """Return the shell of the attempt of a job at an epoch, if it has that output port."""
        wanted = (namespace, pipeline, job, epoch)
        for ref, shell in self._shells.items():
            if (ref.namespace, ref.pipeline, ref.job, ref.epoch) == wanted:
                return shell if shell.has_output(output) else None
        return None

    async def update(self, shell: AttemptStreamsShell, lanes: tuple[Lane, ...]) -> None:
        """Give an attempt its present lanes; consumers may wait for one that is new."""
        before = shell.machine.output_lanes
        shell.post(LanesChanged(lanes))
        if shell.machine.output_lanes != before:
            self.registry.add(shell.ref, shell.machine.output_lanes, shell)
            await self.registry.announce()
        # The controller waits to hear how far a port is that it wants to stand still.
        self._wake_watchers()

    def detach(self, ref: AttemptRef) -> None:
        """Let go of an attempt; harmless when it is not here."""
        shell = self._shells.pop(ref, None)
        if shell is None:
            return
        self.registry.remove(ref, shell.machine.output_lanes, shell)
        shell.detach()
        LOG.info("detached", extra=fields(attempt=ref.name, epoch=ref.epoch))

    async def news(self) -> AsyncGenerator[list[AttemptStreams], None]:
        """Yield the attempts that changed since the last list; the first list has all of them.

        Changes of counters alone are collected for `NEWS_SECONDS`.
        """
        wake = asyncio.Event()
        self._watchers[wake] = None
        reported: dict[AttemptRef, bytes] = {}
        try:
            first = True
            while True:
                wake.clear()
                changed: list[AttemptStreams] = []
                for ref, shell in self._shells.items():
                    streams = _streams_of(shell, self._loop.time())
                    text = streams.SerializeToString(deterministic=True)
                    if reported.get(ref) != text:
                        reported[ref] = text
                        changed.append(streams)
                for ref in reported.keys() - self._shells.keys():
                    del reported[ref]
                if changed or first:
                    first = False
                    yield changed
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(NEWS_SECONDS):
                        await wake.wait()
        finally:
            del self._watchers[wake]

    def close(self) -> None:
        """Let go of all attempts; their programs and their keeper go on."""
        for ref in list(self._shells):
            self.detach(ref)

    def _wake_watchers(self) -> None:
        for wake in self._watchers:
            wake.set()


def _streams_of(shell: AttemptStreamsShell, now: float) -> AttemptStreams:
    machine = shell.machine
    failure = machine.failure
    return AttemptStreams(
        ref=encode_attempt_ref(shell.ref),
        streams=[encode_stream_counters(counters) for counters in machine.counters(now)],
        drained=machine.drained,
        failure=None
        if failure is None
        else encode_reason(Reason(failure.code, message=failure.message)),
        progress=machine.progress,
        closed=machine.closed,
        holds=[encode_port_hold(hold) for hold in machine.holds],
    )
