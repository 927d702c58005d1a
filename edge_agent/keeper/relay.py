"""The relays of ports that are FIFOs: one small process a port, between its socket and its path.

The copying itself is `shoal.job.fifo_relay`, which `shoal.job.testing` uses, too.
"""

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import shoal
from edge_agent.keeper.strays import KEEPER_VARIABLE

_SCRIPT: Final = Path(shoal.__file__).parent / "job" / "fifo_relay.py"
_FIRST_HIGH_DESCRIPTOR: Final = 512  # above the descriptors that a relay is given
_PORT: Final = 3
_FIFO: Final = 4
# As in the script, which the keeper does not import: all of the SDK would come with it.
_CONTROL: Final = 0
_ENDED: Final = b"e"


class RelayError(Exception):
    """The FIFO cannot be made, or no process can be had."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay: which port, its process, our end of its control, and the FIFO's inode."""

    port: str
    direction: str
    path: str
    pid: int
    control: int
    inode: int

    def program_ended(self) -> None:
        """Tell it that nothing more comes from the program: it passes on what is left, and ends."""
        # One that has ended by itself does not listen.
        with contextlib.suppress(BrokenPipeError):
            os.write(self.control, _ENDED)

    def problem(self, exit_code: int | None) -> str:
        """Say in a sentence why records may be missing; empty when all went well.

        Args:
            exit_code: its exit status; None when a signal ended it.
        """
        if exit_code != 0:
            how = "a signal" if exit_code is None else f"status {exit_code}"
            return (
                f"the relay of the port {self.port!r} was ended by {how} before everything had "
                "passed, so records may be missing"
            )
        if self.direction == "out" and self._replaced():
            return (
                f"the program put a file of its own in the place of the FIFO of the port "
                f"{self.port!r}, so its records went nowhere: let it write to the path as it is, or "
                "give the port `as: fd` or `as: stdout`"
            )
        return ""

    def _replaced(self) -> bool:
        try:
            found = Path(self.path).lstat()
        except OSError:
            return False  # what was written before it was removed has passed
        return found.st_ino != self.inode or not stat.S_ISFIFO(found.st_mode)


def start_relay(
    name: str,
    direction: str,
    path: str,
    port: int,
    env: Mapping[str, str],
    *,
    record_bytes: int = 0,
    owner: tuple[int, int] = (-1, -1),
) -> Relay:
    """Make the FIFO of a port and start its relay.

    Args:
        name: name of the port.
        direction: `in` or `out`, as the program sees it.
        path: absolute path of the FIFO; one that an earlier start left is replaced.
        port: the program's end of the port's socket, which the relay gets a copy of.
        env: variables of the program; those that name its keeper are the relay's, too.
        record_bytes: size of each record; 0 where they have none of their own.
        owner: user and group that the FIFO is given to; -1 for this process's.

    Raises:
        RelayError: the FIFO cannot be made, or no process can be had.
    """
    with contextlib.ExitStack() as undo:
        try:
            fifo = _make(path, owner)
            undo.callback(os.close, fifo)
            # Closed on exec: only this process holds the other end, and its death is heard at once.
            listening, control = os.pipe()
            undo.callback(os.close, listening)
            keeping = contextlib.ExitStack()
            undo.enter_context(keeping)
            keeping.callback(os.close, control)
            given = ((listening, _CONTROL), (port, _PORT), (fifo, _FIFO))
            actions: list[tuple[int, int, int]] = []
            for descriptor, number in given:
                high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH_DESCRIPTOR)
                undo.callback(os.close, high)
                actions.append((os.POSIX_SPAWN_DUP2, high, number))
            pid = os.posix_spawn(
                sys.executable,
                [
                    *(sys.executable, "-I", "-S", str(_SCRIPT), direction, path),
                    *(str(_PORT), str(_FIFO), str(record_bytes)),
                ],
                {KEEPER_VARIABLE: env.get(KEEPER_VARIABLE, "")},
                file_actions=actions,
                setsigmask=(),
            )
            inode = os.fstat(fifo).st_ino
        except OSError as error:
            raise RelayError(f"{error.strerror} ({error.filename or path})") from error
        keeping.pop_all()
    return Relay(name, direction, path, pid, control, inode)


def _make(path: str, owner: tuple[int, int]) -> int:
    """Make the FIFO and hold both its ends, so that no opening of it waits; see fifo(7), "Linux"."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(place.lstat().st_mode):
            place.unlink()
    os.mkfifo(place, 0o600)
    fifo = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
        os.close(fifo)
        raise OSError(0, "something else was put in its place", path)
    os.fchown(fifo, *owner)
    return fifo
