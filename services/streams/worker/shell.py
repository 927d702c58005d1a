"""The shell of one attempt's streams: ports, calls and spool around its machine."""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, assert_never

from services.identity.ticket import producer_node_of
from services.runtime.log import CountedLog, fields
from services.streams import effects, events
from services.streams.block import Kind
from services.streams.machine import AttemptStreamsMachine, Stage
from services.streams.plan import AttemptPlan
from services.streams.sampler import Sampler, SampleRequest
from services.streams.worker.call import PeerConnections, PeerUnknownError
from services.streams.worker.feed import FeedCall
from services.streams.worker.lane_protocols import ENCODED
from services.streams.worker.lane_registry import LaneRegistry, Post, Served
from services.streams.worker.local import LocalCall
from services.streams.worker.port_link import PortEnd, PortLink, PortName, PortUse
from services.streams.worker.pull import DialledCall
from services.streams.worker.rendezvous import Rendezvous
from services.streams.worker.spool import Spool, Spooler
from shoal.names import AttemptRef
from shoal.portal_names import CLIENT, CLIENT_ADDRESS, RECORDER, port_of
from shoal.session.lane import Lane
from shoal.spec import Distribute
from shoal.v1.streams_service_pb2 import PullOpen

LOG = logging.getLogger(__name__)

RECORDER_SECONDS = 30.0
"""What a recorder has not taken is kept for so long while it is cut off."""


