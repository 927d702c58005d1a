"""In which order the uploads of a node go: decided here, sent elsewhere.

Rules. A few uploads run at once; parts of large artifacts take all places but one, so that there is
always one for what is small. What waits goes by this order: what a job needs for its commit before
what is kept of attempts that failed, then the smaller first, then the older. What has waited for a
minute goes before all that, or a board with many small results would never send its large ones.

Why: a log of 2 KB is not to wait for 10 GB of another job, over an uplink where those take a night.
Example: of four places three send parts of 16 MiB; a log that comes takes the fourth at once.
"""

from dataclasses import dataclass, field
from typing import Final

PLACES: Final = 4
"""How many uploads of a node run at the same time."""

PATIENCE_SECONDS: Final = 60.0
"""After which no other upload goes before one that waits."""


@dataclass(frozen=True, slots=True)
class WaitingUpload:
    """One request that is to be sent; `part` says that it is a part of a large artifact.

    `number` tells uploads apart and rises with each; `since` is on the queue's clock.
    """

    number: int
    size_bytes: int
    part: bool
    salvaged: bool
    since: float

    @property
    def place_in_line(self) -> tuple[bool, int, int]:
        """The smaller goes first."""
        return (self.salvaged, self.size_bytes, self.number)


@dataclass(slots=True)
class UploadQueue:
    """What waits and what is being sent."""

    places: int = PLACES
    _waiting: dict[int, WaitingUpload] = field(default_factory=dict[int, WaitingUpload])
    _sending: dict[int, WaitingUpload] = field(default_factory=dict[int, WaitingUpload])

    @property
    def sending(self) -> tuple[WaitingUpload, ...]:
        """What is being sent."""
        return tuple(self._sending.values())

    def add(self, upload: WaitingUpload) -> None:
        """Let an upload wait."""
        self._waiting[upload.number] = upload

    def remove(self, number: int) -> None:
        """Let go of an upload that was sent, or is not wanted any more."""
        self._waiting.pop(number, None)
        self._sending.pop(number, None)

    def start(self, now: float) -> list[int]:
        """Return the numbers of those that may be sent from now on, in order."""
        started: list[int] = []
        while len(self._sending) < self.places:
            parts = sum(one.part for one in self._sending.values())
            may = [
                one
                for one in self._waiting.values()
                if not one.part or parts < max(1, self.places - 1)
            ]
            if not may:
                break
            late = [one for one in may if now - one.since >= PATIENCE_SECONDS]
            if late:
                chosen = min(late, key=lambda one: (one.since, one.number))
            else:
                chosen = min(may, key=lambda one: one.place_in_line)
            self._sending[chosen.number] = self._waiting.pop(chosen.number)
            started.append(chosen.number)
        return started
