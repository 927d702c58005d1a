"""What binds a job to what it claims, on this node: control groups, resource limits, a watched folder.

Rule. The claims that have to bind (`edge_agent.sandbox.binding`) do so by what the node has:

| claim | by a control group | else |
|---|---|---|
| `memory` | all its processes together; the kernel kills what takes more | RLIMIT_DATA, of each process alone |
| `cpus` | so much time of the cores, and its share where there is too little | nothing |
| `processes` | so many processes and threads; 4096 if it claims none | RLIMIT_NPROC, where it has a user of its own |
| `disk` | nothing | its folder is watched, and RLIMIT_FSIZE bounds each file |

A job without a claim of memory has as much as its node: where that is at an end the kernel chooses a process to kill,
and `oom_score` makes that one of a job, and not the agent.

Sources: setrlimit(2): RLIMIT_NPROC does not hold for root, so it needs a user without rights.
"""

import resource
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.sandbox.binding import binding_claims
from edge_agent.sandbox.control_groups import (
    ControlGroups,
    GroupError,
    GroupLimits,
    GroupPlaces,
    device_word,
)
from edge_agent.sandbox.device_nodes import device_nodes
from edge_agent.sandbox.plan import SandboxPlan
from shoal.limits import PROCESSES_DEFAULT
from shoal.sandbox import Claim, SandboxLevel
from shoal.spec import Job, Resources

JOB_OOM_SCORE: Final = 500
"""The kernel kills a job before it kills the agent or the keeper."""
_WRAP_PROCESSES: Final = 2
"""Those of bubblewrap, which are in the group of the job."""

RLIMIT: Final = "rlimit"
WATCH: Final = "watch"


class ClaimError(Exception):
    """A claim that has to bind cannot be made to on this node; the message says which, and why."""


def node_claims(groups: Mapping[Claim, str], *, own_users: bool) -> Mapping[Claim, str]:
    """Return by what each claim binds on a node.

    Args:
        groups: what its control groups enforce.
        own_users: whether jobs have users of their own.
    """
    claims = {Claim.MEMORY: RLIMIT, Claim.DISK: WATCH}
    if own_users:
        claims[Claim.PROCESSES] = RLIMIT
    return claims | dict(groups)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Makes claims bind.

    Args:
        groups: those of the node.
        devices: classes of devices that the node offers.
        root: the folder that stands for `/`, for devices.
    """

    groups: ControlGroups
    devices: Collection[str] = ()
    root: Path = Path("/")

    def group(self, attempt: str, limits: GroupLimits) -> GroupPlaces:
        """Make the control group of an attempt.

        Args:
            attempt: what no other attempt of the node is called.
            limits: what `bound` has said.

        Raises:
            ClaimError: it cannot be made.
        """
        try:
            return self.groups.make(attempt, limits)
        except GroupError as error:
            raise ClaimError(str(error)) from error

    def bound(
        self, job: Job, level: SandboxLevel, *, own_user: bool
    ) -> tuple[SandboxPlan, GroupLimits | None]:
        """Return what limits a job beside its control group, and the limits of that group, if it has one.

        Args:
            job: whose claims count.
            level: the level that it runs at.
            own_user: whether it runs as a user of its own.

        Raises:
            ClaimError: a claim that has to bind cannot be made to.
        """
        binding = binding_claims(job.sandbox, level)
        claims = node_claims(self.groups.enforces, own_users=own_user)
        for claim in sorted(job.sandbox.enforce, key=lambda one: one.value):
            if claim not in claims:
                raise ClaimError(
                    f"the job asks that its {claim.value} binds it, and here nothing can make it: "
                    f"{self.groups.refused or 'it has no user of its own'}"
                )
        limits = _resource_limits(job.resources, level, binding, claims)
        # A plan that says nothing else is none: the keeper has a score for its program, too.
        score = 0 if level is SandboxLevel.NONE and not binding else JOB_OOM_SCORE
        by_group = {claim for claim in binding if claim in self.groups.enforces}
        guarded = level is not SandboxLevel.NONE and self.groups.devices
        plan = SandboxPlan(oom_score=score, limits=limits)
        if not by_group and not guarded:
            return plan, None
        resources = job.resources
        return plan, GroupLimits(
            resources.memory_bytes if Claim.MEMORY in by_group else 0,
            resources.cpus if Claim.CPUS in by_group else 0.0,
            _processes(resources, level) if Claim.PROCESSES in by_group else 0,
            self._devices(resources) if guarded else None,
        )

    def nodes(self, resources: Resources) -> tuple[Path, ...]:
        """Return the device nodes that a job asks for."""
        return device_nodes(resources.devices, self.devices, self.root)

    def _devices(self, resources: Resources) -> tuple[str, ...]:
        return tuple(word for node in self.nodes(resources) if (word := device_word(node)))


def _resource_limits(
    resources: Resources,
    level: SandboxLevel,
    binding: Collection[Claim],
    claims: Mapping[Claim, str],
) -> tuple[tuple[int, int], ...]:
    limits: list[tuple[int, int]] = []
    if Claim.MEMORY in binding and claims[Claim.MEMORY] == RLIMIT and resources.memory_bytes:
        limits.append((resource.RLIMIT_DATA, resources.memory_bytes))
    if Claim.PROCESSES in binding and claims.get(Claim.PROCESSES) == RLIMIT:
        limits.append((resource.RLIMIT_NPROC, _processes(resources, level)))
    if Claim.DISK in binding and resources.disk_bytes:
        limits.append((resource.RLIMIT_FSIZE, resources.disk_bytes))
    return tuple(limits)


def _processes(resources: Resources, level: SandboxLevel) -> int:
    wrap = _WRAP_PROCESSES if level is SandboxLevel.CONFINED else 0
    return (resources.processes or PROCESSES_DEFAULT) + wrap
