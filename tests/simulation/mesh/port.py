"""A port of a job in memory: the end that the program has, the end that the stream worker has.

Between them lie two bounded queues of blocks, as the buffers of a socket pair, which belong to no
process: what is in them outlives a stream worker, since the keeper has a copy of its end. As with
the socket, a program that writes waits for room and gets BrokenPipeError once nobody reads; reading
is turned on and off by the worker, and may go on to the end of what one look found; a write is
confirmed when it lies in the queue; and an end of file leaves the other direction open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from services.streams.block import HEADER, HEADER_BYTES, Block, Body, Kind
from services.streams.events import PortBlock, PortClosed, PortShut, PortWritten
from services.streams.worker.lane_registry import Post
from services.streams.worker.port_link import PortName, PortUse
from tests.simulation.mesh.loop import VirtualLoop

ROOM_BYTES = 4096
"""What lies in one direction before its writer waits; one block may be larger."""


@dataclass(eq=False)
class _Way:
    """One direction."""

    blocks: deque[Block] = field(default_factory=deque[Block])
    size: int = 0
    ended: bool = False
    """Nothing comes after the blocks."""
    cut: bool = False
    """The last block is half written."""
    refused: bool = False
    """Nobody reads any more."""

    @property
    def full(self) -> bool:
        return self.size >= ROOM_BYTES

    def put(self, block: Block) -> None:
        self.blocks.append(block)
        self.size += HEADER_BYTES + len(block.body)

    def take(self) -> Block:
        block = self.blocks.popleft()
        self.size -= HEADER_BYTES + len(block.body)
        return block


class ProgramEnd:
    """The program's end; one task of the program uses it.

    Args:
        loop: the loop of the world.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.up = _Way()
        self.down = _Way()
        self.closed = False
        self.link: MemoryPort | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def read(self) -> Block | None:
        """Return the next block; None at the end of file."""
        while not self.down.blocks:
            if self.down.ended:
                return None
            await self._wait()
        block = self.down.take()
        if self.link is not None:
            self.link.drained()
        return block

    async def write(self, block: Block) -> None:
        """Write a block when there is room.

        Raises:
            BrokenPipeError: nobody takes anything more.
        """
        while self.up.full and not self.up.refused:
            await self._wait()
        if self.up.refused:
            raise BrokenPipeError("nobody reads this port any more")
        self.up.put(block)
        if self.link is not None:
            self.link.readable()

    def close(self, *, cut: bool = False) -> None:
        """Close the end, as a program that ends does; `cut` leaves half a block behind."""
        if self.closed:
            return
        self.closed = True
        self.up.ended = True
        self.up.cut = cut
        self.down.refused = True
        if self.link is not None:
            self.link.readable()

    def wake(self) -> None:
        """Let the program look again."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        await self._waiting


class WorkerEnd:
    """The stream worker's end, of which the keeper has a copy; see `PortEnd` of the worker."""

    def __init__(self, loop: VirtualLoop, program: ProgramEnd) -> None:
        self._loop = loop
        self._program = program

    async def connect(self, use: PortUse, post: Post) -> MemoryPort:
        """Take the end over in the running process; an earlier worker's hold on it is void."""
        link = MemoryPort(self._loop, self._program, use, post, copy_context())
        self._program.link = link
        return link

    def close(self) -> None:
        """Let go of it; the keeper has its copy."""


class MemoryPort:
    """A connected port, see `PortLink` of the worker.

    Args:
        loop: the loop of the world.
        program: the other end.
        use: which port it is.
        post: takes events.
        context: of the process that has connected it; its events happen there.
    """

    def __init__(
        self, loop: VirtualLoop, program: ProgramEnd, use: PortUse, post: Post, context: Context
    ) -> None:
        self._loop = loop
        self._program = program
        self._port, self._output = use.name, use.output
        self._post = post
        self._context = context
        self._offset = 0
        self._wanted = False
        self._refusing = False
        self._looking = False
        self._writing = False
        self._ended = False
        self._lost = False
        self._waiting: deque[Block] = deque()

    # ---- what the worker does -------------------------------------------------------------------

    def read(self) -> None:
        """See `PortLink`."""
        self._wanted = True
        self.readable()

    def pause(self) -> None:
        """See `PortLink`."""
        self._wanted = False

    def write(self, parts: Sequence[Body]) -> None:
        """See `PortLink`."""
        if self._lost or self._refusing:
            self._post(PortShut(self._port, self._output))
            return
        if self._program.closed:
            # The system says so (EPIPE) after it has taken the bytes.
            self._post(PortWritten(self._port, self._output))
            self._loop.call_soon(self._lose, context=self._context)
            return
        self._waiting.extend(blocks_of(parts))
        self._writing = True
        self._pour()

    def shut(self) -> None:
        """See `PortLink`."""
        if not self._lost:
            self._program.down.ended = True
            self._program.wake()

    def take_nothing_more(self) -> None:
        """See `PortLink`."""
        self._refusing = True
        if self._lost:
            return
        self._program.down.ended = True
        self._program.up.refused = True
        self._program.wake()

    def let_go(self) -> None:
        """See `PortLink`; nothing is lent here."""

    def close(self) -> None:
        """See `PortLink`."""
        self._lost = self._ended = True
        if self._program.link is self:
            self._program.link = None

    # ---- what happens at the other end ----------------------------------------------------------

    def readable(self) -> None:
        """There may be something to read."""
        if not self._looking and self._wanted and not self._ended:
            self._looking = True
            self._loop.call_soon(self._look, context=self._context)

    def drained(self) -> None:
        """There may be room to write."""
        if self._writing:
            self._loop.call_soon(self._pour, context=self._context)

    def _look(self) -> None:
        self._looking = False
        if self._wanted and not self._ended:
            self._take_all()

    def _take_all(self) -> None:
        up = self._program.up
        for _ in range(len(up.blocks)):
            block = up.take()
            self._offset += HEADER_BYTES + len(block.body)
            if not self._refusing and not self._lost:
                self._post(PortBlock(self._port, self._output, block))
        self._program.wake()
        if up.ended:
            self._end()

    def _pour(self) -> None:
        down = self._program.down
        poured = False
        while self._waiting and not down.full:
            down.put(self._waiting.popleft())
            poured = True
        if poured:
            self._program.wake()
        if self._writing and not self._waiting:
            self._writing = False
            self._post(PortWritten(self._port, self._output))

    def _lose(self) -> None:
        if self._lost:
            return
        self._take_all()
        self._lost = True
        self._end()
        self._post(PortShut(self._port, self._output))

    def _end(self) -> None:
        if self._ended or self._refusing:
            return
        self._ended = True
        cut = "the job ended within a block" if self._program.up.cut else ""
        self._post(PortClosed(self._port, self._output, self._offset, cut))


def port_pairs(
    loop: VirtualLoop, names: Sequence[PortName]
) -> tuple[Mapping[PortName, ProgramEnd], Mapping[PortName, WorkerEnd]]:
    """Return the ends of all ports of a program, by name."""
    programs = {name: ProgramEnd(loop) for name in names}
    return programs, {name: WorkerEnd(loop, program) for name, program in programs.items()}


def blocks_of(parts: Sequence[Body]) -> list[Block]:
    """Return the whole blocks that lie in what a worker writes to a job."""
    data = b"".join(parts)
    blocks: list[Block] = []
    at = 0
    while at < len(data):
        kind, _, _, count, first, length, _ = HEADER.unpack_from(data, at)
        at += HEADER_BYTES
        blocks.append(Block(Kind(kind), first, count, data[at : at + length]))
        at += length
    return blocks
