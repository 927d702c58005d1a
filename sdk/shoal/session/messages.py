"""The messages of a session, and the closed unions of what each side says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shoal.kept_folder import KeptFolder
from shoal.model import Capacity, Followed, no_strings
from shoal.names import AttemptRef
from shoal.node_facts import Heat, NodeFacts
from shoal.protocol_version import SESSION_SPOKEN, Protocols
from shoal.sandbox import NodeSandbox
from shoal.session.assignment import Assignment
from shoal.session.attempt_lanes import AttemptLanes
from shoal.session.bundles import BundlesHeld, BundlesWanted
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.session.log_piece import LogPiece
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.session.uploads import UploadsGranted, UploadsWanted


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """How a node stands: `refuses` says for people why it takes no new work, empty while it does.

    `kept` are the folders that it keeps of attempts that did not succeed. The versions are those of
    its keeper and its stream worker, empty where they are not known; `outdated` says for people which
    of the two are not what the agent would start, and until when. `heat` says how much thermal headroom
    it has: one with little gets new work last.
    """

    refuses: str = ""
    kept: tuple[KeptFolder, ...] = ()
    keeper_version: str = ""
    stream_worker_version: str = ""
    outdated: str = ""
    heat: Heat = Heat.UNKNOWN


WELL: Final = NodeCondition()
"""It takes work, and has nothing to say."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Which agent this is, and where every attempt stands whose end was not acknowledged.

    `agent_id` is that of its process and `instance_id` that of its journal; `bundles` are the
    digests in its cache, and `followed` is what it followed last. `protocols` are those of sessions, None
    from a build that does not say. An agent of before neither `says_holds` (`Observation.holds`) nor
    `takes_lanes` (`Desired.lanes`), and has no `facts`: it is not asked for any (`FactsWanted`).
    `features` are words of `Feature`, and those of later versions. `sandbox` is what the node can do to keep
    jobs apart, None from an agent that does not tell.
    """

    node: str
    agent_id: str
    capacity: Capacity
    stream_address: str = ""
    agent_version: str = ""
    labels: Mapping[str, str] = field(default_factory=no_strings)
    architecture: str = ""
    attempts: tuple[Observation, ...] = ()
    bundles: frozenset[str] = frozenset()
    member_name: str = ""
    instance_id: str = ""
    followed: Followed | None = None
    condition: NodeCondition = WELL
    says_holds: bool = False
    takes_lanes: bool = False
    protocols: Protocols | None = SESSION_SPOKEN
    facts: NodeFacts | None = None
    features: frozenset[str] = frozenset()
    sandbox: NodeSandbox | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The agent is alive."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The session is open; how long silence is tolerated and how often to speak, in seconds.

    `following` says which controller this is; None if it does not say. With `quarantine` nothing is
    wanted of the agent, which may dial again after `retry_seconds`. `adopted` says that a person
    had the agent follow this controller, whatever it followed before. `protocols` are those of
    sessions, None from a build that does not say. `takes_contents` says that it stores small
    artifacts itself.
    """

    controller_id: str
    lease_seconds: float
    heartbeat_seconds: float
    following: Followed | None = None
    quarantine: str = ""
    adopted: bool = False
    retry_seconds: float = 0.0
    protocols: Protocols | None = SESSION_SPOKEN
    takes_contents: bool = False


@dataclass(frozen=True, slots=True)
class Desired:
    """What should run on a node, by revision.

    A `snapshot` is everything; else `assignments` are what changed, and `removed` are the attempts
    that the agent must end, if they run, and forget. `commit` says by which commit of the
    controller's start all of it was recorded. `lanes` are of attempts of which nothing else changed,
    for an agent that takes them. A long list travels in parts, numbered from 0, and
    `more` says whether it goes on with the next: parts count together or not at all.
    """

    revision: int
    snapshot: bool
    assignments: tuple[Assignment, ...] = ()
    removed: tuple[AttemptRef, ...] = ()
    commit: int = 0
    part: int = 0
    more: bool = False
    lanes: tuple[AttemptLanes, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of the agent that the controller did not take, or what the agent should log.

    `ref` is None where it is about no attempt.
    """

    ref: AttemptRef | None
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A message was about a stale attempt: its agent ends and forgets it."""

    ref: AttemptRef
    message: str = ""


@dataclass(frozen=True, slots=True)
class FactsWanted:
    """The agent is asked for the facts of its node, as they are now."""


FromAgent = (
    Hello
    | Heartbeat
    | NodeCondition
    | Observation
    | LogPiece
    | Progress
    | UploadsWanted
    | CertificateWanted
    | NodeFacts
    | BundlesHeld
    | FilesWanted
)
"""What an agent says; the first message is Hello."""

FromController = (
    Welcome
    | Desired
    | UploadsGranted
    | FilesGranted
    | Refused
    | Fenced
    | Trust
    | CertificateIssued
    | FactsWanted
    | BundlesWanted
)
"""What a controller says; the first message is Welcome, the second a snapshot."""
