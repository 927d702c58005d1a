"""The producer's end of one lane: which call may read it, where it is, and what may be in flight.

Rule 1, fencing. A call names the epochs of its consumer and of its producer. It is refused unless
the producer's epoch is that of this attempt and the consumer's is at least the highest that was seen
on the lane. Of two calls that may both read, the later one wins.

Rule 2, credit. A call brings a credit in bytes. A block of `size` bytes on the wire may leave if
nothing is in flight, or if in flight + size <= credit, where in flight = bytes sent on this call -
bytes that the consumer said on this call that it consumed.

Rule 3, retention. The consumer reports two sequences: below `consumed` (exclusive) all records were
handed to its job; below `released` (exclusive) neither it nor an attempt that replaces it will ask
for any record again. Only `released` lets records go.

Rule 4, one at a time. The next block leaves when the shell says that the one before has left its
buffers (`CallReady`), so that at most one block of a lane waits in the shell.

Invariant. What waits at the consumer is at most its credit, or one block that is larger than that.

Why not a window of records: records have 0 bytes to 256 MiB, and memory is what runs out. Why a
block above the credit may pass alone: otherwise it could never leave. Why bytes are counted for each
call: a call that breaks loses bytes on their way, and the next call begins at 0 on both sides.

Example. Credit 100. Blocks of 60, 60 and 300 bytes: the first leaves, the second waits (120 > 100)
until the first is consumed; the third waits until nothing is in flight, and leaves alone.

Sources: credit-based flow control as in HTTP/2 (RFC 9113, section 5.2); fencing tokens (M.
Kleppmann, "How to do distributed locking", 2016).
"""

from dataclasses import KW_ONLY, dataclass, field, replace

from services.streams import effects, events
from services.streams.block import HEADER_BYTES, Body
from services.streams.block_index import RetainedBlock
from services.streams.lane_slice import LaneSlice
from services.streams.retained_log import Cursor, RetainedLog
from shoal.limits import WHOLE_BYTES_MAX
from shoal.portal_names import CLIENT
from shoal.session.lane import WANT_KEPT, WANT_NOTHING, Lane, LanePeer


class RewindError(Exception):
    """A consumer wants records that this attempt does not have."""


