"""The last metre of a port that is a FIFO: a process that copies between its socket and its path.

Started as a script, once a port, by the keeper of a board and by `shoal.job.testing`:
`fifo_relay.py in PATH PORT FIFO RECORD_BYTES`, or `out` for an output. PORT and FIFO are descriptors that it inherits,
as is CONTROL; the FIFO was opened for reading and writing before the program started, so that no opening
of the program ever waits, and what the FIFO holds stays there when the program closes it and opens it
again.

The byte `e` on CONTROL says that the program has ended, so that nothing more is coming: an output passes
on what the FIFO holds and ends, an input ends. The end of CONTROL says that the starter of the relay is
gone, or wants no more of it. Exit status 0 means that nothing was left behind.

RECORD_BYTES is the size of each record of an input, or 0 where they have none. Programs read records
with one `read` of that size, and a read from a pipe returns what is there. So nothing but whole records
is ever there to be seen, as long as a record fits into the pipe (pipe(7)): up to PIPE_BUF, 4096 bytes, a
write is atomic; and a larger record is written when the pipe has room for all of it, since a write takes
all the room that there is before a reader gets its turn. Example: records of 1,000 bytes go four at a
time. A record that no pipe can hold comes in pieces, as it does through any FIFO.
"""

import array
import contextlib
import errno
import fcntl
import os
import select
import sys
import termios

CONTROL = 0

ENDED = b"e"
"""What CONTROL carries once the program has ended."""
ABANDONED = 3
"""Exit status: records may have been left behind."""

_READ_BYTES = 64 * 1024
_FIFO_BYTES = 256 * 1024
_SHORTEST_MS = 1
_LONGEST_MS = 50
_ROOM_MS = 4  # a pipe says when it has some room, and not when it has enough
_PAGE_BYTES = 4096  # also what a write to a pipe may have to be atomic (PIPE_BUF)
_SET_PIPE_SIZE, _GET_PIPE_SIZE = 1031, 1032  # fcntl knows their names since Python 3.10


class _OrphanedError(Exception):
    """The relay is wanted no more."""


def main(direction: str, path: str, port: int, fifo: int, record_bytes: int = 0) -> int:
    """Copy until the port or the program has ended; return the exit status."""
    os.set_blocking(port, False)
    with contextlib.suppress(OSError):
        # Fewer turns for large records; the kernel says how much an unprivileged process may have.
        fcntl.fcntl(fifo, _SET_PIPE_SIZE, _FIFO_BYTES)
    with contextlib.suppress(OSError):
        if record_bytes > _FIFO_BYTES:
            fcntl.fcntl(fifo, _SET_PIPE_SIZE, record_bytes)
    try:
        if direction == "in":
            return _input(port, fifo, path, _Whole(fifo, record_bytes))
        return _output(port, fifo, path)
    except _OrphanedError:
        return ABANDONED


