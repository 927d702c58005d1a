"""What a process tells of its own member of the gossip cluster."""

from collections import Counter
from typing import Final

from services.membership.message import SwimState
from services.membership.refusal import DropReason
from services.membership.shell import GossipShell
from services.metrics.figure import Figure, FigureKind, Readings

MEMBERS: Final = Figure(
    "shoal_gossip_members",
    FigureKind.GAUGE,
    "Members as this one believes of them.",
    ("state",),
    len(SwimState),
)
PACKETS: Final = Figure(
    "shoal_gossip_packets_total",
    FigureKind.COUNTER,
    "Packets of gossip, by `sent` and `received`.",
    ("direction",),
    2,
)
BYTES: Final = Figure(
    "shoal_gossip_bytes_total",
    FigureKind.COUNTER,
    "Bytes in packets of gossip, by `sent` and `received`.",
    ("direction",),
    2,
)
DROPPED: Final = Figure(
    "shoal_gossip_dropped_total",
    FigureKind.COUNTER,
    "Input of gossip that was refused, by reason.",
    ("reason",),
    len(DropReason) + 8,
)
GOSSIP_FIGURES: Final = (MEMBERS, PACKETS, BYTES, DROPPED)
"""What `read_gossip` tells."""

_DROPPED: Final = "dropped_"


def read_gossip(gossip: GossipShell, readings: Readings) -> None:
    """Tell what one member believes, sent and dropped."""
    states = Counter(member.state for member in gossip.members(all_states=True))
    readings.tell_each(MEMBERS, {state.name.lower(): states[state] for state in SwimState})
    counts = gossip.counters
    for figure, what in ((PACKETS, "packets"), (BYTES, "bytes")):
        values = {way: counts.get(f"{what}_{way}", 0) for way in ("sent", "received")}
        readings.tell_each(figure, values)
    dropped = {
        name.removeprefix(_DROPPED): count
        for name, count in counts.items()
        if name.startswith(_DROPPED)
    }
    readings.tell_each(DROPPED, dropped)
