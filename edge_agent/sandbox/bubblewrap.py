"""The words that start a program in namespaces of its own, by bubblewrap (bwrap(1)).

Rules:

1. **The node is there to be read, and nothing of it to be written.** Root is bound read-only with all that is mounted
   below it; what a job may write is bound over it, and only that.
2. **What is hidden is not there.** A folder in its place is empty; what of it a job needs is bound back in. So the
   order of the words counts: hide first, from the outside in, then bind back, from the outside in.
3. **Processes, shared memory, host name and control groups are its own**, and the network where it is asked for.
4. **Each step must succeed.** bubblewrap ends before the program begins if a word cannot be carried out. No word here
   has the form that goes on without (`-try`) except for control groups, whose namespace hides names and limits nothing.
5. **A user of its own user namespace has no rights outside**: bubblewrap needs no setuid bit and no capability, so it
   is executed as the job's user already.

The program runs below bubblewrap's process 1, in that process's session and group. The kernel lets no signal but
SIGKILL and SIGSTOP through to a process 1 that does not handle it (pid_namespaces(7)): a SIGTERM to that group reaches
the program alone, whose own exit status comes back, as 128+n if a signal n ended it.

Tried with 0.8.0. A version that does not know one of these words ends before the program begins.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from edge_agent.sandbox.plan import SECCOMP_WORD, STATUS_WORD
from shoal.sandbox import SandboxNetwork

SCRATCH: Final = ("/tmp", "/var/tmp")  # noqa: S108 - a job's own, made for it
"""Where any program may put temporary files; behind bubblewrap they are its own."""
HIDDEN: Final = ("/etc/shoal", "/home", "/root", "/run", *SCRATCH)
"""What no job sees of any node: people's and services' folders, sockets, and temporary files of others."""
_DEVICES: Final = "/dev"
"""A new one of its own, in which /dev/shm is empty, too."""
_OWN: Final = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one program has of its node. Paths are absolute, exist, and have no symbolic link in them.

    Attributes:
        program: where bubblewrap is.
        folder: where the program begins.
        hidden: folders that are replaced by empty ones: writable for `/tmp` and `/var/tmp`, read-only for others.
        visible: what can be read although it is below a hidden folder or /dev, as files of secrets in /dev/shm.
        writable: what can be written.
        devices: device files that it may use, beside those that each program has (`/dev/null` and its like).
        network: which network it has.
        filtered: whether bubblewrap sets a filter of system calls.
    """

    program: str
    folder: str
    hidden: tuple[str, ...] = HIDDEN
    visible: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    network: SandboxNetwork = SandboxNetwork.NODE
    filtered: bool = False


def words(confinement: Confinement) -> tuple[str, ...]:
    """Return the words before those of the program, with `--` as the last."""
    return tuple(_words(confinement))


def _words(asked: Confinement) -> Iterator[str]:
    yield asked.program
    yield from _OWN
    if asked.network is SandboxNetwork.NONE:
        yield "--unshare-net"
    yield from (
        "--new-session",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--json-status-fd",
        STATUS_WORD,
    )
    if asked.filtered:
        yield from ("--seccomp", SECCOMP_WORD)
    yield from ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
    for device in asked.devices:
        yield from ("--dev-bind", device, device)
    empty = _outermost(asked.hidden)
    for folder in empty:
        yield from ("--tmpfs", folder)
    writable = frozenset(asked.writable)
    replaced = (*empty, _DEVICES)
    bound = {path for path in asked.visible if _is_below(path, replaced)} | writable
    for path in sorted(bound, key=_depth):
        yield from ("--bind" if path in writable else "--ro-bind", path, path)
    for folder in empty:
        if folder not in SCRATCH:
            yield from ("--remount-ro", folder)
    yield from ("--chdir", asked.folder, "--")


def _outermost(folders: Iterable[str]) -> list[str]:
    """Those that are in no other one: an empty folder has none below it that could be hidden."""
    found: list[str] = []
    for folder in sorted(set(folders), key=_depth):
        if not _is_below(folder, found):
            found.append(folder)
    return found


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def _depth(path: str) -> tuple[int, str]:
    return len(PurePosixPath(path).parts), path
