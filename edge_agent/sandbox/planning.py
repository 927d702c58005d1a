"""The door of each attempt: the level at which it runs, the user that it becomes, and the plan that makes it so.

What a job asks for and what the node can do are values; here they meet, right before the program starts. A part
of a plan that cannot be made raises, and the attempt ends with START and the words: it never runs with less.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.program import ProgramError
from edge_agent.sandbox.job_folders import close_attempt, close_state, open_state, owner_of
from edge_agent.sandbox.job_limits import ClaimError, JobLimits
from edge_agent.sandbox.job_users import JobUsers, NoUserError
from edge_agent.sandbox.narrowing import Narrowing, NarrowingError, Needs
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.reach import barrier
from edge_agent.sandbox.user_processes import end_processes_of, has_processes
from services.runtime.log import fields
from shoal.names import AttemptRef
from shoal.sandbox import NodeSandbox, SandboxLevel
from shoal.spec import Job

LOG = logging.getLogger(__name__)

_ROOT: Final = 0
_TIDY_SECONDS: Final = 1.0
_TRIM_TURNS: Final = 60
_READS_MAX: Final = 256
_OTHERS_USE: Final = 0o006


class SandboxRefusedError(ProgramError):
    """A job cannot be given what it asks for here; the message says why, and what helps."""


@dataclass(frozen=True, slots=True)
class AttemptDoor:
    """What an attempt is given.

    Attributes:
        level: how far it is kept from the rest.
        uid: the user that it becomes, whose group has the same number; -1 for the agent's own.
    """

    level: SandboxLevel = SandboxLevel.NONE
    uid: int = -1


@dataclass(eq=False)
class SandboxPlanning:
    """Makes the doors of a node's attempts; `open` it. It touches files and processes, so call it on a thread.

    Args:
        state: the agent's state folder.
        node: what the node can do.
        users: the users of its attempts; None where they cannot have any.
        narrowing: what narrows what they see.
        limits: makes what they claim bind them.
    """

    state: Path
    node: NodeSandbox
    users: JobUsers | None
    narrowing: Narrowing
    limits: JobLimits
    _opened: bool = False
    _reads: dict[tuple[Path, ...], tuple[str, ...]] = field(
        default_factory=dict[tuple[Path, ...], tuple[str, ...]]
    )

    def open(self) -> None:
        """Take over what an earlier agent left.

        Raises:
            OSError: the registry of users, or the rights of the state folder, cannot be had.
        """
        if self.users is None:
            close_state(self.state)
            return
        try:
            self.users.open(self.state / "attempts")
        except NoUserError as error:
            if self.node.default is not SandboxLevel.NONE:
                raise
            # The jobs that ask for more are told the same.
            LOG.warning("jobs cannot have users of their own", extra=fields(why=error))
        if self.node.default is SandboxLevel.NONE and not self.users.taken:
            close_state(self.state)  # until there is a job that asks for more
        else:
            self._open_state()

    def level_of(self, job: Job) -> SandboxLevel:
        """Return the level at which a job runs here.

        Raises:
            SandboxRefusedError: the node cannot do what it asks for.
        """
        wanted = job.sandbox.level
        level = self.node.level_for(wanted)
        if level is None:
            why = self.node.refused.get(wanted) or "its agent was started without it (--sandbox)"
            raise SandboxRefusedError(
                f"the job asks for the sandbox {wanted.value}, and this node cannot do that: {why}"
            )
        return level

    def ready(self, job: Job) -> SandboxLevel:
        """Return the level at which a job runs here; users of jobs can pass the state folder from then on.

        Raises:
            SandboxRefusedError: the node cannot do what it asks for.
            OSError: the state folder cannot be opened for it.
        """
        level = self.level_of(job)
        if level is not SandboxLevel.NONE and self.users is not None and not self._opened:
            self._open_state()
        return level

    def door(self, ref: AttemptRef, job: Job) -> AttemptDoor:
        """Return what an attempt is given; the same each time, until it is let go.

        Raises:
            SandboxRefusedError: it cannot be given what it asks for.
            OSError: the state folder cannot be opened for it.
        """
        level = self.ready(job)
        if level is SandboxLevel.NONE or self.users is None:
            return AttemptDoor(level)
        try:
            uid = self.users.take(keeper_id(ref))
        except NoUserError as error:
            raise SandboxRefusedError(str(error)) from error
        return AttemptDoor(level, uid)

    def plan(
        self,
        door: AttemptDoor,
        job: Job,
        folder: AttemptFolder,
        reads: Sequence[Path],
    ) -> SandboxPlan:
        """Return what is done to a program before it begins.

        Args:
            door: what its attempt is given.
            job: what it is.
            folder: where it lives; given to its user.
            reads: what it has to read: its environment, the SDK, files of its secrets. All are there.

        Raises:
            SandboxRefusedError: it cannot be had.
        """
        attempt, own_user = folder.path.name, door.uid >= 0
        try:
            limited = self.limits.plan(attempt, job, door.level, own_user=own_user)
        except ClaimError as error:
            raise SandboxRefusedError(str(error)) from error
        if door.level is SandboxLevel.NONE:
            return limited
        nodes = self.limits.nodes(job.resources)
        plan = SandboxPlan(
            limited.join,
            limited.oom_score,
            limited.limits,
            door.uid,
            door.uid,
            _groups(nodes) if nodes else (),
            no_new_privileges=True,
            kill=limited.kill,
            attempts=self._shared(door, job, folder, reads),
        )
        here = str(folder.path)
        needs = Needs(
            folder=f"{here}/{folder.work.name}",
            reads=self._read_by(tuple(reads), door.uid),
            writes=tuple(
                f"{here}/{path.name}"
                for path in (folder.work, folder.ports, folder.home, folder.tmp)
            ),
            devices=tuple(map(str, nodes)),
            network=job.sandbox.network,
        )
        try:
            return self.narrowing.plan(plan, door.level, needs)
        except NarrowingError as error:
            raise SandboxRefusedError(str(error)) from error

    def close(self, folder: AttemptFolder) -> int:
        """End what is left of an attempt whose program has ended, close its folder, and return its user.

        The memory that it left is others' at once; files that it left elsewhere go a little later.

        Raises:
            OSError: the folder cannot be closed.
        """
        owner = owner_of(folder.path)
        if owner >= 0:
            # A folder of another owner is that of an agent with other rights, or of another range.
            ours = self.users is not None and owner in self.users.users
            if ours:
                self._end_all_of(owner, folder.path)
            close_attempt(folder.path)
        return owner

    def close_at_once(self, folder: AttemptFolder, uid: int) -> bool:
        """Close the folder of an attempt of a user if it left no process and no memory; False if that takes `close`.

        It takes some microseconds, so it may be called on the loop.
        """
        if self.users is None or has_processes(uid) or not self.users.leavings.no_memory_of(uid):
            return False
        try:
            close_attempt(folder.path)
        except OSError:
            return False
        return True

    def sweep(self, known: Collection[str]) -> None:
        """Remove the control groups that earlier agents left, but those of attempts that are known."""
        self.limits.groups.sweep(known)

    def let_go(self, attempt: str) -> None:
        """Let others have the user of an attempt of which nothing is left where a job gets to."""
        if not self.limits.groups.remove(attempt):
            LOG.warning("a control group is left", extra=fields(name=attempt))
        if self.users is not None:
            self.users.free(attempt)

    async def tidy(self) -> None:
        """Look after users and control groups of attempts that have ended, now and then, until cancelled."""
        for turn in itertools.count(1):
            await asyncio.sleep(_TIDY_SECONDS)
            if self.users is not None and self.users.due():
                await self.clean()
            if turn % _TRIM_TURNS == 0:
                await asyncio.to_thread(self.limits.groups.trim)
                self._reads = {}
                self.narrowing.forget()

    async def clean(self) -> None:
        """Look now for what attempts that have ended left: the node is short of room, say."""
        if self.users is None:
            return
        try:
            await asyncio.to_thread(self.users.clean)
        except OSError as error:
            LOG.warning("what attempts left cannot be looked for", extra=fields(why=error))

    def _end_all_of(self, uid: int, path: Path) -> None:
        """End the processes of a job's user, and remove at once what it left in memory that others need."""
        if self.users is None:
            return
        if left := end_processes_of(uid):
            said = fields(path=path, uid=uid, left=left)
            LOG.warning("processes of an attempt cannot be ended", extra=said)
        elif stays := self.users.leavings.remove_memory(uid):
            said = fields(path=path, uid=uid, left=stays)
            LOG.warning("memory of an attempt cannot be freed", extra=said)

    def _read_by(self, reads: tuple[Path, ...], uid: int) -> tuple[str, ...]:
        """What a program reads: its environment and the like, and where their interpreters live.

        Environments do not change, so this is found out once for all attempts that read the same, until a user does
        not get to an interpreter.
        """
        known = self._reads.get(reads)
        if known is not None:
            return known
        programs = [path / "bin" / "python" for path in reads]
        prefixes = [
            Path(os.path.realpath(program)).parent.parent
            for program in programs
            if program.exists()
        ]
        reached = [prefix for prefix in prefixes if uid < 0 or barrier(prefix, uid) is None]
        found = tuple(map(str, (*reads, *reached)))
        if reached == prefixes:
            if len(self._reads) >= _READS_MAX:
                self._reads.clear()
            self._reads[reads] = found
        return found

    def _shared(
        self, door: AttemptDoor, job: Job, folder: AttemptFolder, reads: Sequence[Path]
    ) -> str:
        """The folder of all attempts, where programs of several may come from one starter; else empty.

        Not for one that reads what no other attempt does beside its own folder (secrets), nor where there is no room
        for a starter beside the program.
        """
        if door.level is not SandboxLevel.USER or door.uid < 0 or job.resources.processes == 1:
            return ""
        name = folder.path.name
        if any(name in str(path) for path in reads):
            return ""
        return self.narrowing.place(str(folder.path.parent))

    def _open_state(self) -> None:
        open_state(self.state)
        self._opened = True


def _groups(nodes: Sequence[Path]) -> tuple[int, ...]:
    """The groups by which devices can be used; never root's, which opens more than devices."""
    found: set[int] = set()
    for node in nodes:
        status = node.stat()
        if status.st_gid != _ROOT and status.st_mode & _OTHERS_USE != _OTHERS_USE:
            found.add(status.st_gid)
    return tuple(sorted(found))
