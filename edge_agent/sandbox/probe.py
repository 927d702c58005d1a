"""Which levels of a sandbox this node can do: found by doing each of them, as the agent starts.

Theory. What a node can do depends on its kernel, its container, its policies and its packages, and no list of those is
ever complete. So nothing is inferred: a small program is started at each level exactly as a job will be, by
`edge_agent.sandbox.entry`, and the kernel is asked what became of it (`/proc/self/status`). A level that can be had is
one at which that worked.

Rule. `none` is among the levels only if the operator asked for it. Where `auto` finds no better one, or the level that
was asked for cannot be had, the agent does not start; the refusal says for each level why not, and what helps.

A state folder that a job's user cannot get to rules its level out. An interpreter of the agent that it cannot get to
does not: jobs may name another one (`python: system`). But most jobs use the agent's, so `auto` does not choose such a
level.

Cost: four forks and one bubblewrap, 50 to 150 ms.
"""

import base64
import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edge_agent.sandbox import landlock, seccomp
from edge_agent.sandbox.entry import execute
from edge_agent.sandbox.narrowing import LANDLOCK, SECCOMP, Narrowing, NarrowingError, Needs
from edge_agent.sandbox.plan import FilesRule, SandboxPlan
from services.runtime.process import StartRefusedError
from shoal.sandbox import NodeSandbox, SandboxLevel, SandboxNetwork

USER_TRIED: Final = 265_535
"""A user that levels are tried with: the last of those that jobs have by default."""

_SECONDS: Final = 5.0
"""How long a program of a trial may take; it takes a few milliseconds."""
_SAID_BYTES_MAX: Final = 16_384
_WORDS_MAX: Final = 300
_END_OF_STATUS: Final = b"nonvoluntary_ctxt_switches"
"""Begins the last line of /proc/self/status."""
_GIVEN: Final = "probe"
"""A folder of the state that is given to another user, and removed at once."""
_PID_INSIDE_MAX: Final = 9
_RIGHTS: Final = (
    "run the agent as root, or give it the capabilities SETUID, SETGID, CHOWN, DAC_OVERRIDE, FOWNER and KILL "
    "(systemd: AmbientCapabilities=), or give its user subordinate users (package uidmap, /etc/subuid)"
)


class _TrialError(Exception):
    """A level cannot be had; the message says why, and what helps."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a node tries its levels with.

    Attributes:
        state: the agent's state folder, which is there.
        user: number of a user that no job has; its group has the same.
        interpreter: folders of the agent's interpreter, which jobs use that name no other.
        machine: `platform.machine()`.
        wrapper: where bubblewrap is; empty where it is not installed.
    """

    state: Path
    user: int
    interpreter: tuple[Path, ...]
    machine: str
    wrapper: str


@dataclass(frozen=True, slots=True)
class TriedLevels:
    """What a trial of all levels has found.

    Attributes:
        against: for each level above none why it cannot be had; empty where it can.
        filters: what narrows system calls and files further.
        remark: why jobs of the agent's own interpreter cannot start at these levels; empty where they can.
    """

    against: Mapping[SandboxLevel, str]
    filters: tuple[str, ...] = ()
    remark: str = ""


def ground_here(state: Path, user: int, machine: str, search: str) -> Ground:
    """Return the ground of this process; `search` is its PATH."""
    return Ground(
        state=Path(os.path.realpath(state)),
        user=user,
        interpreter=tuple(
            dict.fromkeys(
                Path(os.path.realpath(one)) / "bin" for one in (sys.prefix, sys.base_prefix)
            )
        ),
        machine=machine,
        wrapper=shutil.which("bwrap", path=search) or "",
    )


def try_levels(ground: Ground) -> TriedLevels:
    """Try what this node can do; it forks, so call it while the process has nothing else to do."""
    filters = tuple(_filters(ground.machine))
    narrowing = Narrowing([str(ground.state)], filters, ground.machine, ground.wrapper)
    against = {SandboxLevel.USER: _words(lambda: _try_user(ground, narrowing))}
    own = ground.user if not against[SandboxLevel.USER] else -1
    against[SandboxLevel.CONFINED] = _words(
        lambda: _try_confined(narrowing, own, against[SandboxLevel.USER])
    )
    remark = ""
    if own >= 0:
        remark = _words(lambda: _reach(own, ground.interpreter, _OF_INTERPRETER))
    return TriedLevels(MappingProxyType(against), filters, remark)


