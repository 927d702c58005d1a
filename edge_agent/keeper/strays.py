"""Which processes belong to an attempt, whatever they did to get away, and their end.

An attempt leaves nothing behind, but a program may start processes that leave its group and its session, drop their
environment, change their user and lose their parents. Two things stay with them, whatever they do:

1. **Descent.** The keeper adopts orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so every process below it stays below it:
   one whose parent has died becomes its child. Whatever it did not start itself was started by a job.
2. **A mark.** Each attempt is started with a number of its own as the soft limit of file locks (RLIMIT_LOCKS), which
   no kernel since 2.4.25 looks at (getrlimit(2)), and which every child inherits: through setsid, an empty
   environment, another user. So an orphan says which attempt it comes from, also when its keeper is dead.

Example: `sh -c 'env -i setsid sleep 677 & exit 0'`. The shell ends, `sleep` becomes the keeper's child, bears the mark
of an attempt that is over, and is killed.

A program may change that limit, so an orphan may bear no mark of ours. It could be a living job's, so it is killed once
no job is alive: nothing of a job that runs is ever ended for another one's end. What runs as another user than the
keeper cannot be killed by it; that is said, never raised.

What a program has others start for it (systemd, cron, Docker) is neither below the keeper nor marked.
"""

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from edge_agent.keeper.boottime import boottime
from edge_agent.keeper.kernel_file import read_kernel_file

KEEPER_VARIABLE: Final = "SHOAL_KEEPER"
"""Variable that says in every process of a keeper whose it is, to be seen in /proc; see `keeper_word`."""

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h
_RLIMIT_LOCKS: Final = 10  # asm-generic/resource.h; the standard library has no name for it
_NUMBER_BITS: Final = 32
_GONE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.01
_NAMED: Final = 5


class Marks:
    """The marks of one keeper's attempts; those of two keepers differ in what their sockets are called.

    Args:
        keeper_socket: absolute path of the keeper's socket.
    """

    def __init__(self, keeper_socket: str) -> None:
        digest = hashlib.sha256(os.fsencode(keeper_socket)).digest()
        # 30 bits of the name and 32 of the number make a limit that is never mistaken for none.
        self._name = (int.from_bytes(digest[:4], "big") >> 2) | 1 << 29
        self._number = 0

    def new(self) -> int:
        """Return a mark that no attempt of this keeper has had."""
        self._number = self._number % ((1 << _NUMBER_BITS) - 1) + 1
        return self._name << _NUMBER_BITS | self._number

    def ours(self, mark: int) -> bool:
        """Whether a keeper on this socket has given that mark."""
        return mark >> _NUMBER_BITS == self._name


def keeper_word(keeper_socket: str) -> str:
    """What `KEEPER_VARIABLE` is in the processes of a keeper: its socket is known by it, and not found."""
    return hashlib.sha256(os.fsencode(keeper_socket)).hexdigest()[:16]


def wear(mark: int) -> None:
    """Bear a mark from now on, as what is started then; a lower hard limit leaves both without."""
    hard = resource.getrlimit(_RLIMIT_LOCKS)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(_RLIMIT_LOCKS, (mark, hard))


@contextlib.contextmanager
def worn(mark: int) -> Iterator[None]:
    """Bear a mark, so that processes that are started meanwhile inherit it; a lower hard limit leaves them without."""
    soft, hard = resource.getrlimit(_RLIMIT_LOCKS)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(_RLIMIT_LOCKS, (mark, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(_RLIMIT_LOCKS, (soft, hard))


def mark_of(pid: int) -> int:
    """The mark that a process bears; 0 when it bears none, is gone, or is not ours to see."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("Max file locks"):
            soft = line.split()[3]
            return int(soft) if soft.isdecimal() else 0
    return 0


def adopt_orphans() -> bool:
    """Become the parent of every orphan below this process; returns whether the kernel agreed."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def children(pid: int) -> list[int]:
    """Process ids of the children of a process, zombies included."""
    found: list[int] = []
    try:
        # Keeper and guard have one thread each, and look at themselves whenever a program ends.
        threads = [pid] if pid == os.getpid() else map(_number, Path(f"/proc/{pid}/task").iterdir())
        for thread in threads:
            found += map(int, read_kernel_file(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        if Path(f"/proc/self/task/{os.getpid()}/children").exists():
            return found  # the process, or a thread of it, is gone
        # A kernel without CONFIG_PROC_CHILDREN: look at the parent of every process instead.
        return [one for one in _everybody() if _stat(one)[1] == pid]
    return found


def descendants(pid: int) -> list[int]:
    """Process ids of everything that is below a process, nearest first."""
    found = children(pid)
    for one in found:
        found += children(one)  # which are looked at in their turn
    return found


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    return _stat(pid)[0] not in "ZX"


def end(pids: Iterable[int]) -> Mapping[int, str]:
    """Kill processes; returns those that could not be, with the reason."""
    refused: dict[int, str] = {}
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        except OSError as error:
            refused[pid] = error.strerror or str(error)
    return refused


def left(pids: Iterable[int], refused: Mapping[int, str]) -> str:
    """Say in a sentence which processes are left, and why."""
    named = [
        f"{pid} ({name_of(pid) or 'gone'}): {refused.get(pid, 'it did not end when it was killed')}"
        for pid in list(pids)[:_NAMED]
    ]
    return f"processes were left that could not be ended: {', '.join(named)}"


def end_everything_of(keeper_socket: str) -> int:
    """Kill every process that a keeper on this socket has started, for when that keeper is dead.

    Waits until they are gone, for `_GONE_SECONDS` at most: an agent that hears of the next keeper may begin
    somewhere else what ran here. Returns how many there were.
    """
    marks = Marks(keeper_socket)
    named = {keeper_word(keeper_socket), keeper_socket}  # the path is what a keeper of 0.1 gave
    killed: set[int] = set()
    refused: set[int] = set()
    give_up_at = boottime() + _GONE_SECONDS
    while found := [
        pid
        for pid in _everybody()
        if pid != os.getpid()
        and pid not in refused
        and (marks.ours(mark_of(pid)) or environment(pid).get(KEEPER_VARIABLE) in named)
        and alive(pid)
    ]:
        refused |= set(end(found))
        killed |= set(found) - refused
        if boottime() >= give_up_at:
            break
        time.sleep(_LOOK_SECONDS)
    return len(killed)


def environment(pid: int) -> dict[str, str]:
    """Environment that a process was started with; empty when it is gone, a zombie, or not ours to see."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def name_of(pid: int) -> str:
    """What a process is called, at most 15 characters; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _number(entry: Path) -> int:
    return int(entry.name)


def _everybody() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _stat(pid: int) -> tuple[str, int]:
    """State and parent of a process; X and 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X", 0
    # The name stands in parentheses and may hold anything; state and parent follow it.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)
