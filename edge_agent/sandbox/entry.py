"""Carry out a plan in a forked child, and become its program: the last thing that is trusted before the job.

Theory. A process that holds rights may only lose them. So the order is: first what takes rights (joining control
groups, raising limits), then the user, then the rights themselves, and then what narrows further and cannot be
undone. Files of the job are opened in between, with the rights of the job: the kernel decides what it may open, and
no check of a path is ours to get wrong.

Rule. Each step is done or raises, and nothing is executed after one that raised. No step is left out because it could
not be done: what a plan says holds, or there is no program.

Why capabilities are dropped by name: root that becomes another user loses them, but an agent that is no root and has
CAP_SETUID as an ambient capability (systemd, `AmbientCapabilities`) keeps all of them across setresuid(2), and gives
them to its programs (capabilities(7), "Effect of user ID changes on capabilities").

Why PR_SET_PDEATHSIG comes after the user: the kernel clears it when a process changes its user (prctl(2)).

What lowers a limit comes last of all: the memory that this interpreter has, and its descriptors, may be above it.

Standard library only, and nothing is imported after the fork: the keeper imports this.
"""

import base64
import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.plan import SECCOMP_WORD, STATUS_WORD, SandboxPlan

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of linux/capability.h
_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
_FIRST_HIGH_DESCRIPTOR: Final = 512  # above the descriptors of a program
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class EntryError(Exception):
    """A step of a plan failed, so its program does not start; the message names the step."""


def execute(
    plan: SandboxPlan,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    parent: int = 0,
    prepare: Callable[[], None] | None = None,
    status: int = -1,
) -> NoReturn:
    """Do to this process what the plan says, and become the program; returns only by raising.

    Args:
        plan: what is done.
        argv: the program's words; the first one is its absolute path.
        env: all its variables.
        parent: process whose end it does not outlive; 0 for none.
        prepare: called when the process has its user and before it can open less: working folder, descriptors.
        status: descriptor that bubblewrap writes to, where `plan.wrap` has STATUS_WORD; -1 for one that is not read.

    Raises:
        EntryError: a step failed.
        OSError: `prepare` failed, or the program cannot be executed.
        ValueError: a word cannot be told to the kernel.
    """
    _take(plan)
    if plan.uid >= 0:
        _become(plan)
    if plan.no_new_privileges:
        drop_capabilities()
        gain_no_privileges()
    if parent:
        _end_with(parent)
    if prepare is not None:
        prepare()
    words, variables = list(argv), dict(env)
    if plan.wrap:
        words, variables = [*_wrap(plan, env, status), *argv], {}
    narrow(plan)
    lower(plan.limits)
    os.execve(words[0], words, variables)  # noqa: S606 - what all of this is for


def lower(limits: Sequence[tuple[int, int]]) -> None:
    """Set limits of this process, at most to what is its hard limit; what may be raised has been before.

    Raises:
        EntryError: the kernel refuses one.
    """
    for which, amount in limits:
        with _step(f"set limit {which} to {amount}"):
            _, hard = resource.getrlimit(which)
            least = hard if _more(amount, hard) else amount
            resource.setrlimit(which, (least, least))


def drop_capabilities() -> None:
    """Have none, in no set; the ambient ones go with the permitted ones (capabilities(7)).

    Raises:
        EntryError: the kernel refuses it.
    """
    none = (ctypes.c_uint32 * 6)()
    header = _Header(_CAPABILITY_VERSION, 0)
    if _LIBC.capset(ctypes.byref(header), none) != 0:
        raise EntryError(f"cannot drop its capabilities: {os.strerror(ctypes.get_errno())}")


def leave_programs_nothing() -> None:
    """Have no capability that a program would inherit, neither as an inheritable nor as an ambient one.

    Raises:
        EntryError: the kernel refuses it.
    """
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice (capset(2))
    header = _Header(_CAPABILITY_VERSION, 0)
    done = _LIBC.capget(ctypes.byref(header), sets) == 0
    sets[2] = sets[5] = 0
    if not done or _LIBC.capset(ctypes.byref(header), sets) != 0:
        raise EntryError(f"cannot drop its capabilities: {os.strerror(ctypes.get_errno())}")