def decide(wanted: SandboxLevel | None, found: TriedLevels) -> NodeSandbox:
    """Return what the node can do, with the level of jobs that ask for none.

    Args:
        wanted: what the operator asked for; None for the best that can be had without a doubt.
        found: what was found by trying.

    Raises:
        StartRefusedError: that cannot be had; says for each level why, and what helps.
    """
    had = [level for level, why in found.against.items() if not why]
    none = [SandboxLevel.NONE] if wanted is SandboxLevel.NONE else []
    default = best(found) if wanted is None else wanted
    if default is None or default not in [*none, *had]:
        asked = (
            "no sandbox for jobs can"
            if wanted is None
            else f"the sandbox level {wanted.value} cannot"
        )
        raise StartRefusedError(
            f"{asked} be had here. {reasons(found, remarked=wanted is None)}. Or say --sandbox none: then jobs "
            "run as the user of the agent, and can read, change and end all that is its own"
        )
    return NodeSandbox(
        default=default,
        levels=frozenset([*none, *had]),
        filters=found.filters,
        refused=MappingProxyType({level: why for level, why in found.against.items() if why}),
    )


def best(found: TriedLevels) -> SandboxLevel | None:
    """Return the level that `auto` means: the first that can be had, and at which all jobs can start."""
    had = (level for level, why in found.against.items() if not why)
    return None if found.remark else next(had, None)


def reasons(found: TriedLevels, *, remarked: bool = True) -> str:
    """Say for each level why it cannot be had; `remarked` where the remark stands against those that can."""
    why: dict[str, list[str]] = {}
    for level, said in found.against.items():
        words = said or (found.remark if remarked else "") or "can be had"
        why.setdefault(words, []).append(level.value)
    return ". ".join(f"{' and '.join(levels)}: {said}" for said, levels in why.items())


# ---- one level ----------------------------------------------------------------------------------


def _filters(machine: str) -> Iterator[str]:
    try:
        program = base64.b64encode(seccomp.program(machine)).decode()
    except ValueError:
        program = ""
    if program and _works(SandboxPlan(no_new_privileges=True, seccomp=program)):
        yield SECCOMP
    if landlock.abi() >= landlock.FILES_ABI and _works(
        SandboxPlan(no_new_privileges=True, files=(FilesRule("/"),))
    ):
        yield LANDLOCK


def _works(plan: SandboxPlan) -> bool:
    with contextlib.suppress(_TrialError):
        _start(plan)
        return True
    return False


def _try_user(ground: Ground, narrowing: Narrowing) -> None:
    plan = SandboxPlan(uid=ground.user, gid=ground.user, no_new_privileges=True)
    try:
        _check(_start(plan), plan)
        _give(ground.state / _GIVEN, ground.user)
    except _TrialError as error:
        raise _TrialError(f"{error}; {_RIGHTS}") from None
    _reach(ground.user, [ground.state.parent], _OF_STATE)
    narrowed = narrowing.plan(plan, SandboxLevel.USER, Needs("/"))
    _check(_start(narrowed), narrowed)


def _try_confined(narrowing: Narrowing, uid: int, no_user: str) -> None:
    if uid < 0 and os.geteuid() == 0:
        raise _TrialError(no_user)  # root can be confined as another user only
    needs = Needs("/", network=SandboxNetwork.NONE)
    try:
        plan = narrowing.plan(SandboxPlan(uid=uid, gid=uid), SandboxLevel.CONFINED, needs)
    except NarrowingError as error:
        raise _TrialError(str(error)) from error
    try:
        _check(_start(plan), plan)
    except _TrialError as error:
        raise _TrialError(
            f"{error}; let this user make user namespaces (sysctl kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns or user.max_user_namespaces; in a container its seccomp "
            "profile), if that is what is refused"
        ) from None


_OF_STATE: Final = (
    "the state folder cannot be reached by users of jobs, since {path} lets no other user pass: let it "
    "(chmod o+x), or choose another --state"
)
_OF_INTERPRETER: Final = (
    "the interpreter of the agent cannot be reached by users of jobs, since {path} lets no other user pass: install "
    "Shoal with an interpreter that all users can execute, below /usr or /opt; or say --sandbox user, and let "
    "jobs name one (`environment: {{python: system}}`)"
)


