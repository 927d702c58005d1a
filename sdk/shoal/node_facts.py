"""What the machine of a node is and how it stands, as its agent reads it."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final


class Heat(enum.IntEnum):
    """How much thermal headroom a node has, in coarse steps; the numbers are those of the contract."""

    UNKNOWN = 0
    COOL = 1
    WARM = 2
    HOT = 3


@dataclass(frozen=True, slots=True)
class DiskFact:
    """A disk, by where it is mounted; `free_bytes` are those that not only root may write."""

    path: str
    total_bytes: int = 0
    free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TemperatureFact:
    """A thermal zone: degrees Celsius now, where the machine is slowed down, and where it is shut down."""

    name: str
    celsius: float
    throttle_celsius: float | None = None
    critical_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class PowerRailFact:
    """A rail of a power monitor."""

    name: str
    milliwatts: float


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a machine is and how it stands; what its system does not say is empty, 0 or None.

    Percentages are from 0 to 100. `throttled` names the cooling devices by which the kernel slows the
    machine down. `measure_time` is by the clock of the node, and `problem` says for people what could not
    be read.
    """

    os: str = ""
    os_version: str = ""
    kernel: str = ""
    board: str = ""
    l4t_version: str = ""
    jetpack_version: str = ""
    cpu_count: int = 0
    cpu_percent: float | None = None
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    disks: tuple[DiskFact, ...] = ()
    temperatures: tuple[TemperatureFact, ...] = ()
    gpu_percent: float | None = None
    emc_percent: float | None = None
    rails: tuple[PowerRailFact, ...] = ()
    throttled: tuple[str, ...] = ()
    heat: Heat = Heat.UNKNOWN
    measure_time: datetime | None = None
    problem: str = ""

    @property
    def memory_used_bytes(self) -> int:
        """Bytes of memory that programs could not have without swapping."""
        return max(self.memory_total_bytes - self.memory_available_bytes, 0)


NO_FACTS: Final = NodeFacts()
"""Nothing is known."""
