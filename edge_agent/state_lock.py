"""The lock of a state folder: one agent at a time."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.runtime.process import StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE, prepare_state_folder

LOCK_NAME: Final = "agent.lock"
"""File in the state folder that a running agent holds locked, with its process id."""

_SOCKET_PATH_MAX: Final = 107


@contextlib.contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold a state folder: one agent at a time.

    Raises:
        StartRefusedError: another agent has it, or it cannot be used.
    """
    socket_path = str((state / "keeper.sock").absolute())
    if len(os.fsencode(socket_path)) > _SOCKET_PATH_MAX:
        raise StartRefusedError(
            f"{socket_path} is too long for a Unix socket ({_SOCKET_PATH_MAX} bytes): "
            "choose a shorter --state"
        )
    # Jobs of an earlier agent may run, and pass it.
    prepare_state_folder(state, LOCK_NAME, passed=True)
    try:
        lock = _open_lock(state / LOCK_NAME)
    except OSError as error:
        raise StartRefusedError(
            f"the state folder {state} cannot be used: {error.strerror}; make room for a file and "
            "let this user write there, or choose another --state"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartRefusedError(
                f"another agent runs with --state {state}; end it with: "
                f"shoal agent --down --state {state}"
            ) from None
        # In its place, since a full disk has no room for a new one; without it --down has to guess.
        with contextlib.suppress(OSError):
            os.pwrite(lock, f"{os.getpid():<20}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Open the lock; a disk that became read-only still has that of an earlier start."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise error from None