def _reach(uid: int, paths: Sequence[Path], words: str) -> None:
    """Try whether a user gets to all of these folders.

    Raises:
        _TrialError: it does not; `words` with the folder that keeps it from that.
    """
    plan = SandboxPlan(uid=uid, gid=uid)

    def passes(folder: Path) -> bool:
        with contextlib.suppress(_TrialError):
            _start(plan, folder)
            return True
        return False

    for path in (one for one in paths if not passes(one)):
        barrier = next((one for one in reversed(path.parents) if not passes(one)), path)
        raise _TrialError(words.format(path=barrier))


def _give(folder: Path, user: int) -> None:
    """Give a folder to a user, change it and take it away again, as is done with that of a job.

    Raises:
        _TrialError: this process may not.
    """
    try:
        if folder.exists():  # of an agent that was killed here
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        os.chown(folder, user, user)
        folder.chmod(0o711)
        (folder / "file").touch(0o600)
        os.chown(folder / "file", user, user)
        (folder / "file").write_bytes(b"")
        shutil.rmtree(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.chown(folder, os.geteuid(), os.getegid())
            shutil.rmtree(folder)
        raise _TrialError(
            f"{error.filename or folder} cannot be given to another user and changed then: {error.strerror}"
        ) from error


def _check(said: bytes, plan: SandboxPlan) -> None:
    """Look at what the kernel said of a program.

    Raises:
        _TrialError: it is not what was planned.
    """
    lines = (line.partition(":") for line in said.decode("utf-8", "replace").splitlines())
    status = {key: value.split() for key, _, value in lines}
    uid = str(plan.uid if plan.uid >= 0 else os.geteuid())
    wanted = {
        "Uid": [uid] * 4,
        "NoNewPrivs": ["1"],
        "CapEff": ["0" * 16],
        **({"Groups": []} if plan.uid >= 0 and not plan.wrap else {}),
        **({"Seccomp": ["2"]} if plan.seccomp else {}),
    }
    for key, value in wanted.items():
        if status.get(key) != value:
            raise _TrialError(
                f"the kernel says {key} {' '.join(status.get(key, ['nothing']))} of a program that was to "
                f"have {' '.join(value)}"
            )
    if plan.wrap and int(status["Pid"][0]) > _PID_INSIDE_MAX:
        raise _TrialError("a program in namespaces of its own sees processes of the node")


# ---- one process --------------------------------------------------------------------------------


def _start(plan: SandboxPlan, folder: Path = Path("/")) -> bytes:
    """Start a program with this plan in a folder, end it, and return what the kernel said of it.

    Raises:
        _TrialError: it did not start, said nothing in time, or this process may not end it.
    """
    hear, say = os.pipe2(os.O_CLOEXEC)
    wait, keep = os.pipe2(os.O_CLOEXEC)  # it runs until this one is closed, or it is ended
    child = os.fork()
    if child == 0:
        _become(plan, folder, wait, say)
    os.close(say)
    os.close(wait)
    try:
        said = _heard(hear)
        try:
            os.kill(child, signal.SIGKILL)
        except PermissionError:
            raise _TrialError("this process may not end one of a job's user") from None
    finally:
        os.close(hear)
        os.close(keep)
        os.waitpid(child, 0)
    if _END_OF_STATUS not in said:
        words = " ".join(said.decode("utf-8", "replace").split())[-_WORDS_MAX:]
        raise _TrialError(words or f"a program said nothing within {_SECONDS:g} s")
    return said


def _become(plan: SandboxPlan, folder: Path, wait: int, say: int) -> None:
    """In the child: be the program, or say why not."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

        def prepare() -> None:
            os.chdir(folder)
            os.dup2(wait, 0)
            os.dup2(say, 1)
            os.dup2(say, 2)

        execute(
            plan, ("/bin/cat", "/proc/self/status", "-"), {"PATH": "/usr/bin:/bin"}, prepare=prepare
        )
    except BaseException as error:  # noqa: BLE001 - a child never returns
        os.write(say, str(error).encode())
    finally:
        os._exit(1)


def _heard(hear: int) -> bytes:
    fcntl.fcntl(hear, fcntl.F_SETFL, os.O_NONBLOCK)
    end, said = time.monotonic() + _SECONDS, b""
    while _END_OF_STATUS not in said and len(said) < _SAID_BYTES_MAX:
        left = end - time.monotonic()
        if left <= 0 or not select.select([hear], [], [], left)[0]:
            break
        more = os.read(hear, _SAID_BYTES_MAX)
        if not more:
            break
        said += more
    return said


def _words(trial: Callable[[], None]) -> str:
    try:
        trial()
    except _TrialError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be tried: {error}"
    return ""
