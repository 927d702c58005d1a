"""The consumer's end of one lane: what it has, what it wants, and when it dials again.

Rule 1, sequence. `expected` is the sequence of the next record. A block from before it is a repeat:
the known records are cut off and counted as duplicates. A block from behind it is a gap: the call is
given up. (A lane for the newest records alone may jump ahead.)

Rule 2, credit. On one call, bytes received - bytes consumed may exceed the credit only by one block
that came when nothing else was in flight. That is the rule of the producer (`sender`), checked with
numbers that are never behind the producer's: a correct producer cannot break it, and one that does
is hung up on before its blocks fill the memory.

Rule 3, acknowledgement. It is sent at once when a quarter of the credit was consumed since the last
one, so that the producer never waits for it while the job keeps up; otherwise within `ack_seconds`,
together with what else there is to say.

Rule 4, redial. Each dial starts at 0 bytes. What still waits for the job is dropped and asked for
again, so a lane never holds more than one credit.

Rule 5, the end. Number and digest of all records are compared with what the producer says. A
difference on records of one producer epoch is a broken lane: it is dialled again once, and fails the
attempt the second time. A difference to records of an earlier epoch means that the producer's rerun
sent other records: that is counted, because the lane is in order.

Invariant. What waits in the queue came by one dial, follows on without a gap, and is at most the
credit, or one block that is larger. (A lane for the newest records alone may have gaps.)

Example. Credit 100, expected 7. A block with the records 5 to 9 and 60 bytes comes: 5 and 6 are
duplicates, 7 to 9 are queued, 60 bytes are in flight. The job takes them: 60 >= 25, so the
acknowledgement (consumed 10, 60 bytes) is urgent.

Sources: as of `sender`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from services.streams import effects, events
from services.streams.block import (
    HEADER_BYTES,
    LENGTH_MASK,
    Block,
    Body,
    Kind,
    entries,
    without_head,
)
from services.streams.digest import Digest
from services.streams.lane_digest import LaneDigest
from shoal.backoff import Backoff
from shoal.session.lane import WANT_KEPT, WANT_NOTHING, Lane, LanePeer


class LaneError(Exception):
    """What came on a lane cannot follow on what came before; dialling again may mend it."""


class StaleError(LaneError):
    """A producer answered whose epoch is over."""


class NotRepeatedError(Exception):
    """A producer's repeated run sends fewer records than the first; nothing mends that."""


class DigestError(Exception):
    """What came is not what was sent, twice in a row: dialling again does not mend that."""


_REFUSALS = frozenset({"FENCED", "BEHIND", "TICKET", "PROTOCOL"})
_MISTAKES = frozenset({"BROKEN"})


@dataclass(slots=True)
class Chunk:
    """Records that wait for the job; `size` is what they took of the lane's credit."""

    block: Block
    size: int
    dial: int
    before: LaneDigest
    table: tuple[int, ...] = ()
    index: int = 0
    at: int = 0

    def next_record(self) -> tuple[int, Body]:
        """Take one record out, with its entry of the table; `index` counts those that were taken."""
        if not self.table:
            self.table = entries(self.block)
            self.at = 4 * self.block.count
        entry = self.table[self.index]
        length = entry & LENGTH_MASK
        record = self.block.body[self.at : self.at + length]
        self.index += 1
        self.at += length
        return entry, record

    def put_back(self) -> None:
        """Undo the last `next_record`."""
        self.index -= 1
        self.at -= self.table[self.index] & LENGTH_MASK


