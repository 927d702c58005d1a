"""What an operator may set for a process's own member of the gossip cluster, and what is said if it cannot be."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.membership.label import LABEL_BYTES_MAX
from services.runtime.address import host_port
from services.runtime.outward import pinned

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class ConfigError(ValueError):
    """A setting that cannot be; the message names it and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipSettings:
    """The part about gossip of a controller's and of an agent's configuration.

    Attributes:
        name: name of the member, unique in the cluster.
        gossip: `host:port` to gossip on; empty for a process that does not gossip.
        advertise: address that others reach this machine under; empty for what is bound.
        seeds: `host:port` of gossip members to join.
        gossip_preset: `lan`, `wan` or `local`.
        gossip_keys: AES keys that seal gossip, the first of them first; none for plain gossip.
        gossip_keyring: file of the keys, which wins over `gossip_keys` once it exists.
        gossip_encryption: with keys, `hear` opens sealed traffic and sends plain, `speak` seals and
            still takes plain, `require` refuses plain.
        gossip_label: what keeps neighbouring clusters apart.
        serf_rpc: `host:port` that the stock `serf` command may dial; empty for none.
        serf_rpc_auth: what it has to know; empty for nothing.
        members_http: `host:port` of `GET /members` and `GET /info`; empty for none.
    """

    name: str
    gossip: str
    advertise: str = ""
    seeds: tuple[str, ...] = ()
    gossip_preset: str = "lan"
    gossip_keys: tuple[bytes, ...] = field(default=(), repr=False)
    gossip_keyring: Path | None = None
    gossip_encryption: str = "require"
    gossip_label: str = ""
    serf_rpc: str = ""
    serf_rpc_auth: str = field(default="", repr=False)
    members_http: str = ""

    @property
    def peers(self) -> tuple[str, ...]:
        """Addresses that say on which network others are: of members, of others, of our own."""
        return (*self.seeds, *pinned((self.gossip,)))

    def gossip_refusal(self) -> str:
        """Say what cannot be, with the remedy; empty when all of it can."""
        for option, given in (
            ("--serf-rpc", self.serf_rpc),
            ("--members-http", self.members_http),
            ("--gossip-key", self.gossip_keys),
            ("--gossip-keyring", self.gossip_keyring),
        ):
            if given and not self.gossip:
                return f"{option} is about gossip, which is off; set --gossip"
        label_bytes = len(self.gossip_label.encode())
        if label_bytes > LABEL_BYTES_MAX:
            return f"--gossip-label has {label_bytes} bytes: use at most {LABEL_BYTES_MAX}"
        rpc_host = host_port(self.serf_rpc, hostless=True)[0] if self.serf_rpc else "localhost"
        if rpc_host not in _LOOPBACK and not self.serf_rpc_auth:
            return (
                f"--serf-rpc is {self.serf_rpc}, where others could command this member: "
                "listen on 127.0.0.1, or set --serf-rpc-auth"
            )
        return ""
