"""Landlock: what the programs of a process may do with files, sockets and signals, by its own wish (landlock(7)).

Rules:

1. **What is not allowed is refused**: a rule allows something below a path, and no rule takes anything back. So a
   folder is hidden by allowing all that lies beside it and beside the folders above it (`all_but`).
2. **It is for good**: it holds for all that the process executes and starts, and it can only be narrowed further.
3. **A process with rules about files may not mount.** bubblewrap mounts, so a plan with its words has no such rules. It
   needs none: what is hidden there is not there. Scopes alone leave mounting be.
4. **No rules about files below ABI 2**: the first ABI refuses each rename from one folder into another, which breaks
   programs that did nothing wrong.
5. What a newer ABI can refuse is asked for where the kernel knows it, and not missed where it does not.

Example: `restrict([FilesRule("/usr"), FilesRule("/state/attempts/a/work", write=True)])` leaves a process that executes
programs of `/usr`, writes in its folder, and cannot open `/etc/passwd`.

Source: landlock(7) and Documentation/userspace-api/landlock.rst of Linux.
"""

import ctypes
import os
import platform
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from edge_agent.sandbox.plan import FilesRule

FILES_ABI: Final = 2
"""Where rules about files begin to be used."""
SCOPES_ABI: Final = 6
"""Where abstract sockets and signals can be kept to one's own."""
BESIDE_MAX: Final = 256
"""How many names may stand in a folder on the way to a hidden one: rules travel to the keeper in one packet."""

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # asm-generic/unistd.h; x86_64 and aarch64 have the same
_MACHINES: Final = ("x86_64", "aarch64")
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1  # LANDLOCK_RULE_PATH_BENEATH
_SCOPES: Final = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI: Final = (1 << 13) - 1
_OF_ABI: Final = ((2, _REFER), (3, _TRUNCATE), (5, _DEVICE_CONTROL))
_READING: Final = _EXECUTE | _READ_FILE | _READ_FOLDER
_OF_A_FILE: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


class _Rule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


# Before any fork: a child looks nothing up.
_SYSCALL: Final = ctypes.CDLL(None, use_errno=True).syscall
_SYSCALL.restype = ctypes.c_long


def abi() -> int:
    """What the kernel's Landlock can do, as its number; 0 where there is none."""
    if platform.machine() not in _MACHINES:
        return 0
    return max(0, int(_SYSCALL(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))))


def restrict(files: Sequence[FilesRule], *, scoped: bool = False) -> None:
    """Restrict this thread and all that it starts to `files`, and where `scoped` to sockets and signals of its own.

    It must have no_new_privs. Without files and scopes nothing is done. A rule for what is not there, or for a symbolic
    link, allows nothing.

    Raises:
        OSError: The kernel cannot do it, or a path cannot be looked at. Nothing is restricted then.
    """
    if not files and not scoped:
        return
    known = abi()
    needed = max(FILES_ABI if files else 0, SCOPES_ABI if scoped else 0)
    if known < needed:
        raise OSError(0, f"the kernel has Landlock {known}, and what is asked for needs {needed}")
    handled = _FIRST_ABI if files else 0
    for first, access in _OF_ABI if files else ():
        handled |= access if known >= first else 0
    rules = _make(_Ruleset(handled, 0, _SCOPES if scoped else 0))
    try:
        for rule in files:
            _allow(rules, rule, handled)
        _call("restrict this process", _RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0))
    finally:
        os.close(rules)


def scopes() -> int:
    """Make rules about sockets and signals alone, for `enter`; return their descriptor.

    Raises:
        OSError: the kernel has none.
    """
    if (known := abi()) < SCOPES_ABI:
        raise OSError(
            0, f"the kernel has Landlock {known}, and what is asked for needs {SCOPES_ABI}"
        )
    return _make(_Ruleset(0, 0, _SCOPES))


def enter(rules: int) -> None:
    """Restrict this thread and all that it starts, and nothing else that enters the same rules, by `scopes`.

    Raises:
        OSError: the kernel refuses it.
    """
    _call("restrict this thread", _RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0))


def all_but(
    hidden: Iterable[str],
    visible: Iterable[str],
    writable: Iterable[str],
    children: Callable[[str], Iterable[str]],
) -> tuple[FilesRule, ...]:
    """Return rules that allow to read everything but what is below `hidden`.

    What comes to lie beside a hidden folder later is hidden, too. Each folder on the way to a hidden one costs a rule
    for each name in it, so one with more than BESIDE_MAX names is allowed as a whole: there rights of files hide alone.

    Args:
        hidden: absolute paths.
        visible: what can be read although it is below one of them.
        writable: what can be written, wherever it is.
        children: says the names in a folder; none for one that is not there.
    """
    closed = {PurePosixPath(path) for path in hidden}
    above = {folder for path in closed for folder in path.parents}
    found: list[FilesRule] = []

    def allow(path: PurePosixPath) -> None:
        if path in closed:
            return
        if path not in above:
            found.append(FilesRule(str(path)))
            return
        names = sorted(children(str(path)))
        if len(names) > BESIDE_MAX:
            found.append(FilesRule(str(path)))
            return
        for name in names:
            allow(path / name)

    allow(PurePosixPath("/"))
    found += [FilesRule(path) for path in visible]
    found += [FilesRule(path, write=True) for path in writable]
    return tuple(found)


def _make(wanted: _Ruleset) -> int:
    # An older kernel takes a longer structure as long as what it does not know is 0.
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    return _call("make rules", _CREATE, ctypes.byref(wanted), size, ctypes.c_uint(0))


def _allow(rules: int, rule: FilesRule, handled: int) -> None:
    try:
        place = os.open(rule.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        kind = os.fstat(place).st_mode
        if stat.S_ISLNK(kind):
            return  # where it leads is a place of its own, and may be hidden
        allowed = handled if rule.write else handled & _READING
        if not stat.S_ISDIR(kind):
            allowed &= _OF_A_FILE
        one = _Rule(allowed, place)
        _call(
            f"allow {rule.path}",
            _ADD,
            ctypes.c_int(rules),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(one),
            ctypes.c_uint(0),
        )
    finally:
        os.close(place)


def _call(what: str, number: int, *arguments: object) -> int:
    answer = int(_SYSCALL(ctypes.c_long(number), *arguments))
    if answer < 0:
        why = ctypes.get_errno()
        raise OSError(why, f"Landlock cannot {what}: {os.strerror(why)}")
    return answer
