"""An assignment: an attempt that should exist on a node."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.model import no_strings
from shoal.names import AttemptRef
from shoal.secret import no_secrets
from shoal.session.lane import Lane
from shoal.spec import Job


class Goal(enum.IntEnum):
    """What an agent should bring about for an attempt; the numbers are those of the contract."""

    RUN = 1
    STOP = 2
    FINISH = 3


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attempt that should exist on a node; all but goal, lanes and addresses never changes.

    `bundle_url`, `bundle_pieces_url` (of the list of its pieces) and `file_urls` (by the name of the
    file input) are addresses that are good for a while: they are filled in as the assignment is sent.
    `replacement` says that an earlier attempt of the job may have sent records. With `tells_stages`
    observations name the stages before the start. `listings` are the digests of what was found for its
    folder inputs, by their names; those have their addresses in `file_urls`, too. `secrets` are the values of
    the job's secrets by the names of the secrets, filled in as the assignment is sent; they are shown nowhere.
    `traceparent` is where in a trace the program runs, empty for nowhere; with it observations name all stages.
    """

    ref: AttemptRef
    job: Job
    replica: int = 0
    replicas: int = 1
    bundle_digest: str = ""
    bundle_url: str = ""
    bundle_pieces_url: str = ""
    file_urls: Mapping[str, str] = field(default_factory=no_strings)
    goal: Goal = Goal.RUN
    lanes: tuple[Lane, ...] = ()
    replacement: bool = False
    tells_stages: bool = False
    listings: Mapping[str, str] = field(default_factory=no_strings)
    secrets: Mapping[str, bytes] = field(default_factory=no_secrets, repr=False)
    traceparent: str = ""

    @property
    def has_ports(self) -> bool:
        """Whether the program reads or writes records, so that it needs the stream worker."""
        return bool(self.job.streams or self.job.outputs)

    @property
    def sends(self) -> bool:
        """Whether another job depends on what the program sends."""
        return any(lane.output for lane in self.lanes)

    @property
    def unread(self) -> bool:
        """Whether it sends, and every consumer of what it sent has committed."""
        return self.sends and all(lane.peer.done for lane in self.lanes if lane.output)
