"""The filter of system calls of a job: a program of classic BPF that the kernel runs before each of them (seccomp(2)).

Rules:

1. **What is refused is named, everything else is let through.** Jobs are any programs; a list of what is let would
   break one of them with each new C library.
2. **Refused is what changes the machine or makes one's own**: mounts, namespaces, modules, the clock, swap, the kernel
   itself. A job has no rights to most of these; the filter stands where the kernel errs. So it refuses the parts of
   the kernel, too, in which that happened most, and which no job on a board needs: keyrings, BPF, performance
   counters, page faults handled by programs, io_uring, rare families of sockets.
3. **A number means something on one machine only**, so another machine's calls (32-bit programs) end the process, and
   calls of x32 are refused.
4. **A filter sees numbers, not memory.** The flags of `clone3` lie in memory, so it is said not to exist (ENOSYS), and
   the C library calls `clone`, whose flags are looked at. io_uring makes calls that no filter sees: it does not exist.
5. **Debugging one's own processes is let through** (`ptrace`, `process_vm_readv`): another job's are another user's or
   cannot be seen, and sanitizers and profilers need it.

Of the rare families, `AF_VSOCK` counts most: it reaches the host of a virtual machine from any network namespace.

Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst of Linux, moby/profiles/seccomp.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_X32: Final = 0x40000000
_PLACE: Final = {"x86_64": 0, "aarch64": 1}

_REFUSED: Final = {
    # asm/unistd_64.h and asm-generic/unistd.h; None where a machine has no such call
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_ABSENT: Final = {
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_CLONE: Final = (56, 220)
_UNSHARE: Final = (272, 97)
_SOCKET: Final = (41, 198)
_NEW_NAMESPACES: Final = (
    0x7E020000  # CLONE_NEW* of linux/sched.h: NS, CGROUP, UTS, IPC, USER, PID, NET
)
_NEW_TIME: Final = 0x80  # to `clone` these bits are a signal
_FAMILIES: Final = {
    # linux/socket.h
    "AF_AX25": 3,
    "AF_NETROM": 6,
    "AF_X25": 9,
    "AF_ROSE": 11,
    "AF_RDS": 21,
    "AF_LLC": 26,
    "AF_TIPC": 30,
    "AF_ALG": 38,
    "AF_VSOCK": 40,
    "AF_KCM": 41,
    "AF_SMC": 43,
}

# linux/bpf_common.h, linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data, little-endian
_LET, _FAIL, _END = 0x7FFF0000, 0x00050000, 0x80000000
_NEXT: Final = ""

_SET_SECCOMP: Final = 22  # PR_SET_SECCOMP
_FILTER: Final = 2  # SECCOMP_MODE_FILTER
_INSTRUCTION: Final = struct.Struct("<HBBI")


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction; `yes` and `no` name where a comparison goes on, `label` what others call this one."""

    code: int
    value: int
    yes: str = _NEXT
    no: str = _NEXT
    label: str = ""


class _Filter(ctypes.Structure):
    _fields_ = (("steps", ctypes.c_ushort), ("program", ctypes.c_char_p))


# Before any fork: a child looks nothing up.
_PRCTL: Final = ctypes.CDLL(None, use_errno=True).prctl


def program(machine: str) -> bytes:
    """Return the filter for a machine, as `platform.machine()` calls it.

    Raises:
        ValueError: Its system calls are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise ValueError(
            f"there is no filter of system calls for {machine}, only for {', '.join(_ARCHITECTURES)}"
        )
    steps = list(_steps(machine))
    places = {step.label: place for place, step in enumerate(steps) if step.label}

    def distance(here: int, label: str) -> int:
        return places[label] - here - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(step.code, distance(here, step.yes), distance(here, step.no), step.value)
        for here, step in enumerate(steps)
    )


def install(program: bytes) -> None:
    """Set a filter for this thread and all that it executes and starts; it must have no_new_privs.

    Raises:
        OSError: The kernel refuses it.
    """
    wanted = _Filter(len(program) // _INSTRUCTION.size, program)
    if _PRCTL(_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(wanted), 0, 0):
        why = ctypes.get_errno()
        raise OSError(why, f"the filter of system calls cannot be set: {os.strerror(why)}")


def _steps(machine: str) -> Iterator[_Step]:
    place = _PLACE[machine]
    yield _Step(_LOAD, _ARCHITECTURE_AT)
    yield _Step(_EQUAL, _ARCHITECTURES[machine], no="end")
    yield _Step(_LOAD, _NUMBER_AT)
    if machine == "x86_64":
        yield _Step(_AT_LEAST, _X32, yes="absent")
    for calls, answer in ((_REFUSED, "refused"), (_ABSENT, "absent")):
        for numbers in calls.values():
            if (number := numbers[place]) is not None:
                yield _Step(_EQUAL, number, yes=answer)
    yield _Step(_EQUAL, _CLONE[place], yes="clone")
    yield _Step(_EQUAL, _UNSHARE[place], yes="unshare")
    yield _Step(_EQUAL, _SOCKET[place], yes="socket", no="let")
    yield _Step(_LOAD, _FIRST_ARGUMENT_AT, label="clone")
    yield _Step(_ANY_OF, _NEW_NAMESPACES, yes="refused", no="let")
    yield _Step(_LOAD, _FIRST_ARGUMENT_AT, label="unshare")
    yield _Step(_ANY_OF, _NEW_NAMESPACES | _NEW_TIME, yes="refused", no="let")
    yield _Step(_LOAD, _FIRST_ARGUMENT_AT, label="socket")
    for family in _FAMILIES.values():
        yield _Step(_EQUAL, family, yes="no family")
    yield _Step(_RETURN, _LET, label="let")
    yield _Step(_RETURN, _FAIL | errno.EPERM, label="refused")
    yield _Step(_RETURN, _FAIL | errno.ENOSYS, label="absent")
    yield _Step(_RETURN, _FAIL | errno.EAFNOSUPPORT, label="no family")
    yield _Step(_RETURN, _END, label="end")
