"""The last metre of a port that is a FIFO: a process that copies between its socket and its path.

Started as a script, once a port, by the keeper of a board and by `shoal.job.testing`:
`fifo_relay.py in PATH PORT FIFO`, or `out` for an output. PORT and FIFO are descriptors that it inherits,
as is CONTROL; the FIFO was opened for reading and writing before the program started, so that no opening
of the program ever waits, and what the FIFO holds stays there when the program closes it and opens it
again.

The byte `e` on CONTROL says that the program has ended, so that nothing more is coming: an output passes
on what the FIFO holds and ends, an input ends. The end of CONTROL says that whoever started the relay is
gone, or wants no more of it. Exit status 0 means that nothing was left behind.
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


class _OrphanedError(Exception):
    """Nobody wants the relay any more."""


def main(direction: str, path: str, port: int, fifo: int) -> int:
    """Copy until the port or the program has ended; return the exit status."""
    os.set_blocking(port, False)
    with contextlib.suppress(OSError):
        # Fewer turns for large records; the kernel says how much an unprivileged process may have.
        fcntl.fcntl(fifo, 1031, _FIFO_BYTES)  # F_SETPIPE_SZ, which Python knows since 3.10
    try:
        return _input(port, fifo, path) if direction == "in" else _output(port, fifo)
    except _OrphanedError:
        return ABANDONED


def _output(port: int, fifo: int) -> int:
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
                return 0
        else:
            held = memoryview(_read(fifo, _READ_BYTES if left < 0 else min(left, _READ_BYTES)))
            left = max(left - len(held), 0) if left > 0 else left
    return 0


def _input(port: int, fifo: int, path: str) -> int:
    """Copy what comes for the program, then show it the end, however often it opens the FIFO."""
    held = memoryview(b"")
    while True:
        if _ready(
            fifo if held else port, select.POLLOUT if held else select.POLLIN, listening=True
        ):
            return 0
        if held:
            try:
                held = held[os.write(fifo, held) :]
            except BlockingIOError:
                continue
        else:
            try:
                data = os.read(port, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return ABANDONED
            if not data:
                break
            held = memoryview(data)
    # A FIFO that nobody holds forgets what is in it: keep it until a reader has taken everything.
    pause = _SHORTEST_MS
    while _waiting(fifo):
        if _told(pause):
            return 0
        pause = min(2 * pause, _LONGEST_MS)
    os.close(fifo)
    while not _told(_LONGEST_MS):
        # One who opens it now would wait for a writer for ever.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
    return 0


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
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
