"""How a thread that works for long leaves the interpreter to the loop: as long as it worked.

Why: two threads of Python take turns of 5 ms, so while one computes, each turn of the loop comes that much later. What
is read one after the other without a rest would let all other calls take ten times as long, for as long as it comes.
"""

from dataclasses import dataclass
from typing import Final

LONG_SECONDS: Final = 0.05
"""Work that is shorter needs no rest."""
REST_SECONDS_MAX: Final = 5.0


@dataclass(slots=True)
class ReadingPace:
    """Says how long to rest before the next piece of work.

    Attributes:
        rest_until: monotonic seconds.
    """

    rest_until: float = 0.0

    def worked(self, began: float, ended: float) -> None:
        """Note a piece of work, in monotonic seconds."""
        seconds = ended - began
        if seconds > LONG_SECONDS:
            self.rest_until = ended + min(seconds, REST_SECONDS_MAX)

    def rest_seconds(self, now: float) -> float:
        """How long the next piece of work has to wait."""
        return max(0.0, self.rest_until - now)
