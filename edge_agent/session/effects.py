"""What the session machine wants done: one frozen value for each thing to do, in order."""

from dataclasses import dataclass

from shoal.model import Followed
from shoal.session.bundles import BundlesWanted
from shoal.session.folder_files import FilesGranted
from shoal.session.messages import Desired, FactsWanted, Fenced, FromAgent, Refused, Welcome
from shoal.session.trust import CertificateIssued, Trust
from shoal.session.uploads import UploadsGranted


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a stream to a controller; its events carry the number of the link."""

    link: int
    address: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream; no outcome is awaited."""

    reason: str


@dataclass(frozen=True, slots=True)
class Write:
    """Send a batch."""

    sequence: int
    acknowledged: int
    messages: tuple[FromAgent, ...]


@dataclass(frozen=True, slots=True)
class Follow:
    """Record durably, before anything that is delivered later, how much is known of a controller."""

    followed: Followed


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The controller is not followed; everything stays as it is, until a person decides."""

    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The session stands."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over: what was not confirmed may or may not have arrived."""

    reason: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The controller has committed these messages."""

    messages: tuple[FromAgent, ...]


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The controller heard the agent, so the node is not replaced before `until` (on our clock).

    It is said only once the agent knows all that is wanted of it: before, an attempt of an earlier
    session may have been replaced already.
    """

    until: float
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand over what the controller said; `Recorded` with the number answers a `Desired`."""

    message: (
        Desired
        | UploadsGranted
        | FilesGranted
        | Refused
        | Fenced
        | Trust
        | CertificateIssued
        | FactsWanted
        | BundlesWanted
    )
    delivery: int


SessionEffect = (
    Dial
    | HangUp
    | Write
    | Follow
    | Quarantined
    | Opened
    | Closed
    | Confirmed
    | LeaseRenewed
    | Deliver
)
