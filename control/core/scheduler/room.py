"""The room that is left on a node while a plan is being made.

What is *kept* for a job that is tried again there is taken for all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from control.core.scheduler.snapshot import Kept, NodeSnapshot
from shoal.names import JobRef
from shoal.spec import Resources

ROUNDING = 1e-6
"""Cores are fractions, and sums of fractions are off by a little."""


_NO_DEVICES: Counter[str] = Counter()
"""That of all nodes that have none and of which none is claimed, so that it never changes."""


class NodeRoom:
    """Free cores, bytes and devices of one node; `take` and `give_back` as the plan is made."""

    __slots__ = ("cpus", "devices", "kept", "memory_bytes", "node")

    def __init__(self, node: NodeSnapshot, *, empty: bool = False) -> None:
        """Start from what is claimed now, or from nothing when `empty`."""
        claimed = node.claimed
        self.node = node
        self.kept: dict[JobRef, Kept] = {}
        self.cpus = node.capacity.cpus - (0.0 if empty else claimed.cpus)
        self.memory_bytes = node.capacity.memory_bytes - (0 if empty else claimed.memory_bytes)
        devices = node.capacity.devices
        self.devices = Counter(devices) if devices or claimed.devices else _NO_DEVICES
        if claimed.devices and not empty:
            self.devices.subtract(claimed.devices)

    def missing_devices(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the device classes of `wanted` that are not free in that number, by name."""
        if not wanted:
            return ()
        need = Counter(wanted)
        return tuple(sorted(name for name, count in need.items() if self.devices[name] < count))

    def fits(self, resources: Resources) -> bool:
        """Whether so much is free, as the filters of `filters.py` say it in words."""
        return (
            resources.cpus <= self.cpus + ROUNDING
            and (not resources.memory_bytes or resources.memory_bytes <= self.memory_bytes)
            and not (resources.devices and self.missing_devices(resources.devices))
        )

    def take(self, resources: Resources) -> None:
        """Claim resources."""
        self.cpus -= resources.cpus
        self.memory_bytes -= resources.memory_bytes
        if resources.devices:
            self.devices.subtract(resources.devices)

    def give_back(self, resources: Resources) -> None:
        """Undo `take`."""
        self.cpus += resources.cpus
        self.memory_bytes += resources.memory_bytes
        if resources.devices:
            self.devices.update(resources.devices)

    def keep(self, kept: Kept) -> None:
        """Let no other job have what is kept for a job, unless it has outgrown the node."""
        capacity = self.node.capacity
        resources = kept.resources
        fits = (
            resources.cpus <= capacity.cpus + ROUNDING
            and resources.memory_bytes <= capacity.memory_bytes
            and not Counter(resources.devices) - Counter(capacity.devices)
        )
        if fits:
            self.take(resources)
            self.kept[kept.job] = kept

    def release(self, job: JobRef) -> None:
        """Undo `keep`, if there is anything of this job."""
        kept = self.kept.pop(job, None)
        if kept is not None:
            self.give_back(kept.resources)

    @property
    def claimed_share(self) -> float:
        """How much of the node's cores is claimed, from 0 to 1."""
        capacity = self.node.capacity.cpus
        return 1.0 - self.cpus / capacity if capacity > 0 else 1.0
