"""Starting a program by posix_spawn(3), without a copy of the keeper: for a moment that is what the program is to be.

Theory. A fork of an interpreter costs two to five times what the program itself does: its page tables are copied, and
then every page that the child touches. posix_spawn(3) shares the memory of its caller until the program begins
(clone(2), CLONE_VM and CLONE_VFORK), so it costs the same however large the caller is. But between fork and program it
does only what it has a word for: session, signals, descriptors. The rest is inherited. So the keeper, which has one
thread, takes on what the program is to have, starts it, and puts that off again.

Rule 1. It takes on only what it can put off again: its folder, its `oom_score_adj` (which may go back to the least that
it was without a right to) and the soft limit that marks an attempt. What cannot be put off is done in a fork
(`edge_agent.keeper.execution`): a user, capabilities, Landlock and seccomp, hard limits, control groups.

Rule 2. What every program of a keeper has is put on once and for ever: no core file (`leave_no_core`).

Invariant. After `start`, whether it raised or not, the keeper is what it was. Nothing is imported meanwhile, or the
job's folder would be looked into.

What it gives up: a fork that does not begin is given up after 5 s, and posix_spawn(3) waits for as long as the kernel
opens the program. The agent has looked at the file right before, so one on a file system that does not answer
holds up the agent's thread and not its keeper.

Example. `true` with the plan of a job without a sandbox: 0.4 ms instead of 3.5, of which 0.35 are its own.

Sources: posix_spawn(3); `__set_oom_adj` in fs/proc/base.c for what may be put back; `__spawni` of glibc, which blocks
all signals meanwhile and tells why execve(2) failed.
"""

import contextlib
import os
import resource
from typing import Final

from edge_agent.keeper import child, strays
from edge_agent.keeper.execution import Execution, SpawnError, open_plain, said
from edge_agent.sandbox.plan import SandboxPlan

_SCORE: Final = "/proc/self/oom_score_adj"
_SCORE_BYTES: Final = 16
_HOME: Final = "/"
_NO_INPUT: Final = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
"""Opened by each program for itself: what one does to it is of no concern to the others."""


def suits(plan: SandboxPlan) -> bool:
    """Whether a program with such a plan can be started so: it says nothing but a score, and what its end kills."""
    return (
        plan.uid < 0
        and plan.gid < 0
        and not plan.no_new_privileges
        and not (plan.join or plan.limits or plan.files or plan.scoped or plan.seccomp or plan.wrap)
    )


def leave_no_core() -> None:
    """Let no program of this process leave a core file, nor this process.

    A limit of 0 would not keep a program from getting its memory where core_pattern is a pipe; see core(5).
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


def start(execution: Execution) -> int:
    """Start it as the leader of a session and process group of its own, and be in the root folder afterwards.

    Raises:
        SpawnError: the folder or the program cannot be had, or no process.
    """
    actions: list[child.FileAction] = [_NO_INPUT]
    opened = score = -1
    own = b""
    try:
        if execution.stdin:
            # With the rights of the keeper, which are those of such a program.
            opened = open_plain(execution.stdin, os.O_RDONLY)
            actions = [(os.POSIX_SPAWN_DUP2, opened, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in execution.descriptors]
        if execution.plan.oom_score:
            score = os.open(_SCORE, os.O_RDWR | os.O_CLOEXEC)
            own = _raise_score(score, execution.plan.oom_score)
        os.chdir(execution.cwd)
        with strays.worn(execution.mark):
            return child.begin(execution.argv, execution.env, actions)
    except (OSError, ValueError) as error:
        raise SpawnError(
            f"cannot start {execution.argv[0]!r} in {execution.cwd!r}: {said(error)}"
        ) from error
    finally:
        with contextlib.suppress(
            OSError
        ):  # for no such reason what was started is said to have not been
            os.chdir(_HOME)
            if own:
                os.pwrite(score, own, 0)
        for descriptor in (opened, score):
            if descriptor >= 0:
                os.close(descriptor)


def _raise_score(file: int, score: int) -> bytes:
    """Have a higher `oom_score_adj`, which what is started inherits; returns what to put back, empty for nothing.

    It is put back when this process has its turn again. Should memory run out just then, the kernel takes what has most
    of it among the jobs; that is not the keeper, which has 20 MiB.
    """
    own = os.pread(file, _SCORE_BYTES, 0)
    if int(own) >= score:
        return b""
    os.pwrite(file, b"%d" % score, 0)
    return own
