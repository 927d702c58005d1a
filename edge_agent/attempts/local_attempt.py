"""What the agent knows of one attempt, as its journal keeps it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from edge_agent.attempts.phase import ARCHIVING, Phase
from edge_agent.sandbox.group_counts import NO_COUNTS, GroupCounts
from shoal.model import NO_REASON, Artifact, JobState, Reason
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.observation import Observation
from shoal.session.port_hold import PortHold
from shoal.session.stage import AttemptStage, StageReached
from shoal.session.uploads import ArtifactParts


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ends once its program is gone."""

    state: JobState
    reason: Reason


@dataclass(frozen=True, slots=True)
class ProgramExit:
    """How a program ended; `stderr_tail` are its last words. The time is seconds since the epoch.

    `problem` says why records of its FIFOs may be missing, whatever its exit status; else it is empty.
    `disk_full` says what the node's disk had left, if it was full then; else it is empty.
    `left` says which processes of it could not be ended; else it is empty. `out_of_memory` says that the
    kernel ended it for want of memory. `not_begun` says why it was never executed; else it is empty.
    `counts` are those of its own control group.
    """

    exit_code: int
    signal: int = 0
    timed_out: bool = False
    lease_ended: bool = False
    end_time: float = 0.0
    stderr_tail: str = ""
    problem: str = ""
    disk_full: str = ""
    left: str = ""
    out_of_memory: bool = False
    not_begun: str = ""
    counts: GroupCounts = NO_COUNTS


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """A program as the keeper lists it; `exit` is None while it runs."""

    start_time: float
    exit: ProgramExit | None = None


class LocalAttempt(NamedTuple):
    """Everything that the agent remembers of an attempt, in memory and in its journal.

    A tuple, since a new one is made at each step: that takes a sixth of the time of a data class.
    """

    assignment: Assignment
    phase: Phase = Phase.BUNDLE
    turn: int = 0
    state: JobState = JobState.PREPARING
    reason: Reason = NO_REASON
    artifacts: tuple[Artifact, ...] = ()
    parts: tuple[ArtifactParts, ...] = ()
    """How its large artifacts are cut, and what the archive has of them; until it has ended."""
    start_time: float = 0.0
    end_time: float = 0.0
    verdict: Verdict | None = None
    forget: bool = False
    """Whether it is to be forgotten as soon as its program is gone."""
    acknowledged: bool = False
    """Whether the controller has committed its end."""
    closed: bool = False
    """Whether none of its outputs takes anything more."""
    finishing: bool = False
    """Whether its program was told to end because the controller wants it finished."""
    holds: tuple[PortHold, ...] = ()
    """How far its outputs were when they were last told to stand still."""
    ended_inputs: tuple[str, ...] = ()
    """The inputs of which its program was shown the end; known once its streams have drained."""
    missing: bool = False
    """Whether something of it was found that is to be archived and cannot be."""
    archived: bool = False
    """Whether everything that is to be archived of it is in the archive."""
    keeper: str = ""
    """The only keeper that may have been told to start its program, once one may have been."""
    stages: tuple[tuple[AttemptStage, float], ...] = ()
    """The stages that it has taken, each with the first time, in seconds since 1970, if its assignment asks."""

    @property
    def ref(self) -> AttemptRef:
        """Which attempt."""
        return self.assignment.ref

    @property
    def salvaging(self) -> bool:
        """Whether what it wrote is being archived although it did not succeed.

        To the controller it is what it was before: what is `ARCHIVING` has ended well.
        """
        return self.phase in ARCHIVING and self.state < JobState.ARCHIVING

    @property
    def keeping_logs(self) -> bool:
        """Whether its end is told, and what it printed is on its way to the archive."""
        return self.phase in ARCHIVING and self.state.terminal

    @property
    def over(self) -> bool:
        """Whether its end is told: nothing of it needs the keeper or the stream worker."""
        return self.phase in {Phase.ENDED, Phase.FORGETTING} or self.keeping_logs

    @property
    def left_something(self) -> bool:
        """Whether it began, did not succeed, and what it wrote is not in the archive."""
        return bool(self.start_time) and self.state is not JobState.SUCCEEDED and not self.archived

    @property
    def observation(self) -> Observation:
        """What the controller is told."""
        return Observation(
            self.ref,
            self.state,
            self.reason,
            tuple(one for one in self.artifacts if one.key)
            if self.keeping_logs
            else self.artifacts,
            _moment(self.start_time),
            _moment(self.end_time),
            self.holds,
            self.ended_inputs,
            tuple(
                StageReached(stage, datetime.fromtimestamp(time, UTC))
                for stage, time in self.stages
            ),
        )

    def reaching(self, *stages: AttemptStage, time: float) -> "LocalAttempt":
        """Return the attempt with stages that it has taken now, if its assignment asks for them.

        What is taken again, because the machine went down, keeps its first time.
        """
        if not (self.assignment.tells_stages or self.assignment.traceparent):
            return self
        taken = dict.fromkeys(stages, time) | dict(self.stages)
        return self._replace(stages=tuple(sorted(taken.items())))


def _moment(seconds: float) -> datetime | None:
    """The moment so many seconds after the epoch; 0 is none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