def gain_no_privileges() -> None:
    """Let nothing that this process executes gain rights.

    Raises:
        EntryError: the kernel refuses it.
    """
    _control(_PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def raise_score(score: int) -> None:
    """Raise the `oom_score_adj` of this process; 0 leaves it, and so does a higher one that is there.

    Raises:
        EntryError: the kernel refuses it.
    """
    if score:
        with _step(f"raise its oom_score_adj to {score}"):
            if int(_OOM_SCORE.read_text("ascii")) < score:
                _write(str(_OOM_SCORE), str(score))


def raise_limits(limits: Sequence[tuple[int, int]]) -> None:
    """Raise limits of this process that are lower, as far as it may.

    Raises:
        EntryError: there is no such limit.
    """
    for which, amount in limits:
        with _step(f"raise limit {which} to {amount}"):
            soft, hard = resource.getrlimit(which)
            # Without the right to, the lower one that is there binds the program, which keeps the plan.
            if _more(amount, hard):
                with contextlib.suppress(ValueError):  # as which Python tells EPERM
                    resource.setrlimit(which, (soft, amount))


def narrow(plan: SandboxPlan) -> None:
    """Be kept from files, sockets, processes and system calls; this process may gain no rights.

    Raises:
        EntryError: the kernel cannot do it.
    """
    with _step("be kept from files, sockets and processes by Landlock"):
        landlock.restrict((*plan.files, *plan.own), scoped=plan.scoped)
    if plan.seccomp and SECCOMP_WORD not in plan.wrap:
        with _step("be kept from system calls"):
            seccomp.install(base64.b64decode(plan.seccomp, validate=True))


def _take(plan: SandboxPlan) -> None:
    """Do what needs the rights of the starter."""
    for path in plan.join:
        with _step(f"join the control group {path}"):
            _write(
                path, "0"
            )  # itself: for another number the kernel stops all other forks for a moment
    raise_score(plan.oom_score)
    raise_limits(plan.limits)


def _become(plan: SandboxPlan) -> None:
    gid = plan.gid if plan.gid >= 0 else os.getgid()
    with _step(f"become user {plan.uid} and group {gid} with the groups {list(plan.groups)}"):
        os.setgroups(plan.groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    if os.getresuid() != (plan.uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise EntryError(f"it is user {os.getresuid()} and group {os.getresgid()} after all")


def _control(option: int, argument: int, name: str) -> None:
    zero = ctypes.c_ulong(0)
    if _LIBC.prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        raise EntryError(f"cannot set {name}: {os.strerror(ctypes.get_errno())}")


def _end_with(parent: int) -> None:
    _control(_PR_SET_PDEATHSIG, int(signal.SIGKILL), "the signal for its starter's end")
    if os.getppid() != parent:
        raise EntryError("its starter has ended")  # before that was asked for


def _wrap(plan: SandboxPlan, env: Mapping[str, str], status: int) -> Sequence[str]:
    """The words before the program, with the numbers of descriptors that stay open.

    bubblewrap itself has no variables: LD_PRELOAD of a job would run its code outside of its namespaces. It reads what
    the program gets from a descriptor, since every user of the machine sees its words.
    """
    numbers: dict[str, int] = {}
    with _step("hand over its variables"):
        variables = _high(os.memfd_create("variables"))
        for name, text in env.items():
            words = ("--setenv", name, text)
            os.write(variables, b"".join(os.fsencode(word) + b"\0" for word in words))
        os.lseek(variables, 0, os.SEEK_SET)
    if STATUS_WORD in plan.wrap:
        numbers[STATUS_WORD] = _high(os.memfd_create("status") if status < 0 else status)
    if SECCOMP_WORD in plan.wrap:
        with _step("hand over its filter of system calls"):
            numbers[SECCOMP_WORD] = _high(os.memfd_create("seccomp"))
            os.pwrite(numbers[SECCOMP_WORD], base64.b64decode(plan.seccomp, validate=True), 0)
    program, *rest = [str(numbers.get(word, word)) for word in plan.wrap]
    return [program, "--args", str(variables), *rest]


def _high(descriptor: int) -> int:
    """The same above the descriptors of the program, which it stays open for."""
    with _step("have a descriptor to spare"):
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD, _FIRST_HIGH_DESCRIPTOR)
    os.close(descriptor)
    return high


def _more(amount: int, than: int) -> bool:
    if than == resource.RLIM_INFINITY:
        return False
    return amount == resource.RLIM_INFINITY or amount > than


def _write(path: str, words: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, words.encode())
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Say what could not be done."""
    try:
        yield
    except (OSError, ValueError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EntryError(f"cannot {what}: {why}") from error
