"""The door of each attempt: the level at which it runs, the user that it becomes, and the plan that makes it so.

What a job asks for and what the node can do are values; here they meet, right before the program starts. A part
of a plan that cannot be made raises, and the attempt ends with START and the words: it never runs with less.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.program import ProgramError
from edge_agent.sandbox.control_groups import GroupLimits
from edge_agent.sandbox.job_folders import close_attempt, close_state, open_state, owner_of
from edge_agent.sandbox.job_limits import ClaimError, JobLimits
from edge_agent.sandbox.job_users import JobUsers, NoUserError
from edge_agent.sandbox.narrowing import Narrowing, NarrowingError, Needs
from edge_agent.sandbox.plan import NO_PLAN, FilesRule, SandboxPlan
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
_WRITTEN: Final = ("work", "ports", "home", "tmp")
"""What of its folder a program writes to."""
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


@dataclass(frozen=True, slots=True)
class SandboxOutline:
    """What the plans of all attempts of a job have alike.

    Attributes:
        plan: all of it but what is an attempt's own: its user, its control group, and the paths in its folder.
        group: the limits of its control group; None where it has none.
        attempts: where the folder of all attempts leads.
        needs: what it needs of the node beside that, where it is confined.
    """

    plan: SandboxPlan
    group: GroupLimits | None
    attempts: str = ""
    needs: Needs | None = None


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
    _levels: dict[SandboxLevel, SandboxLevel | None] = field(init=False)
    """The level at which a job runs that asks for one."""

    def __post_init__(self) -> None:
        """Say at which level each job runs, which does not change."""
        self._levels = {wanted: self.node.level_for(wanted) for wanted in SandboxLevel}

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

    def level_for(self, job: Job) -> SandboxLevel | None:
        """Return the level at which a job runs here; None where the node cannot do what it asks for."""
        return self._levels[job.sandbox.level]

    def level_of(self, job: Job) -> SandboxLevel:
        """Return the level at which a job runs here.

        Raises:
            SandboxRefusedError: the node cannot do what it asks for.
        """
        level = self.level_for(job)
        if level is None:
            wanted = job.sandbox.level
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
        return self.door_of(keeper_id(ref), self.ready(job))

    def door_of(self, attempt: str, level: SandboxLevel) -> AttemptDoor:
        """Return what an attempt of this name is given at a level for which all is `ready`."""
        if level is SandboxLevel.NONE or self.users is None:
            return AttemptDoor(level)
        try:
            uid = self.users.take(attempt)
        except NoUserError as error:
            raise SandboxRefusedError(str(error)) from error
        return AttemptDoor(level, uid)

    def reserve(self) -> int:
        """Keep a user for an attempt to come, to which its folder is given ahead; -1 where none can be spared."""
        return -1 if self.users is None else self.users.reserve()

    def grant(self, attempt: str, uid: int) -> None:
        """Give an attempt of this name the user that was reserved for it: `door_of` says it from now on."""
        if self.users is not None:
            self.users.grant(attempt, uid)

    def restore(self, uid: int) -> None:
        """Let any attempt have a user that was reserved."""
        if self.users is not None and uid >= 0:
            self.users.restore(uid)

    def outline(
        self,
        door: AttemptDoor,
        job: Job,
        attempts: Path,
        reads: Sequence[Path],
        own: Sequence[Path] = (),
    ) -> SandboxOutline:
        """Return what the plans of all attempts of a job have alike. What it says of the node holds for now.

        Args:
            door: what one of them is given; the others have other users of that kind.
            job: what it is.
            attempts: the folder of all attempts.
            reads: what all of them have to read: their environment, the SDK. All are there.
            own: what this one alone reads, wherever it lies: files of its secrets. The outline is its own then.

        Raises:
            SandboxRefusedError: it cannot be had.
        """
        own_user = door.uid >= 0
        try:
            limited, group = self.limits.bound(job, door.level, own_user=own_user)
        except ClaimError as error:
            raise SandboxRefusedError(str(error)) from error
        if door.level is SandboxLevel.NONE:
            return SandboxOutline(NO_PLAN if limited == NO_PLAN else limited, group)
        nodes = self.limits.nodes(job.resources)
        place = self.narrowing.place(str(attempts))
        # Programs of several attempts may come from one starter: not of those that read what no other one does, nor
        # where there is no room for a starter beside the program.
        shared = door.level is SandboxLevel.USER and own_user and not own
        alike = replace(
            limited,
            groups=_groups(nodes) if nodes else (),
            no_new_privileges=True,
            attempts=place if shared and job.resources.processes != 1 else "",
        )
        needs = Needs(
            folder=place,
            reads=_read_by((*reads, *own), door.uid),
            devices=tuple(map(str, nodes)),
            network=job.sandbox.network,
        )
        if door.level is SandboxLevel.CONFINED:
            own_words = replace(alike, uid=door.uid, gid=door.uid)
            narrowed = self._narrowed(own_words, door.level, needs)
            return SandboxOutline(narrowed, group, place, needs)
        return SandboxOutline(self._narrowed(alike, door.level, needs), group, place)

    def plan(
        self, door: AttemptDoor, outline: SandboxOutline, folder: AttemptFolder
    ) -> SandboxPlan:
        """Return what is done to a program before it begins.

        Args:
            door: what its attempt is given.
            outline: what it has alike with others.
            folder: where it lives; given to its user.

        Raises:
            SandboxRefusedError: it cannot be had.
        """
        alike, name = outline.plan, folder.name
        join: tuple[str, ...] = ()
        kill: tuple[str, ...] = ()
        if outline.group is not None:
            try:
                places = self.limits.group(name, outline.group)
            except ClaimError as error:
                raise SandboxRefusedError(str(error)) from error
            join, kill = places.join, places.kill
        if door.level is SandboxLevel.NONE:
            if outline.group is None:
                return alike
            return SandboxPlan(join, alike.oom_score, alike.limits, kill=kill)
        here = f"{outline.attempts}/{name}"
        own: tuple[FilesRule, ...] = ()
        if alike.files:
            own = tuple([FilesRule(f"{here}/{part}", True) for part in _WRITTEN])
        wrap: tuple[str, ...] = ()
        if outline.needs is not None:
            writes = tuple(f"{here}/{part}" for part in _WRITTEN)
            needs = replace(outline.needs, folder=f"{here}/work", writes=writes)
            try:
                wrap = self.narrowing.words(door.uid, needs)
            except NarrowingError as error:
                raise SandboxRefusedError(str(error)) from error
        return SandboxPlan(
            join,
            alike.oom_score,
            alike.limits,
            door.uid,
            door.uid,
            alike.groups,
            True,
            alike.files,
            own,
            alike.scoped,
            alike.seccomp,
            wrap,
            kill,
            alike.attempts,
        )

    def _narrowed(self, plan: SandboxPlan, level: SandboxLevel, needs: Needs) -> SandboxPlan:
        try:
            return self.narrowing.plan(plan, level, needs)
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
            close_attempt(folder.text)
        return owner

    def close_at_once(self, folder: AttemptFolder, uid: int) -> bool:
        """Close the folder of an attempt of a user if it left no process and no memory; False if that takes `close`.

        It takes some microseconds, so it may be called on the loop.
        """
        if self.users is None or has_processes(uid) or not self.users.leavings.no_memory_of(uid):
            return False
        try:
            close_attempt(folder.text)
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


def _read_by(reads: tuple[Path, ...], uid: int) -> tuple[str, ...]:
    """What a program reads: its environment and the like, and where their interpreters live."""
    programs = [path / "bin" / "python" for path in reads]
    prefixes = [
        Path(os.path.realpath(program)).parent.parent for program in programs if program.exists()
    ]
    reached = (prefix for prefix in prefixes if uid < 0 or barrier(prefix, uid) is None)
    return tuple(map(str, (*reads, *reached)))
