"""What an attempt may leave behind, found by what none of its processes can shed: its user and its control groups.

Descent and mark (`edge_agent.keeper.strays`) find what does not hide: a process may take its mark off, and while other
jobs run an orphan without one may be theirs. A user that no other attempt of the machine has, and a control group that
only root may leave, cannot be taken off.

Rule. All processes of the user are killed in one system call, kill(2) with -1: a program that forks as fast as it can
is never quicker, as it would be than a walk through /proc. The process that makes the call is that user and has no
capabilities, so the kernel lets it kill nothing else. What it kills may kill it first, so it is done again
until nothing is left, or the caller gives up.

Nothing is left of most attempts. Then one system call says so: what may gain no rights has its user in all places, and
the kernel knows whether a user has any process at all (`has_processes`). A control group cannot hold more than that.

Source: kill(2); `kill_something_info` in kernel/signal.c holds the list of processes while it goes through it.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.sandbox.entry import drop_capabilities
from edge_agent.sandbox.group_folder import kill_group
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.user_processes import has_processes, processes_of

_FAILED: Final = 1


@dataclass(frozen=True, slots=True)
class Remains:
    """What an attempt may have left.

    Attributes:
        uid: its user, -1 where it has none of its own.
        folders: those of its control groups.
        bound: whether all that it started has a user of its own, since it could gain no rights.
    """

    uid: int = -1
    folders: Sequence[str] = ()
    bound: bool = False

    @classmethod
    def of(cls, plan: SandboxPlan) -> "Remains":
        """What a program that was started with a plan may leave."""
        return cls(plan.uid, plan.kill, plan.no_new_privileges and plan.uid > 0)

    def end(self) -> list[int]:
        """Kill all of it; return what is still there, and may be gone in a moment."""
        if self.bound and not has_processes(self.uid):
            return []
        left = dict.fromkeys(kill_group(self.folders) if self.folders else ())
        if self.uid > 0:
            end_user(self.uid)
            left |= dict.fromkeys(processes_of(self.uid))
        return list(left)


def end_user(uid: int) -> None:
    """Kill every process of a user, which is not this process's own.

    It forks, so it is not for a process with threads; `end_processes_of` is.

    Raises:
        OSError: there is no process to do it.
        ValueError: the user is root, or the one that this process runs as.
    """
    if uid <= 0 or uid in os.getresuid():
        raise ValueError(f"the processes of user {uid} are not those of a job alone")
    # Signals of the child are not told to this process, whose handlers it has until it is gone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _end_all_as(uid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.waitpid(pid, 0)


def _end_all_as(uid: int) -> None:
    """Be that user and nothing else, kill what it runs, and end."""
    try:
        os.setresuid(uid, uid, uid)
        # Kept by one that was no root: with CAP_KILL the call below would end the whole machine.
        drop_capabilities()
        if os.getresuid() == (uid, uid, uid):
            os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(_FAILED)
