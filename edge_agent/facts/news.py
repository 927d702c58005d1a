"""Which facts are worth telling: what a person would call a change."""

from edge_agent.facts.heat import refusal
from shoal.node_facts import NodeFacts

_PERCENT = 10.0
_CELSIUS = 2.0
_SHARE = 0.02
_WATTS = 1.0


def worth_telling(told: NodeFacts | None, now: NodeFacts) -> bool:
    """Whether facts differ from those that were told by more than a sensor sways."""
    if told is None:
        return True
    return _plain(told) != _plain(now) or _moved(told, now)


def _plain(facts: NodeFacts) -> tuple[object, ...]:
    """What is told whenever it changes."""
    return (
        (facts.os, facts.os_version, facts.kernel, facts.board, facts.l4t_version, facts.cpu_count),
        (facts.memory_total_bytes, facts.swap_total_bytes),
        (facts.throttled, facts.heat, facts.problem, refusal(facts.temperatures)),
        tuple((disk.path, disk.total_bytes) for disk in facts.disks),
        tuple((zone.name, zone.throttle_celsius) for zone in facts.temperatures),
        tuple(rail.name for rail in facts.rails),
    )


def _moved(told: NodeFacts, now: NodeFacts) -> bool:
    """Whether a figure has moved; both have the same disks, zones and rails in the same order."""
    return (
        any(
            (one is None) != (other is None) or abs((one or 0.0) - (other or 0.0)) >= _PERCENT
            for one, other in (
                (told.cpu_percent, now.cpu_percent),
                (told.gpu_percent, now.gpu_percent),
                (told.emc_percent, now.emc_percent),
            )
        )
        or _part(told.memory_available_bytes, now.memory_available_bytes, now.memory_total_bytes)
        or _part(told.swap_free_bytes, now.swap_free_bytes, now.swap_total_bytes)
        or any(
            _part(one.free_bytes, other.free_bytes, other.total_bytes)
            for one, other in zip(told.disks, now.disks, strict=True)
        )
        or any(
            abs(one.celsius - other.celsius) >= _CELSIUS
            for one, other in zip(told.temperatures, now.temperatures, strict=True)
        )
        or any(
            abs(one.milliwatts - other.milliwatts) >= _WATTS * 1000
            for one, other in zip(told.rails, now.rails, strict=True)
        )
    )


def _part(one: int, other: int, whole: int) -> bool:
    return whole > 0 and abs(one - other) >= _SHARE * whole
