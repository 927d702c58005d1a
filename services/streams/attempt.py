"""The streams of one attempt as a pure machine: its ports, its lanes, and how it goes on after others.

An attempt begins at round 0, except when it replaces one that could be resumed: then it waits until
every consumer of its outputs has dialled in and begins at the lowest round that any of them wants.
Where nobody names a round (a sink, or consumers that do not know either) it begins with what its
own producers still keep, which is what was not released.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import assert_never

from services.runtime.backoff import Backoff
from services.streams.block import Kind, plain
from services.streams.effect import (
    DropSegment,
    Effect,
    RefuseCall,
    ReportDrained,
    ReportFailed,
    WriteSpool,
)
from services.streams.event import (
    Attached,
    CallAcknowledged,
    CallClosed,
    CallDone,
    CallOpened,
    CallReady,
    Concluded,
    Detached,
    DialAccepted,
    DialBlock,
    DialBroken,
    DialEnded,
    Event,
    LanesChanged,
    PortBlock,
    PortClosed,
    PortShut,
    PortViolation,
    PortWritten,
    RecorderJoined,
    RecorderLeft,
    ShellFailed,
    SpoolLoaded,
    SpoolWritten,
)
from services.streams.framing import RecordError
from services.streams.intake import Intake, JobError
from services.streams.outlet import Lag, Outlet
from services.streams.plan import AttemptPlan, Budget
from services.streams.receiver import DigestError, LaneError, NotRepeatedError, ReceiveLane
from services.streams.retention import SpoolLedger, Track
from services.streams.sender import RewindError, SendLane
from services.streams.shelf import Kept, SpoolPlace
from shoal.model import ReasonCode, StreamCounters
from shoal.session.lane import Lane
from shoal.session.port_hold import PortHold


class Stage(enum.Enum):
    """Where the streams of an attempt stand; it only grows, and FAILED and GONE are final."""

    NEW = "new"
    ASKING_CONSUMERS = "asking consumers"
    """Waits until every consumer has said what it wants."""
    SETTLING = "settling"
    """Passes over what earlier attempts dealt with."""
    FLOWING = "flowing"
    CONCLUDED = "concluded"
    """The program has ended well; lanes go on until nobody needs them."""
    ABANDONED = "abandoned"
    """The program has not ended well: no lane ever ends."""
    FAILED = "failed"
    GONE = "gone"


_ALLOWED = {
    Stage.NEW: {
        Stage.ASKING_CONSUMERS,
        Stage.SETTLING,
        Stage.ABANDONED,
        Stage.FAILED,
        Stage.GONE,
    },
    Stage.ASKING_CONSUMERS: {Stage.SETTLING, Stage.ABANDONED, Stage.FAILED, Stage.GONE},
    Stage.SETTLING: {Stage.FLOWING, Stage.ABANDONED, Stage.FAILED, Stage.GONE},
    Stage.FLOWING: {Stage.CONCLUDED, Stage.ABANDONED, Stage.FAILED, Stage.GONE},
    Stage.CONCLUDED: {Stage.FAILED, Stage.GONE},
    Stage.ABANDONED: {Stage.GONE},
    Stage.FAILED: {Stage.GONE},
    Stage.GONE: set[Stage](),
}

_CALLS = CallAcknowledged | CallDone | CallReady | CallClosed | SpoolLoaded | RecorderLeft

_OVER = frozenset({Stage.ABANDONED, Stage.FAILED, Stage.GONE})


class AttemptMachine:
    """Carries the records of one attempt.

    Args:
        plan: its ports and lanes.
        budget: what it may use.
        chance: draws a number from [0, 1), for the time between two dials.
    """

    def __init__(self, plan: AttemptPlan, budget: Budget, chance: Callable[[], float]) -> None:
        self._plan = plan
        self._budget = budget
        self._epoch = plan.epoch
        self._receiving = partial(
            ReceiveLane,
            epoch=plan.epoch,
            credit_bytes=budget.credit_bytes,
            backoff=Backoff(budget.redial_seconds, budget.redial_seconds_max),
            chance=chance,
        )
        self._intakes = {
            port.name: Intake(
                port,
                [self._receiving(lane) for lane in port.lanes],
                plan.replica,
                plan.replicas,
            )
            for port in plan.inputs
        }
        self._outlets = {
            port.name: Outlet(
                port,
                producer=plan.replica,
                producers=plan.replicas,
                budget=budget,
                replacement=plan.replacement,
            )
            for port in plan.outputs
        }
        self._in_lanes = {
            lane.plan.id: (lane, intake)
            for intake in self._intakes.values()
            for lane in intake.lanes
        }
        self._out_lanes = {
            lane.plan.id: (lane, outlet)
            for outlet in self._outlets.values()
            for lane in outlet.lanes
        }
        # Records that came as they arrived come in another order the next time, so a round of them
        # cannot be asked for again; and a lane of one key does not tell which round it is at.
        self._resume = (
            plan.resume
            and all(intake.replayable for intake in self._intakes.values())
            and all(outlet.resumable for outlet in self._outlets.values())
        )
        self._ledger = SpoolLedger(budget.segment_bytes)
        self._leaving: dict[SpoolPlace, tuple[Track, Kept]] = {}
        self._stage = Stage.NEW
        self._start: int | None = None
        self._concluded: bool | None = None
        self._drained = False
        self._closed = False
        self._ack_at: float | None = None
        self.progress = ""
        """Free text of the job about its own progress."""
        self.failure: ReportFailed | None = None
        """Why the attempt cannot go on, if so."""

    @property
    def stage(self) -> Stage:
        """Where the attempt's streams stand."""
        return self._stage

    @property
    def drained(self) -> bool:
        """Whether the program has ended well and nobody needs anything of it any more."""
        return self._drained

    @property
    def closed(self) -> bool:
        """Whether no output takes anything more, although the program may go on."""
        return self._closed

    @property
    def output_lanes(self) -> tuple[str, ...]:
        """Ids of the lanes that consumers may dial."""
        return tuple(self._out_lanes)

    def counters(self, now: float) -> tuple[StreamCounters, ...]:
        """Return the counters of all ports, inputs first."""
        return (
            *(intake.counters(now) for intake in self._intakes.values()),
            *(outlet.counters(now) for outlet in self._outlets.values()),
        )

    @property
    def holds(self) -> tuple[PortHold, ...]:
        """Its outputs that stand still and know how far they are."""
        found = (outlet.held() for outlet in self._outlets.values())
        return tuple(hold for hold in found if hold is not None)

    def port_counters(self, port: str, now: float) -> StreamCounters:
        """Return the counters of one output port.

        Raises:
            KeyError: There is none of that name.
        """
        return self._outlets[port].counters(now)

    def sent(self, port: str) -> int:
        """Return how many records an output port has sent, those of earlier attempts included."""
        return self._outlets[port].sent

    def lags(self, port: str) -> tuple[Lag, ...]:
        """Return how far the consumers of an output port are behind."""
        return self._outlets[port].lags()

    def deadline(self) -> float | None:
        """Return when `tick` is next wanted, or None while nothing is waited for."""
        times = [lane.retry_at for lane, _ in self._in_lanes.values() if lane.retry_at is not None]
        if self._ack_at is not None:
            times.append(self._ack_at)
        return min(times, default=None)

    def tick(self, now: float) -> Sequence[Effect]:
        """Dial again and acknowledge where it is time."""
        effects: list[Effect] = []
        for lane, _ in self._in_lanes.values():
            if lane.retry_at is not None and lane.retry_at <= now:
                effects += lane.dial()
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None
            for lane, _ in self._in_lanes.values():
                effects += lane.acknowledge()
        return effects

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        """Take one event and return what is to be done about it, in order."""
        if self._stage in _OVER and not isinstance(event, Detached | CallOpened):
            return []
        if isinstance(event, _CALLS) and event.lane not in self._out_lanes:
            return []  # of a recorder that has left
        effects: list[Effect] = []
        try:
            # One by one: what was decided before a job turns out to be wrong is still to be done.
            for effect in self._take(event, now):
                effects.append(effect)  # noqa: PERF402 - see above
            if self._stage not in _OVER:
                for effect in self._afterwards(now):
                    effects.append(effect)  # noqa: PERF402 - see above
        except (JobError, RecordError, NotRepeatedError, DigestError) as error:
            effects += self._fail(ReasonCode.STREAM, f"{_where(event)}{error}")
        return effects

    def _take(self, event: Event, now: float) -> Iterator[Effect]:
        match event:
            case Attached():
                yield from self._attached()
            case PortBlock():
                yield from self._port_block(event, now)
            case PortViolation(port=port, offset=offset, reason=reason):
                yield from self._fail(
                    ReasonCode.STREAM, f"port {port} at offset {offset}: {reason}"
                )
            case PortClosed():
                yield from self._port_closed(event, now)
            case PortWritten(port=port, output=False):
                yield from self._intakes[port].written(now)
            case PortShut(port=port, output=False):
                yield from self._intakes[port].shut(now)
            case PortWritten() | PortShut():
                pass
            case Concluded(succeeded=succeeded):
                yield from self._conclude(now, succeeded=succeeded)
            case LanesChanged():
                yield from self._lanes_changed(event, now)
            case Detached():
                yield from self._leave(Stage.GONE)
            case SpoolWritten(place=place):
                yield from self._spooled(place)
            case ShellFailed(reason=reason):
                yield from self._fail(ReasonCode.STREAM, reason)
            case CallOpened():
                yield from self._call_opened(event)
            case RecorderJoined(plan=plan):
                outlet = self._outlets[plan.port]
                joined = outlet.join(plan)
                if joined is not None:
                    self._out_lanes[plan.id] = (joined, outlet)
            case RecorderLeft(lane=lane):
                yield from self._depart(lane)
            case CallAcknowledged(lane=lane):
                yield from self._out_lanes[lane][0].acknowledged(event)
                yield from self._out_lanes[lane][1].throttle()
            case CallDone(lane=lane, call=call):
                yield from self._out_lanes[lane][0].finished(call)
                yield from self._out_lanes[lane][1].pump()
            case CallReady(lane=lane, call=call):
                yield from self._out_lanes[lane][0].ready(call)
                yield from self._out_lanes[lane][1].throttle()
            case CallClosed(lane=lane, call=call):
                self._out_lanes[lane][0].closed(call)
            case SpoolLoaded(lane=lane, call=call, body=body):
                yield from self._out_lanes[lane][0].loaded(call, body)
                yield from self._out_lanes[lane][1].throttle()
            case DialAccepted() | DialBlock() | DialEnded() | DialBroken():
                yield from self._dialled(event, now)
            case _:
                assert_never(event)

    # ---- beginning ------------------------------------------------------------------------------

    def _attached(self) -> Iterator[Effect]:
        if self._plan.replacement and self._resume:
            self._to(Stage.ASKING_CONSUMERS)
            return
        self._to(Stage.SETTLING)
        yield from self._begin(0)

    def _begin(self, start: int | None) -> Iterator[Effect]:
        """Begin with round `start`, or with what the producers still keep."""
        for intake in self._intakes.values():
            if start is None:
                intake.begin_kept()
            else:
                intake.begin(start * intake.plan.block_count)
        self._start = start
        for lane, _ in self._in_lanes.values():
            yield from lane.dial()

    def _ask_consumers(self) -> Iterator[Effect]:
        wants: list[int] = []
        for outlet in self._outlets.values():
            some = outlet.wants()
            if some is None:
                return
            wants += some
        kept = None if self._intakes else 0
        start = min(wants, default=kept)
        if any(outlet.unsure for outlet in self._outlets.values()):
            start = kept  # nobody knows what else was let go of
        if self._outlets and not any(outlet.reliable for outlet in self._outlets.values()):
            start = None
            if not self._intakes:
                # A source goes on counting behind what anybody has. A job with inputs goes on with
                # what it has not said that it processed, which may well be older.
                newest = [outlet.latest_wants() for outlet in self._outlets.values()]
                if all(some is None for some in newest):
                    return
                start = max((want for some in newest for want in some or ()), default=0)
        self._to(Stage.SETTLING)
        yield from self._begin(start)

    def _settle(self, now: float) -> Iterator[Effect]:
        positions: dict[str, int] = {}
        for name, intake in self._intakes.items():
            position = intake.settle()
            if position is None:
                return
            positions[name] = position
        if self._start is None:
            # Inputs may have been released to different rounds; none below the highest is needed.
            self._start = max(
                -(-positions[name] // intake.plan.block_count)
                for name, intake in self._intakes.items()
            )
            for intake in self._intakes.values():
                intake.aim(self._start * intake.plan.block_count)
            yield from self._settle(now)
            return
        self._to(Stage.FLOWING)
        recovery = "resume" if self._resume else "restart"
        for outlet in self._outlets.values():
            yield from outlet.start(self._start, recovery, self._epoch, now)
        for lane, _ in self._out_lanes.values():
            yield from self._answer(lane)
        if self._stage is not Stage.FLOWING:
            return
        for intake in self._intakes.values():
            # Always a whole round, also after a last one that was short: then the end is all there is.
            position = self._start * intake.plan.block_count
            yield from intake.start(position, recovery, self._epoch, now)
        if self._concluded:
            yield from self._conclude(now, succeeded=True)

    # ---- ports ----------------------------------------------------------------------------------

    def _port_block(self, event: PortBlock, now: float) -> Iterator[Effect]:
        block = event.block
        match block.kind:
            case Kind.PROGRESS:
                self.progress = plain(block.body).decode(errors="replace")
            case Kind.ACK if not event.output:
                self._intakes[event.port].acknowledged(block.first)
                yield from self._intakes[event.port].pump(now)
            case Kind.DATA if event.output:
                yield from self._outlets[event.port].wrote(block, now)
                yield from self._spool()
            case Kind.END if event.output:
                yield from self._outlets[event.port].said_end(block.first)
            case _:
                direction = "output" if event.output else "input"
                raise JobError(f"{block.kind.name} is not for the job to send on an {direction}")

    def _port_closed(self, event: PortClosed, now: float) -> Iterator[Effect]:
        if not event.output:
            return
        outlet = self._outlets[event.port]
        outlet.closed(event)
        if self._concluded:
            yield from outlet.end_if_closed(now)

    def _conclude(self, now: float, *, succeeded: bool) -> Iterator[Effect]:
        if self._stage is Stage.CONCLUDED:
            return
        if not succeeded:
            yield from self._leave(Stage.ABANDONED)
            return
        self._concluded = True
        # Before, the attempt does not know yet where it begins; it concludes once it does.
        if self._stage is not Stage.FLOWING:
            return
        self._to(Stage.CONCLUDED)
        for lane, _ in self._in_lanes.values():
            yield from lane.finish()
        for outlet in self._outlets.values():
            yield from outlet.end_if_closed(now)

    # ---- lanes ----------------------------------------------------------------------------------

    def _call_opened(self, event: CallOpened) -> Iterator[Effect]:
        lane, outlet = self._out_lanes[event.lane]
        if self._stage in _OVER:
            yield RefuseCall(event.call, "NOT_READY", f"the attempt has {self._stage.value}")
            return
        yield from lane.opened(event, self._epoch)
        if self._stage in {Stage.FLOWING, Stage.CONCLUDED}:
            yield from self._answer(lane)
            yield from outlet.throttle()

    def _answer(self, lane: SendLane) -> Sequence[Effect]:
        try:
            return lane.answer(self._epoch)
        except RewindError as error:
            if lane.recorder:
                return lane.refuse_held("BEHIND", str(error))
            return [
                *lane.refuse_held("BEHIND", str(error)),
                *self._fail(ReasonCode.REWIND, f"{error}; it has to be run again from there"),
            ]

    def _depart(self, name: str) -> Iterator[Effect]:
        lane, outlet = self._out_lanes.pop(name)
        yield from lane.stop()
        yield from self._free(outlet.leave(lane))
        yield from outlet.throttle()

    def _dialled(
        self, event: DialAccepted | DialBlock | DialEnded | DialBroken, now: float
    ) -> Iterator[Effect]:
        lane, intake = self._in_lanes[event.lane]
        if not lane.current(event.dial):
            return
        try:
            match event:
                case DialAccepted():
                    lane.accepted(event)
                case DialBlock(block=block):
                    if lane.received(block):
                        intake.arrived(lane)
                case DialEnded():
                    lane.ended(event)
                    intake.lane_ended(lane)
                    if intake.cut:
                        for outlet in self._outlets.values():
                            outlet.continued = True
                case DialBroken(reason="BULK"):
                    yield from lane.dial_for_bulk()
                case DialBroken(reason=reason):
                    yield from lane.failed(reason, now)
                case _:
                    assert_never(event)
        except LaneError as error:
            yield from lane.wrong(error, now)
        yield from intake.pump(now)

    def _lanes_changed(self, event: LanesChanged, now: float) -> Iterator[Effect]:
        may_dial = self._stage not in {Stage.NEW, Stage.ASKING_CONSUMERS}
        inputs: dict[str, list[Lane]] = {}
        outputs: dict[str, list[Lane]] = {}
        for plan in event.lanes:
            (outputs if plan.output else inputs).setdefault(plan.port, []).append(plan)
            if plan.id in self._out_lanes:
                lane, outlet = self._out_lanes[plan.id]
                yield from lane.moved(plan.peer)
                yield from outlet.pump()
            elif plan.id in self._in_lanes:
                yield from self._in_lanes[plan.id][0].moved(plan.peer, may_dial=may_dial)
        for port, plans in outputs.items():
            outlet = self._outlets[port]
            yield from outlet.rearrange(plans, now)
            self._out_lanes |= {lane.plan.id: (lane, outlet) for lane in outlet.lanes}
        for port, plans in inputs.items():
            yield from self._new_inputs(self._intakes[port], plans, may_dial=may_dial)

    def _new_inputs(
        self, intake: Intake, plans: Sequence[Lane], *, may_dial: bool
    ) -> Iterator[Effect]:
        """Take lanes from new replicas of a producer, behind those there are."""
        lanes = [self._receiving(plan) for plan in plans if plan.id not in self._in_lanes]
        intake.extend(lanes)
        for lane in lanes:
            self._in_lanes[lane.plan.id] = (lane, intake)
            if self._stage is Stage.CONCLUDED:
                yield from lane.finish()
            elif may_dial:
                yield from lane.dial()

    # ---- what follows from anything -------------------------------------------------------------

    def _afterwards(self, now: float) -> Iterator[Effect]:
        if self._stage is Stage.ASKING_CONSUMERS:
            yield from self._ask_consumers()
        if self._stage is Stage.SETTLING:
            yield from self._settle(now)
        for outlet in self._outlets.values():
            yield from self._free(outlet.release())
            if outlet.spool_behind:
                yield from self._watch_spool()
        yield from self._close_outputs()
        self._release_inputs()
        yield from self._acknowledge(now)
        if (
            self._stage is Stage.CONCLUDED
            and not self._drained
            and all(outlet.drained for outlet in self._outlets.values())
        ):
            self._drained = True
            yield ReportDrained()

    def _close_outputs(self) -> Iterator[Effect]:
        """Take nothing more of the job once nobody wants anything of any output.

        All of them together: a program is ended by the first that is closed (SIGPIPE), and with it
        would go what the consumers of the others have not got yet.
        """
        read = [outlet for outlet in self._outlets.values() if outlet.lanes]
        if self._closed or self._stage is not Stage.FLOWING or not read:
            return
        if not all(outlet.unwanted for outlet in read):
            return
        self._closed = True
        for outlet in self._outlets.values():
            yield from outlet.close()

    def _release_inputs(self) -> None:
        """Let producers go of rounds that are finished for good (docs/architecture.md, 4)."""
        if not self._resume or self._stage not in {Stage.FLOWING, Stage.CONCLUDED}:
            return
        reliable = [outlet for outlet in self._outlets.values() if outlet.reliable]
        if reliable:
            floors = [outlet.released_records() for outlet in reliable]
            rounds = min((floor for floor in floors if floor is not None), default=None)
        else:
            rounds = min(
                (intake.acknowledged_rounds for intake in self._intakes.values()), default=None
            )
            if rounds is not None:
                # A replacement makes the newest records again, for whoever has not got them.
                newest = max(
                    (outlet.newest_records for outlet in self._outlets.values()), default=0
                )
                rounds = max(0, rounds - newest)
        if rounds is None:
            return
        for intake in self._intakes.values():
            intake.release(rounds * intake.plan.block_count)

    def _acknowledge(self, now: float) -> Iterator[Effect]:
        for lane, _ in self._in_lanes.values():
            if lane.urgent:
                yield from lane.acknowledge()
            elif lane.unacknowledged and self._ack_at is None:
                self._ack_at = now + self._budget.ack_seconds

    def _spool(self) -> Iterator[Effect]:
        """Move the oldest bodies to disk until memory is within its limit."""
        outlets = self._outlets.values()
        excess = sum(outlet.staying_bytes for outlet in outlets) - self._budget.memory_bytes
        while excess > 0:
            tracks = [track for outlet in outlets for track in outlet.tracks if track.spoolable]
            track = max(
                tracks, key=lambda track: track.memory_bytes - track.leaving_bytes, default=None
            )
            kept = None if track is None else track.oldest_in_memory()
            if track is None or kept is None or kept.body is None:
                break
            place = self._ledger.place(kept.size)
            track.spooling(place)
            self._leaving[place] = (track, kept)
            yield WriteSpool(place, kept.body)
            excess -= kept.size
        yield from self._watch_spool()

    def _spooled(self, place: SpoolPlace) -> Iterator[Effect]:
        track, kept = self._leaving.pop(place)
        track.spooled(kept)
        yield from self._watch_spool()

    def _watch_spool(self) -> Iterator[Effect]:
        """Block the job while the disk is slower than it is."""
        outlets = self._outlets.values()
        memory = sum(outlet.memory_bytes for outlet in outlets)
        behind = memory > self._budget.memory_bytes + self._budget.spooling_bytes
        for outlet in outlets:
            if outlet.spool_behind != behind:
                outlet.spool_behind = behind
                yield from outlet.throttle()

    def _free(self, places: Sequence[SpoolPlace]) -> Iterator[Effect]:
        for place in places:
            segment = self._ledger.free(place)
            if segment is not None:
                yield DropSegment(segment)

    # ---- ends -----------------------------------------------------------------------------------

    def _fail(self, code: ReasonCode, message: str) -> Sequence[Effect]:
        self.failure = ReportFailed(code, message)
        return [*self._leave(Stage.FAILED), self.failure]

    def _leave(self, stage: Stage) -> list[Effect]:
        self._to(stage)
        effects: list[Effect] = []
        for lane, _ in self._in_lanes.values():
            lane.retry_at = None
            effects += lane.hang_up()
        for out_lane, _ in self._out_lanes.values():
            effects += out_lane.stop()
        self._ack_at = None
        if stage is Stage.GONE:
            # At once, and not when the collector comes by: much of it may be memory of a ring.
            self._leaving.clear()
            for outlet in self._outlets.values():
                outlet.forget()
            for intake in self._intakes.values():
                intake.forget()
            effects += [DropSegment(segment) for segment in self._ledger.segments]
        return effects

    def _to(self, stage: Stage) -> None:
        if stage not in _ALLOWED[self._stage]:
            raise ValueError(f"streams cannot go from {self._stage.value} to {stage.value}")
        self._stage = stage


def _where(event: Event) -> str:
    match event:
        case PortBlock(port=port, block=block):
            return f"port {port} at record {block.first}: "
        case _:
            return ""
