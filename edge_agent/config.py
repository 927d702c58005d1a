"""What an operator may set for an agent, read once at the root."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from services.membership.label import LABEL_BYTES_MAX
from shoal.model import Capacity
from shoal.names import InvalidNameError, check_id

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_UNITS: Final = MappingProxyType(
    {
        "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
        "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
    }
)  # fmt: skip


class ConfigError(ValueError):
    """A setting that cannot be; the message names it and the remedy."""


def _no_strings() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Configuration of one agent.

    Attributes:
        name: name of the node, unique in the cluster.
        state: folder that holds everything the agent keeps.
        capacity: what the node has for attempts.
        architecture: machine architecture such as `aarch64`.
        controllers: `host:port` of controllers that are known beforehand.
        seeds: `host:port` of gossip members to join.
        gossip: `host:port` to gossip on; empty for an agent that does not gossip.
        advertise: address that others reach this node under; empty for what is bound.
        streams: `host:port` where the stream worker listens for other nodes.
        labels: what the operator calls the node by.
        bundle_bytes_max: how much the bundle cache may hold.
        stop_jobs: end all jobs when the agent ends, instead of leaving them to the keeper.
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
    state: Path
    capacity: Capacity
    architecture: str
    controllers: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    gossip: str = "0.0.0.0:7946"
    advertise: str = ""
    streams: str = "0.0.0.0:7947"
    labels: Mapping[str, str] = field(default_factory=_no_strings)
    bundle_bytes_max: int = 10 << 30
    stop_jobs: bool = False
    gossip_preset: str = "lan"
    gossip_keys: tuple[bytes, ...] = field(default=(), repr=False)
    gossip_keyring: Path | None = None
    gossip_encryption: str = "require"
    gossip_label: str = ""
    serf_rpc: str = ""
    serf_rpc_auth: str = field(default="", repr=False)
    members_http: str = ""

    def __post_init__(self) -> None:
        try:
            check_id("node", self.name)
        except InvalidNameError as error:
            raise ConfigError(f"{error}; set it with --name") from None
        for address in (
            *self.controllers,
            *self.seeds,
            self.streams,
            self.gossip,
            self.serf_rpc,
            self.members_http,
        ):
            if address:
                host_port(address)
        self._check_gossip()

    def _check_gossip(self) -> None:
        for option, given in (
            ("--serf-rpc", self.serf_rpc),
            ("--members-http", self.members_http),
            ("--gossip-key", self.gossip_keys),
            ("--gossip-keyring", self.gossip_keyring),
        ):
            if given and not self.gossip:
                raise ConfigError(f"{option} is about gossip, which is off; set --gossip")
        if len(self.gossip_label.encode()) > LABEL_BYTES_MAX:
            raise ConfigError(
                f"--gossip-label has {len(self.gossip_label.encode())} bytes: "
                f"use at most {LABEL_BYTES_MAX}"
            )
        open_to_others = bool(self.serf_rpc) and host_port(self.serf_rpc)[0] not in _LOOPBACK
        if open_to_others and not self.serf_rpc_auth:
            raise ConfigError(
                f"--serf-rpc is {self.serf_rpc}, where others could command this member: "
                "listen on 127.0.0.1, or set --serf-rpc-auth"
            )


def host_port(address: str) -> tuple[str, int]:
    """Read `host:port`, `[v6]:port` or `:port`.

    Raises:
        ConfigError: it is something else.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"{address!r} is not an address: write HOST:PORT, as in 10.0.0.5:7900")
    return host.strip("[]"), int(port)


def parse_size(text: str) -> int:
    """Read a number of bytes such as `4GiB`, `512M` or `1000`.

    Raises:
        ConfigError: it is something else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is not a size: write a number with K, M, G, Ki, Mi or Gi")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def parse_labels(words: tuple[str, ...]) -> Mapping[str, str]:
    """Read `key=value` words.

    Raises:
        ConfigError: one of them is something else.
    """
    labels: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ConfigError(f"label {word!r} is not KEY=VALUE, as in role=camera")
        labels[key] = value
    return MappingProxyType(labels)
