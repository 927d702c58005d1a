"""Feasibility: what keeps a job off a node, each filter with its own words.

A filter returns an empty string if the job may go there, else a phrase that continues the sentence
"node n: ...".
"""

from __future__ import annotations

from collections.abc import Callable

from control.core.scheduler.room import ROUNDING, NodeRoom
from control.core.scheduler.snapshot import Pending
from shoal import limits
from shoal.sandbox import ASKS_NOTHING, Claim, SandboxLevel
from shoal.spec import Resources

NAME_LABEL = "node"
"""The label that each node has without being told: its name."""

_KEPT_MAX = 2
"""Jobs that a phrase names for which room is kept."""

_WHY_CHARACTERS_MAX = 500
"""Most of a node's words for why it cannot do a level."""

Filter = Callable[[Pending, NodeRoom], str]
"""One reason that a node may be unfit."""


def connected(_: Pending, room: NodeRoom) -> str:
    """Its agent must have a session whose lease has not run out."""
    return "" if room.node.connected else "its agent is not connected"


def quarantined(_: Pending, room: NodeRoom) -> str:
    """Its agent must follow this controller."""
    return f"it is quarantined: {room.node.quarantine}" if room.node.quarantine else ""


def drained(_: Pending, room: NodeRoom) -> str:
    """Nothing new goes to a drained node."""
    return "it is drained" if room.node.drained else ""


def refuses(_: Pending, room: NodeRoom) -> str:
    """Nothing new goes to a node whose agent takes none."""
    return room.node.refuses


def pinned(job: Pending, room: NodeRoom) -> str:
    """A pinned job goes back to its node and nowhere else."""
    if not job.pinned_node or job.pinned_node == room.node.name:
        return ""
    return f"the job is pinned to {job.pinned_node}"


def labels(job: Pending, room: NodeRoom) -> str:
    """Every required label must be there with its value; `node` is the node's name, if it has no such label."""
    for name, value in job.place.require.items():
        have = room.node.labels.get(name, room.node.name if name == NAME_LABEL else None)
        if have != value:
            return (
                f"label {name}={value} is required, and it has "
                + (f"{name}={have}" if have is not None else f"no {name}")
            )  # fmt: skip
    return ""


def cpus(job: Pending, room: NodeRoom) -> str:
    """Enough cores must be free."""
    need = job.resources.cpus
    if need <= room.cpus + ROUNDING:
        return ""
    return (
        f"{need:g} cpus are needed, {max(room.cpus, 0):g} of {room.node.capacity.cpus:g} free"
        f"{_kept(job, room)}"
    )


def memory(job: Pending, room: NodeRoom) -> str:
    """Enough memory must be free."""
    need = job.resources.memory_bytes
    if not need or need <= room.memory_bytes:
        return ""
    return (
        f"{need} bytes of memory are needed, {max(room.memory_bytes, 0)} "
        f"of {room.node.capacity.memory_bytes} free{_kept(job, room)}"
    )


def _kept(job: Pending, room: NodeRoom) -> str:
    """Say for which jobs room is kept that this job might have; of other namespaces without names."""
    said = [
        f"{_amount(kept.resources)} are kept for "
        + (kept.job.name if kept.job.namespace == job.ref.namespace else "another namespace's job")
        + (", which is pinned there and waits" if kept.pinned else ", which was there and waits")
        + " for its next attempt"
        for kept in list(room.kept.values())[:_KEPT_MAX]
    ]
    more = len(room.kept) - len(said)
    return "".join(
        f"; {one}" for one in [*said, *([f"so is room for {more} more"] if more else [])]
    )


def _amount(resources: Resources) -> str:
    said = [f"{resources.cpus:g} cpus"]
    if resources.memory_bytes:
        said.append(f"{resources.memory_bytes} bytes of memory")
    if resources.devices:
        said.append(f"the devices {', '.join(resources.devices)}")
    return " and ".join(said)


def devices(job: Pending, room: NodeRoom) -> str:
    """A device of each class must be free."""
    missing = room.missing_devices(job.resources.devices)
    return f"no free device of class {', '.join(missing)}{_kept(job, room)}" if missing else ""


def features(job: Pending, room: NodeRoom) -> str:
    """Its agent must be able to do what the job needs; what one that is away can do is not known."""
    if not room.node.connected or job.features <= room.node.features:
        return ""
    missing = sorted(job.features - room.node.features)
    return f"its agent cannot do {' and '.join(missing)}, which the job needs: update it"


def sandbox(job: Pending, room: NodeRoom) -> str:
    """It must be able to do what the job asks of its sandbox; what one that is away can do is not known."""
    asked, can = job.sandbox, room.node.sandbox
    if asked == ASKS_NOTHING or not room.node.connected:
        return ""
    if can is None:
        return "its agent does not say which sandboxes it can do: update it"
    said: list[str] = []
    if can.level_for(asked.level) is None:
        have = " and ".join(f"`{level.value}`" for level in SandboxLevel if level in can.levels)
        why = can.refused.get(asked.level, "")
        said.append(
            f"the job asks for the sandbox `{asked.level.value}`, and it can do {have or 'no level'}"
            + (f" ({limits.cut(why, _WHY_CHARACTERS_MAX)})" if why else "")
        )
    loose = [claim.value for claim in Claim if claim in asked.enforce - can.enforces.keys()]
    if loose:
        said.append(f"the job's claims of {' and '.join(loose)} have to bind it, and cannot there")
    return "; ".join(said)


def secrets(job: Pending, _: NodeRoom) -> str:
    """All secrets that the job names must be there; without one it begins nowhere."""
    return job.lacks


FILTERS: tuple[Filter, ...] = (
    secrets,
    connected,
    quarantined,
    drained,
    refuses,
    features,
    sandbox,
    pinned,
    labels,
    cpus,
    memory,
    devices,
)
"""All filters, the most telling first."""

EVER: tuple[Filter, ...] = (features, sandbox, pinned, labels, cpus, memory, devices)
"""The filters that count when the question is whether a job could ever fit."""


def objection(job: Pending, room: NodeRoom, filters: tuple[Filter, ...] = FILTERS) -> str:
    """Return the first objection to the job on this node, or an empty string."""
    for check in filters:
        said = check(job, room)
        if said:
            return said
    return ""


def objections(job: Pending, room: NodeRoom) -> tuple[str, ...]:
    """Return everything that keeps the job off this node."""
    return tuple(said for check in FILTERS if (said := check(job, room)))
