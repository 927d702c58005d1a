"""Which records of a producer travel on which lane.

Rule. A job's output has *global indices*: with m producer replicas, record k of replica i (both
count from 0) has the index g = k*m + i. Round-robin sends g to consumer replica g mod n of n.
Broadcast sends every g to every consumer replica. By key there is no such rule: a lane then counts
its own records (`attempt_output`).

Invariant. Each global index belongs to exactly one lane of round-robin, and to n lanes of
broadcast; the index alone decides, never time or load.

Why. A restarted producer or consumer has to find the same records on the same lane again, from
numbers alone. And a consumer can restore the order of the whole stream without a word from the
producers: it takes its records in the order of g (`merge_order`).

How `lane_slice` finds the records of producer i for consumer j. It needs all k >= 0 with
k*m + i = j modulo n. Let d = gcd(m, n). The left side takes only values that are equal to i modulo
d, so there is no such k unless d divides j - i. Otherwise divide by d: k * (m/d) = (j - i)/d modulo
n/d. Now m/d and n/d have no common divisor, so m/d has an inverse modulo n/d, and the smallest k is
(j - i)/d * inverse modulo n/d. Every (n/d)-th record after it is on the lane too.

Example. m = 2 producers, n = 3 consumers, producer 1 to consumer 0: d = 1, the inverse of 2 modulo
3 is 2, and the first record is (0 - 1) * 2 modulo 3 = 1. Check: record 1 of producer 1 has the index
1*2 + 1 = 3, and 3 mod 3 = 0. The lane has the records 1, 4, 7, ...

Scaling. A job that was scaled has generations of replicas. A generation of producers owns the
global indices from `producer_begin` on and numbers its records from 0 at that index; a generation
of consumers owns the indices from `consumer_begin` (inclusive) to `consumer_end` (exclusive). Both
shift the formula, and the ends cut the slice off.

Source: the extended Euclidean algorithm (Knuth, The Art of Computer Programming, volume 2, 4.5.2),
which Python has as `pow(a, -1, n)`; docs/architecture.md, section 4.
"""

from dataclasses import dataclass
from math import gcd

from shoal.session.lane import WHOLE, Stretch


@dataclass(frozen=True, slots=True)
class LaneSlice:
    """The records of one producer that travel on one lane: `first`, `first + step` and so on.

    `empty` says that there are none, whatever the producer sends. `count` is how many there are at
    most, None for any number, and `cut` is the first record of the producer (inclusive) that cannot
    be on the lane because of that.
    """

    first: int
    step: int
    empty: bool = False
    count: int | None = None
    cut: int | None = None

    def record(self, sequence: int) -> int:
        """Return the producer's index of the record with this sequence on the lane.

        Behind the last record of a lane that was cut, this is the cut.
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
    lowest = max(0, rounded_up(stretch.consumer_begin - own, producers))
    if broadcast:
        return _cut(LaneSlice(lowest, 1), own, producers, stretch.consumer_end)
    common = gcd(producers, consumers)
    distance = stretch.consumer_begin + consumer - own
    if distance % common:
        return LaneSlice(0, 1, empty=True)
    step = consumers // common
    first = distance // common * pow(producers // common, -1, step) % step
    first += max(0, rounded_up(lowest - first, step)) * step
    return _cut(LaneSlice(first, step), own, producers, stretch.consumer_end)


def _cut(part: LaneSlice, own: int, producers: int, end: int | None) -> LaneSlice:
    if end is None:
        return part
    cut = max(0, rounded_up(end - own, producers))
    count = max(0, rounded_up(cut - part.first, part.step))
    return LaneSlice(part.first, part.step, count=count, cut=cut)


def rounded_up(number: int, divisor: int) -> int:
    """Return `number` / `divisor`, rounded up."""
    return -(-number // divisor)
