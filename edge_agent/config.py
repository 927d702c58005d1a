"""What an operator may set for an agent, read once at the root."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from edge_agent.sandbox.user_range import USERS_OF_JOBS, UserRange, users_of_others
from services.membership.settings import ConfigError, GossipSettings
from services.runtime.address import AddressError, host_port
from services.runtime.outward import pinned
from shoal.model import Capacity, no_strings
from shoal.names import InvalidNameError, check_id
from shoal.sandbox import SandboxLevel
from shoal.specfile.units import parse_duration

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_UNITS: Final = MappingProxyType(
    {
        "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
        "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
    }
)  # fmt: skip

RATE_MIN: Final = 1_000
"""Slowest rate of uploads in bytes a second."""

STREAMS_SECURITY: Final = ("mutual", "ticket")

AUTO: Final = "auto"
SANDBOXES: Final = (AUTO, *(level.value for level in SandboxLevel))
"""What `--sandbox` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig(GossipSettings):
    """Configuration of one agent.

    Attributes:
        name: name of the node, unique in the cluster.
        state: folder that holds everything the agent keeps.
        capacity: what the node has for attempts.
        architecture: machine architecture such as `aarch64`.
        controllers: `host:port` of controllers that are known beforehand.
        seeds: `host:port` of gossip members to join.
        gossip: `host:port` to gossip on; empty for an agent that does not gossip.
        advertise: address that others reach this node under; empty for what is bound, or, for a
            wildcard, what `services.runtime.outward` finds.
        streams: `host:port` where the stream worker listens for other nodes.
        streams_security: `mutual` for mutual TLS between nodes, or `ticket` for streams in the clear of
            which the tickets alone are checked; without identity nothing is checked.
        labels: what the operator calls the node by.
        bundle_bytes_max: how much the bundle cache may hold.
        input_bytes_max: how much the cache of file inputs may hold.
        environment_bytes_max: how much environments and the packages that they are built from may take.
        index_credentials: file in netrc's format, for builds alone, with what indexes of packages ask
            for; None for none.
        disk_reserve_bytes: below so much free room (or a twentieth of a smaller disk) no new work is
            taken, and below a quarter of it the attempt with the most is failed; 0 for never.
        spool_bytes_max: how much may wait for the archive before no new work is taken; None for a fifth
            of the disk, 0 for any amount.
        upload_rate_bytes: how many bytes a second all uploads together may send; 0 for no limit.
        keep_bytes_max: how much room folders of attempts that did not succeed may take; 0 keeps none.
        keep_seconds: for how long they are kept.
        insecure: believe whatever answers as a controller, and prove nothing.
        newcomers: `host:port` where a controller takes newcomers; empty for two ports above its API.
        token_file: file with the join token of a node that has not joined yet; None for the environment.
        stop_jobs: end all jobs when the agent ends, instead of leaving them to the keeper.
        health_file: file that is written every few seconds while all is well; None for none.
        metrics: `host:port` of `GET /metrics`; empty for none.
        facts_root: folder that stands for `/` where the facts of the machine and its devices are looked up.
        sandbox: level at which jobs run that ask for no more; None for `user` where it can be had, or `confined`.
        job_users: users that attempts become, each another one, where they do not run as the agent's own.
    """

    name: str
    state: Path
    capacity: Capacity
    architecture: str
    controllers: tuple[str, ...] = ()
    gossip: str = "0.0.0.0:7946"
    streams: str = "0.0.0.0:7947"
    streams_security: str = "mutual"
    labels: Mapping[str, str] = field(default_factory=no_strings)
    bundle_bytes_max: int = 10 << 30
    input_bytes_max: int = 10 << 30
    environment_bytes_max: int = 10 << 30
    index_credentials: Path | None = None
    disk_reserve_bytes: int = 256 << 20
    spool_bytes_max: int | None = None
    upload_rate_bytes: int = 0
    keep_bytes_max: int = 1 << 30
    keep_seconds: float = 86_400.0
    insecure: bool = False
    newcomers: str = ""
    token_file: Path | None = None
    stop_jobs: bool = False
    health_file: Path | None = None
    metrics: str = ""
    facts_root: Path = Path("/")
    sandbox: SandboxLevel | None = None
    job_users: UserRange = USERS_OF_JOBS

    @property
    def peers(self) -> tuple[str, ...]:
        """See `GossipSettings`; an agent deals with controllers, too."""
        own = pinned((self.gossip, self.streams))
        return (*self.seeds, *self.controllers, *own)

    def __post_init__(self) -> None:
        own = (self.streams, self.gossip, self.serf_rpc, self.members_http)
        try:
            check_id("node", self.name)
            for address in filter(None, (*self.controllers, *self.seeds, self.newcomers, *own)):
                host_port(address, hostless=True)
            if self.metrics:
                host_port(self.metrics)
        except InvalidNameError as error:
            raise ConfigError(f"{error}; set it with --name") from None
        except AddressError as error:
            raise ConfigError(str(error)) from None
        if self.streams_security not in STREAMS_SECURITY:
            raise ConfigError(
                f"--streams-security {self.streams_security!r} is none of {', '.join(STREAMS_SECURITY)}"
            )
        for option, given in (("--newcomers", self.newcomers), ("--token-file", self.token_file)):
            if given and self.insecure:
                raise ConfigError(
                    f"{option} is about identity, which --insecure turns off: leave one of them out"
                )
        if refusal := self.gossip_refusal():
            raise ConfigError(refusal)


def parse_size(text: str) -> int:
    """Read a number of bytes such as `4GiB`, `512M` or `1000`.

    Raises:
        ConfigError: it is something else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is not a size: write a number with K, M, G, Ki, Mi or Gi")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def parse_rate(text: str) -> int:
    """Read a number of bytes a second such as `5MB/s`, at least 1 KB/s; 0 is no limit.

    Raises:
        ConfigError: it is something else.
    """
    amount = text.strip().removesuffix("/s")
    try:
        rate = parse_size(amount)
    except ConfigError:
        rate = -1
    if rate < 0 or 0 < rate < RATE_MIN:
        raise ConfigError(f"{text!r} is not a rate: write 1KB/s or more, as in 5MB/s, or 0")
    return rate


def parse_span(text: str) -> float:
    """Read a duration such as `24h`, in seconds.

    Raises:
        ConfigError: it is something else.
    """
    try:
        return parse_duration(text.strip())
    except ValueError as error:
        raise ConfigError(f"{text!r} {error}") from None


def parse_sandbox(word: str) -> SandboxLevel | None:
    """Read a word of SANDBOXES; None is `auto`."""
    return None if word == AUTO else SandboxLevel(word)


def parse_users(text: str) -> UserRange:
    """Read a range of users such as `200000:65536`; nothing is the first one from there that no others have.

    Raises:
        ConfigError: it is something else.
    """
    if not text:
        return USERS_OF_JOBS.beside(users_of_others())
    try:
        return UserRange.parse(text)
    except ValueError as error:
        raise ConfigError(f"--job-users: {error}") from None


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
