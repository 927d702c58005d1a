"""How much thermal headroom a machine has, in coarse steps.

Theory. The kernel slows a machine down at a zone's *passive* or *hot* trip point and shuts it down at its
*critical* one (Documentation/driver-api/thermal/sysfs-api.rst). How far the closest zone is from its first
such point is the headroom.

Rule. Below `HOT_CELSIUS` of headroom, or slowed down, a machine is hot; below `WARM_CELSIUS` it is warm. It
is cooler again only `STEADY_CELSIUS` later. A machine without such a point says nothing.

Invariant. What controllers place by changes only in steps, so two runs with the same steps decide the same,
and a temperature that sways around a bound is told once.

Example: BCPU-therm of a Jetson TX2 is slowed down at 95.5 °C. It is warm from 80.5 °C and hot from 90.5 °C on,
and warm again at 88.4 °C.
"""

from collections.abc import Sequence
from typing import Final

from shoal.node_facts import Heat, TemperatureFact

HOT_CELSIUS: Final = 5.0
WARM_CELSIUS: Final = 15.0
STEADY_CELSIUS: Final = 2.0
CRITICAL_CELSIUS: Final = 3.0
"""So close to where it shuts down a machine takes no new work."""


def heat_of(
    temperatures: Sequence[TemperatureFact], throttled: Sequence[str], before: Heat
) -> Heat:
    """Return how much headroom there is after what was said before."""
    room = min(
        (bound - zone.celsius for zone in temperatures if (bound := _bound(zone)) is not None),
        default=None,
    )
    if throttled:
        return Heat.HOT
    if room is None:
        return Heat.UNKNOWN
    if room <= HOT_CELSIUS + (STEADY_CELSIUS if before is Heat.HOT else 0.0):
        return Heat.HOT
    if room <= WARM_CELSIUS + (STEADY_CELSIUS if before in {Heat.WARM, Heat.HOT} else 0.0):
        return Heat.WARM
    return Heat.COOL


def refusal(temperatures: Sequence[TemperatureFact]) -> str:
    """Why a machine that is about to shut down takes no new work; empty while it is not."""
    for zone in temperatures:
        end = zone.critical_celsius
        if end is not None and end - zone.celsius <= CRITICAL_CELSIUS:
            return (
                f"it is too hot: {zone.name} is within {CRITICAL_CELSIUS:g} °C of the {end:g} °C at which "
                "the machine shuts down; cool it"
            )
    return ""


def _bound(zone: TemperatureFact) -> float | None:
    return zone.critical_celsius if zone.throttle_celsius is None else zone.throttle_celsius