@dataclass(eq=False, slots=True)
class ReceiveLane:
    """One lane into an attempt.

    What waits for the job is dropped whenever the lane is dialled again, and asked for again: so a
    lane never holds more than its credit.

    Args:
        plan: the lane.
        epoch: of this attempt.
        credit_bytes: that may be in flight.
        backoff: between dials.
        chance: draws a number from [0, 1) for the backoff.
    """

    plan: Lane
    _: KW_ONLY
    epoch: int
    credit_bytes: int
    backoff: Backoff
    chance: Callable[[], float]
    peer: LanePeer = field(init=False)
    """Where the producer stands, as far as is known here."""
    ticket: bytes = field(init=False)
    """Leave to dial the producer where it stands."""
    queue: deque[Chunk] = field(default_factory=deque[Chunk])
    total: int | None = None
    """How many records the lane has in all, once its end has come."""
    cut: bool = False
    """Whether this attempt's generation ends where the lane ended."""
    continued: bool = False
    """Whether another generation of the producer goes on where the lane ended."""
    index: int = 0
    """Number of the lane among those of its port."""
    taken: int = 0
    """Below this sequence everything was taken for the job, or passed over."""
    expected: int = 0
    """Sequence of the record that has to come next."""
    known: bool = False
    """Whether the producer has shown that it has everything below `expected`."""
    base: int | None = None
    """Where the producer began, when we asked for all that is kept."""
    consumed: int = 0
    released: int = 0
    duplicates: int = 0
    refused: int = 0
    """How often a call was refused: an epoch is over, or a ticket was not believed."""
    broken: int = 0
    """How often something came that cannot be: a gap, a wrong checksum, more than the credit."""
    mismatches: int = 0
    """Whether records of an earlier run of the producer were others than those of its last."""
    retry_at: float | None = None
    want_kept: bool = False
    """Whether everything is wanted that the producer still keeps."""
    _latest: bool = field(init=False)
    _slack: int = 0
    _digest: LaneDigest = field(default_factory=lambda: LaneDigest(Digest(0)))
    _producer_epoch: int = 0
    _differed: bool = False
    _bulk: bool = False
    _whole: bool = False
    _finished: bool = False
    _dial: int | None = None
    _dials: int = 0
    _open: bool = False
    _failures: int = 0
    _received_bytes: int = 0
    _consumed_bytes: int = 0
    _acknowledged_bytes: int = 0
    _acknowledged: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.peer, self.ticket = self.plan.peer, self.plan.ticket
        self._latest = self.plan.keep > 0

    @property
    def existing(self) -> int:
        """Below which sequence records are known to exist, whether they were sent to us or not."""
        if self.total is not None:
            return self.total
        return self.expected if self.known else 0

    @property
    def over(self) -> bool:
        """Whether everything was taken that will ever come.

        Of the newest records alone, what died with its producer never comes: the end on the call
        that is open says so, and not an earlier one, whose records may have been dropped since.
        """
        if self._latest and self._whole and not self.queue:
            return True
        return self.total is not None and self.taken >= self.total

    @property
    def unacknowledged(self) -> bool:
        """Whether there is something new to report to the producer."""
        return self._open and (
            self._consumed_bytes > self._acknowledged_bytes
            or (self.consumed, self.released) != self._acknowledged
        )

    @property
    def urgent(self) -> bool:
        """Whether the producer may run out of credit if there is no report soon."""
        unreported = self._consumed_bytes - self._acknowledged_bytes
        # A consumer of the newest gets nothing more before it has acknowledged what came.
        return self._open and unreported >= (1 if self._latest else self.credit_bytes // 4)

    def begin(self, first: int, *, slack: int = 0) -> None:
        """Want records from `first` on; the lane may have ended up to `slack` records before."""
        self.taken = self.expected = self.consumed = first
        self._digest = LaneDigest(Digest(first))
        self._slack = slack

    def finish(self) -> list[effects.Effect]:
        """Want nothing more: the job has ended well."""
        self._finished = True
        self.queue.clear()
        return self.dial()

    def dial(self) -> list[effects.Effect]:
        """Dial the producer, if it is placed; whatever call there is ends."""
        out = self.hang_up()
        self.retry_at = None
        if not self.peer.address:
            return out
        self._drop_queue()
        self._whole = False
        want = self.expected
        if self._finished:
            want = WANT_NOTHING
        elif self.want_kept and self.base is None:
            want = WANT_KEPT
        self._dials += 1
        self._dial = self._dials
        self._received_bytes = self._consumed_bytes = self._acknowledged_bytes = 0
        self._acknowledged = (0, 0)
        return [
            *out,
            effects.DialLane(
                self.plan.id,
                self._dial,
                self.peer.address,
                self.epoch,
                self.peer.epoch,
                want,
                self.credit_bytes,
                self._bulk,
                self.released,
                self.taken if self._finished else 0,
                self.ticket,
            ),
        ]

    def hang_up(self) -> list[effects.Effect]:
        """End the call, if there is one."""
        if self._dial is None:
            return []
        dial, self._dial, self._open = self._dial, None, False
        return [effects.HangUpLane(self.plan.id, dial)]

    def current(self, dial: int) -> bool:
        """Whether an event belongs to the present call."""
        return dial == self._dial

    def accepted(self, event: events.DialAccepted) -> None:
        """Open the lane, as the producer has.

        Raises:
            StaleError: The producer is an older one.
            LaneError: It begins above what we want.
        """
        if event.producer_epoch < self.peer.epoch:
            raise StaleError(
                f"the producer has epoch {event.producer_epoch}, not {self.peer.epoch}"
            )
        if self.want_kept and self.base is None and not self._finished:
            self.base = event.first
            self.taken = self.expected = self.consumed = event.first
            self._digest = LaneDigest(Digest(event.first))
        elif not self._finished and event.first > self.expected:
            raise LaneError(f"the producer begins at {event.first}, {self.expected} is wanted")
        self._open = True
        self._producer_epoch = event.producer_epoch
        self._failures = 0

    def received(self, block: Block) -> bool:
        """Take a block and say whether anything in it is new.

        Raises:
            LaneError: There is a gap before it, or it comes after the end, or beyond the credit.
        """
        if block.kind is not Kind.DATA:
            raise LaneError(f"a block of kind {block.kind.name} between nodes")
        if not self._open or self._finished:
            raise LaneError("a block that was not asked for")
        size = len(block.body) + HEADER_BYTES
        end = block.first + block.count
        if block.first > self.expected and not self._latest:
            raise LaneError(f"record {self.expected} is missing, {block.first} came")
        if self.total is not None and end > self.total:
            raise LaneError(f"record {end - 1} came after the end at {self.total}")
        in_flight = self._received_bytes - self._consumed_bytes
        if in_flight and in_flight + size > self.credit_bytes:
            raise LaneError(f"{in_flight + size} bytes in flight, {self.credit_bytes} are allowed")
        self._received_bytes += size
        self.known = True
        # Whatever is missing before it was dropped: the lane is for the newest records alone.
        self.expected = max(self.expected, block.first)
        skip = self.expected - block.first
        if skip >= block.count:
            self.duplicates += block.count
            self._consumed_bytes += size
            return False
        if skip:
            self.duplicates += skip
            block = without_head(block, skip)
        self.queue.append(Chunk(block, size, self._dials, self._digest))
        self._digest = self._digest.after(block, self._producer_epoch)
        self.expected = end
        return True

    def ended(self, event: events.DialEnded) -> None:
        """End the lane, as the producer has.

        Raises:
            LaneError: Some records did not come, or not those that were sent.
            NotRepeatedError: There were more records before.
            DigestError: Again it was not those that were sent.
        """
        total = event.total
        received = self.expected if self.known else self.taken - self._slack
        if self._latest:
            # A producer that is run again may send other records, and fewer.
            total = max(total, received)
        if total < received:
            raise NotRepeatedError(
                f"lane {self.plan.id} ended after {total} records, and {received} were received "
                "from an earlier attempt: a producer that is run again has to send the same records"
            )
        if self.known and total > self.expected and not self._latest:
            raise LaneError(f"the lane ended after {total} records, {self.expected} came")
        if total == self.expected and self._digest.differs(event.digest):
            self._differs(total, event.digest)
        if total < self.taken:
            self.taken = self.expected = self.consumed = total
        self.total = total
        self._whole = True
        self.cut = event.cut
        self.continued = event.continued

    def pass_to(self, sequence: int) -> None:
        """Pass over every record below `sequence`: the job does not need them."""
        self.taken = max(self.taken, sequence)
        while self.queue:
            chunk = self.queue[0]
            skip = sequence - chunk.block.first
            if skip <= 0:
                break
            if skip < chunk.block.count:
                chunk.before = chunk.before.after_some(chunk.block, skip)
                chunk.block = without_head(chunk.block, skip)
                break
            self.queue.popleft()
            self.consumed_chunk(chunk)

    def dial_for_bulk(self) -> list[effects.Effect]:
        """Dial again where large blocks may come, from now on."""
        self._bulk = True
        return self.dial()

    def failed(self, reason: str, now: float) -> list[effects.Effect]:
        """Give up a call that was refused, or broke."""
        self.refused += reason in _REFUSALS
        self.broken += reason in _MISTAKES
        return self._lost(now)

    def wrong(self, error: LaneError, now: float) -> list[effects.Effect]:
        """Give up a call on which something came that cannot be."""
        stale = isinstance(error, StaleError)
        self.refused += stale
        self.broken += not stale
        return self._lost(now)

    def _lost(self, now: float) -> list[effects.Effect]:
        """Give the call up and dial again after a while."""
        out = self.hang_up()
        self._failures += 1
        self.retry_at = now + self.backoff.delay_seconds(self._failures, self.chance())
        return out

    def moved(self, peer: LanePeer, ticket: bytes = b"", *, may_dial: bool) -> list[effects.Effect]:
        """Follow the producer to where it stands now; a new ticket alone is shown with the next dial."""
        if peer.epoch < self.peer.epoch:
            return []
        same = (peer.address, peer.epoch) == (self.peer.address, self.peer.epoch)
        self.peer, self.ticket = peer, ticket
        if same or not may_dial:
            return []
        self._failures = 0
        return self.dial()

    def consumed_chunk(self, chunk: Chunk) -> None:
        """Count a chunk as consumed: the job has all of it."""
        self.consumed = max(self.consumed, chunk.block.first + chunk.block.count)
        if chunk.dial == self._dial:
            self._consumed_bytes += chunk.size

    def acknowledge(self) -> list[effects.Effect]:
        """Report to the producer how far we are, if it is new."""
        if not self.unacknowledged or self._dial is None:
            return []
        self._acknowledged_bytes = self._consumed_bytes
        self._acknowledged = (self.consumed, self.released)
        return [
            effects.Acknowledge(
                self.plan.id, self._dial, self.consumed, self.released, self._consumed_bytes
            )
        ]

    def _differs(self, total: int, digest: Digest | None) -> None:
        mine = self._digest
        if (mine.oldest or self._producer_epoch) != self._producer_epoch:
            # The producer was run again and sends other records than before; the lane did its part.
            self.mismatches = 1
            return
        words = (
            f"lane {self.plan.id}: of {total} records the producer has the digest {digest}, "
            f"and what came has {mine.digest}"
        )
        if self._differed:
            raise DigestError(words)
        self._differed = True
        raise LaneError(words)

    def _drop_queue(self) -> None:
        if self.queue:
            chunk = self.queue[0]
            block = chunk.block
            some = min(max(0, self.taken - block.first), block.count)
            self.expected = block.first + some
            self._digest = chunk.before.after_some(block, some)
            self.queue.clear()
        if self.taken > self.expected:
            # What was passed over is not asked for again, and so it is not counted either.
            self._digest = LaneDigest(None)
            self.expected = self.taken
