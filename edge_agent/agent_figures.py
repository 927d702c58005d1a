"""What an agent tells of itself and of its board to Prometheus, read from what its parts know anyway."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.attempts.phase import Phase
from edge_agent.disk_watch import DiskReading
from services.membership.figures import GOSSIP_FIGURES, read_gossip
from services.membership.shell import GossipShell
from services.metrics.figure import OF_THE_PAGE, Figure, FigureKind, Readings
from shoal.model import Capacity
from shoal.node_facts import NodeFacts

ZONES_MAX: Final = 64
"""Thermal zones, power rails and disks that have series of their own."""

_G: Final = FigureKind.GAUGE

BUILD: Final = Figure(
    "shoal_build_info", _G, "Always 1; what runs, by its version.", ("component", "version")
)
SESSION: Final = Figure("shoal_agent_session", _G, "1 while there is a session with a controller.")
QUARANTINED: Final = Figure(
    "shoal_agent_quarantined", _G, "1 while the controller is not followed."
)
TAKES_WORK: Final = Figure(
    "shoal_agent_takes_work", _G, "1 while new work is taken; the log says why it is not."
)
ATTEMPTS: Final = Figure(
    "shoal_agent_attempts", _G, "Attempts on the node, by phase.", ("phase",), len(Phase)
)
CORES: Final = Figure("shoal_agent_cores", _G, "Cores that the node offers to jobs.")
MEMORY: Final = Figure("shoal_agent_memory_bytes", _G, "Memory that the node offers to jobs.")
SPOOL: Final = Figure("shoal_agent_spool_bytes", _G, "Artifacts that wait for the archive.")
DISK_FREE: Final = Figure(
    "shoal_agent_disk_free_bytes", _G, "Free on the disk of the state folder."
)
DISK_SIZE: Final = Figure("shoal_agent_disk_size_bytes", _G, "Size of that disk.")
DISK_TROUBLE: Final = Figure(
    "shoal_agent_disk_trouble", _G, "1 while nothing can be written there, whatever is free."
)
CPU: Final = Figure("shoal_agent_cpu_ratio", _G, "Share of the processors that was busy, 0 to 1.")
MEMORY_FREE: Final = Figure(
    "shoal_agent_memory_available_bytes", _G, "Memory that programs could have without swapping."
)
CELSIUS: Final = Figure(
    "shoal_agent_temperature_celsius",
    _G,
    "Thermal zones of the board.",
    ("zone",),
    ZONES_MAX,
    adds_up=False,
)
THROTTLED: Final = Figure(
    "shoal_agent_throttled", _G, "Cooling devices by which the kernel slows the board down now."
)
WATTS: Final = Figure(
    "shoal_agent_power_watts", _G, "Rails of power monitors.", ("rail",), ZONES_MAX, adds_up=False
)
AGENT_FIGURES: Final = (
    BUILD, SESSION, QUARANTINED, TAKES_WORK, ATTEMPTS, CORES, MEMORY, SPOOL, DISK_FREE, DISK_SIZE, DISK_TROUBLE,
    CPU, MEMORY_FREE, CELSIUS, THROTTLED, WATTS, *GOSSIP_FIGURES, *OF_THE_PAGE,
)  # fmt: skip
"""All that an agent tells, but for what is said of its process (`process_*` and `python_gc_*`)."""


@dataclass(frozen=True, slots=True)
class NodeStanding:
    """How a node stands at one moment, as its shell knows it.

    Attributes:
        session: whether there is a session.
        quarantined: whether its controller is not followed.
        refuses: why no new work is taken; empty while it is.
        phases: how many attempts stand in each phase.
        spool_bytes: artifacts that wait for the archive.
        disk: what the disk of the state folder had left when it was looked at last.
        facts: the machine when it was looked at last.
    """

    session: bool
    quarantined: bool
    refuses: str
    phases: Mapping[Phase, int]
    spool_bytes: int
    disk: DiskReading
    facts: NodeFacts


@dataclass(frozen=True, slots=True)
class AgentFigures:
    """Reads the figures of an agent.

    Args:
        standing: how the node stands now.
        capacity: what it offers.
        gossip: its member; None if it does not gossip.
        version: what the agent is.
    """

    standing: Callable[[], NodeStanding]
    capacity: Capacity
    gossip: GossipShell | None
    version: str

    async def read(self) -> Readings:
        """Read them at one moment."""
        readings, node = Readings(), self.standing()
        readings.tell(BUILD, 1, "agent", self.version)
        readings.tell(SESSION, node.session)
        readings.tell(QUARANTINED, node.quarantined)
        readings.tell(TAKES_WORK, not node.refuses)
        readings.tell_each(ATTEMPTS, {str(one): node.phases.get(one, 0) for one in Phase})
        readings.tell(CORES, self.capacity.cpus)
        readings.tell(MEMORY, self.capacity.memory_bytes)
        readings.tell(SPOOL, node.spool_bytes)
        readings.tell(DISK_FREE, node.disk.free_bytes)
        readings.tell(DISK_SIZE, node.disk.total_bytes)
        readings.tell(DISK_TROUBLE, bool(node.disk.trouble))
        facts = node.facts
        if facts.cpu_percent is not None:
            readings.tell(CPU, facts.cpu_percent / 100)
        if facts.memory_total_bytes:
            readings.tell(MEMORY_FREE, facts.memory_available_bytes)
        readings.tell_each(CELSIUS, {zone.name: zone.celsius for zone in facts.temperatures})
        readings.tell(THROTTLED, len(facts.throttled))
        readings.tell_each(WATTS, {rail.name: rail.milliwatts / 1000 for rail in facts.rails})
        if self.gossip is not None:
            read_gossip(self.gossip, readings)
        return readings
