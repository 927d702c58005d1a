"""Which record travels on which lane, and the order in which a consumer takes them.

With m producer and n consumer replicas, record k of producer i has the global index g = k*m + i.
Round-robin sends it to consumer g mod n, which takes its records in the order of g; broadcast sends
it to all (docs/architecture.md, section 4).

A job that was scaled has generations of replicas. Each generation of a producer has a stretch of
the stream's global indices, and so has each generation of a consumer; both are cut out of the same
numbers, so that a record belongs to one lane whatever the numbers of replicas were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from shoal.session.lane import WHOLE, Stretch


@dataclass(frozen=True, slots=True)
class LaneSlice:
    """The records of one producer that travel on one lane: `first`, `first + step` and so on.

    `empty` says that there are none, whatever the producer sends; `count` how many there are at
    most, and `cut` from which record of the producer on there are none for that reason.
    """

    first: int
    step: int
    empty: bool = False
    count: int | None = None
    cut: int | None = None

    def record(self, sequence: int) -> int:
        """Return the producer's index of the record with this sequence on the lane.

        Whoever has all records of a lane that was cut is at the cut.
        """
        if self.cut is not None and self.count is not None and sequence >= self.count:
            return self.cut
        return self.first + sequence * self.step

    def sequence(self, record: int) -> int:
        """Return how many records of the lane come before the producer's record `record`.

        That is the sequence of the first one at or after it.
        """
        if self.empty or record <= self.first:
            return 0
        sequence = (record - self.first + self.step - 1) // self.step
        return sequence if self.count is None else min(sequence, self.count)

    def over(self, record: int) -> bool:
        """Whether the lane has no record at or after the producer's record `record`."""
        return self.empty or (self.cut is not None and record >= self.cut)


def lane_slice(
    producer: int,
    producers: int,
    consumer: int,
    consumers: int,
    *,
    broadcast: bool,
    stretch: Stretch = WHOLE,
) -> LaneSlice:
    """Return what travels from replica `producer` of `producers` to `consumer` of `consumers`.

    Raises:
        ValueError: A replica is not below its number of replicas.
    """
    if not 0 <= producer < producers or not 0 <= consumer < consumers:
        raise ValueError(
            f"producer {producer} of {producers} to consumer {consumer} of {consumers}: "
            "a replica is counted from 0 and is below their number"
        )
    # Record k of the producer has the global index own + k * producers.
    own = stretch.producer_begin + producer
    lowest = max(0, _rounded_up(stretch.consumer_begin - own, producers))
    if broadcast:
        return _cut(LaneSlice(lowest, 1), own, producers, stretch.consumer_end)
    common = gcd(producers, consumers)
    distance = stretch.consumer_begin + consumer - own
    if distance % common:
        return LaneSlice(0, 1, empty=True)
    step = consumers // common
    first = distance // common * pow(producers // common, -1, step) % step
    first += max(0, _rounded_up(lowest - first, step)) * step
    return _cut(LaneSlice(first, step), own, producers, stretch.consumer_end)


def _cut(part: LaneSlice, own: int, producers: int, end: int | None) -> LaneSlice:
    if end is None:
        return part
    cut = max(0, _rounded_up(end - own, producers))
    count = max(0, _rounded_up(cut - part.first, part.step))
    return LaneSlice(part.first, part.step, count=count, cut=cut)


def _rounded_up(number: int, divisor: int) -> int:
    return -(-number // divisor)


class MergeOrder:
    """The order in which one consumer takes records from the lanes of its producers.

    Lanes are numbered by producer replica, and a later generation of producers goes on counting. A
    lane whose end is reached is left out from there on, and when all lanes of a generation have
    ended, the next one's turn comes.

    Args:
        producers: number of producer replicas of the first generation.
        consumer: replica of the consumer.
        consumers: number of consumer replicas.
        broadcast: whether every consumer gets every record.
        begin: global index of the first record that may be this consumer's.
        producer_begin: global index of the first record of these producers.
    """

    def __init__(
        self,
        producers: int,
        consumer: int,
        consumers: int,
        *,
        broadcast: bool,
        begin: int = 0,
        producer_begin: int = 0,
    ) -> None:
        self._first, self._step = (begin, 1) if broadcast else (begin + consumer, consumers)
        self._active: list[int] = []
        self._later: deque[list[int]] = deque()
        self._at = 0
        self._alone = False
        self._ends: dict[int, int] = {}
        self.lanes: tuple[int, ...] = ()
        """The lanes that ever have a record for this consumer."""
        self.taken: list[int] = []
        """How many records were taken from each lane."""
        self.position = 0
        """How many records were taken in all."""
        self.extend(producers, producer_begin)

    @property
    def alone(self) -> bool:
        """Whether the present generation has one lane for this consumer, so that none takes turns."""
        self._begin_turns()
        return self._alone

    def extend(self, producers: int, producer_begin: int) -> None:
        """Add a generation of producers, whose records come after those before."""
        late = max(0, _rounded_up(producer_begin - self._first, self._step))
        start = self._first + late * self._step - producer_begin
        period = producers // gcd(self._step, producers)
        number = len(self.taken)
        turns = [number + (start + turn * self._step) % producers for turn in range(period)]
        self.lanes += tuple(turns)
        self.taken += [0] * producers
        self._later.append(turns)

    def end(self, lane: int, total: int) -> None:
        """Take note that a lane has `total` records in all."""
        self._ends[lane] = total

    def lane(self) -> int | None:
        """Return the lane that has the next record; None once all have ended.

        Whether the record is there, or the lane ends instead, is for the caller to wait for.
        """
        while self._begin_turns():
            active = self._active
            lane = active[self._at]
            if self._ends.get(lane) != self.taken[lane]:
                return lane
            del active[self._at]
            if self._at == len(active):
                self._at = 0
        return None

    def take(self) -> None:
        """Take the next record from `lane()`."""
        self.taken[self._active[self._at]] += 1
        self.position += 1
        self._at += 1
        if self._at == len(self._active):
            self._at = 0

    def take_many(self, count: int) -> None:
        """Take so many records from `lane()`, which has to be the only lane."""
        if not self._begin_turns() or len(self._active) != 1:
            raise ValueError(
                f"{len(self._active)} lanes take turns, so none gives several in a row"
            )
        self.taken[self._active[0]] += count
        self.position += count

    def advance(self, position: int, known: Sequence[int]) -> bool:
        """Take records without looking at them, up to `position`, and say whether it is reached.

        Args:
            position: how many records shall have been taken in all.
            known: for each lane, below which sequence its records are known to exist.
        """
        while self.position < position:
            lane = self.lane()
            if lane is None or self.taken[lane] >= known[lane]:
                return False
            # Whole turns of the order at once, as long as no lane runs out within them.
            turns = (
                min(
                    (position - self.position) // len(self._active),
                    *(known[one] - self.taken[one] for one in self._active),
                )
                if self._at == 0
                else 0
            )
            if turns > 0:
                for one in self._active:
                    self.taken[one] += turns
                self.position += turns * len(self._active)
            else:
                self.take()
        return True

    def _begin_turns(self) -> bool:
        """Go on to the next generation, if the present one has ended; False when there is none."""
        if not self._active:
            if not self._later:
                return False
            self._active = self._later.popleft()
            self._at = 0
            self._alone = len(self._active) == 1
        return True
