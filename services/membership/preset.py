"""Timing presets and the formulas that scale them with the cluster.

Source of the defaults: memberlist's LAN, WAN and local configurations, with the departures noted
at `LOCAL`; of the formulas: SWIM (DSN 2002) and Lifeguard (arXiv 1707.00788).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Timing of one member; a per-member choice, mixed presets interoperate."""

    probe_interval_seconds: float = 1.0
    probe_timeout_seconds: float = 0.5
    indirect_checks: int = 3
    retransmit_mult: int = 4
    suspicion_mult: int = 4
    suspicion_max_mult: int = 6
    gossip_interval_seconds: float = 0.2
    gossip_nodes: int = 3
    gossip_to_the_dead_seconds: float = 30.0
    push_pull_interval_seconds: float = 30.0
    stream_timeout_seconds: float = 10.0
    awareness_max: int = 8
    nack_fraction: float = 0.8
    """When a relay says "no answer yet": 80 % of the probe timeout (Lifeguard, section IV-A)."""

    def suspicion_min_seconds(self, members: int) -> float:
        """Shortest suspicion: `mult * max(1, log10(max(1, n))) * probe_interval`.

        The scale is cut to three decimals. `members` counts all records, dead ones included.
        """
        scale = max(1.0, math.log10(max(1, members)))
        return self.suspicion_mult * math.floor(scale * 1000) / 1000 * self.probe_interval_seconds

    def suspicion_max_seconds(self, members: int) -> float:
        """Longest suspicion, while no member confirms: `suspicion_max_mult * min`."""
        return self.suspicion_max_mult * self.suspicion_min_seconds(members)

    def confirmations_wanted(self, members: int) -> int:
        """Independent accusers that bring a suspicion to its shortest: `mult - 2`.

        Zero when fewer than that many members besides us and the accused exist.
        """
        wanted = self.suspicion_mult - 2
        return 0 if members - 2 < wanted else wanted

    def retransmit_limit(self, members: int) -> int:
        """Times that one broadcast is sent: `retransmit_mult * ceil(log10(n + 1))`."""
        return self.retransmit_mult * math.ceil(math.log10(members + 1))

    def push_pull_seconds(self, members: int) -> float:
        """Period of full exchanges: the base up to 32 members, then times ceil(log2 n - 5) + 1."""
        if members <= 32:
            return self.push_pull_interval_seconds
        return self.push_pull_interval_seconds * (math.ceil(math.log2(members) - 5) + 1)

    def query_timeout_seconds(self, members: int) -> float:
        """Default wait for query answers: `gossip_interval * 16 * ceil(log10(n + 1))` (Serf)."""
        return self.gossip_interval_seconds * 16 * math.ceil(math.log10(members + 1))


LAN: Final = Preset()
"""One site: the defaults."""

WAN: Final = Preset(
    probe_interval_seconds=5.0,
    probe_timeout_seconds=3.0,
    suspicion_mult=6,
    gossip_interval_seconds=0.5,
    gossip_nodes=4,
    gossip_to_the_dead_seconds=60.0,
    push_pull_interval_seconds=60.0,
    stream_timeout_seconds=30.0,
)
"""Between sites."""

LOCAL: Final = Preset(
    probe_timeout_seconds=0.2,
    indirect_checks=1,
    retransmit_mult=4,
    suspicion_mult=3,
    gossip_interval_seconds=0.1,
    gossip_to_the_dead_seconds=15.0,
    push_pull_interval_seconds=15.0,
    stream_timeout_seconds=1.0,
)
"""One machine. Upstream retransmits with multiplier 2 here, and at 30 members only half of the
broadcasts reach all members; 4 costs a few packets and reaches all."""

PRESETS: Final = {"lan": LAN, "wan": WAN, "local": LOCAL}
"""The presets by the name that configuration uses."""
