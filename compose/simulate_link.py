"""A link between two processes of this machine that loses everything for a while.

The kernel drops what arrives at their sockets: those of connections between the two, and those they
listen on, so that none is made anew. Nothing is closed, so both ends have to find out by themselves, as
with a cable that is pulled. It takes pidfd_getfd(2), Linux 5.6, and the right to trace the processes.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PIDFD_GETFD: Final = 438  # the same number on every architecture
_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER of asm-generic/socket.h
_DETACH_FILTER: Final = 27
_ESTABLISHED: Final = "01"
_LISTENING: Final = "0A"
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes


class NoLinkCutError(Exception):
    """The kernel does not let us; the message says why."""


@dataclass(frozen=True, slots=True)
class _Socket:
    """A TCP socket of a process; addresses as /proc writes them."""

    pid: int
    descriptor: int
    local: str
    remote: str
    state: str


def cut(first: int, second: int) -> None:
    """Let everything between two processes be lost from now on.

    Raises:
        NoLinkCutError: the kernel does not let us.
    """
    _each(first, second, _attach)


def heal(first: int, second: int) -> None:
    """Let everything through again; what was lost is sent again by TCP."""
    with contextlib.suppress(NoLinkCutError):
        _each(first, second, _detach)


def _each(first: int, second: int, act: Callable[[socket.socket], None]) -> None:
    ours, theirs = list(_sockets(first)), list(_sockets(second))
    between = {(one.remote, one.local) for one in ours} & {
        (one.local, one.remote) for one in theirs
    }
    between |= {(remote, local) for local, remote in between}
    for one in (*ours, *theirs):
        if one.state == _LISTENING or (one.local, one.remote) in between:
            with contextlib.suppress(ProcessLookupError), _borrow(one) as borrowed:
                act(borrowed)


@contextlib.contextmanager
def _borrow(one: _Socket) -> Iterator[socket.socket]:
    """Open a copy of a process's socket; one that is gone raises ProcessLookupError."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(one.pid)
    try:
        descriptor = libc.syscall(_PIDFD_GETFD, process, one.descriptor, 0)
    finally:
        os.close(process)
    if descriptor < 0:
        number = ctypes.get_errno()
        if number in {errno.ESRCH, errno.EBADF}:
            raise ProcessLookupError(number, os.strerror(number))
        raise NoLinkCutError(os.strerror(number))
    with socket.socket(fileno=descriptor) as copy:
        yield copy


def _attach(copy: socket.socket) -> None:
    program = ctypes.create_string_buffer(_DROP_ALL)
    copy.setsockopt(
        socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
    )


def _detach(copy: socket.socket) -> None:
    with contextlib.suppress(FileNotFoundError):  # it has none: it came meanwhile
        copy.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def _sockets(pid: int) -> Iterator[_Socket]:
    process = Path(f"/proc/{pid}")
    held: dict[str, int] = {}
    for entry in _entries(process / "fd"):
        with contextlib.suppress(OSError):
            kind, _, inode = str(entry.readlink()).partition(":[")
            if kind == "socket":
                held[inode.rstrip("]")] = int(entry.name)
    for table in ("tcp", "tcp6"):
        for line in _lines(process / "net" / table):
            fields = line.split()
            # sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
            if fields[9] in held and fields[3] in {_ESTABLISHED, _LISTENING}:
                yield _Socket(pid, held[fields[9]], fields[1], fields[2], fields[3])


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # the process has ended


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except OSError:
        return []
