"""An output port: what the job writes is kept, and goes out on the lanes of all its consumers."""

import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from services.streams import effects, events
from services.streams.attempt_input import PortRuleError
from services.streams.block import (
    Block,
    Kind,
    bounds,
    divided,
    entries,
    header,
    pack,
    plain,
    unpack,
)
from services.streams.block_index import SpoolPlace
from services.streams.key import KeyRule
from services.streams.lane_slice import LaneSlice, lane_slice
from services.streams.latest import LatestLane, NewestLog
from services.streams.plan import OutputPlan, StreamLimits
from services.streams.retained_log import RetainedLog
from services.streams.sender import SendLane
from shoal.model import StreamCounters
from shoal.session.lane import WANT_KEPT, WANT_NOTHING, Lane
from shoal.session.port_hold import PortHold
from shoal.spec import Distribute, PortFormat


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer is behind on its lane: records not taken, bytes not sent."""

    lane: str
    records: int
    bytes: int
    done: bool


@dataclass(eq=False)
class AttemptOutput:
    """One output port of an attempt.

    Args:
        plan: the port with its lanes.
        producer: replica of this attempt.
        producers: replicas of its job.
        peers: where the consumers stand, by lane.
        limits: what the attempt may use.
        replacement: whether an earlier attempt may have sent records.
    """

    plan: OutputPlan
    _: KW_ONLY
    producer: int
    producers: int
    limits: StreamLimits
    replacement: bool = False

    def __post_init__(self) -> None:
        self.lanes: list[SendLane] = []
        self.logs: list[RetainedLog] = []
        self._raw = self.plan.binding.format is not PortFormat.BLOCKS
        self._whole: RetainedLog | None = None
        # Lanes with a log of their own; those that carry everything share one.
        self._split: list[SendLane] = []
        self._keyed: dict[int, list[RetainedLog]] = {}
        self._latest: list[LatestLane] = []
        for lane in self.plan.lanes:
            self._add(lane)
        by_key = any(_by_key(lane) for lane in self.plan.lanes)
        self._rule = KeyRule(self.plan.binding.format, self.plan.key) if by_key else None
        self._hold = max((lane.hold for lane in self.plan.lanes), default=0)
        self._end = _end_of(self.plan.lanes)
        self._over = False
        self._closed_to_job = False
        self._waiting: list[Block] = []
        self._closes_late = False
        self._cut: int | None = None
        self._whole_live = True
        self._lent = False
        self.continued = False
        """Whether another generation of the job goes on where this one ends."""
        self.spool_behind = False
        """Whether the spool does not keep up with the job, which is blocked meanwhile."""
        self._first = 0
        # How many records the job has sent, those of earlier attempts included.
        self.sent = 0
        self._bytes = 0
        # Whether nothing comes any more, and that is certain.
        self.ended = False
        self._closed: events.PortClosed | None = None
        self._said_end = False
        self._started = False
        self._paused = False
        self._moved_at = 0.0

    @property
    def drained(self) -> bool:
        """Whether no consumer will ask for anything of it."""
        return self.ended and all(lane.done for lane in self.lanes)

    @property
    def unwanted(self) -> bool:
        """Whether no consumer will get what the job may still send: the port ended, or all are done.

        A port that stands still may get other lanes, which want what comes after those there are.
        """
        if self._over:
            return True
        return not self._hold and bool(self.lanes) and all(lane.done for lane in self.lanes)

    @property
    def repeating(self) -> bool:
        """Whether a consumer may have records that this attempt has not sent again yet.

        Those of the generations before the newest one have all that comes before it, even if some of them
        have committed since.
        """
        if not self.replacement or self.ended:
            return False
        begun = max(map(self._begins, self.lanes), default=0)
        return (
            not self._started
            or self.sent < begun
            or any(not lane.dialled or lane.existing < lane.wanted for lane in self._demanding)
        )

    @property
    def _demanding(self) -> list[SendLane]:
        """Lanes whose consumer has to get every record and has not committed."""
        return [
            lane
            for lane in self.lanes
            if not (lane.done or lane.slice.empty or lane.plan.keep or lane.recorder)
        ]

    @property
    def resumable(self) -> bool:
        """Whether the sequences of its lanes show how far the job is; by key they do not."""
        return not self._keyed

    @property
    def reliable(self) -> bool:
        """Whether a consumer is promised every record."""
        return len(self._latest) < len(self.lanes)

    @property
    def newest_records(self) -> int:
        """How many of the last records a consumer may want that wants the newest alone."""
        return max(
            (lane.plan.keep * lane.plan.peer_replicas for lane in self._latest if not lane.done),
            default=0,
        )

    @property
    def memory_bytes(self) -> int:
        """Bytes that are kept in memory."""
        return sum(log.memory_bytes for log in self.logs)

    @property
    def staying_bytes(self) -> int:
        """Of those, the bytes that are not being written to the spool."""
        return sum(log.memory_bytes - log.leaving_bytes for log in self.logs)

    def wants(self) -> list[int] | None:
        """Return the first record that each consumer wants; None while one has not dialled in.

        A consumer that has finished, or does not know, gives no number.
        """
        wants: list[int] = []
        for lane in self._demanding:
            if lane.held is None:
                return None
            if lane.held.want not in {WANT_NOTHING, WANT_KEPT}:
                wants.append(lane.slice.record(lane.held.want))
        return wants

    @property
    def unsure(self) -> bool:
        """Whether a consumer does not know where to go on, and has to get all that is kept."""
        return any(
            lane.held is not None and lane.held.want == WANT_KEPT for lane in self._demanding
        )

    def latest_wants(self) -> list[int] | None:
        """Return as `wants` does, of consumers that want the newest; None while not one is here."""
        here = [lane for lane in self._latest if lane.done or lane.held is not None]
        if self._latest and not here:
            return None
        return [
            lane.slice.record(lane.held.want)
            for lane in here
            if lane.held is not None and lane.held.want not in {WANT_NOTHING, WANT_KEPT}
        ]

    def start(self, first: int, recovery: str, epoch: int, now: float) -> list[effects.Effect]:
        """Let the job write, beginning with record `first`."""
        self._started = True
        self._first = self.sent = first
        self._moved_at = now
        if first:
            if self._whole is not None:
                self._whole.begin(first)
            for lane in (*self._split, *self._latest):
                lane.log.begin(lane.slice.sequence(first))
            for lane in self.lanes:
                if not lane.slice.empty:
                    lane.begin(lane.slice.sequence(first))
        self._pass_cuts()
        out: list[effects.Effect] = [effects.ReadPort(self.plan.name, output=True)]
        if not self._raw:
            body = json.dumps({"recovery": recovery, "epoch": epoch, "block_count": 1}).encode()
            block = Block(Kind.START, first, 0, body)
            out.append(effects.WritePort(self.plan.name, True, (header(block) + body,)))
        if not self._hold:
            out += self._let_go(now)
        return [*out, *self._stop_at_end(), *self.throttle()]

    def wrote(self, block: Block, now: float) -> list[effects.Effect]:
        """Take records of the job.

        Raises:
            PortRuleError: They do not follow on those before, come after the end, or have headers that
                do not say what their key is.
        """
        if self._over:
            return []
        if self._said_end:
            raise PortRuleError(f"DATA from record {block.first} after END")
        number = self.sent + sum(one.count for one in self._waiting)
        if not self._raw and block.first != number:
            raise PortRuleError(f"DATA begins with record {block.first}, the next one is {number}")
        if self._hold or not self._started:
            # It was on its way when the port was made to stand still, or before it is known where
            # the port begins, and so whose it is; no more is read.
            self._waiting.append(block)
            return []
        if self._end is not None and self._end < self.sent + block.count:
            block = divided(block, self._end - self.sent)[0]
        while self._cut is not None and self._cut < self.sent + block.count:
            head, block = divided(block, self._cut - self.sent)
            self._append(head)
        self._append(block)
        self._moved_at = now
        return [*self._stop_at_end(), *self.pump()]

    def said_end(self, total: int) -> list[effects.Effect]:
        """Let the job end the port.

        Raises:
            PortRuleError: The total is not the number of records.
        """
        if self._over:
            return []
        if self._said_end:
            raise PortRuleError("a second END")
        number = self.sent + sum(one.count for one in self._waiting)
        if total != number:
            raise PortRuleError(f"END says {total} records in all, {number} came")
        self._said_end = True
        if self._hold:
            return []
        return self.end()

    def closed(self, event: events.PortClosed) -> None:
        """Keep the end of file, which ends the port only once the program has ended well."""
        self._closed = event

    def end_if_closed(self, now: float) -> list[effects.Effect]:
        """End the port if its end of file came, since the program has ended well.

        Raises:
            PortRuleError: It left something half done.
        """
        event = self._closed
        if event is None or self.ended:
            return []
        if self._hold:
            self._closes_late = True
            return []
        if event.unfinished:
            raise PortRuleError(
                f"port {self.plan.name} at offset {event.offset}: {event.unfinished}"
            )
        out: list[effects.Effect] = []
        for block in event.rest:
            out += self.wrote(block, now)
        return [*out, *self.end()]

    def close(self) -> list[effects.Effect]:
        """Take nothing more of the job, and let it know."""
        if self._closed_to_job:
            return []
        self._closed_to_job = True
        return [*self._stop(), effects.ClosePort(self.plan.name)]

    def _stop_at_end(self) -> list[effects.Effect]:
        """End the port if it has as many records as it is to have."""
        reached = self._started and self._end is not None and self.sent >= self._end
        return self._stop() if reached else []

    def _stop(self) -> list[effects.Effect]:
        """End the port here: what the job sends from now on is dropped."""
        if self._over:
            return []
        self._over = True
        self._waiting.clear()
        return [] if self.ended else self.end()

    def end(self) -> list[effects.Effect]:
        """End all lanes."""
        self.ended = True
        for log in (*self.logs, *(lane.log for lane in self._latest)):
            if log.total is None:
                log.end()
        for lane in self.lanes:
            lane.continued = self.continued
        return self.pump()

    def rearrange(self, plans: Sequence[Lane], now: float) -> list[effects.Effect]:
        """Follow what the lanes are now: some are new, some were cut, or the port stands still.

        Raises:
            PortRuleError: A cut lies before what was sent; or as `wrote` and `end_if_closed`, about what
                had to wait.
        """
        out: list[effects.Effect] = []
        known = {lane.plan.id: lane for lane in self.lanes}
        for plan in plans:
            lane = known.get(plan.id)
            part = self._slice_of(plan)
            if lane is None:
                self._check_cut(plan.id, None if part.empty else part.first)
                self._add(plan)
            elif lane.plan != plan:
                if part != lane.slice:
                    self._check_cut(plan.id, part.cut)
                lane.plan = plan
                out += lane.cut(part)
        if self._started:
            self._pass_cuts()
        self._hold = max((plan.hold for plan in plans), default=0)
        self._end = _end_of(plans)
        out += self._stop_at_end()
        if not self._hold:
            out += self._let_go(now)
        return [*out, *self.pump()]

    def _check_cut(self, lane: str, record: int | None) -> None:
        if record is not None and self._started and record < self.sent:
            raise PortRuleError(f"lane {lane} was cut at record {record}, {self.sent} came before")

    def _let_go(self, now: float) -> list[effects.Effect]:
        """Take what came while the port stood still."""
        out: list[effects.Effect] = []
        if self._over:
            return []
        waiting, self._waiting = self._waiting, []
        said_end, self._said_end = self._said_end, False
        for block in waiting:
            out += self.wrote(block, now)
        if said_end:
            self._said_end = True
            out += self.end()
        if self._closes_late:
            out += self.end_if_closed(now)
        return out

    def pump(self) -> list[effects.Effect]:
        """Send what may be sent on every lane, and block or free the job."""
        out: list[effects.Effect] = []
        for lane in self.lanes:
            out += lane.pump()
        return [*out, *self.throttle()]

    def throttle(self) -> list[effects.Effect]:
        """Block the job while a lane has too much to send, and free it afterwards."""
        if not self._started:
            return []
        full = (
            self.spool_behind
            or (self._hold > 0 and not self._over)
            or any(lane.backlog >= self.limits.backlog_bytes for lane in self.lanes)
        )
        if full and not self._paused:
            self._paused = True
            return [effects.PausePort(self.plan.name, output=True)]
        if self._paused and not full:
            self._paused = False
            return [effects.ReadPort(self.plan.name, output=True)]
        return []

    def release(self) -> list[SpoolPlace]:
        """Let go of what no lane will ask for; return what this frees in the spool."""
        places: list[SpoolPlace] = []
        for log in self.logs:
            floors = [lane.floor for lane in self.lanes if lane.log is log]
            retained = [floor for floor in floors if floor is not None]
            places += log.release(min(retained) if retained else log.next)
        return places

    def forget(self) -> None:
        """Let go of all bytes: the attempt is over."""
        for log in (*self.logs, *(lane.newest for lane in self._latest)):
            log.forget()

    def released_records(self) -> int | None:
        """Return below which record no consumer will ask again; None if none will ask at all."""
        floors = [
            lane.slice.record(lane.floor)
            for lane in self.lanes
            if lane.floor is not None and not lane.slice.empty
        ]
        return min(floors) if floors else None

    def counters(self, now: float) -> StreamCounters:
        """Return the counters of the port; see StreamProgress in the contract."""
        live = [lane for lane in self._demanding if not (lane.idle or _by_key(lane.plan))]
        consumed = [
            min(self.sent, lane.slice.record(lane.consumed))
            for lane in live
            if lane.slice.cut is None or lane.slice.sequence(lane.slice.cut) > lane.consumed
        ]
        consumed += self._consumed_by_key()
        return StreamCounters(
            port=self.plan.name,
            output=True,
            records=self.sent,
            bytes=self._bytes,
            acknowledged=min(consumed) if consumed else self.sent,
            retained_bytes=sum(log.retained_bytes for log in self.logs)
            + sum(lane.log.retained_bytes for lane in self._latest),
            blocked_seconds=max(0.0, now - self._moved_at) if self._paused else 0.0,
            duplicates=0,
            refused=sum(lane.refused for lane in self.lanes),
            ended=self.ended,
            dropped=sum(lane.newest.dropped for lane in self._latest),
            repeating=self.repeating,
        )

    def held(self) -> PortHold | None:
        """Return how far the port is while it stands still; None while it does not, or cannot say."""
        stands_at = self._stands_at()
        if stands_at is None:
            return None
        return PortHold(self.plan.name, self._hold, stands_at, self.ended)

    def lags(self) -> tuple[Lag, ...]:
        """Return how far every consumer is behind; one that has committed is not."""
        return tuple(
            Lag(
                lane.plan.id,
                0 if lane.done or lane.idle else max(0, lane.existing - lane.consumed),
                lane.backlog,
                lane.done,
            )
            for lane in self.lanes
            if not lane.slice.empty
        )

    def _consumed_by_key(self) -> list[int]:
        """Return how many records the replicas of each consumer have taken together."""
        consumed: dict[tuple[str, str], int] = {}
        for lane in self.lanes:
            if _by_key(lane.plan) and not lane.plan.keep:
                consumer = (lane.plan.peer_job, lane.plan.peer_port)
                over = lane.done or lane.idle
                taken = lane.log.next if over else min(lane.consumed, lane.log.next)
                consumed[consumer] = consumed.get(consumer, 0) + taken
        return list(consumed.values())

    def _stands_at(self) -> int | None:
        """Return below which record everything that was ever sent lies, while the port stands still.

        None while it does not, or while a consumer of a replacement has not said what it has.
        """
        if not self._hold or not self._started:
            return None
        highest = self.sent
        if self.replacement:
            for lane in self.lanes:
                if not lane.plan.hold or lane.plan.keep or lane.done or lane.slice.empty:
                    continue
                if not lane.dialled:
                    return None
                if lane.wanted:
                    highest = max(highest, lane.slice.record(lane.wanted - 1) + 1)
        return highest

    def _begins(self, lane: SendLane) -> int:
        """Number of the first record that the generation of a lane's consumer may have."""
        stretch = lane.plan.stretch
        before = stretch.consumer_begin - stretch.producer_begin - self.producer
        return max(0, -(-before // self.producers))

    def _slice_of(self, lane: Lane) -> LaneSlice:
        if _by_key(lane):
            # The lane counts its own records: which ones they are cannot be reckoned.
            return LaneSlice(0, 1)
        return lane_slice(
            self.producer,
            self.producers,
            lane.peer_replica,
            lane.peer_replicas,
            broadcast=lane.distribute is Distribute.BROADCAST,
            stretch=lane.stretch,
        )

    def _add(self, lane: Lane) -> None:
        part = self._slice_of(lane)
        if lane.keep:
            newest = NewestLog(lane.keep, self.limits.block_bytes)
            if part.empty:
                newest.end()
            latest = LatestLane(lane, newest, part, self.limits.bulk_bytes)
            self._latest.append(latest)
            self.lanes.append(latest)
            return
        if _by_key(lane):
            number = lane.peer_replicas
            if number not in self._keyed:
                self._keyed[number] = [self._new_log() for _ in range(number)]
            log = self._keyed[number][lane.peer_replica]
            self.lanes.append(SendLane(lane, log, part, self.limits.bulk_bytes))
            return
        whole = part.step == 1 and part.first == 0 and not part.empty
        if whole:
            self._whole = self._whole or self._new_log()
        log = self._whole if whole and self._whole else self._new_log()
        added = SendLane(lane, log, part, self.limits.bulk_bytes)
        if part.empty:
            added.log.end()
        elif not whole:
            self._split.append(added)
        self.lanes.append(added)

    def join(self, plan: Lane) -> SendLane | None:
        """Add the lane of a recorder, from what is kept on; None if nothing whole is kept any more.

        Where no lane carries everything, it begins with the next record.
        """
        if self._whole is not None and not self._whole_live:
            return None
        if self._whole is None:
            self._whole = self._new_log()
            self._lent = self._whole_live = True
            self._whole.begin(self.sent)
            if self.ended:
                self._whole.end()
        lane = SendLane(plan, self._whole, LaneSlice(0, 1), self.limits.bulk_bytes, recorder=True)
        lane.begin(self._whole.base)
        self.lanes.append(lane)
        return lane

    def leave(self, lane: SendLane) -> list[SpoolPlace]:
        """Take the lane of a recorder away; return what this frees in the spool."""
        self.lanes.remove(lane)
        if not self._lent or any(other.log is lane.log for other in self.lanes):
            return []
        self.logs.remove(lane.log)
        self._whole, self._lent = None, False
        return lane.log.release(lane.log.next)

    def _append(self, block: Block) -> None:
        if self._whole is not None and self._whole_live:
            self._whole.append(block.count, block.body, block.crc)
        if self._split:
            self._spread(block)
        sums = None if self._rule is None else self._rule.checksums(block)
        if sums is not None:
            self._spread_by_key(block, sums)
        if self._latest:
            self._offer(block, sums)
        self.sent += block.count
        self._bytes += len(block.body) - 4 * block.count
        if self._cut == self.sent:
            self._pass_cuts()

    def _pass_cuts(self) -> None:
        """Let the lanes end that were cut at the record that comes next, or before."""
        live = [lane for lane in self.lanes if not lane.slice.over(self.sent)]
        cuts = [lane.slice.cut for lane in live]
        self._cut = min((cut for cut in cuts if cut is not None), default=None)
        self._whole_live = any(lane.log is self._whole for lane in live)
        for lane in self.lanes:
            if lane.slice.cut is None or not lane.slice.over(self.sent):
                continue
            if lane.log is not self._whole:
                if lane.log.total is None:
                    lane.log.end()
            elif lane.limit_offset is None:
                lane.log.fence()
            lane.passed_cut()

    def _new_log(self) -> RetainedLog:
        log = RetainedLog(self.limits.block_bytes)
        self.logs.append(log)
        return log

    def _spread(self, block: Block) -> None:
        first = self.sent
        live = [lane for lane in self._split if not lane.slice.over(first)]
        if block.count == 1:
            # It may be a large one, which is not copied for nothing.
            for lane in live:
                if lane.slice.record(lane.slice.sequence(first)) == first:
                    lane.log.append(1, block.body, block.crc)
            return
        table = entries(block)
        offsets = bounds(block, table)
        body = block.body
        for lane in live:
            part, log = lane.slice, lane.log
            start = part.record(part.sequence(first)) - first
            records = [
                body[offsets[index] : offsets[index + 1]]
                for index in range(start, block.count, part.step)
            ]
            if records:
                log.append(len(records), pack(records, table[start :: part.step]))

    def _offer(self, block: Block, sums: list[int] | None) -> None:
        """Give what is newest to the consumers that want nothing else."""
        table = entries(block)
        ends = bounds(block, table)
        first = self.sent
        body = block.body
        for lane in self._latest:
            part = lane.slice
            if part.over(first):
                continue
            if sums is not None and _by_key(lane.plan):
                number, replica = lane.plan.peer_replicas, lane.plan.peer_replica
                mine: Sequence[int] = [
                    index for index, checksum in enumerate(sums) if checksum % number == replica
                ]
            else:
                start = part.record(part.sequence(first)) - first
                mine = range(start, block.count, part.step)
            if block.count == 1:
                # Out of the job's ring, if it lies in one: it may be kept for long.
                newest = [plain(body)] if mine else []
            else:
                newest = [
                    pack([body[ends[at] : ends[at + 1]]], [table[at]])
                    for at in mine[-lane.plan.keep :]
                ]
            lane.newest.offer(len(mine), newest)

    def _spread_by_key(self, block: Block, sums: list[int]) -> None:
        if block.count == 1:
            for number, logs in self._keyed.items():
                logs[sums[0] % number].append(1, block.body)
            return
        table = entries(block)
        records = unpack(block)
        for number, logs in self._keyed.items():
            rows: list[list[int]] = [[] for _ in logs]
            for index, checksum in enumerate(sums):
                rows[checksum % number].append(index)
            for log, chosen in zip(logs, rows, strict=True):
                if chosen:
                    body = pack([records[at] for at in chosen], [table[at] for at in chosen])
                    log.append(len(chosen), body)


def _end_of(plans: Sequence[Lane]) -> int | None:
    return min((plan.end for plan in plans if plan.end is not None), default=None)


def _by_key(lane: Lane) -> bool:
    return lane.distribute is Distribute.KEY and lane.peer_replicas > 1