class _Whole:
    """How much of what waits may be written to a FIFO, so that only whole records are in it."""

    def __init__(self, fifo: int, record_bytes: int) -> None:
        self._fifo = fifo
        self._pages = fcntl.fcntl(fifo, _GET_PIPE_SIZE) // _PAGE_BYTES
        self._record_pages = -(-record_bytes // _PAGE_BYTES)
        # One that no pipe can hold comes in pieces anyway.
        self._record_bytes = record_bytes if self._record_pages <= self._pages else 0

    def part(self, held: memoryview) -> memoryview:
        """What may be handed to the pipe in one write; nothing while it has no room for it.

        Records of more than a page begin on a page of their own, or closer together.
        """
        size = self._record_bytes
        if not size or len(held) < size:
            return held if not size else held[:0]
        if size <= _PAGE_BYTES:
            return held[: min(len(held), _PAGE_BYTES) // size * size]
        inside = -(-_waiting(self._fifo) // size)
        return held[:size] if (inside + 1) * self._record_pages <= self._pages else held[:0]

    def lacks(self, held: memoryview) -> bool:
        """Whether the rest of a record has to come first."""
        return len(held) < max(self._record_bytes, 1)


def _output(port: int, fifo: int, path: str) -> int:
    """Copy what the program writes, until it has ended and the FIFO holds nothing of it."""
    held = memoryview(b"")
    left = -1
    while left != 0 or held:
        if _ready(
            port if held else fifo, select.POLLOUT if held else select.POLLIN, listening=left < 0
        ):
            # Everything that an ended program has written is in the FIFO by now.
            left = _waiting(fifo)
        elif held:
            try:
                held = held[os.write(port, held) :]
            except BlockingIOError:
                continue
            except OSError:  # the port is closed: the program finds out by its next write
                _let_go(fifo, path, os.O_RDONLY)
                return 0
        else:
            held = memoryview(_read(fifo, _READ_BYTES if left < 0 else min(left, _READ_BYTES)))
            left = max(left - len(held), 0) if left > 0 else left
    return 0


def _input(port: int, fifo: int, path: str, whole: _Whole) -> int:
    """Copy what comes for the program, then show it the end, however often it opens the FIFO."""
    held = memoryview(b"")
    begun = 0  # bytes that are left of a write that was cut short
    while True:
        if begun or not whole.lacks(held):
            part = held[:begun] if begun else whole.part(held)
            if not part:
                if _told(_ROOM_MS):
                    return 0
                continue
            try:
                written = os.write(fifo, part)
            except BlockingIOError:
                written = 0
            if written:
                held = held[written:]
                begun = len(part) - written
            if written < len(part) and _ready(fifo, select.POLLOUT, listening=True):
                return 0
            continue
        if _ready(port, select.POLLIN, listening=True):
            return 0
        try:
            data = os.read(port, _READ_BYTES)
        except BlockingIOError:
            continue
        except OSError:
            return ABANDONED
        if not data:
            break
        held = memoryview(bytes(held) + data) if held else memoryview(data)
    # A FIFO that no process holds forgets what is in it: keep it until a reader has taken everything.
    pause = _SHORTEST_MS
    while _waiting(fifo):
        if _told(pause):
            return 0
        pause = min(2 * pause, _LONGEST_MS)
    _let_go(fifo, path, os.O_WRONLY)
    return 0


def _let_go(fifo: int, path: str, side: int) -> None:
    """Close the FIFO, and see until the program has ended that it does not wait to open it again."""
    os.close(fifo)
    while not _told(_LONGEST_MS):
        # A program that opens it now would wait for our side for ever.
        try:
            # A link that the program put there would have us open what it may not.
            os.close(os.open(path, side | os.O_NONBLOCK | os.O_NOFOLLOW))
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT, errno.ELOOP):
                raise


def _ready(descriptor: int, mask: int, *, listening: bool) -> bool:
    """Wait until the descriptor is ready, or the program has ended; return whether it has.

    After that, `listening` is false, and only the end of CONTROL counts.
    """
    poll = select.poll()
    poll.register(descriptor, mask)
    poll.register(CONTROL, select.POLLIN if listening else 0)
    ready = [one for one, _ in poll.poll()]
    # What the program has written before it ended comes first either way: it is in the FIFO.
    if CONTROL in ready:
        return _heard()
    return False


def _told(milliseconds: int) -> bool:
    """Wait that long, or until the program has ended; return whether it has."""
    poll = select.poll()
    poll.register(CONTROL, select.POLLIN)
    return bool(poll.poll(milliseconds)) and _heard()


def _heard() -> bool:
    if os.read(CONTROL, 1) != ENDED:
        raise _OrphanedError
    return True


def _read(descriptor: int, size: int) -> bytes:
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return b""


def _waiting(descriptor: int) -> int:
    """How many bytes a pipe holds; see pipe(7), FIONREAD."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
