"""An input port: lanes come in, and the job gets their records as one ordered stream.

Rule 1. Positions count the records of the whole port in the order in which the job gets them
(`merge_order`), from 0. Sequences count those of one lane. A position fixes a sequence on each lane.

Rule 2. The job gets no record before the port is *settled*: before it is known at which position
this attempt begins, and every record before that position was passed over.

Rule 3. A producer may release a record once every record before some position is processed for
good, and the record comes before that position. So releases follow the order, too: `_releases` is a
second `MergeOrder`, which is advanced to that position, and each lane gets its own part of it.

How an attempt settles:
- `begin(position)`: a round is known, from consumers or as 0. With one lane, the position is the
  lane's sequence. With several, which records come before depends on which lanes end early, so the
  lanes ask for all that is kept, and the order passes over what comes before the position.
- `begin_kept()`: no round is known. The port begins at the first position that no producer has
  released beyond (`_reach_bases`).

Why `_reach_bases` takes the furthest lane. Each producer keeps its records from a base on. Releases
travel on each lane by themselves, and some were lost with an earlier attempt, so the bases do not
belong to one position. By rule 3, a producer that has released below its base proves that every
record before that base in the order is processed. So the smallest position at which every lane has
taken its base is right: nothing before it is needed, and everything behind it is still kept.

Example. Two lanes A and B take turns: A0 B0 A1 B1 A2 B2. The bases are A: 3 and B: 1. The record A2
is the fifth, so that A0 B0 A1 B1 were processed, although B still keeps B1. The port begins at
position 5, with B2: B1 is passed over. If the end of B is not known yet, and B1 has not come, the
port waits, because B might have ended before B1.

The records before `sum(bases)` are taken by whole turns of the order at once (`advance`), since no
position below that sum can have every base; the few behind it one by one.

Source: docs/architecture.md, section 4.
"""

import json
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import groupby

from services.streams import effects
from services.streams.block import BLOCK_BYTES_MAX, Block, Body, Kind, header, pack
from services.streams.framing import render
from services.streams.merge_order import MergeOrder
from services.streams.plan import InputPlan
from services.streams.receiver import Chunk, ReceiveLane
from shoal.model import StreamCounters
from shoal.spec import Distribute, PortFormat, Promise

_WRITE_BYTES = BLOCK_BYTES_MAX


class PortRuleError(Exception):
    """The job on a port breaks the port's rules; the message says how."""


