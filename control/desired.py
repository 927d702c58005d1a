"""What should run on a node: assignments with their lanes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from services.streams.rotation import WHOLE, Stretch
from shoal.names import AttemptRef
from shoal.spec import Distribute, Job, PortFormat


class Goal(enum.IntEnum):
    """What an agent should bring about for an attempt; the numbers are those of the contract."""

    RUN = 1
    STOP = 2
    FINISH = 3


@dataclass(frozen=True, slots=True)
class LanePeer:
    """Where the other end of a lane stands.

    `address` (`host:port`) and `attempt` are empty while it is not placed. `done` means that its
    job has succeeded: a producer need not keep anything for it, and a consumer will get nothing
    more from it than it has released already.
    """

    address: str = ""
    attempt: AttemptRef | None = None
    epoch: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """One physical stream, seen from one of its ends.

    `peer_job` is the name in the spec; `peer_format` what the program at the other end sees. With
    `keep` above 0 the consumer wants the newest records alone, and so many wait for it. With `hold`
    above 0 the producer stands still at the port, and says how far it is. With `end` the producer's
    port ends after so many records of its own.
    """

    id: str
    output: bool
    port: str
    peer_job: str
    peer_port: str
    peer_replica: int
    peer_replicas: int
    peer_format: PortFormat
    distribute: Distribute
    peer: LanePeer
    keep: int = 0
    stretch: Stretch = WHOLE
    hold: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attempt that should exist on a node; all but `goal` and `lanes` never changes.

    `replacement` says that an earlier attempt of the job may have sent records.
    """

    ref: AttemptRef
    job: Job
    replica: int
    replicas: int
    bundle_digest: str
    goal: Goal
    lanes: tuple[Lane, ...]
    replacement: bool


@dataclass(frozen=True, slots=True)
class DesiredUpdate:
    """Desired state of a node by revision, recorded by this commit of the controller's start.

    `notice` is what the agent should say in its log.

    With `snapshot`, `assignments` is everything; else they are what changed, and `removed` are the
    attempts that the agent must end, if they run, and forget.
    """

    revision: int
    snapshot: bool
    assignments: tuple[Assignment, ...] = ()
    removed: tuple[AttemptRef, ...] = ()
    commit: int = 0
    notice: str = ""
