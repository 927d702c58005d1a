"""The order in which a consumer takes records from the lanes of its producers.

Rule. A consumer takes its records in the order of their global indices (`lane_slice`). Since those
of one generation repeat with a fixed period, the lanes take turns: the same round of lanes again
and again, one record from each visit.

Invariant. `taken[lane]` records were taken of each lane and `position` of all of them, and the
order of the first `position` records depends on the numbers of replicas and on the ends of lanes
alone, never on when a record arrived.

Why. Another attempt of the consumer, or a repeated run, gets the same records in the
same order; and one number, `position`, says how far each lane is.

The period. Consumer j of n takes the indices j, j + n, j + 2n, ... The producer of index g is g mod
m, so the producers repeat after m / gcd(n, m) records. Example: m = 4 producers, n = 2 consumers,
consumer 1: the indices 1, 3, 5, 7, 9, ... come from the producers 1, 3, 1, 3, ...; the lanes of the
producers 0 and 2 never have a record for this consumer.

Ends. A lane that has ended drops out of the round, which goes on with the others: producers may end
after different numbers of records. Generations follow one another: a later one takes its first turn
when all lanes of the one before have ended.

Source: docs/architecture.md, section 4.
"""

from collections import deque
from collections.abc import Sequence
from math import gcd

from services.streams.lane_slice import rounded_up


class MergeOrder:
    """The order in which one consumer takes records from the lanes of its producers.

    Lanes are numbered by producer replica, and a later generation of producers goes on counting.

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
        late = max(0, rounded_up(producer_begin - self._first, self._step))
        start = self._first + late * self._step - producer_begin
        period = producers // gcd(self._step, producers)
        number = len(self.taken)
        turns = [number + (start + turn * self._step) % producers for turn in range(period)]
        self.lanes += tuple(turns)
        self.taken += [0] * producers
        self._later.append(turns)

    def end(self, lane: int, total: int) -> None:
        """Let a lane end after `total` records."""
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
