"""The ports of an attempt as its shell uses them: where they come from, and one that is connected.

The product's are sockets that the keeper hands over (`keeper_ports.KeeperPorts`, `port.SocketPort`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.streams.block import Body
from services.streams.worker.lane_registry import Post
from shoal.spec import PortBinding

PortName = tuple[str, bool]
"""Name of a port, and whether it is an output."""


@dataclass(frozen=True, slots=True)
class PortUse:
    """What an attempt makes of one port.

    `ring_bytes` is the size of the ring of an output, 0 for none; a round takes `round_records`
    records of an input.
    """

    name: str
    output: bool
    binding: PortBinding
    ring_bytes: int = 0
    round_records: int = 1


class PortLink(Protocol):
    """One port of a job; reading begins when it is asked for.

    It posts PortBlock, PortWritten, PortClosed, PortShut and PortViolation.
    """

    def read(self) -> None:
        """Begin to read, or go on."""
        ...

    def pause(self) -> None:
        """Stop reading, so that the job blocks once what lies between is full."""
        ...

    def write(self, parts: Sequence[Body]) -> None:
        """Write, and post PortWritten once nothing of it waits in this process."""
        ...

    def shut(self) -> None:
        """Show the job the end of file."""
        ...

    def take_nothing_more(self) -> None:
        """Let the job know that no consumer wants what it writes: it sees the end of file, then EPIPE."""
        ...

    def let_go(self) -> None:
        """Take back what was lent to the job: its program has ended."""
        ...

    def close(self) -> None:
        """Let go of the port; the keeper has its own copy of its end."""
        ...


class PortEnd(Protocol):
    """The stream worker's end of a port, not used yet."""

    async def connect(self, use: PortUse, post: Post) -> PortLink:
        """Take the end over, and give events to `post` from now on.

        Raises:
            ValueError: The binding has a record size that cannot be.
        """
        ...

    def close(self) -> None:
        """Let go of the end."""
        ...


class PortSource(Protocol):
    """Where the ends of an attempt's ports come from."""

    async def fetch(self, keeper_path: str, keeper_id: str) -> Mapping[PortName, PortEnd]:
        """Return the ends of the ports that a keeper holds for an attempt, within 5 s.

        Raises:
            KeeperAwayError: No keeper answers at the path.
            KeeperRefusedError: The attempt is not known there.
        """
        ...
