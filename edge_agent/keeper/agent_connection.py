"""One agent, or stream worker, that is connected to the keeper: its packets in, and what it is told out.

Rule. What is told waits until `flush`, so that a keeper that had much to do in one turn tells it in few packets: to an
agent that packs (protocol 3) several messages go as one packet, a list. A message with descriptors goes alone, since
they belong to its packet. The order is that in which it was told.

Invariant. No call waits: what the socket does not take stays, and `flush` says so.
"""

import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edge_agent.keeper.request import MAX_PACKET_BYTES, MAX_REQUEST_BYTES

_PEER: Final = struct.Struct("=3i")  # pid, uid, gid; unix(7), SO_PEERCRED
_ONE_DESCRIPTOR: Final = socket.CMSG_LEN(struct.calcsize("i"))
_CUT: Final = int(socket.MSG_TRUNC)
_INT: Final = struct.Struct("i")
# Separators and brackets of a list.
_ROOM: Final = MAX_PACKET_BYTES - 2
_BUFFER: Final = bytearray(MAX_PACKET_BYTES)
_INTO: Final = (_BUFFER,)
"""Into which one packet after the other is read: a new one each time would be mapped and unmapped by the kernel."""


class LongPacketError(Exception):
    """A packet is longer than any may be, and what was left of it is gone."""


@dataclass(slots=True, eq=False)
class AgentConnection:
    """A connected socket, which does not block.

    `watching` says that it hears of every end, `packs` that it takes several messages as one packet.
    """

    socket: socket.socket
    watching: bool = False
    packs: bool = False
    _unsent: deque[tuple[bytes, Sequence[int]]] = field(
        default_factory=deque[tuple[bytes, Sequence[int]]]
    )

    @property
    def waiting(self) -> int:
        """How many messages wait for `flush`."""
        return len(self._unsent)

    def user(self) -> int:
        """The user whose process has connected, as the kernel noted it then."""
        found = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(found)[1])

    def receive(self) -> bytes:
        """The next packet, or the request in the file that it brings; empty once the other end is closed.

        Raises:
            BlockingIOError: there is none.
            LongPacketError: it is longer than MAX_PACKET_BYTES.
            OSError: the connection is broken.
        """
        size, control, flags, _ = self.socket.recvmsg_into(
            _INTO, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC
        )
        if control and (files := _descriptors(control)):
            return _read_file(files)
        if flags & _CUT:
            raise LongPacketError
        return bytes(memoryview(_BUFFER)[:size])

    def tell(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Have a message sent by the next `flush`."""
        self._unsent.append((message, descriptors))

    def flush(self) -> bool:
        """Send what waits; returns whether nothing waits any more.

        Raises:
            OSError: the connection is broken.
        """
        unsent = self._unsent
        while unsent:
            message, descriptors = unsent[0]
            count = 1
            try:
                if descriptors:
                    socket.send_fds(self.socket, [message], list(descriptors))
                else:
                    if self.packs and len(unsent) > 1:
                        count, message = self._packed()
                    self.socket.send(message)
            except BlockingIOError:
                return False
            for _ in range(count):
                unsent.popleft()
        return True

    def _packed(self) -> tuple[int, bytes]:
        """As many of the next messages as go into one packet, and that packet."""
        size, packed = 0, list[bytes]()
        for message, descriptors in self._unsent:
            size += len(message) + 1
            if descriptors or size > _ROOM:
                break
            packed.append(message)
        if len(packed) <= 1:
            return 1, self._unsent[0][0]
        return len(packed), b"[" + b",".join(packed) + b"]"


def _descriptors(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % _INT.size
            found += [number for (number,) in _INT.iter_unpack(data[:whole])]
    return found


def _read_file(descriptors: Sequence[int]) -> bytes:
    """The request in a file; what is none, or too long, is not JSON either."""
    try:
        if not stat.S_ISREG(os.fstat(descriptors[0]).st_mode):
            return b"no file"
        return os.pread(descriptors[0], MAX_REQUEST_BYTES, 0) or b"an empty file"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
