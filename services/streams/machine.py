"""The streams of one attempt as a pure machine: its ports, its lanes, and how it goes on after others.

An attempt begins at round 0, except when it replaces one that could be resumed: then it waits until
every consumer of its outputs has dialled in and begins at the lowest round that any of them wants.
Where no round is named (a sink, or consumers that do not know either) it begins with what its
own producers still keep, which is what was not released.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import assert_never

from services.streams import effects, events
from services.streams.attempt_input import AttemptInput, PortRuleError
from services.streams.attempt_output import AttemptOutput
from services.streams.block import Kind, plain
from services.streams.block_index import RetainedBlock, SpoolPlace
from services.streams.framing import RecordError
from services.streams.key import HeadersError
from services.streams.plan import AttemptPlan, StreamLimits
from services.streams.receiver import DigestError, LaneError, NotRepeatedError, ReceiveLane
from services.streams.retained_log import RetainedLog, SpoolLedger
from services.streams.sender import RewindError, SendLane
from shoal.backoff import Backoff
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
    """The program has ended well; lanes go on until no consumer needs them."""
    ABANDONED = "abandoned"
    """The program has not ended well: no lane ever ends."""
    FAILED = "failed"
    GONE = "gone"


_OVER = frozenset({Stage.ABANDONED, Stage.FAILED, Stage.GONE})

_ALLOWED = {
    Stage.NEW: {Stage.ASKING_CONSUMERS, Stage.SETTLING, *_OVER},
    Stage.ASKING_CONSUMERS: {Stage.SETTLING, *_OVER},
    Stage.SETTLING: {Stage.FLOWING, *_OVER},
    Stage.FLOWING: {Stage.CONCLUDED, *_OVER},
    Stage.CONCLUDED: {Stage.FAILED, Stage.GONE},
    Stage.ABANDONED: {Stage.GONE},
    Stage.FAILED: {Stage.GONE},
    Stage.GONE: set[Stage](),
}

_CALLS = (
    events.CallAcknowledged
    | events.CallDone
    | events.CallReady
    | events.CallClosed
    | events.SpoolLoaded
    | events.RecorderLeft
)


class AttemptStreamsMachine:
    """Carries the records of one attempt.

    Args:
        plan: its ports and lanes.
        limits: what it may use.
        chance: draws a number from [0, 1), for the time between two dials.
    """

    def __init__(
        self, plan: AttemptPlan, limits: StreamLimits, chance: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._limits = limits
        self._epoch = plan.epoch
        self._receiving = partial(
            ReceiveLane,
            epoch=plan.epoch,
            credit_bytes=limits.credit_bytes,
            backoff=Backoff(limits.redial_seconds, limits.redial_seconds_max),
            chance=chance,
        )
        self._inputs = {
            port.name: AttemptInput(
                port,
                [self._receiving(lane) for lane in port.lanes],
                plan.replica,
                plan.replicas,
            )
            for port in plan.inputs
        }
        self._outputs = {
            port.name: AttemptOutput(
                port,
                producer=plan.replica,
                producers=plan.replicas,
                limits=limits,
                replacement=plan.replacement,
            )
            for port in plan.outputs
        }
        self._in_lanes = {
            lane.plan.id: (lane, in_port)
            for in_port in self._inputs.values()
            for lane in in_port.lanes
        }
        self._out_lanes = {
            lane.plan.id: (lane, out_port)
            for out_port in self._outputs.values()
            for lane in out_port.lanes
        }
        # Records that came as they arrived come in another order the next time, so a round of them
        # cannot be asked for again; and a lane of one key does not show which round it is at.
        self._resume = (
            plan.resume
            and all(in_port.replayable for in_port in self._inputs.values())
            and all(out_port.resumable for out_port in self._outputs.values())
        )
        self._ledger = SpoolLedger(limits.segment_bytes)
        self._leaving: dict[SpoolPlace, tuple[RetainedLog, RetainedBlock]] = {}
        # Where the attempt's streams stand.
        self.stage = Stage.NEW
        self._start: int | None = None
        self._concluded: bool | None = None
        # Whether the program has ended well and no consumer needs anything of it any more.
        self.drained = False
        # Whether no output takes anything more, although the program may go on.
        self.closed = False
        self._ack_at: float | None = None
        self.progress = ""
        """Free text of the job about its own progress."""
        self.failure: effects.ReportFailed | None = None
        """Why the attempt cannot go on, if so."""

    @property
    def output_lanes(self) -> tuple[str, ...]:
        """Ids of the lanes that consumers may dial."""
        return tuple(self._out_lanes)

    def counters(self, now: float) -> tuple[StreamCounters, ...]:
        """Return the counters of all ports, inputs first."""
        return (
            *(in_port.counters(now) for in_port in self._inputs.values()),
            *(out_port.counters(now) for out_port in self._outputs.values()),
        )

    @property
    def holds(self) -> tuple[PortHold, ...]:
        """Its outputs that stand still and know how far they are."""
        found = (out_port.held() for out_port in self._outputs.values())
        return tuple(hold for hold in found if hold is not None)

    def output(self, port: str) -> AttemptOutput:
        """Return one output port.

        Raises:
            KeyError: There is none of that name.
        """
        return self._outputs[port]

    def deadline(self) -> float | None:
        """Return when `tick` is next wanted, or None while nothing is waited for."""
        times = [lane.retry_at for lane, _ in self._in_lanes.values() if lane.retry_at is not None]
        if self._ack_at is not None:
            times.append(self._ack_at)
        return min(times, default=None)

    def tick(self, now: float) -> Sequence[effects.Effect]:
        """Dial again and acknowledge where it is time."""
        out: list[effects.Effect] = []
        for lane, _ in self._in_lanes.values():
            if lane.retry_at is not None and lane.retry_at <= now:
                out += lane.dial()
        if self._ack_at is not None and self._ack_at <= now:
            self._ack_at = None
            for lane, _ in self._in_lanes.values():
                out += lane.acknowledge()
        return out

    def handle(self, event: events.Event, now: float) -> Sequence[effects.Effect]:
        """Take one event and return what is to be done about it, in order."""
        if self.stage in _OVER and not isinstance(event, events.Detached | events.CallOpened):
            return []
        if isinstance(event, _CALLS) and event.lane not in self._out_lanes:
            return []  # of a recorder that has left
        out: list[effects.Effect] = []
        try:
            # One by one: what was decided before a job turns out to be wrong is still to be done.
            for effect in self._take(event, now):
                out.append(effect)  # noqa: PERF402 - see above
            if self.stage not in _OVER:
                for effect in self._afterwards(now):
                    out.append(effect)  # noqa: PERF402 - see above
        except (PortRuleError, HeadersError, RecordError, NotRepeatedError, DigestError) as error:
            out += self._fail(ReasonCode.STREAM, f"{_where(event)}{error}")
        return out

    def _take(self, event: events.Event, now: float) -> Iterator[effects.Effect]:
        match event:
            case events.Attached():
                yield from self._attached()
            case events.PortBlock():
                yield from self._port_block(event, now)
            case events.PortViolation(port=port, offset=offset, reason=reason):
                yield from self._fail(
                    ReasonCode.STREAM, f"port {port} at offset {offset}: {reason}"
                )
            case events.PortClosed():
                yield from self._port_closed(event, now)
            case events.PortWritten(port=port, output=False):
                yield from self._inputs[port].written(now)
            case events.PortShut(port=port, output=False):
                yield from self._inputs[port].shut(now)
            case events.PortWritten() | events.PortShut():
                pass
            case events.Concluded(succeeded=succeeded):
                yield from self._conclude(now, succeeded=succeeded)
            case events.LanesChanged():
                yield from self._lanes_changed(event, now)
            case events.Detached():
                yield from self._leave(Stage.GONE)
            case events.SpoolWritten(place=place):
                yield from self._spooled(place)
            case events.ShellFailed(reason=reason):
                yield from self._fail(ReasonCode.STREAM, reason)
            case events.CallOpened():
                yield from self._call_opened(event)
            case events.RecorderJoined(plan=plan):
                out_port = self._outputs[plan.port]
                joined = out_port.join(plan)
                if joined is not None:
                    self._out_lanes[plan.id] = (joined, out_port)
            case events.RecorderLeft(lane=lane):
                yield from self._depart(lane)
            case events.CallAcknowledged(lane=lane):
                yield from self._out_lanes[lane][0].acknowledged(event)
                yield from self._out_lanes[lane][1].throttle()
            case events.CallDone(lane=lane, call=call):
                yield from self._out_lanes[lane][0].finished(call)
                yield from self._out_lanes[lane][1].pump()
            case events.CallReady(lane=lane, call=call):
                yield from self._out_lanes[lane][0].ready(call)
                yield from self._out_lanes[lane][1].throttle()
            case events.CallClosed(lane=lane, call=call):
                self._out_lanes[lane][0].closed(call)
            case events.SpoolLoaded(lane=lane, call=call, body=body):
                yield from self._out_lanes[lane][0].loaded(call, body)
                yield from self._out_lanes[lane][1].throttle()
            case _:
                yield from self._dialled(event, now)

    # ---- beginning ------------------------------------------------------------------------------

    def _attached(self) -> Iterator[effects.Effect]:
        if self._plan.replacement and self._resume:
            self._to(Stage.ASKING_CONSUMERS)
            return
        self._to(Stage.SETTLING)
        yield from self._begin(0)

    def _begin(self, start: int | None) -> Iterator[effects.Effect]:
        """Begin with round `start`, or with what the producers still keep."""
        for in_port in self._inputs.values():
            if start is None:
                in_port.begin_kept()
            else:
                in_port.begin(start * in_port.plan.block_count)
        self._start = start
        for lane, _ in self._in_lanes.values():
            yield from lane.dial()

    def _ask_consumers(self) -> Iterator[effects.Effect]:
        wants: list[int] = []
        for out_port in self._outputs.values():
            some = out_port.wants()
            if some is None:
                return
            wants += some
        all_kept = None if self._inputs else 0
        start = min(wants, default=all_kept)
        if any(out_port.unsure for out_port in self._outputs.values()):
            start = all_kept  # what else was let go of is not known
        if self._outputs and not any(out_port.reliable for out_port in self._outputs.values()):
            start = None
            if not self._inputs:
                # A source goes on counting behind what any consumer has. A job with inputs goes on with
                # what it has not said that it processed, which may well be older.
                newest = [out_port.latest_wants() for out_port in self._outputs.values()]
                if all(some is None for some in newest):
                    return
                start = max((want for some in newest for want in some or ()), default=0)
        self._to(Stage.SETTLING)
        yield from self._begin(start)

    def _settle(self, now: float) -> Iterator[effects.Effect]:
        positions: dict[str, int] = {}
        for name, in_port in self._inputs.items():
            position = in_port.settle()
            if position is None:
                return
            positions[name] = position
        if self._start is None:
            # Inputs may have been released to different rounds; none below the highest is needed.
            self._start = max(
                -(-positions[name] // in_port.plan.block_count)
                for name, in_port in self._inputs.items()
            )
            for in_port in self._inputs.values():
                in_port.target = self._start * in_port.plan.block_count
            yield from self._settle(now)
            return
        self._to(Stage.FLOWING)
        recovery = "resume" if self._resume else "restart"
        for out_port in self._outputs.values():
            yield from out_port.start(self._start, recovery, self._epoch, now)
        for lane, _ in self._out_lanes.values():
            yield from self._answer(lane)
        if self.stage is not Stage.FLOWING:
            return
        for in_port in self._inputs.values():
            # Always a whole round, also after a last one that was short: then the end is all there is.
            position = self._start * in_port.plan.block_count
            yield from in_port.start(position, recovery, self._epoch, now)
        if self._concluded:
            yield from self._conclude(now, succeeded=True)

    # ---- ports ----------------------------------------------------------------------------------

    def _port_block(self, event: events.PortBlock, now: float) -> Iterator[effects.Effect]:
        block = event.block
        match block.kind:
            case Kind.PROGRESS:
                self.progress = plain(block.body).decode(errors="replace")
            case Kind.ACK if not event.output:
                self._inputs[event.port].acknowledged(block.first)
                yield from self._inputs[event.port].pump(now)
            case Kind.DATA if event.output:
                yield from self._outputs[event.port].wrote(block, now)
                yield from self._spool()
            case Kind.END if event.output:
                yield from self._outputs[event.port].said_end(block.first)
            case _:
                direction = "output" if event.output else "input"
                raise PortRuleError(
                    f"{block.kind.name} is not for the job to send on an {direction}"
                )

    def _port_closed(self, event: events.PortClosed, now: float) -> Iterator[effects.Effect]:
        if not event.output:
            return
        out_port = self._outputs[event.port]
        out_port.closed(event)
        if self._concluded:
            yield from out_port.end_if_closed(now)

    def _conclude(self, now: float, *, succeeded: bool) -> Iterator[effects.Effect]:
        if self.stage is Stage.CONCLUDED:
            return
        if not succeeded:
            yield from self._leave(Stage.ABANDONED)
            return
        self._concluded = True
        # Before, the attempt does not know yet where it begins; it concludes once it does.
        if self.stage is not Stage.FLOWING:
            return
        self._to(Stage.CONCLUDED)
        for lane, _ in self._in_lanes.values():
            yield from lane.finish()
        for out_port in self._outputs.values():
            yield from out_port.end_if_closed(now)

    # ---- lanes ----------------------------------------------------------------------------------

    def _call_opened(self, event: events.CallOpened) -> Iterator[effects.Effect]:
        lane, out_port = self._out_lanes[event.lane]
        if self.stage in _OVER:
            yield effects.RefuseCall(event.call, "NOT_READY", f"the attempt has {self.stage.value}")
            return
        yield from lane.opened(event, self._epoch)
        if self.stage in {Stage.FLOWING, Stage.CONCLUDED}:
            yield from self._answer(lane)
            yield from out_port.throttle()

    def _answer(self, lane: SendLane) -> Sequence[effects.Effect]:
        try:
            return lane.answer(self._epoch)
        except RewindError as error:
            if lane.recorder:
                return lane.refuse_held("BEHIND", str(error))
            return [
                *lane.refuse_held("BEHIND", str(error)),
                *self._fail(ReasonCode.REWIND, f"{error}; it has to be run again from there"),
            ]

    def _depart(self, name: str) -> Iterator[effects.Effect]:
        lane, out_port = self._out_lanes.pop(name)
        yield from lane.stop()
        yield from self._free(out_port.leave(lane))
        yield from out_port.throttle()

    def _dialled(self, event: events.DialEvent, now: float) -> Iterator[effects.Effect]:
        lane, in_port = self._in_lanes[event.lane]
        if not lane.current(event.dial):
            return
        try:
            match event:
                case events.DialAccepted():
                    lane.accepted(event)
                case events.DialBlock(block=block):
                    if lane.received(block):
                        in_port.arrived(lane)
                case events.DialEnded():
                    lane.ended(event)
                    in_port.lane_ended(lane)
                    if in_port.cut:
                        for out_port in self._outputs.values():
                            out_port.continued = True
                case events.DialBroken(reason="BULK"):
                    yield from lane.dial_for_bulk()
                case events.DialBroken(reason=reason):
                    yield from lane.failed(reason, now)
                case _:
                    assert_never(event)
        except LaneError as error:
            yield from lane.wrong(error, now)
        yield from in_port.pump(now)

    def _lanes_changed(self, event: events.LanesChanged, now: float) -> Iterator[effects.Effect]:
        may_dial = self.stage not in {Stage.NEW, Stage.ASKING_CONSUMERS}
        inputs: dict[str, list[Lane]] = {}
        outputs: dict[str, list[Lane]] = {}
        for plan in event.lanes:
            (outputs if plan.output else inputs).setdefault(plan.port, []).append(plan)
            if plan.id in self._out_lanes:
                lane, out_port = self._out_lanes[plan.id]
                yield from lane.moved(plan.peer)
                yield from out_port.pump()
            elif plan.id in self._in_lanes:
                yield from self._in_lanes[plan.id][0].moved(
                    plan.peer, plan.ticket, may_dial=may_dial
                )
        for port, plans in outputs.items():
            out_port = self._outputs[port]
            yield from out_port.rearrange(plans, now)
            self._out_lanes |= {lane.plan.id: (lane, out_port) for lane in out_port.lanes}
        for port, plans in inputs.items():
            yield from self._new_inputs(self._inputs[port], plans, may_dial=may_dial)

    def _new_inputs(
        self, in_port: AttemptInput, plans: Sequence[Lane], *, may_dial: bool
    ) -> Iterator[effects.Effect]:
        """Take lanes from new replicas of a producer, behind those there are."""
        lanes = [self._receiving(plan) for plan in plans if plan.id not in self._in_lanes]
        in_port.extend(lanes)
        for lane in lanes:
            self._in_lanes[lane.plan.id] = (lane, in_port)
            if self.stage is Stage.CONCLUDED:
                yield from lane.finish()
            elif may_dial:
                yield from lane.dial()

    # ---- what follows from anything -------------------------------------------------------------

    def _afterwards(self, now: float) -> Iterator[effects.Effect]:
        if self.stage is Stage.ASKING_CONSUMERS:
            yield from self._ask_consumers()
        if self.stage is Stage.SETTLING:
            yield from self._settle(now)
        for out_port in self._outputs.values():
            yield from self._free(out_port.release())
            if out_port.spool_behind:
                yield from self._watch_spool()
        yield from self._close_outputs()
        self._release_inputs()
        yield from self._acknowledge(now)
        if (
            self.stage is Stage.CONCLUDED
            and not self.drained
            and all(out_port.drained for out_port in self._outputs.values())
        ):
            self.drained = True
            yield effects.ReportDrained()

    def _close_outputs(self) -> Iterator[effects.Effect]:
        """Take nothing more of the job once no consumer wants anything of any output.

        All of them together: a program is ended by the first that is closed (SIGPIPE), and with it
        would go what the consumers of the others have not got yet.
        """
        read = [out_port for out_port in self._outputs.values() if out_port.lanes]
        if self.closed or self.stage is not Stage.FLOWING or not read:
            return
        if not all(out_port.unwanted for out_port in read):
            return
        self.closed = True
        for out_port in self._outputs.values():
            yield from out_port.close()

    def _release_inputs(self) -> None:
        """Let producers go of rounds that are finished for good (docs/architecture.md, 4)."""
        if not self._resume or self.stage not in {Stage.FLOWING, Stage.CONCLUDED}:
            return
        reliable = [out_port for out_port in self._outputs.values() if out_port.reliable]
        if reliable:
            floors = [out_port.released_records() for out_port in reliable]
            rounds = min((floor for floor in floors if floor is not None), default=None)
        else:
            rounds = min(
                (in_port.acknowledged_rounds for in_port in self._inputs.values()), default=None
            )
            if rounds is not None:
                # A replacement makes the newest records again, for consumers that have not got them.
                newest = max(
                    (out_port.newest_records for out_port in self._outputs.values()), default=0
                )
                rounds = max(0, rounds - newest)
        if rounds is None:
            return
        for in_port in self._inputs.values():
            in_port.release(rounds * in_port.plan.block_count)

    def _acknowledge(self, now: float) -> Iterator[effects.Effect]:
        for lane, _ in self._in_lanes.values():
            if lane.urgent:
                yield from lane.acknowledge()
            elif lane.unacknowledged and self._ack_at is None:
                self._ack_at = now + self._limits.ack_seconds

    def _spool(self) -> Iterator[effects.Effect]:
        """Move the oldest bodies to disk until memory is within its limit."""
        outputs = self._outputs.values()
        excess = sum(out_port.staying_bytes for out_port in outputs) - self._limits.memory_bytes
        while excess > 0:
            logs = [log for out_port in outputs for log in out_port.logs if log.spoolable]
            log = max(logs, key=lambda log: log.memory_bytes - log.leaving_bytes, default=None)
            retained = None if log is None else log.oldest_in_memory()
            if log is None or retained is None or retained.body is None:
                break
            place = self._ledger.place(retained.size)
            log.spooling(place)
            self._leaving[place] = (log, retained)
            yield effects.WriteSpool(place, retained.body)
            excess -= retained.size
        yield from self._watch_spool()

    def _spooled(self, place: SpoolPlace) -> Iterator[effects.Effect]:
        log, retained = self._leaving.pop(place)
        log.spooled(retained)
        yield from self._watch_spool()

    def _watch_spool(self) -> Iterator[effects.Effect]:
        """Block the job while the disk is slower than it is."""
        outputs = self._outputs.values()
        memory = sum(out_port.memory_bytes for out_port in outputs)
        behind = memory > self._limits.memory_bytes + self._limits.spooling_bytes
        for out_port in outputs:
            if out_port.spool_behind != behind:
                out_port.spool_behind = behind
                yield from out_port.throttle()

    def _free(self, places: Sequence[SpoolPlace]) -> Iterator[effects.Effect]:
        for place in places:
            segment = self._ledger.free(place)
            if segment is not None:
                yield effects.DropSegment(segment)

    # ---- ends -----------------------------------------------------------------------------------

    def _fail(self, code: ReasonCode, message: str) -> Sequence[effects.Effect]:
        self.failure = effects.ReportFailed(code, message)
        return [*self._leave(Stage.FAILED), self.failure]

    def _leave(self, stage: Stage) -> list[effects.Effect]:
        self._to(stage)
        out: list[effects.Effect] = []
        for lane, _ in self._in_lanes.values():
            lane.retry_at = None
            out += lane.hang_up()
        for out_lane, _ in self._out_lanes.values():
            out += out_lane.stop()
        self._ack_at = None
        if stage is Stage.GONE:
            # At once, and not when the collector comes by: much of it may be memory of a ring.
            self._leaving.clear()
            for out_port in self._outputs.values():
                out_port.forget()
            for in_port in self._inputs.values():
                in_port.forget()
            out += [effects.DropSegment(segment) for segment in self._ledger.segments]
        return out

    def _to(self, stage: Stage) -> None:
        if stage not in _ALLOWED[self.stage]:
            raise ValueError(f"streams cannot go from {self.stage.value} to {stage.value}")
        self.stage = stage


def _where(event: events.Event) -> str:
    match event:
        case events.PortBlock(port=port, block=block):
            return f"port {port} at record {block.first}: "
        case _:
            return ""
