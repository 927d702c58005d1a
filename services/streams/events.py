"""What can happen to the streams of an attempt."""

from dataclasses import dataclass

from services.streams.block import Block
from services.streams.block_index import SpoolPlace
from services.streams.digest import Digest
from services.streams.effects import OfDial, OfPort
from shoal.session.lane import Lane


@dataclass(frozen=True, slots=True)
class Attached:
    """The ports are at hand. The first event."""


@dataclass(frozen=True, slots=True)
class PortBlock(OfPort):
    """The job wrote a block on a port; on a raw port, its records as a block counted from 0."""

    block: Block


@dataclass(frozen=True, slots=True)
class PortViolation(OfPort):
    """The job wrote something that is no block, or a raw record that breaks a limit."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class PortClosed(OfPort):
    """The job's end of a port will send nothing more.

    What came last counts only if the program ends well: `rest` are records that the end of file
    made whole, `unfinished` says what it left half done at `offset`.
    """

    offset: int = 0
    unfinished: str = ""
    rest: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class PortWritten(OfPort):
    """What `WritePort` asked for is in the hands of the system, so the job can take it."""


@dataclass(frozen=True, slots=True)
class PortShut(OfPort):
    """The job takes nothing more from a port."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """The program has ended, with status 0 or not."""

    succeeded: bool


@dataclass(frozen=True, slots=True)
class LanesChanged:
    """What the lanes of ports are now, and where their peers stand.

    All lanes of each port that is named: some may be new, some were cut.
    """

    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Detached:
    """The attempt is over."""


@dataclass(frozen=True, slots=True)
class RecorderJoined:
    """A recorder wants a copy of all that passes on an output, beginning with what is kept."""

    plan: Lane


@dataclass(frozen=True, slots=True)
class RecorderLeft:
    """A recorder is gone for good, or has everything."""

    lane: str


@dataclass(frozen=True, slots=True)
class _OfCall:
    """Something about a call by which a consumer reads an output lane."""

    call: int
    lane: str


@dataclass(frozen=True, slots=True)
class CallOpened(_OfCall):
    """A consumer dialled a lane of ours; `call` is the shell's number for it.

    `parts` says that a large block need not be in memory as a whole to be sent on it, `bulk` that
    large ones may come on it. Below `had` lies what a consumer was given that wants nothing more.
    """

    consumer_epoch: int
    producer_epoch: int
    want: int
    credit_bytes: int
    parts: bool = False
    bulk: bool = True
    released: int = 0
    had: int = 0


@dataclass(frozen=True, slots=True)
class CallAcknowledged(_OfCall):
    """A consumer reported how far it is; the bytes count since the call was opened."""

    consumed: int
    released: int
    consumed_bytes: int


@dataclass(frozen=True, slots=True)
class CallDone(_OfCall):
    """A consumer says that nothing needs to be kept for it any more; only a client may say so."""


@dataclass(frozen=True, slots=True)
class CallReady(_OfCall):
    """A block that was sent has left, and the next one may come."""


@dataclass(frozen=True, slots=True)
class CallClosed(_OfCall):
    """A consumer's call is over."""


@dataclass(frozen=True, slots=True)
class DialAccepted(OfDial):
    """The producer opened a lane that we dialled; `dial` is the machine's number for it."""

    producer_epoch: int
    first: int


@dataclass(frozen=True, slots=True)
class DialBlock(OfDial):
    """A block came on a lane, checked against its checksum."""

    block: Block


@dataclass(frozen=True, slots=True)
class DialEnded(OfDial):
    """The lane has ended after `total` records; see `SendEnd`."""

    total: int
    cut: bool = False
    continued: bool = False
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class DialBroken(OfDial):
    """A lane that we dialled is refused or broken."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class SpoolWritten:
    """A body lies in the spool."""

    place: SpoolPlace


@dataclass(frozen=True, slots=True)
class SpoolLoaded:
    """A body came back from the spool."""

    lane: str
    call: int
    body: bytes


@dataclass(frozen=True, slots=True)
class ShellFailed:
    """The shell could not do what it was asked to."""

    reason: str


PortEvent = PortBlock | PortViolation | PortClosed | PortWritten | PortShut
CallEvent = CallOpened | CallAcknowledged | CallDone | CallReady | CallClosed | SpoolLoaded
DialEvent = DialAccepted | DialBlock | DialEnded | DialBroken
Event = (
    Attached
    | Concluded
    | LanesChanged
    | Detached
    | SpoolWritten
    | ShellFailed
    | RecorderJoined
    | RecorderLeft
    | PortEvent
    | CallEvent
    | DialEvent
)
