"""The last resort for a gang: look for any way in which all of its jobs fit.

Ranking places one job after the other and may paint itself into a corner. This search goes back
and tries otherwise: the most constrained job first, on the node where it leaves the least room. It
is exact for small gangs; `looks_max` bounds it for others, since bin packing is hard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from control.core.scheduler.filters import Filter, objection
from control.core.scheduler.room import ROUNDING, NodeRoom
from control.core.scheduler.snapshot import Pending
from shoal.sandbox import NodeSandbox

LOOKS_MAX = 5_000
"""Most looks at a node for a job, about 5 ms."""


def constrained_first(
    gang: Sequence[Pending], rooms: Mapping[str, NodeRoom], filters: tuple[Filter, ...]
) -> list[Pending]:
    """Order a gang: those with the fewest nodes first, then the largest."""
    options: dict[object, int] = {}

    def rank(job: Pending) -> tuple[int, int, float, int]:
        kind = (
            job.resources,
            tuple(job.place.require.items()),
            job.pinned_node,
            job.features,
            job.sandbox,
        )
        if kind not in options:
            options[kind] = sum(not objection(job, room, filters) for room in rooms.values())
        resources = job.resources
        return (options[kind], -len(resources.devices), -resources.cpus, -resources.memory_bytes)

    return sorted(gang, key=rank)


def fit(
    gang: Sequence[Pending],
    rooms: Mapping[str, NodeRoom],
    filters: tuple[Filter, ...],
    looks_max: int = LOOKS_MAX,
) -> tuple[str, ...] | None:
    """Find nodes for all jobs of a gang, in its order, or None; the rooms are left as they were.

    Args:
        gang: The jobs, the most constrained first.
        rooms: The room on each node.
        filters: What has to hold.
        looks_max: When to give up.
    """
    # Hopeless ones are common when the nodes are full, and quick to tell.
    free = sum(max(room.cpus, 0.0) for room in rooms.values() if room.node.connected)
    if sum(job.resources.cpus for job in gang) > free + ROUNDING:
        return None
    looks = 0
    chosen: list[str] = []
    ways: list[Iterator[str]] = []
    try:
        while len(chosen) < len(gang):
            job = gang[len(chosen)]
            if len(ways) == len(chosen):
                looks += len(rooms)
                if looks > looks_max and ways:
                    return None
                ways.append(_ways(job, rooms, filters))
            name = next(ways[-1], None)
            if name is not None:
                rooms[name].take(job.resources)
                chosen.append(name)
                continue
            ways.pop()
            if not chosen:
                return None
            rooms[chosen.pop()].give_back(gang[len(chosen)].resources)
        return tuple(chosen)
    finally:
        for job, name in zip(gang, chosen, strict=False):
            rooms[name].give_back(job.resources)


def _doing(can: NodeSandbox | None) -> object:
    return None if can is None else (can.default, can.levels, frozenset(can.enforces))


def _ways(
    job: Pending, rooms: Mapping[str, NodeRoom], filters: tuple[Filter, ...]
) -> Iterator[str]:
    """The nodes that a job could go to, the tightest first; equal rooms need only one try."""
    seen: set[object] = set()
    found: list[tuple[float, str]] = []
    for name in sorted(rooms):
        room = rooms[name]
        if objection(job, room, filters):
            continue
        node = room.node
        alike = (
            round(room.cpus, 6),
            room.memory_bytes,
            tuple(sorted(room.devices.items())),
            tuple(sorted(node.labels.items())),
            job.pinned_node == name,
            node.features,
            _doing(node.sandbox),
        )
        if alike not in seen:
            seen.add(alike)
            found.append((room.cpus, name))
    return iter([name for _, name in sorted(found)])
