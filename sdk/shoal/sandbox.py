"""What a job may see and take on its node: what it asks for, and what a node can do for it.

Levels are ordered: `none`, `user`, `confined`. A job asks for a level and gets that one or a higher one,
never a lower one: a node that cannot do it does not get the job.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


class SandboxLevel(enum.Enum):
    """How far a job is kept from the rest of its node."""

    NONE = "none"
    """It runs as the agent's user."""
    USER = "user"
    """It runs as a user that no other attempt of the node has, and can gain no rights."""
    CONFINED = "confined"
    """It runs in namespaces of its own (bubblewrap) and sees of the node what it needs."""

    def covers(self, wanted: "SandboxLevel") -> bool:
        """Whether a job that asks for `wanted` may run at this level."""
        return _ORDER[self] >= _ORDER[wanted]


_ORDER = {level: place for place, level in enumerate(SandboxLevel)}


class SandboxNetwork(enum.Enum):
    """Which network a job has."""

    NODE = "node"
    """That of its node."""
    NONE = "none"
    """None but a loopback interface of its own; its ports work."""


class Claim(enum.Enum):
    """What a job claims of a node, as it can be made to bind the job."""

    CPUS = "cpus"
    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a job asks for: at least a level, a network, and claims that have to bind it, whatever the node."""

    level: SandboxLevel = SandboxLevel.NONE
    network: SandboxNetwork = SandboxNetwork.NODE
    enforce: frozenset[Claim] = frozenset()


ASKS_NOTHING: Final = Sandbox()
"""What a job asks for that says nothing of it."""


def _no_claims() -> Mapping[Claim, str]:
    return MappingProxyType({})


def _no_refusals() -> Mapping[SandboxLevel, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class NodeSandbox:
    """What a node can do, each found by doing it as its agent started.

    Attributes:
        default: the level of jobs that ask for none, or for a lower one.
        levels: levels that can be had, `none` only where the operator says so.
        enforces: by what each claim binds: `cgroup v1`, `cgroup v2`, `rlimit`, `watch`; what is missing binds no job.
        filters: what narrows system calls and files further: `seccomp`, `landlock`.
        refused: why a level cannot be had, for people.
    """

    default: SandboxLevel = SandboxLevel.NONE
    levels: frozenset[SandboxLevel] = frozenset()
    enforces: Mapping[Claim, str] = field(default_factory=_no_claims)
    filters: tuple[str, ...] = ()
    refused: Mapping[SandboxLevel, str] = field(default_factory=_no_refusals)

    def level_for(self, wanted: SandboxLevel) -> SandboxLevel | None:
        """Return the level at which a job that asks for `wanted` runs; None where it cannot run.

        That is the lowest of `levels` that covers both what it asks for and the node's default.
        """
        fit = (
            level for level in SandboxLevel if level in self.levels and level.covers(self.default)
        )
        return next((level for level in fit if level.covers(wanted)), None)
