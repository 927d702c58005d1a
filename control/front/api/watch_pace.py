"""How often a watch writes: at once while little happens, and a few times a second while much does.

Theory. What changes while a watch rests becomes one picture of each pipeline, as it is at the end of the rest. A
short job changes four times in a tenth of a second: a watch that rests as long makes one or two pictures of it in
the place of four, for which its reader has no use but its own work.

Rules. Each picture is a drop in a bucket that leaks `FREE_PER_SECOND` a second. While the bucket holds more than
`FREE`, the watch rests `BUSY_SECONDS` after each message with which all is told. After a message of many jobs it
rests `JOB_SECONDS` for each of them, five times as long as it takes to show one, whatever is in the bucket.

While it is busy, a watch shows pipelines that go on every `HOLD_SECONDS`, and those that have ended in each message:
of most short jobs their end is all that is shown, and a client that submits more as jobs end is told of it soon.

Example: a client that watches one pipeline, or all of a cluster that starts ten jobs a second, is told of each change
at once; a client that watches three hundred jobs a second is told ten times a second of all of them.
"""

from typing import Final

from shoal.wire.known_jobs import JOBS_MIN

FREE: Final = 64
FREE_PER_SECOND: Final = 100.0
BUSY_SECONDS: Final = 0.1
HOLD_SECONDS: Final = 0.5
JOB_SECONDS: Final = 0.0001
REST_SECONDS_MAX: Final = 1.0
_BUCKET: Final = FREE + FREE_PER_SECOND
"""More it does not hold, so that a watch is quick again a second after the rush."""


class WatchPace:
    """Says how long one watch rests after a message.

    Args:
        now: seconds on a monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self._at = now
        self._held = 0.0

    @property
    def busy(self) -> bool:
        """Whether the bucket held more than it should after the last message."""
        return self._held > FREE

    def rest_seconds(self, now: float, pictures: int, jobs: int, *, more: bool) -> float:
        """Return how long to rest after a message; 0 for no rest.

        Args:
            now: seconds on the clock.
            pictures: how many pictures of pipelines it had.
            jobs: how many jobs these had altogether.
            more: whether others may wait that did not fit into it.
        """
        held = max(0.0, self._held - (now - self._at) * FREE_PER_SECOND) + pictures
        self._held, self._at = min(held, _BUCKET), now
        rest = jobs * JOB_SECONDS if jobs >= JOBS_MIN else 0.0
        if held > FREE and not more:
            rest = max(rest, BUSY_SECONDS)
        return min(rest, REST_SECONDS_MAX)
