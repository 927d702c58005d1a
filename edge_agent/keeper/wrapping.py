"""A program inside of bubblewrap: which process group is its own, whether it ever began, and how it ended.

bubblewrap stays as the leader that the keeper started, waits, and makes its status that of the program: n for exit
status n, 128 + n for signal n. With `--new-session` the program is in a session and group of its own, led by the first
process of its namespace, the only child of bubblewrap. That one ignores SIGTERM, as the first process of a namespace
does (pid_namespaces(7)), so a signal to its group reaches the program alone, which may handle it and say how it ended.
SIGTERM to bubblewrap itself would end all at once.

Whether the program was executed is in what bubblewrap writes to its `--json-status-fd`: an `exit-code` comes only then
(bwrap(1)). So a sandbox that could not be set up is told from a program that ended with status 1.

Limit: a program that exits with status 143 by itself is taken for one that was ended by SIGTERM.
"""

import contextlib
import os
import signal
from typing import Final

from edge_agent.keeper import strays

_SHELL_SIGNAL: Final = 128
_STATUS_BYTES: Final = 4096
_WORDS_BYTES: Final = 4096
_SAID_BY: Final = "bwrap: "


def signal_wrapped(leader: int, number: int) -> None:
    """Send a signal to the program of a bubblewrap, and SIGKILL to both.

    Raises:
        OSError: the kernel refuses it, or nothing is there.
    """
    group = _program_group(leader)
    if number == signal.SIGKILL and group != leader:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)
    os.killpg(group, number)


def _program_group(leader: int) -> int:
    """The group of the program; that of bubblewrap while it sets the sandbox up."""
    for pid in strays.children(leader):
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == pid:
                return pid
    return leader


def ending_signal(exit_code: int) -> int:
    """The signal that an exit status of bubblewrap tells of; 0 for none."""
    number = exit_code - _SHELL_SIGNAL
    return number if number in set(signal.valid_signals()) else 0


def not_begun(status: int, stderr: str) -> str:
    """Say in a sentence why a program was never executed, whose bubblewrap has exited; empty if it was.

    Args:
        status: what bubblewrap has written its status to.
        stderr: path of its standard error, where its last words are the reason.
    """
    if b'"exit-code"' in os.pread(status, _STATUS_BYTES, 0):
        return ""
    return f"bubblewrap could not start the program: {_last_words(stderr) or 'it did not say why'}"


def _last_words(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        size = os.fstat(descriptor).st_size
        said = os.pread(descriptor, _WORDS_BYTES, max(0, size - _WORDS_BYTES))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    lines = said.decode(errors="replace").splitlines()
    words = [line.removeprefix(_SAID_BY) for line in lines if line.startswith(_SAID_BY)]
    return "".join(c if c.isprintable() else " " for c in words[-1]) if words else ""
