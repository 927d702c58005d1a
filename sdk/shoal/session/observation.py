"""An observation: where an attempt stands."""

from dataclasses import dataclass
from datetime import datetime

from shoal.model import NO_REASON, Artifact, JobState, Reason
from shoal.names import AttemptRef
from shoal.session.port_hold import PortHold
from shoal.session.stage import StageReached


@dataclass(frozen=True, slots=True)
class Observation:
    """Where an attempt stands, as its agent sees it; idempotent.

    `SUCCEEDED` means archived and ready to be committed, with `artifacts`. The times are those of
    the program, aware, and None before it started or ended. `holds` are the outputs that stand still,
    `ended_inputs` the inputs of which a program that has ended well was shown the end.
    `stages` are those that it has reached, in their order, if its assignment asks.
    """

    ref: AttemptRef
    state: JobState
    reason: Reason = NO_REASON
    artifacts: tuple[Artifact, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    holds: tuple[PortHold, ...] = ()
    ended_inputs: tuple[str, ...] = ()
    stages: tuple[StageReached, ...] = ()