Dialled = tuple[DialledCall | LocalCall | FeedCall, asyncio.Task[None]]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How the other ends of lanes are reached: at `address`, in this worker, without a socket.

    Clients, which cannot be dialled, wait at the `rendezvous`. `refusals` counts dials that were refused
    for what the ends have to prove.
    """

    address: str
    registry: LaneRegistry
    connections: PeerConnections
    rendezvous: Rendezvous
    refusals: CountedLog


class PortTap:
    """One look at a port: `wake` is set when there may be something new, `gone` at its end."""

    def __init__(self, port: str, sampler: Sampler) -> None:
        self.port = port
        self.sampler = sampler
        self.wake = asyncio.Event()
        self.gone = False


@dataclass(eq=False)
class AttemptStreamsShell:
    """Carries the records of one attempt.

    Events are dispatched where they happen; what performing an effect brings about waits until the
    effects before it are performed.

    Args:
        ref: which attempt.
        plan: its streams.
        machine: decides.
        spool: for what does not fit into memory.
        neighbours: how the other ends of lanes are reached.
        ring_bytes: size of the ring of an output port; 0 for none.
        tasks: owns the calls that are dialled.
        on_milestone: called when its program has ended, and when it has drained or failed.
    """

    ref: AttemptRef
    plan: AttemptPlan
    machine: AttemptStreamsMachine
    _: KW_ONLY
    spool: Spool
    neighbours: Neighbours
    ring_bytes: int
    tasks: asyncio.TaskGroup
    on_milestone: Callable[[], None]
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _ports: dict[PortName, PortLink] = field(default_factory=dict[PortName, PortLink])
    _calls: dict[int, Served] = field(default_factory=dict[int, Served])
    _dials: dict[tuple[str, int], Dialled] = field(default_factory=dict[tuple[str, int], Dialled])
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    # Bounded by the machine: one write a port, one block a call, one load a lane.
    _events: deque[events.Event] = field(default_factory=deque[events.Event])
    _stepping: bool = False
    _taps: list[PortTap] = field(default_factory=list[PortTap])
    _departures: dict[str, asyncio.TimerHandle] = field(
        default_factory=dict[str, asyncio.TimerHandle]
    )
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float | None = None

    def __post_init__(self) -> None:
        self._spooler = Spooler(self.spool, self.post)
        self.tasks.create_task(self._spooler.run())

    async def attach(self, ends: Mapping[PortName, PortEnd]) -> None:
        """Take the ports over and begin.

        Raises:
            LookupError: The keeper has not got a port of the plan.
        """
        rings = self.ring_bytes
        wanted = [
            *(PortUse(p.name, False, p.binding, rings, p.block_count) for p in self.plan.inputs),
            *(PortUse(p.name, True, p.binding, rings) for p in self.plan.outputs),
        ]
        for use in wanted:
            end = ends.get((use.name, use.output))
            if end is None:
                raise LookupError(
                    f"the keeper has no {'output' if use.output else 'input'} {use.name!r} of "
                    f"{self.ref.name}; it has {', '.join(sorted({one for one, _ in ends})) or 'none'}"
                )
            self._ports[use.name, use.output] = await end.connect(use, self.post)
        self.post(events.Attached())

    def post(self, event: events.Event) -> None:
        """Let the machine take an event, and do what it decides."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._stepping = False
        self._schedule()

    async def serve(self, opened: PullOpen, make: Callable[[int, Post], Served]) -> None:
        """Carry a consumer's call, which `make` makes with its number and what takes its events."""
        number = next(self._numbers)
        call = make(number, self.post)
        self._calls[number] = call
        try:
            self.post(
                events.CallOpened(
                    number,
                    opened.lane,
                    opened.consumer_epoch,
                    opened.producer_epoch,
                    opened.want,
                    opened.credit_bytes,
                    call.parts,
                    opened.bulk or not call.parts,
                    opened.released,
                    opened.had,
                )
            )
            await call.run()
        finally:
            del self._calls[number]
            self.post(events.CallClosed(number, opened.lane))

    async def record(self, opened: PullOpen, make: Callable[[int, Post], Served]) -> None:
        """Carry the call of a recorder; its lane stays for a while, so that it may dial again."""
        lane, port = opened.lane, port_of(opened.lane)
        timer = self._departures.pop(lane, None)
        if timer is not None:
            timer.cancel()
        if lane not in self.machine.output_lanes:
            plan = Lane(
                lane,
                output=True,
                port=port,
                peer_port=RECORDER,
                peer_job=CLIENT,
                distribute=Distribute.BROADCAST,
            )
            self.post(events.RecorderJoined(plan))
        if lane not in self.machine.output_lanes:
            call = make(0, self.post)
            if self.machine.stage in {Stage.FLOWING, Stage.CONCLUDED}:
                call.refuse("BEHIND", f"port {port} was scaled, and nothing whole is kept of it")
            else:
                call.refuse("NOT_READY", f"the attempt has {self.machine.stage.value}")
            await call.run()
            return
        try:
            await self.serve(opened, make)
        finally:
            self._departures[lane] = self._loop.call_later(
                RECORDER_SECONDS, self._recorder_left, lane
            )

    def _recorder_left(self, lane: str) -> None:
        self._departures.pop(lane, None)
        self.post(events.RecorderLeft(lane))

    def has_output(self, port: str) -> bool:
        """Whether the attempt has an output port of that name."""
        return any(output.name == port for output in self.plan.outputs)

    @contextlib.contextmanager
    def tapped(self, port: str, request: SampleRequest) -> Iterator[PortTap]:
        """Sample what the job sends on a port, until the context is left."""
        tap = PortTap(port, Sampler(request, self._loop.time()))
        self._taps.append(tap)
        try:
            yield tap
        finally:
            if tap in self._taps:
                self._taps.remove(tap)

    def detach(self) -> None:
        """Let go of everything."""
        for timer in self._departures.values():
            timer.cancel()
        for tap in self._taps:
            tap.gone = True
            tap.wake.set()
        self.post(events.Detached())
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls.values():
            call.close()
        for link in self._ports.values():
            link.close()
        self._spooler.close()

    def _step(self, event: events.Event) -> None:
        try:
            for effect in self.machine.handle(event, self._loop.time()):
                self._act(effect)
        except Exception as error:
            # One attempt is broken by a mistake of ours; the others and their lanes go on.
            LOG.exception(
                "streams broke", extra=fields(attempt=self.ref.name, event=repr(event)[:200])
            )
            if not isinstance(event, events.ShellFailed | events.Detached):
                self._events.append(events.ShellFailed(f"the stream worker broke: {error!r}"))
        if self._taps:
            self._show(event)
        if isinstance(event, events.Concluded):
            for link in self._ports.values():
                link.let_go()
            # An attempt may be let go of soon after: its last counters are reported before.
            self.on_milestone()

    def _show(self, event: events.Event) -> None:
        for tap in self._taps:
            match event:
                case events.PortBlock(port=tap.port, output=True, block=block):
                    if block.kind is Kind.DATA:
                        first = self.machine.output(tap.port).sent - block.count
                        tap.sampler.offer(block, first, self._loop.time())
                    tap.wake.set()
                case events.PortClosed() | events.Concluded():
                    tap.wake.set()
                case _:
                    pass

    def _schedule(self) -> None:
        deadline = self.machine.deadline()
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_at = None
        self._stepping = True
        try:
            # The loop's timers may be early by its resolution; the machine then says so again.
            for effect in self.machine.tick(self._loop.time()):
                self._act(effect)
        finally:
            self._stepping = False
        if self._events:
            self.post(self._events.popleft())
        self._schedule()

    def _act(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.CallEffect):
            call = self._calls.get(effect.call)
            if call is not None:
                self._act_on_call(call, effect)
            return
        match effect:
            case effects.ReadPort(port=port, output=output):
                self._ports[port, output].read()
            case effects.PausePort(port=port, output=output):
                self._ports[port, output].pause()
            case effects.WritePort(port=port, output=output, parts=parts):
                self._ports[port, output].write(parts)
            case effects.ShutPort(port=port, output=output):
                self._ports[port, output].shut()
            case effects.ClosePort(port=port):
                self._ports[port, True].take_nothing_more()
                self.on_milestone()
            case effects.DialLane():
                self._dial(effect)
            case effects.HangUpLane(lane=lane, dial=dial):
                entry = self._dials.pop((lane, dial), None)
                if entry is not None:
                    entry[1].cancel()
            case effects.Acknowledge(lane=lane, dial=dial):
                entry = self._dials.get((lane, dial))
                if entry is not None:
                    entry[0].acknowledge(effect)
            case effects.WriteSpool() | effects.ReadSpool() | effects.DropSegment():
                self._spooler.do(effect)
            case effects.ReportDrained():
                LOG.info("drained", extra=fields(attempt=self.ref.name, epoch=self.ref.epoch))
                self.on_milestone()
            case effects.ReportFailed(code=code, message=message):
                LOG.warning(
                    "streams failed",
                    extra=fields(
                        attempt=self.ref.name, epoch=self.ref.epoch, code=str(code), why=message
                    ),
                )
                self.on_milestone()
            case _:
                assert_never(effect)

    def _act_on_call(self, call: Served, effect: effects.CallEffect) -> None:
        match effect:
            case effects.SendBlock():
                call.send_block(effect)
            case effects.SendSpooled(place=place):
                call.send_spooled(effect, self._spooler.reader(place))
            case effects.AcceptCall(producer_epoch=epoch, first=first):
                call.accept(epoch, first)
            case effects.SendEnd():
                call.send_end(effect)
            case effects.RefuseCall(reason=reason, message=message):
                call.refuse(reason, message)
            case effects.CloseCall():
                call.close()
            case _:
                assert_never(effect)

    def _dial(self, effect: effects.DialLane) -> None:
        key = (effect.lane, effect.dial)
        opened = PullOpen(
            namespace=self.ref.namespace,
            pipeline=self.ref.pipeline,
            lane=effect.lane,
            consumer_epoch=effect.consumer_epoch,
            producer_epoch=effect.producer_epoch,
            want=effect.want,
            credit_bytes=effect.credit_bytes,
            bulk=effect.bulk,
            released=effect.released,
            had=effect.had,
            protocols=ENCODED,
        )
        call: DialledCall | LocalCall | FeedCall
        if effect.address == CLIENT_ADDRESS:
            call = FeedCall(effect, opened, self.ref, self.neighbours.rendezvous, self.post)
            running = call.dial()
        elif effect.address == self.neighbours.address:
            call = LocalCall(effect, opened, self.neighbours.registry, self.post)
            running = call.dial()
        else:
            opened.ticket = effect.ticket
            call = DialledCall(effect, opened, self.post, self.neighbours.refusals)
            running = self._carry(call, effect)
        self._dials[key] = (call, self.tasks.create_task(self._run(key, running)))

    async def _run(self, key: tuple[str, int], running: Coroutine[Any, Any, None]) -> None:
        try:
            await running
        except Exception as error:  # one attempt at one lane: it is dialled again
            LOG.exception("a lane broke", extra=fields(lane=key[0]))
            self.post(events.DialBroken(*key, "BROKEN", repr(error)))
        finally:
            self._dials.pop(key, None)

    async def _carry(self, call: DialledCall, effect: effects.DialLane) -> None:
        connections = self.neighbours.connections
        node = producer_node_of(effect.ticket)
        try:
            connection = await connections.take(effect.address, node=node, bulk=effect.bulk)
        except PeerUnknownError as error:
            self.neighbours.refusals.warn("a peer is not dialled", lane=effect.lane, why=error)
            self.post(events.DialBroken(effect.lane, effect.dial, "TICKET", str(error)))
            return
        except OSError as error:
            self.post(events.DialBroken(effect.lane, effect.dial, "UNAVAILABLE", repr(error)))
            return
        try:
            await call.run(connection)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await connections.leave(connection, broken=call.broken)
