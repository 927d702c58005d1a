"""What the streams of an attempt ask their shell to do."""

from dataclasses import dataclass

from services.streams.block import Block, Body, Kind, data_header
from services.streams.block_index import RetainedBlock, SpoolPlace
from services.streams.digest import Digest
from shoal.model import ReasonCode


@dataclass(frozen=True, slots=True)
class OfPort:
    """Something at one port of the attempt: to do, or that happened."""

    port: str
    output: bool


@dataclass(frozen=True, slots=True)
class ReadPort(OfPort):
    """Begin, or go on, reading what the job writes on a port."""


@dataclass(frozen=True, slots=True)
class PausePort(OfPort):
    """Leave what the job writes in its socket, so that it blocks."""


@dataclass(frozen=True, slots=True)
class WritePort(OfPort):
    """Write to the job; answer with PortWritten. There is one at a time on a port."""

    parts: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class ShutPort(OfPort):
    """Show the job the end of file on a port."""


@dataclass(frozen=True, slots=True)
class ClosePort:
    """Take nothing more of an output: the job sees the end of file there, and EPIPE when it writes."""

    port: str


@dataclass(frozen=True, slots=True)
class _OfCall:
    """Something to do about a call by which a consumer reads an output lane."""

    call: int


@dataclass(frozen=True, slots=True)
class AcceptCall(_OfCall):
    """Open a lane to its consumer."""

    producer_epoch: int
    first: int


@dataclass(frozen=True, slots=True)
class SendBlock(_OfCall):
    """Send a block; answer with CallReady. There is one at a time on a call."""

    lane: str
    retained: RetainedBlock
    body: Body

    @property
    def block(self) -> Block:
        """The block, with its checksum if that was reckoned before."""
        return Block(
            Kind.DATA, self.retained.first, self.retained.count, self.body, self.retained.crc
        )

    @property
    def header(self) -> bytes:
        """The block's header with its checksum, which is reckoned when it is first asked for."""
        crc = self.retained.checksum(self.body)
        return data_header(self.retained.first, self.retained.count, self.retained.size, crc)


@dataclass(frozen=True, slots=True)
class SendSpooled(_OfCall):
    """Send a large block whose body lies in the spool, part by part; answer with CallReady."""

    lane: str
    retained: RetainedBlock
    place: SpoolPlace
    crc: int

    @property
    def header(self) -> bytes:
        """The block's header with its checksum."""
        return data_header(self.retained.first, self.retained.count, self.retained.size, self.crc)


@dataclass(frozen=True, slots=True)
class SendEnd(_OfCall):
    """Say that a lane has ended after `total` records.

    `cut` says that the consumer's generation ends here, and `continued` that another generation of
    the producer goes on. `digest` is that of the producer's records, where it is known.
    """

    total: int
    cut: bool = False
    continued: bool = False
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class RefuseCall(_OfCall):
    """Refuse a lane and end the call."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CloseCall(_OfCall):
    """End a call whose lane another call has taken over, or whose attempt is over."""


@dataclass(frozen=True, slots=True)
class OfDial:
    """Something to do about a dial of an input lane."""

    lane: str
    dial: int


@dataclass(frozen=True, slots=True)
class DialLane(OfDial):
    """Dial the producer of a lane and show the ticket; with `bulk` on the channel for large records.

    Below `had` lies what the job was given, if it wants nothing more.
    """

    address: str
    consumer_epoch: int
    producer_epoch: int
    want: int
    credit_bytes: int
    bulk: bool = False
    released: int = 0
    had: int = 0
    ticket: bytes = b""


@dataclass(frozen=True, slots=True)
class HangUpLane(OfDial):
    """Give up a call of ours; nothing more of it is wanted."""


@dataclass(frozen=True, slots=True)
class Acknowledge(OfDial):
    """Report to a producer how far we are; a newer report replaces one that has not left yet."""

    consumed: int
    released: int
    consumed_bytes: int


@dataclass(frozen=True, slots=True)
class WriteSpool:
    """Write a body to the spool; answer with SpoolWritten. The spool is worked on in order."""

    place: SpoolPlace
    body: Body


@dataclass(frozen=True, slots=True)
class ReadSpool:
    """Read a body from the spool; answer with SpoolLoaded."""

    lane: str
    call: int
    place: SpoolPlace


@dataclass(frozen=True, slots=True)
class DropSegment:
    """Remove a segment of the spool."""

    segment: int


@dataclass(frozen=True, slots=True)
class ReportDrained:
    """No consumer needs anything of the attempt any more."""


@dataclass(frozen=True, slots=True)
class ReportFailed:
    """The attempt cannot go on."""

    code: ReasonCode
    message: str


PortEffect = ReadPort | PausePort | WritePort | ShutPort | ClosePort
CallEffect = AcceptCall | SendBlock | SendSpooled | SendEnd | RefuseCall | CloseCall
DialEffect = DialLane | HangUpLane | Acknowledge
SpoolEffect = WriteSpool | ReadSpool | DropSegment
Effect = PortEffect | CallEffect | DialEffect | SpoolEffect | ReportDrained | ReportFailed