@dataclass(eq=False)
class SendLane:
    """One lane out of an attempt.

    A call is held (opened and not answered) until the attempt knows where it begins.

    Args:
        plan: the lane.
        log: what it reads; other lanes may read it too.
        part: which records of the producer these are.
        bulk_bytes: a block as large as this goes only where large ones may come.
        recorder: whether it joined while the stream was passing: it holds what it has not taken,
            and no more.
    """

    plan: Lane
    log: RetainedLog
    slice: LaneSlice
    bulk_bytes: int
    _: KW_ONLY
    recorder: bool = False
    peer: LanePeer = field(init=False)
    """Where the consumer stands, as far as is known here."""
    released: int = 0
    """Below this sequence nothing will be asked for again."""
    consumed: int = 0
    """Below this sequence everything was handed to the consumer's job."""
    held: events.CallOpened | None = None
    """The call, while it waits for an answer."""
    refused: int = 0
    """Calls that were refused."""
    _call: int | None = None
    _credit: int = 0
    _parts: bool = False
    _bulk: bool = False
    _sent_bytes: int = 0
    _consumed_bytes: int = 0
    _want: int = 0
    _cursor: Cursor = field(init=False)
    _offset: int = 0
    # Whether the consumer wants nothing, although it has not committed yet.
    idle: bool = False
    _busy: bool = False
    _end_sent: bool = False
    _at: int = 0
    limit_offset: int | None = None
    """Bytes of the log before the end of a lane that was cut, once they are there."""
    continued: bool = False
    """Whether another generation of the producer goes on where this one ends."""
    dialled: bool = False
    """Whether the consumer has said to this attempt what it wants."""
    wanted: int = 0
    """The highest record that it ever wanted; of one that has finished, what it was given."""
    _let_go: int | None = None

    def __post_init__(self) -> None:
        self.peer = self.plan.peer
        self._cursor = self.log.cursor()

    @property
    def total(self) -> int | None:
        """How many records the lane has in all, once that is known."""
        limit = self.slice.count
        return limit if limit is not None and self.log.next >= limit else self.log.total

    @property
    def existing(self) -> int:
        """How many records the lane has so far."""
        limit = self.slice.count
        return self.log.next if limit is None else min(limit, self.log.next)

    @property
    def exhausted(self) -> bool:
        """Whether the lane was cut, and its consumer will not ask for any of its records again."""
        limit = self.slice.count
        return limit is not None and self.released >= limit

    @property
    def done(self) -> bool:
        """Whether the consumer has committed."""
        return self.peer.done

    @property
    def backlog(self) -> int:
        """Bytes that are kept and not yet sent to the consumer; 0 if it wants none."""
        if self.done or self.idle or self.log.next <= self._want or self._beyond():
            return 0
        offset = self.log.offset if self.limit_offset is None else self.limit_offset
        return max(0, offset - self._offset)

    @property
    def floor(self) -> int | None:
        """Sequence below which this lane needs nothing; None when it needs nothing at all."""
        return None if self.done or self.exhausted else self.released

    def begin(self, first: int) -> None:
        """Let the lane begin at a sequence above 0, because its consumers have what is before.

        Having is not letting go: a consumer that dies may want what it had, and says which of it is
        no longer wanted. It may have died since it said so, with its call: what it had not let go of
        is not here, and a consumer of all that is kept has to get it from a run that begins earlier.
        Where no consumer has named a record, one that wants what is kept gets what this attempt begins with.
        """
        self.released = self.consumed = first
        if self._let_go is not None:
            self.released = min(first, self._let_go)

    def cut(self, part: LaneSlice) -> list[effects.Effect]:
        """Let the lane end at its cut although the producer goes on."""
        self.slice = part
        return self.pump()

    def passed_cut(self) -> None:
        """Leave out what comes on the log from now on: it is not of this lane."""
        if self.limit_offset is None:
            self.limit_offset = self.log.offset

    def opened(self, event: events.CallOpened, own_epoch: int) -> list[effects.Effect]:
        """Take a call, or refuse it; an answer to an accepted one comes from `answer`."""
        if event.producer_epoch != own_epoch:
            return self._refuse(
                event.call,
                "FENCED",
                f"lane {self.plan.id} is at producer epoch {own_epoch}, "
                f"the consumer asks for {event.producer_epoch}",
            )
        if event.consumer_epoch < self.peer.epoch:
            return self._refuse(
                event.call,
                "FENCED",
                f"lane {self.plan.id} belongs to consumer epoch {self.peer.epoch}, "
                f"epoch {event.consumer_epoch} is over",
            )
        out = self.stop()
        if event.consumer_epoch > self.peer.epoch:
            # The controller reached the consumer first; this attempt learns of it soon.
            self.peer = replace(self.peer, epoch=event.consumer_epoch)
        self.dialled = True
        if event.want == WANT_NOTHING:
            self.wanted = max(self.wanted, event.had)
        elif event.want != WANT_KEPT:
            self.wanted = max(self.wanted, event.want)
            self._let_go = event.released
        self.held = event
        return out

    def answer(self, own_epoch: int) -> list[effects.Effect]:
        """Open the lane that is held, and send what may be sent.

        Raises:
            RewindError: The consumer wants what is not kept.
        """
        event = self.held
        if event is None:
            return []
        want = self.released if event.want == WANT_KEPT else event.want
        limit = self.slice.count
        beyond = limit is not None and want >= limit
        if want < self.log.base and not self.done and not beyond:
            raise RewindError(
                f"lane {self.plan.id}: its consumer wants record {want}, "
                f"and {self.log.base} is the first that is kept"
            )
        self._begin_call(event, want)
        if not self.idle:
            self._want = self._at = want
            if not beyond:
                self._cursor.number = self.log.number_at(want)
                self._offset = self.log.offset_at(self._cursor.number)
            # A successor may want more than its predecessor let go of, and it is still there.
            self.released = min(self.released, want)
        return [effects.AcceptCall(event.call, own_epoch, want), *self.pump()]

    def refuse_held(self, reason: str, message: str) -> list[effects.Effect]:
        """Refuse the call that is held, if there is one."""
        event, self.held = self.held, None
        return [] if event is None else self._refuse(event.call, reason, message)

    def pump(self) -> list[effects.Effect]:
        """Send the next block if the call is free and has credit, or the end."""
        if self._call is None or self._busy or self.idle or self.done:
            return []
        if not self._beyond():
            number = self._skip()
            size = self.log.peek_size(number)
            if size and self.log.next > self._want:
                in_flight = self._sent_bytes - self._consumed_bytes
                if in_flight and in_flight + size > self._credit:
                    return []
                if size >= self.bulk_bytes and not self._bulk:
                    return self._send_elsewhere(self._call, size)
                retained = self.log.block(number)
                if retained is not None:
                    return self._send(self._call, retained)
        total = self.total
        if total is not None and not self._end_sent:
            self._end_sent = True
            # Where the lane is cut, the log goes on, and so does what is counted of it.
            digest = self.log.digest() if total == self.log.total else None
            cut = total == self.slice.count
            return [effects.SendEnd(self._call, total, cut, self.continued, digest)]
        return []

    def loaded(self, call: int, body: bytes) -> list[effects.Effect]:
        """Send a block whose body came back from the spool."""
        if call != self._call or self.done or self._cursor.number is None:
            return []
        retained = self.log.block(self._cursor.number)
        if retained is None:
            return []
        return [self._block(call, retained, body)]

    def ready(self, call: int) -> list[effects.Effect]:
        """Go on after a block that has left."""
        if call != self._call:
            return []
        self._busy = False
        return self.pump()

    def acknowledged(self, event: events.CallAcknowledged) -> list[effects.Effect]:
        """Take an acknowledgement; one that cannot be right breaks the call."""
        if event.call != self._call:
            return []
        if (
            event.consumed_bytes > self._sent_bytes
            or event.consumed_bytes < self._consumed_bytes
            or (not self.idle and event.released > self.log.next)
        ):
            self.refused += 1
            return self.stop()
        self._consumed_bytes = event.consumed_bytes
        if not self.idle:
            self.consumed = max(self.consumed, min(event.consumed, self.log.next))
            self.released = max(self.released, event.released)
        return self.pump()

    def finished(self, call: int) -> list[effects.Effect]:
        """Let go of a lane whose client has committed; of any other the controller says when.

        Only a client knows of its commit, so its own word counts, if it comes on the call
        that has the lane now. On all other lanes it would let the producer succeed, and go, with
        records that a replaced consumer, or the true one, still has to have.
        """
        if call != self._call and (self.held is None or call != self.held.call):
            return []
        if self.plan.peer_job != CLIENT:
            self.closed(call)
            message = f"lane {self.plan.id} is no client's: the controller says when it is done"
            return self._refuse(call, "NOT_A_CLIENT", message)
        self.peer = replace(self.peer, done=True)
        self._cursor.number = None
        return []

    def closed(self, call: int) -> None:
        """Forget a call that is over."""
        if self.held is not None and self.held.call == call:
            self.held = None
        if call == self._call:
            self._leave()

    def moved(self, peer: LanePeer) -> list[effects.Effect]:
        """Follow the consumer to where it stands now; end a call of an older epoch."""
        if peer.epoch < self.peer.epoch:
            peer = replace(self.peer, done=peer.done or self.peer.done)
        older = peer.epoch > self.peer.epoch
        self.peer = peer
        if peer.done:
            self._cursor.number = None
        out: list[effects.Effect] = []
        if older:
            out += self.stop()
        return out

    def _begin_call(self, event: events.CallOpened, want: int) -> None:
        self.held = None
        self._call = event.call
        self._credit = event.credit_bytes
        self._parts = event.parts
        self._bulk = event.bulk
        self._sent_bytes = self._consumed_bytes = 0
        self._end_sent = False
        self.idle = want == WANT_NOTHING or self.done

    def _beyond(self) -> bool:
        """Whether all records of a lane that was cut have been sent."""
        limit = self.slice.count
        return limit is not None and self._at >= limit

    def _skip(self) -> int:
        """Pass over blocks that the consumer has; a repeated run of a producer makes them again."""
        number = self._cursor.number
        if number is None:
            raise AssertionError(f"lane {self.plan.id} is read and has no cursor")
        if number < self.log.first_number:
            # The last block of all was let go of before any lane wanted what comes after it.
            number = self.log.first_number
            self._offset = self.log.offset_at(number)
        while (end := self.log.sealed_end(number)) is not None and end <= self._want:
            if self._parts:
                self.log.reckon(number)
            number += 1
            self._offset = self.log.offset_at(number)
        self._cursor.number = number
        return number

    def _send(self, call: int, retained: RetainedBlock) -> list[effects.Effect]:
        self._busy = True
        if retained.body is not None:
            return [self._block(call, retained, retained.body)]
        if retained.place is None:
            raise AssertionError(f"block {retained.first} of {self.plan.id} is nowhere")
        if self._parts and retained.size > WHOLE_BYTES_MAX and retained.crc is not None:
            self._advance(retained)
            return [effects.SendSpooled(call, self.plan.id, retained, retained.place, retained.crc)]
        return [effects.ReadSpool(self.plan.id, call, retained.place)]

    def _block(self, call: int, retained: RetainedBlock, body: Body) -> effects.SendBlock:
        self._advance(retained)
        return effects.SendBlock(call, self.plan.id, retained, body)

    def _advance(self, retained: RetainedBlock) -> None:
        """Go on to the block after this one, which is being sent."""
        self._cursor.number = (self._cursor.number or 0) + 1
        self._offset = retained.offset + retained.size
        self._at = retained.end
        if self._beyond():
            self._cursor.number = None
        self._sent_bytes += retained.size + HEADER_BYTES

    def _send_elsewhere(self, call: int, size: int) -> list[effects.Effect]:
        """Ask the consumer to dial where a large block holds up no small one behind it."""
        self._leave()
        message = f"the next block of lane {self.plan.id} has {size} bytes"
        return [effects.RefuseCall(call, "BULK", message)]

    def _refuse(self, call: int, reason: str, message: str) -> list[effects.Effect]:
        self.refused += 1
        return [effects.RefuseCall(call, reason, message)]

    def stop(self) -> list[effects.Effect]:
        """End the call, of whatever consumer it is."""
        out: list[effects.Effect] = []
        if self.held is not None:
            out.append(effects.CloseCall(self.held.call))
            self.held = None
        if self._call is not None:
            out.append(effects.CloseCall(self._call))
            self._leave()
        return out

    def _leave(self) -> None:
        self._call = self._cursor.number = None
        self._busy = False
