"""What a controller wants of a node, and what the node says about it: the nouns of a session."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from services.streams.rotation import WHOLE, Stretch
from shoal.model import NO_REASON, Artifact, Capacity, Followed, JobState, Reason, StreamCounters
from shoal.names import AttemptRef
from shoal.spec import Distribute, Job, PortFormat
from shoal.view import LogStream


class Goal(enum.IntEnum):
    """What an agent should bring about for an attempt; the numbers are those of the contract."""

    RUN = 1
    STOP = 2
    FINISH = 3


@dataclass(frozen=True, slots=True)
class LanePeer:
    """Where the other end of a lane stands; the address is empty while it is not placed."""

    address: str = ""
    attempt: str = ""
    epoch: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """One physical stream: one replica of a producer to one replica of a consumer."""

    id: str
    output: bool
    port: str
    peer_replica: int = 0
    peer_replicas: int = 1
    peer: LanePeer = LanePeer()
    distribute: Distribute = Distribute.ROUND_ROBIN
    peer_port: str = ""
    peer_job: str = ""
    peer_format: PortFormat = PortFormat.BLOCKS
    keep: int = 0
    stretch: Stretch = WHOLE
    hold: int = 0
    end: int | None = None


def _no_strings() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Assignment:
    """An attempt that should exist on this node; all but goal, lanes and addresses never changes."""

    ref: AttemptRef
    job: Job
    replica: int = 0
    replicas: int = 1
    bundle_digest: str = ""
    bundle_url: str = ""
    file_urls: Mapping[str, str] = field(default_factory=_no_strings)
    goal: Goal = Goal.RUN
    lanes: tuple[Lane, ...] = ()
    replacement: bool = False

    @property
    def has_ports(self) -> bool:
        """Whether the program reads or writes records, so that it needs the stream worker."""
        return bool(self.job.streams or self.job.outputs)

    @property
    def sends(self) -> bool:
        """Whether somebody else depends on what the program sends."""
        return any(lane.output for lane in self.lanes)

    @property
    def unread(self) -> bool:
        """Whether it sends, and everybody who got what it sent has committed."""
        return self.sends and all(lane.peer.done for lane in self.lanes if lane.output)


@dataclass(frozen=True, slots=True)
class Observation:
    """Where an attempt stands, as its agent sees it; times are seconds since the epoch, 0 if none."""

    ref: AttemptRef
    state: JobState
    reason: Reason = NO_REASON
    artifacts: tuple[Artifact, ...] = ()
    start_time: float = 0.0
    end_time: float = 0.0


@dataclass(frozen=True, slots=True)
class LogPiece:
    """What an attempt printed; `offset` says where in the whole log it begins, in bytes."""

    ref: AttemptRef
    stream: LogStream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters of an attempt's ports, and what its program says of itself."""

    ref: AttemptRef
    streams: tuple[StreamCounters, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class UploadsWanted:
    """A request for addresses to store artifacts under."""

    ref: AttemptRef
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """Where to store one artifact: an address for a PUT and the headers that it must carry.

    `problem` says why it cannot be stored; it has no address then.
    """

    path: str
    key: str
    url: str
    headers: Mapping[str, str] = field(default_factory=_no_strings)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class UploadsGranted:
    """The answer to `UploadsWanted`."""

    ref: AttemptRef
    grants: tuple[UploadGrant, ...]


@dataclass(frozen=True, slots=True)
class Desired:
    """What should run on the node; a snapshot is everything, anything else only what changed."""

    revision: int
    snapshot: bool
    assignments: tuple[Assignment, ...] = ()
    removed: tuple[AttemptRef, ...] = ()
    commit: int = 0
    """By which commit of the controller's start it was recorded."""
    part: int = 0
    more: bool = False
    """Whether it goes on with the next part; parts count together or not at all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of this agent that the controller did not take."""

    ref: AttemptRef | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is open; how long silence is tolerated and how often to speak, in seconds.

    `following` says which controller this is; None if it does not say. With `quarantine` nothing is
    wanted of the agent, which may dial again after `retry_seconds`. `adopted` says that a person
    had the agent follow this controller, whatever it followed before.
    """

    controller_id: str
    lease_seconds: float
    heartbeat_seconds: float
    following: Followed | None = None
    quarantine: str = ""
    adopted: bool = False
    retry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hello:
    """Who an agent is, and where every attempt stands whose end is not acknowledged."""

    node: str
    agent_id: str
    agent_version: str
    capacity: Capacity
    labels: Mapping[str, str]
    architecture: str
    stream_address: str
    member_name: str
    attempts: tuple[Observation, ...] = ()
    bundles: tuple[str, ...] = ()
    instance_id: str = ""
    followed: Followed | None = None
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """Why the node takes no new work at the moment, for people; empty when it does."""

    refuses: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The agent is alive."""


FromAgent = Hello | Heartbeat | NodeCondition | Observation | LogPiece | Progress | UploadsWanted
"""What an agent says; the first message is Hello."""

FromController = Welcome | Desired | UploadsGranted | Refused
"""What a controller says."""
