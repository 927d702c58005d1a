"""The job's end of one port: a socket whose reads and writes never wait here."""

import os
import select
import socket
from array import array
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable

from shoal.job.block import Buffer
from shoal.job.error import OutputClosedError, PortError

_PIECES_AT_ONCE = 64
# Numbers, because flags of the socket module are slow to combine.
_READ_FLAGS = int(socket.MSG_DONTWAIT) | int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_WRITE_FLAGS = int(socket.MSG_DONTWAIT) | int(socket.MSG_NOSIGNAL)
_BESIDE_BYTES = socket.CMSG_SPACE(16 * array("i").itemsize)
WOULD_BLOCK = -1


class PortSocket:
    """Reads into given memory, and writes what fits of a backlog; only `wait` waits."""

    def __init__(self, title: str, fd: int) -> None:
        """Take the descriptor over.

        Args:
            title: Names the port in errors (`input port 'frames'`).
            fd: Number of the descriptor; 0 and 1 are moved away, so that `input()` finds the end
                of file, and `print()` goes to stderr and not among the records.

        Raises:
            PortError: The descriptor is no socket.
        """
        self.title = title
        try:
            if fd in (0, 1):
                fd = _move_away(fd)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)
            self._socket.set_inheritable(False)
            self._socket.getpeername()
        except OSError as error:
            raise PortError(
                "{}: descriptor {} is no connected socket ({}); was it closed, or passed on by "
                "another program?".format(title, fd, error)
            ) from error
        self.descriptors: Deque[int] = deque()
        """What came beside the bytes, while `takes_descriptors`; its taker closes a descriptor."""
        self.takes_descriptors = False
        self.takes_ends = False
        """Whether the other end closes the port when nothing that goes out there is wanted."""
        self._backlog: Deque[memoryview] = deque()
        self._loop: Any = None
        self._ready: Dict[bool, Any] = {}

    def fileno(self) -> int:
        """Number of the descriptor."""
        return self._socket.fileno()

    @property
    def backlog_bytes(self) -> int:
        """Bytes that are to be written."""
        return sum(len(piece) for piece in self._backlog)

    @property
    def written(self) -> bool:
        """Whether nothing is left to be written."""
        return not self._backlog

    def read(self, space: memoryview) -> int:
        """Bytes that came into `space`; 0 at the end of the stream, `WOULD_BLOCK` if there are none.

        Raises:
            PortError: The other end went away in the middle.
        """
        try:
            if self.takes_descriptors:
                return self._read_with_descriptors(space)
            return self._socket.recv_into(space, 0, _READ_FLAGS)
        except (BlockingIOError, InterruptedError):
            return WOULD_BLOCK
        except OSError as error:
            raise self._gone(error) from error

    def _read_with_descriptors(self, space: memoryview) -> int:
        count, beside, _, _ = self._socket.recvmsg_into([space], _BESIDE_BYTES, _READ_FLAGS)
        for level, kind, data in beside:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self.descriptors.extend(numbers)
        return count

    def queue(self, piece: Buffer) -> None:
        """Put bytes behind the backlog; they are not copied."""
        view = memoryview(piece)
        if view:
            self._backlog.append(view)

    def write(self) -> bool:
        """Write what fits; whether nothing is left.

        Raises:
            PortError: The other end went away.
        """
        backlog = self._backlog
        while backlog:
            try:
                if len(backlog) == 1:
                    count = self._socket.send(backlog[0], _WRITE_FLAGS)
                else:
                    count = self._socket.sendmsg(
                        [backlog[index] for index in range(min(len(backlog), _PIECES_AT_ONCE))],
                        [],
                        _WRITE_FLAGS,
                    )
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                raise self._gone(error) from error
            while backlog and count >= len(backlog[0]):
                count -= len(backlog.popleft())
            if count:
                backlog[0] = backlog[0][count:]
        return True

    def own(self) -> None:
        """Copy what is still to be written, because its memory belongs to the caller."""
        self._backlog = deque(memoryview(bytes(piece)) for piece in self._backlog)

    def when(self, loop: Any, *, writable: bool) -> Any:
        """A future of that event loop, until it can be read or written; all waiting tasks share it."""
        if self._loop is not loop:
            self._loop, self._ready = loop, {}
        future = self._ready.get(writable)
        if future is None or future.done():
            future = self._ready[writable] = loop.create_future()
            watch, forget = (
                (loop.add_writer, loop.remove_writer)
                if writable
                else (loop.add_reader, loop.remove_reader)
            )
            watch(self.fileno(), self._wake, future, forget)
        return future

    def _wake(self, future: Any, forget: Callable[[int], Any]) -> None:
        forget(self.fileno())
        if not future.done():
            future.set_result(None)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()
        while self.descriptors:
            os.close(self.descriptors.popleft())

    def _gone(self, error: OSError) -> PortError:
        if self.takes_ends and isinstance(error, BrokenPipeError):
            return closed(self)
        return PortError(
            "{}: the stream worker at the other end went away ({}); the attempt is over".format(
                self.title, error.strerror or error
            )
        )


def closed(port: PortSocket) -> OutputClosedError:
    """The error that says that nothing reads what goes out there."""
    return OutputClosedError(
        "{}: broken pipe: every job that read it has ended, or the pipeline is being finished; a "
        "program may end well now".format(port.title)
    )


def wait(
    readable: Iterable[PortSocket], writable: Iterable[PortSocket], timeout: float = -1
) -> None:
    """Wait until one of them is ready, without a limit unless `timeout` (seconds) is given.

    A job waits for its neighbours as long as they need; its own limit is `timeout:` of the job, and
    the agent enforces that.
    """
    poll = select.poll()
    masks: Dict[int, int] = {}
    for one in readable:
        masks[one.fileno()] = masks.get(one.fileno(), 0) | select.POLLIN
    for one in writable:
        masks[one.fileno()] = masks.get(one.fileno(), 0) | select.POLLOUT
    for fd, mask in masks.items():
        poll.register(fd, mask)
    poll.poll(None if timeout < 0 else timeout * 1000)


async def wait_in_loop(readable: Iterable[PortSocket], writable: Iterable[PortSocket]) -> None:
    """`wait` for coroutines: other tasks go on, and may wait for the same sockets."""
    import asyncio  # noqa: PLC0415 - slow to import, and most jobs do without

    loop = asyncio.get_event_loop()
    ready = [one.when(loop, writable=False) for one in readable]
    ready += [one.when(loop, writable=True) for one in writable]
    await asyncio.wait(ready, return_when=asyncio.FIRST_COMPLETED)


def _move_away(fd: int) -> int:
    moved = os.dup(fd)
    if fd == 0:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    else:
        os.dup2(2, 1)
    return moved
