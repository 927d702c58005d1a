"""What is done to the programs of a build before they begin: the same as to those of a job that claims nothing."""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.sandbox.control_groups import ControlGroups, GroupError, GroupLimits
from edge_agent.sandbox.narrowing import Narrowing, NarrowingError, Needs
from edge_agent.sandbox.plan import SandboxPlan
from edge_agent.sandbox.reach import barrier
from shoal.sandbox import Claim, SandboxLevel

_OOM_SCORE: Final = 500
"""As for jobs: the kernel ends a build before the agent."""
_PROCESSES_MAX: Final = 4096


class BuildPlanError(Exception):
    """A build cannot be kept from the rest of the node as it has to be; the message says why."""


@dataclass(frozen=True, slots=True)
class BuildPlanning:
    """Makes such plans.

    Args:
        narrowing: what this node uses to narrow what programs see.
        reads: what builds read below folders that are hidden from jobs: installer and interpreters.
        groups: control groups; None where there are none.
    """

    narrowing: Narrowing
    reads: tuple[Path, ...] = ()
    groups: ControlGroups | None = None

    def plan(
        self,
        room: str,
        uid: int,
        level: SandboxLevel,
        folder: Path,
        *,
        writes: Sequence[Path],
        reads: Sequence[Path],
    ) -> SandboxPlan:
        """The plan of one program.

        Args:
            room: name of the build's control group.
            uid: user of the build; -1 for the agent's.
            level: how far it is kept from the rest of the node.
            folder: where it begins.
            writes: folders that it writes to.
            reads: what of the agent's it reads.

        Raises:
            BuildPlanError: the node cannot do it.
        """
        join: tuple[str, ...] = ()
        kill: tuple[str, ...] = ()
        try:
            if self.groups is not None and Claim.PROCESSES in self.groups.enforces:
                places = self.groups.make(room, GroupLimits(processes=_PROCESSES_MAX, devices=()))
                join, kill = places.join, places.kill
            plan = SandboxPlan(
                join=join,
                kill=kill,
                oom_score=_OOM_SCORE,
                limits=_limits(),
                uid=uid,
                gid=uid,
                no_new_privileges=True,
            )
            needs = Needs(
                str(folder),
                reads=tuple(_reached([*self.reads, *reads], uid)),
                writes=tuple(_reached(writes, uid)),
            )
            return self.narrowing.plan(plan, level, needs)
        except (GroupError, NarrowingError) as error:
            raise BuildPlanError(str(error)) from error

    def close(self, room: str) -> None:
        """Remove the control group of a build that is over."""
        if self.groups is not None:
            self.groups.remove(room)


def read_by_builds(
    programs: Iterable[Path], environ: Mapping[str, str], pythons: str
) -> tuple[Path, ...]:
    """What builds have to read wherever it lies: programs, interpreters, and packages that an operator put there.

    Args:
        programs: installers, and prefixes of interpreters.
        environ: variables of the installer.
        pythons: where `uv python install` puts interpreters.
    """
    home = Path(environ.get("HOME", "/"))
    kept = environ.get("UV_FIND_LINKS", "").split(",") + environ.get("PIP_FIND_LINKS", "").split()
    local = [Path(word.removeprefix("file://")) for word in kept]
    return (
        *programs,
        Path(pythons),
        home / ".pyenv/versions",
        *(path for path in local if path.is_absolute()),
    )


def _limits() -> tuple[tuple[int, int], ...]:
    """No core files, and an end to forking; what is lower already stays, since raising it may take rights."""
    found: list[tuple[int, int]] = []
    for which, most in ((resource.RLIMIT_CORE, 1), (resource.RLIMIT_NPROC, _PROCESSES_MAX)):
        _, hard = resource.getrlimit(which)
        found.append((which, most if hard == resource.RLIM_INFINITY else min(most, hard)))
    return tuple(found)


def _reached(paths: Iterable[Path], uid: int) -> Iterator[str]:
    """What is there and can be reached: a plan that names anything else could not be carried out."""
    for path in dict.fromkeys(paths):
        if os.path.exists(path) and (uid < 0 or barrier(path.absolute(), uid) is None):  # noqa: PTH110 - never raises
            yield str(path)