class AttemptInput:
    """One input port of an attempt.

    Before the job gets anything the port is *settled*: it has passed over what earlier attempts
    dealt with. Positions count the records of the whole port, as the job sees them.

    Args:
        plan: the port.
        lanes: its lanes, in the order of the producer's generations and replicas.
        consumer: replica of this attempt.
        consumers: replicas of its job.
    """

    def __init__(
        self, plan: InputPlan, lanes: list[ReceiveLane], consumer: int, consumers: int
    ) -> None:
        self.plan = plan
        self.lanes: list[ReceiveLane] = []
        ways = {lane.plan.distribute for lane in lanes}
        keyed = Distribute.KEY in ways and consumers > 1
        # Every producer may have records for every consumer.
        turns = partial(MergeOrder, broadcast=keyed or Distribute.BROADCAST in ways)
        generations = _generations(lanes)
        first = generations[0] if generations else []
        self._order, self._releases = (_order(first, consumer, consumers, turns) for _ in range(2))
        self._number(first)
        self._newest = first
        for generation in generations[1:]:
            self._extend(generation)
        self._latest = any(lane.plan.keep for lane in lanes)
        # How many records of each producer a key brings cannot be known, so lanes take no turns.
        self._ordered = ((plan.ordered and not keyed) or self._single) and not self._latest
        self._begun_kept = False
        self._begun_single = False
        self._arrivals: deque[int] = deque()
        self._raw = plan.binding.format is not PortFormat.BLOCKS
        # A job that says when it is done gets what is newest then, and not what was newest before.
        self._one_by_one = self._latest and not self._raw
        self.target: int | None = None
        """Everything before it is passed over: where the job begins, once that is known."""
        self._started = False
        self._writing: list[tuple[ReceiveLane, Chunk]] = []
        self._busy = False
        self._closed = False
        # Whether the job was shown the end.
        self.ended = False
        self._position = 0
        self._bytes = 0
        self._dropped = 0
        self._dropped_before = 0
        self._acknowledged = 0
        self._moved_at = 0.0

    @property
    def replayable(self) -> bool:
        """Whether a later attempt gets the same records in the same order."""
        return self._ordered

    @property
    def acknowledged_rounds(self) -> int:
        """How many rounds the job has processed by its own word."""
        return self._acknowledged // self.plan.block_count

    @property
    def cut(self) -> bool:
        """Whether it ended because another generation of this job goes on from there."""
        return any(lane.cut for lane in self.lanes)

    @property
    def _single(self) -> bool:
        return len(self._order.lanes) == 1

    def extend(self, lanes: list[ReceiveLane]) -> None:
        """Take the lanes of new generations of the producer; they come after all others."""
        for generation in _generations(lanes):
            self._extend(generation)
            for lane in generation:
                # Nothing of it was ever taken, except perhaps by an attempt before this one.
                if self._begun_kept:
                    lane.want_kept = True

    def _extend(self, generation: list[ReceiveLane]) -> None:
        plan = generation[0].plan
        for order in (self._order, self._releases):
            order.extend(plan.peer_replicas, plan.stretch.producer_begin)
        self._number(generation)
        self._newest = generation

    def _number(self, generation: list[ReceiveLane]) -> None:
        for lane in generation:
            lane.index = len(self.lanes)
            self.lanes.append(lane)

    def begin(self, position: int) -> None:
        """Let the job begin at `position`, or at the end of a last round that was a short one."""
        self.target = position
        if position == 0:
            return
        self._begun_single = self._single
        self._begun_kept = not self._single
        for lane in self.lanes:
            if self._single and lane.index in self._order.lanes:
                lane.begin(position, slack=self.plan.block_count - 1)
            else:
                # How many records of each lane come before depends on which lanes end early, so
                # ask for all that is kept, and pass over what is not needed.
                lane.want_kept = True

    def begin_kept(self) -> None:
        """Let the job begin with what the producers still keep."""
        self._begun_kept = True
        for lane in self.lanes:
            lane.want_kept = True

    def settle(self) -> int | None:
        """Pass over what is not needed; return the position once the port is settled."""
        if not self.lanes:
            return self.target or 0
        target = self.target
        if target and self._begun_single and self.lanes[self._order.lanes[0]].base is None:
            return self._settle_at(target)
        if target is None:
            if not self._reach_bases():
                return None
        elif not self._order.advance(target, self._existing()) and not self._all_ended():
            self._pass()
            return None
        self._pass()
        return self._order.position

    def start(self, position: int, recovery: str, epoch: int, now: float) -> list[effects.Effect]:
        """Show the job where it begins, and let records through."""
        self._started = True
        self._position = self._acknowledged = position
        self._moved_at = now
        out: list[effects.Effect] = [effects.ReadPort(self.plan.name, output=False)]
        if not self._raw:
            body = json.dumps(
                {
                    "recovery": recovery,
                    "epoch": epoch,
                    "block_count": self.plan.block_count,
                    **({"promise": Promise.LATEST.value} if self._latest else {}),
                    "rings": True,
                }
            ).encode()
            block = Block(Kind.START, position, 0, body)
            self._busy = True
            out.append(effects.WritePort(self.plan.name, False, (header(block) + body,)))
        return [*out, *self.pump(now)]

    def arrived(self, lane: ReceiveLane) -> None:
        """Enter a lane on which a block was queued."""
        if not self._ordered:
            self._arrivals.append(lane.index)

    def lane_ended(self, lane: ReceiveLane) -> None:
        """Let the order know where a lane ends."""
        if lane.total is not None:
            self._order.end(lane.index, lane.total)
            self._releases.end(lane.index, lane.total)

    def pump(self, now: float) -> list[effects.Effect]:
        """Write what is next, if the job takes it.

        Raises:
            RecordError: A record does not fit the raw format of the port.
        """
        if not self._started or self._busy or self.ended:
            return []
        if self._closed:
            return self._discard()
        if self._one_by_one and self._acknowledged < self._position:
            return []
        parts: list[Body] = []
        size = 0
        while size < _WRITE_BYTES:
            block = self._next()
            if block is None:
                break
            part = self._render(block)
            size += sum(map(len, part))
            parts += part
            if self._one_by_one:
                break
        if parts:
            self._moved_at = now
            self._busy = True
            return [effects.WritePort(self.plan.name, False, tuple(parts))]
        if self._all_taken():
            self._drop_rest()
            self.ended = True
            out: list[effects.Effect] = []
            if not self._raw:
                end = header(Block(Kind.END, self._position))
                out.append(effects.WritePort(self.plan.name, False, (end,)))
            return [*out, effects.ShutPort(self.plan.name, output=False)]
        return []

    def written(self, now: float) -> list[effects.Effect]:
        """Go on after the last write, which is done."""
        self._busy = False
        self._moved_at = now
        if not self._one_by_one or self._acknowledged == self._position:
            self._taken()
        return self.pump(now)

    def shut(self, now: float) -> list[effects.Effect]:
        """Drop what comes from now on, since the job takes nothing more."""
        self._closed = True
        self._busy = False
        self._taken()
        return self.pump(now)

    def acknowledged(self, sequence: int) -> None:
        """Let the job acknowledge every record below `sequence` (exclusive).

        Raises:
            PortRuleError: It never got so many, or takes back what it said.
        """
        if sequence > self._position:
            raise PortRuleError(
                f"ACK {sequence} is above {self._position}, the number of records handed over"
            )
        if sequence < self._acknowledged:
            raise PortRuleError(f"ACK {sequence} is below the earlier ACK {self._acknowledged}")
        self._acknowledged = sequence
        self._dropped_before = self._dropped
        if self._one_by_one and sequence == self._position and not self._busy:
            self._taken()

    def release(self, position: int) -> None:
        """Let the producers let go of every record before `position`."""
        if not self._ordered or not self.lanes:
            return
        self._releases.advance(min(position, self._position), self._existing())
        for lane in self.lanes:
            lane.released = max(lane.released, self._releases.taken[lane.index])

    def forget(self) -> None:
        """Let go of all bytes: the attempt is over."""
        self._writing.clear()
        for lane in self.lanes:
            lane.queue.clear()

    def counters(self, now: float) -> StreamCounters:
        """Return the counters of the port; see StreamProgress in the contract."""
        blocked = self._busy and self._started
        return StreamCounters(
            port=self.plan.name,
            output=False,
            records=self._position - self._dropped,
            bytes=self._bytes,
            acknowledged=self._position - self._dropped
            if self._raw and not self._busy
            else self._acknowledged - self._dropped_before,
            retained_bytes=sum(chunk.size for lane in self.lanes for chunk in lane.queue),
            blocked_seconds=max(0.0, now - self._moved_at) if blocked else 0.0,
            duplicates=sum(lane.duplicates for lane in self.lanes),
            refused=sum(lane.refused for lane in self.lanes),
            broken=sum(lane.broken for lane in self.lanes),
            mismatches=sum(lane.mismatches for lane in self.lanes),
            ended=self.ended,
            dropped=self._dropped,
        )

    def _existing(self) -> list[int]:
        return [lane.existing for lane in self.lanes]

    def _all_ended(self) -> bool:
        return self._order.lane() is None and not self._awaits_generation()

    def _awaits_generation(self) -> bool:
        """Whether another generation of the producer goes on, and its lanes are not known yet."""
        newest = [lane for lane in self._newest if lane.index in self._order.lanes]
        return any(lane.continued for lane in newest) and not any(lane.cut for lane in newest)

    def _all_taken(self) -> bool:
        if not self.lanes:
            return True
        if self._ordered:
            return self._all_ended()
        visited = [self.lanes[index] for index in self._order.lanes]
        return all(lane.over for lane in visited) and not self._awaits_generation()

    def _drop_rest(self) -> None:
        """Count what never comes, because it died with its producer, among what was dropped."""
        if not self._latest:
            return
        for lane in self.lanes:
            missing = max(0, (lane.total or 0) - lane.taken)
            lane.taken += missing
            self._position += missing
            self._dropped += missing

    def _reach_bases(self) -> bool:
        """Advance to the smallest position at which every lane has reached its base; see above.

        False while a base is not known, or while it is not known whether a record before it exists.
        """
        visited = [self.lanes[index] for index in self._order.lanes]
        bases = {lane.index: lane.base for lane in visited}
        if any(base is None for base in bases.values()):
            return False
        if self._single:
            missing = (visited[0].base or 0) - self._order.position
            self._order.take_many(max(0, missing))
            return True
        existing = self._existing()
        order = self._order
        order.advance(sum(base or 0 for base in bases.values()), existing)
        while any(order.taken[index] < (base or 0) for index, base in bases.items()):
            lane = order.lane()
            if lane is None and not self._awaits_generation():
                break
            if lane is None or order.taken[lane] >= existing[lane]:
                self._pass()
                return False
            order.take()
        return True

    def _settle_at(self, target: int) -> int | None:
        """Begin at a known round on a single lane; whether its last one was short may not be known."""
        lane = self.lanes[self._order.lanes[0]]
        if self.plan.block_count > 1 and lane.total is None and not lane.known:
            return None
        if self._order.position == 0:
            self._order.take_many(min(target, lane.taken))
        return self._order.position

    def _pass(self) -> None:
        for lane in self.lanes:
            lane.pass_to(self._order.taken[lane.index])

    def _next(self) -> Block | None:
        """Take the next records out of the lanes, numbered as the job sees them."""
        if not self.lanes:
            return None
        if not self._ordered:
            return self._next_arrived()
        index = self._order.lane()
        if index is None:
            return None
        return self._next_whole(index) if self._order.alone else self._next_merged()

    def _next_whole(self, index: int) -> Block | None:
        lane = self.lanes[index]
        if not lane.queue:
            return None
        chunk = lane.queue.popleft()
        block = chunk.block
        if self._latest:
            self._position += block.first - lane.taken
            self._dropped += block.first - lane.taken
        lane.taken = block.first + block.count
        if self._ordered and self._order.alone:
            self._order.take_many(block.count)
        elif self._ordered:
            self._order.take()
        self._writing.append((lane, chunk))
        return self._numbered(block.count, block.body)

    def _next_arrived(self) -> Block | None:
        while self._arrivals:
            block = self._next_whole(self._arrivals.popleft())
            if block is not None:
                return block
        return None

    def _next_merged(self) -> Block | None:
        order = self._order
        before = len(self._writing)
        records: list[Body] = []
        table: list[int] = []
        size = 0
        while size < BLOCK_BYTES_MAX:
            index = order.lane()
            if index is None or order.alone:
                break
            lane = self.lanes[index]
            if not lane.queue:
                break
            chunk = lane.queue[0]
            if chunk.block.count == 1 and len(chunk.block.body) > BLOCK_BYTES_MAX:
                # Alone in its block, so nothing of it is copied.
                if records:
                    break
                return self._next_whole(index)
            entry, record = chunk.next_record()
            size += len(record) + 4
            if records and size > BLOCK_BYTES_MAX:
                chunk.put_back()
                break
            records.append(record)
            table.append(entry)
            order.take()
            lane.taken += 1
            if chunk.index == chunk.block.count:
                lane.queue.popleft()
                self._writing.append((lane, chunk))
        done = self._writing[before:]  # by this call, and not by one before
        if len(records) == 1 and done and done[-1][1].block.count == 1:
            return self._numbered(1, self._writing[-1][1].block.body)  # not copied
        return self._numbered(len(records), pack(records, table)) if records else None

    def _numbered(self, count: int, body: Body) -> Block:
        block = Block(Kind.DATA, self._position, count, body)
        self._position += count
        self._bytes += len(body) - 4 * count
        return block

    def _discard(self) -> list[effects.Effect]:
        while self._next() is not None:
            self._taken()
        self.ended = self._all_taken()
        return []

    def _render(self, block: Block) -> list[Body]:
        if self._raw:
            return [render(self.plan.binding.format, self.plan.binding.record_bytes, block)]
        return [header(block), block.body]

    def _taken(self) -> None:
        for lane, chunk in self._writing:
            lane.consumed_chunk(chunk)
        self._writing.clear()


def _generations(lanes: list[ReceiveLane]) -> list[list[ReceiveLane]]:
    """Group lanes by the generation of their producer, each in the order of its replicas."""

    def place(lane: ReceiveLane) -> tuple[int, int]:
        return (lane.plan.stretch.generation, lane.plan.peer_replica)

    found = groupby(sorted(lanes, key=place), key=lambda lane: place(lane)[0])
    return [list(generation) for _, generation in found]


def _order(
    first: list[ReceiveLane], consumer: int, consumers: int, turns: Callable[..., MergeOrder]
) -> MergeOrder:
    if not first:
        return turns(1, consumer, consumers)
    stretch = first[0].plan.stretch
    return turns(
        len(first),
        consumer,
        consumers,
        begin=stretch.consumer_begin,
        producer_begin=stretch.producer_begin,
    )
