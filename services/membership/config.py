"""What a gossip process is configured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.membership.keyring import Keyring
from services.membership.preset import PRESETS, Preset

DEFAULT_PORT = 7946


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """Configuration of one member.

    Attributes:
        name: Unique in the cluster.
        bind_host: Address to listen on, for UDP and TCP alike.
        bind_port: Port to listen on, 0 for any free one.
        advertise: `host` or `host:port` that is announced; by default what is bound, or for
            a wildcard what `services.runtime.outward` finds.
        tags: Announced to all members; at most 512 bytes encoded.
        preset: `lan`, `wan`, `local`, or a timing of one's own.
        keyring: Keys of the cluster; an empty ring means no encryption.
        label: Cluster label; packets of members of another label are refused. Serf 0.9 knows none.
        seeds: `host[:port]` of members to join, tried again for as long as they are missing.
        peers: `host[:port]` of other processes it deals with: they show on which network members are.
        heal_interval_seconds: How often a lost member or missing seed is tried, 0 for never.
        serf: Speak Serf's layer. Off, this is a plain memberlist member.
        compact: Send the short dialect, which all members read.
        incarnation: First incarnation; by default the seconds since 2020, so that a restarted
            member outbids its former life.
        lifeguard: Off, this is plain SWIM: the control group of the benchmarks.
        watch_size: Changes that a watcher may lag behind before it is cut off.
    """

    name: str
    bind_host: str = "0.0.0.0"  # noqa: S104 members have to be reachable
    bind_port: int = DEFAULT_PORT
    advertise: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    preset: str | Preset = "lan"
    keyring: Keyring = field(default_factory=Keyring)
    label: str = ""
    seeds: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    heal_interval_seconds: float = 10.0
    serf: bool = True
    compact: bool = False
    incarnation: int | None = None
    lifeguard: bool = True
    watch_size: int = 1024

    def timing(self) -> Preset:
        """The preset itself.

        Raises:
            ValueError: There is no preset of that name.
        """
        if isinstance(self.preset, Preset):
            return self.preset
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; use one of {sorted(PRESETS)}")
        return PRESETS[self.preset]
