"""A lane whose consumer wants the newest records alone (`promise: latest`).

Its producer never waits for it: what does not fit is dropped, oldest first, and counted. One block
is in flight at a time, so that what the consumer gets next is the newest there is when it asks; the
newest records are kept also when they were sent, for the attempt that replaces the consumer.
"""

from collections import deque
from collections.abc import Sequence

from services.streams import effects
from services.streams.block import HEADER_BYTES
from services.streams.block_index import RetainedBlock
from services.streams.lane_slice import LaneSlice
from services.streams.retained_log import RetainedLog
from services.streams.sender import SendLane
from shoal.session.lane import WANT_KEPT, Lane


class NewestLog(RetainedLog):
    """The newest records of a sequence, of which the older ones are gone.

    Args:
        keep: so many records at most.
        bytes_max: so many bytes at most, unless it is one record.
    """

    def __init__(self, keep: int, bytes_max: int) -> None:
        super().__init__(bytes_max)
        self._keep_records = keep
        self._bytes_max = bytes_max
        self._newest: deque[bytes] = deque()
        self.passed = 0
        """Below this sequence everything was sent, or dropped."""
        self.dropped = 0
        """Records that were dropped before they were sent."""

    def begin(self, first: int) -> None:
        """Let the log begin at a sequence above 0."""
        super().begin(first)
        self.passed = first

    def offer(self, count: int, newest: Sequence[bytes]) -> None:
        """Append `count` records, of which `newest` are the last, each as the body of a block."""
        self.next += count
        for body in newest[-self._keep_records :]:
            self._newest.append(body)
            self.memory_bytes += len(body)
        while len(self._newest) > self._keep_records or (
            len(self._newest) > 1 and self.memory_bytes > self._bytes_max
        ):
            self.memory_bytes -= len(self._newest.popleft())
        self.base = self.next - len(self._newest)
        self.dropped += max(0, self.base - self.passed)
        self.passed = max(self.passed, self.base)

    def forget(self) -> None:
        """Let go of all bytes."""
        super().forget()
        self._newest.clear()

    def since(self, sequence: int) -> RetainedBlock | None:
        """Return what is kept at or after `sequence`, as one block; None if there is nothing."""
        first = max(sequence, self.base)
        if first >= self.next:
            return None
        chosen = list(self._newest)[first - self.base :]
        body = chosen[0]
        if len(chosen) > 1:
            body = b"".join([*(one[:4] for one in chosen), *(one[4:] for one in chosen)])
        return RetainedBlock(first, len(chosen), len(body), 0, body)


class LatestLane(SendLane):
    """One lane out of an attempt to a consumer that wants the newest records alone."""

    def __init__(self, plan: Lane, log: NewestLog, part: LaneSlice, bulk_bytes: int) -> None:
        super().__init__(plan, log, part, bulk_bytes)
        self.newest = log

    @property
    def backlog(self) -> int:
        """Nothing that the producer would have to wait for."""
        return 0

    @property
    def floor(self) -> int | None:
        """Nothing is kept for a later attempt of the consumer but what is newest."""
        return None

    def answer(self, own_epoch: int) -> list[effects.Effect]:
        """Open the lane that is held, and send what is newest."""
        event = self.held
        if event is None:
            return []
        want = self.newest.base if event.want == WANT_KEPT else event.want
        self._begin_call(event, want)
        if not self.idle:
            self._at = want
        return [effects.AcceptCall(event.call, own_epoch, want), *self.pump()]

    def pump(self) -> list[effects.Effect]:
        """Send what is newest once the block before was taken, or the end."""
        if self._call is None or self._busy or self.idle or self.done:
            return []
        retained = self.newest.since(self._at)
        if retained is not None:
            if self._sent_bytes > self._consumed_bytes:
                return []
            if retained.size >= self.bulk_bytes and not self._bulk:
                return self._send_elsewhere(self._call, retained.size)
            self._busy = True
            self._at = retained.end
            self.newest.passed = max(self.newest.passed, retained.end)
            self._sent_bytes += retained.size + HEADER_BYTES
            return [effects.SendBlock(self._call, self.plan.id, retained, retained.body or b"")]
        total = self.total
        if total is not None and not self._end_sent:
            self._end_sent = True
            return [effects.SendEnd(self._call, total, total == self.slice.count, self.continued)]
        return []
