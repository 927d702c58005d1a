"""What docs/guarantees.md says of streams, as a function of what programs were given.

An attempt gets, on each input port, a stretch of the records that the port has when nothing goes
wrong: from where it was told to begin, in order, without a gap, a repeat or anything made up, and an
end only after the last one. That holds for every attempt, whether it is committed or not. A job that
succeeded has got everything: its last attempt from record 0 on, if it is restarted, and all of its
attempts together, if it goes on where the one before it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Delivery:
    """What one attempt was given on one input port.

    `start` is the sequence with which it began, `numbered` are sequence and record of each, `end` is
    the sequence after the last one once that was said, `gaps` are the sequences that were expected
    and came instead, and `most` is how many records came at once.
    """

    start: int = 0
    numbered: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    end: int | None = None
    gaps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    most: int = 0

    @property
    def records(self) -> list[bytes]:
        """The records alone."""
        return [record for _, record in self.numbered]


@dataclass(frozen=True, slots=True)
class Expected:
    """What an input port of one replica has when nothing goes wrong.

    `feed` are its records, `block_count` how many make a round. Where producers take no turns,
    `feeds` are the records of each of them, in an order of which only that of each counts. With
    `keep` the consumer wants the newest alone, and `gap_may_be` says that the last one may be gone
    too, since its producer and what that depends on have died together.
    """

    feed: Sequence[bytes]
    block_count: int = 1
    feeds: Sequence[Sequence[bytes]] = ()
    keep: int = 0
    gap_may_be: bool = False


def violations(expected: Expected, delivery: Delivery) -> Iterator[str]:
    """Yield what of one attempt's delivery breaks the promise, in words."""
    feed = expected.feed
    if not expected.keep:
        for wanted, came in delivery.gaps:
            yield f"record {came} came when {wanted} was due"
    if expected.keep and delivery.most > expected.keep:
        yield f"{delivery.most} records came at once, and no more than {expected.keep} are kept"
    last = -1
    for number, _ in delivery.numbered:
        if number <= last:
            yield f"record {number} came after {last}"
        last = number
    if expected.feeds:
        yield from _arrived(expected, delivery)
    else:
        for number, record in delivery.numbered:
            if number >= len(feed) or record != feed[number]:
                yield f"record {number} is {record!r}, which was never sent as that"
                break
    yield from _end(expected, delivery)


def _end(expected: Expected, delivery: Delivery) -> Iterator[str]:
    """Whether an end came where it belongs."""
    if delivery.end is None:
        return
    # Who begins after the last round, which may have been short, or all of whose consumers have what
    # comes behind it, is given nothing but that there is nothing.
    after = delivery.end == delivery.start >= len(expected.feed)
    if delivery.end != len(expected.feed) and not after:
        yield f"the end came after {delivery.end} of {len(expected.feed)} records"
    position = delivery.numbered[-1][0] + 1 if delivery.numbered else delivery.start
    if delivery.end != position and not expected.keep:
        yield f"the end came at {delivery.end}, after record {position - 1}"
    if expected.keep and delivery.end != position and not expected.gap_may_be:
        yield f"the newest record did not come: {delivery.end} were sent, the last was {position}"


def _arrived(expected: Expected, delivery: Delivery) -> Iterator[str]:
    """Whatever the order between producers, that of each is as it was sent."""
    at = [{record: index for index, record in enumerate(feed)} for feed in expected.feeds]
    due = [0] * len(at)
    for record in delivery.records:
        found = [producer for producer, index in enumerate(at) if record in index]
        if len(found) != 1:
            yield f"{record!r} was sent by no producer"
            return
        [producer] = found
        index = at[producer][record]
        if index < due[producer] or (index > due[producer] and not expected.keep):
            yield f"{record!r} is not what its producer sent next"
            return
        due[producer] = index + 1


def missing(expected: Expected, rounds: Sequence[Sequence[int]], *, resumes: bool) -> Iterator[str]:
    """Yield what a job that succeeded has not processed, or twice.

    Args:
        expected: of its only input.
        rounds: the rounds that each of its attempts went through, the committed one last.
        resumes: whether an attempt goes on where the one before it was.
    """
    count = -(-len(expected.feed) // expected.block_count)
    last = list(rounds[-1]) if rounds else []
    if expected.keep:
        return
    if not resumes and last != list(range(count)):
        yield f"the committed attempt went through {len(last)} rounds of {count}: {last[:3]}…"
    lost = set(range(count)) - {number for each in rounds for number in each}
    if lost:
        yield f"{len(lost)} of {count} rounds were lost, from {min(lost)} on"
    for each in rounds:
        if list(each) != list(range(each[0], each[0] + len(each))) if each else False:
            yield "an attempt went through its rounds in another order"
