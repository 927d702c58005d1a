"""What one membership machine is built with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.membership.codec import MessageCodec
from services.membership.message import MEMBERLIST_VERSIONS, Address, Versions
from services.membership.packet import PACKET_BYTES
from services.membership.preset import LAN, Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Identity, timing and limits of one member.

    Attributes:
        name: Unique in the cluster.
        address: Where others reach it; an IP address in text.
        meta: Opaque bytes, at most 512.
        versions: What it announces to speak.
        incarnation: Where its incarnation starts. Start time in seconds outruns whatever a former
            life under this name announced, so a restarted member is believed at once.
        preset: Timing.
        codec: Dialect, for the sizes of what is queued.
        packet_bytes: Room for messages in one datagram, after label and seal.
        reclaim_seconds: A dead member's name may be claimed by another address after that long.
        heal_interval_seconds: How often a lost member or seed is tried again, 0 for never.
        lost_max: Lost members remembered.
        lost_seconds: How long they are remembered.
        accuser_burst: Accusations that one member may have outstanding at once; they refill at
            one a probe interval, which is as many as a well member can make.
        members_max: Records kept; further names are refused.
        seeds: Addresses that should be in this cluster.
        lag_fraction: A wake-up later than this share of the probe timeout counts as ill health.
    """

    name: str
    address: Address
    meta: bytes = b""
    versions: Versions = MEMBERLIST_VERSIONS
    incarnation: int = 1
    preset: Preset = LAN
    codec: MessageCodec = field(default_factory=MessageCodec)
    packet_bytes: int | Callable[[], int] = PACKET_BYTES
    reclaim_seconds: float = 0.0
    heal_interval_seconds: float = 10.0
    departed_max: int = 4096
    departed_seconds: float = 24 * 3600.0
    accuser_burst: int = 16
    members_max: int = 65536
    seeds: tuple[Address, ...] = ()
    lag_fraction: float = 0.5
    lifeguard: bool = True
    """Off, the machine is plain SWIM with fixed timeouts: the control group of the benchmarks."""
