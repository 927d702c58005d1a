"""Which record travels on which lane, and the order in which a consumer takes them.

With m producer and n consumer replicas, record k of producer i has the global index g = k*m + i.
Round-robin sends it to consumer g mod n, which takes its records in the order of g; broadcast sends
it to all (docs/architecture.md, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True, slots=True)
class Share:
    """The records of one producer that travel on one lane: `first`, `first + step` and so on.

    `empty` says that there are none, whatever the producer sends.
    """

    first: int
    step: int
    empty: bool = False

    def record(self, sequence: int) -> int:
        """Return the producer's index of the record with this sequence on the lane."""
        return self.first + sequence * self.step

    def sequence(self, record: int) -> int:
        """Return how many records of the lane come before the producer's record `record`.

        That is the sequence of the first one at or after it.
        """
        if self.empty or record <= self.first:
            return 0
        return (record - self.first + self.step - 1) // self.step


def share(
    producer: int, producers: int, consumer: int, consumers: int, *, broadcast: bool
) -> Share:
    """Return what travels from replica `producer` of `producers` to `consumer` of `consumers`.

    Raises:
        ValueError: A replica is not below its number of replicas.
    """
    if not 0 <= producer < producers or not 0 <= consumer < consumers:
        raise ValueError(
            f"producer {producer} of {producers} to consumer {consumer} of {consumers}: "
            "a replica is counted from 0 and is below their number"
        )
    if broadcast:
        return Share(0, 1)
    common = gcd(producers, consumers)
    if (consumer - producer) % common:
        return Share(0, 1, empty=True)
    step = consumers // common
    first = (consumer - producer) // common * pow(producers // common, -1, step) % step
    return Share(first, step)


class Rotation:
    """The order in which one consumer takes records from the lanes of its producers.

    Lanes are numbered by producer replica. A lane whose end is reached is left out from there on.

    Args:
        producers: number of producer replicas.
        consumer: replica of the consumer.
        consumers: number of consumer replicas.
        broadcast: whether every consumer gets every record.
    """

    def __init__(self, producers: int, consumer: int, consumers: int, *, broadcast: bool) -> None:
        start, step = (0, 1) if broadcast else (consumer, consumers)
        period = producers // gcd(step, producers)
        self._active = [(start + turn * step) % producers for turn in range(period)]
        self._at = 0
        self._ends: dict[int, int] = {}
        self.lanes: Sequence[int] = tuple(self._active)
        """The lanes that ever have a record for this consumer."""
        self.taken = [0] * producers
        """How many records were taken from each lane."""
        self.position = 0
        """How many records were taken in all."""

    def end(self, lane: int, total: int) -> None:
        """Take note that a lane has `total` records in all."""
        self._ends[lane] = total

    def lane(self) -> int | None:
        """Return the lane that has the next record; None once all have ended.

        Whether the record is there, or the lane ends instead, is for the caller to wait for.
        """
        active = self._active
        while active:
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
        if len(self._active) != 1:
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
            # Whole turns of the rotation at once, as long as no lane runs out within them.
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
