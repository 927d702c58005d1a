"""What an operator may set for a controller, read once at the root."""

import math
import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from services.archive.opening import ArchiveAddress, ArchiveUrlError, DirectoryAddress
from services.archive.opening import parse_url as parse_archive
from services.archive.s3_server import S3Server
from services.events.broker_url import BrokerAddress, BrokerUrlError
from services.events.broker_url import parse_url as parse_broker
from services.identity.authority import Authority
from services.membership.settings import ConfigError, GossipSettings
from services.runtime.address import AddressError, host_port, joined
from services.runtime.outward import on_loopback, pinned
from services.traces.opening import CollectorUrlError, check_collector_url
from shoal.names import InvalidNameError, check_id
from shoal.redaction import redacted

GOSSIP_PORT = 7946
OBJECTS_PORT = 7471
_OBJECTS_URL = re.compile(
    r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?)(:[0-9]{1,5})?/?"
)
"""Nothing behind the host and its port, to which paths are added; names as they stand in a request."""
NEWCOMERS_ABOVE = 2
"""The port of newcomers is so far above that of the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig(GossipSettings):
    """Configuration of one controller.

    Attributes:
        name: name of its gossip member and its client id at the broker, unique in the cluster.
        state: folder for everything that the controller keeps.
        grpc: `host:port` of the API.
        gossip: `host:port` to gossip on; empty for a controller that does not gossip.
        objects: `host:port` where an archive in a folder is served.
        objects_url: what addresses of archived objects begin with, `http[s]://host[:port]`, where others reach
            the archive (a folder's endpoint or a bucket's server) at another address; empty for its own.
        advertise: address that others reach this machine under; empty for what is bound, or, for
            a wildcard, what `services.runtime.outward` finds.
        seeds: `host:port` of gossip members to join.
        archive: address of the archive; empty means the folder `archive` of the state.
        legacy_results: address of the store to which results are copied for pipelines that ask for it with
            `compat.legacy_results`; empty for the archive.
        broker: address of the MQTT broker; empty keeps events in the outbox.
        broker_password_file: has its password, where that does not stand in the address.
        sources: S3 server of `s3://` file inputs.
        source_buckets: buckets there that any pipeline may read, with this process's credentials.
        lease_seconds: how long an agent's silence is tolerated.
        heartbeat_seconds: how often an agent speaks at least.
        unplaced_seconds: how long a job may wait for a node before an event tells of it.
        still_seconds: how long a stream may stand still before an event tells of it.
        dead_letters: how many pipelines that failed are kept until a person revives or discards them.
        dead_letter_days: for how many days.
        keep_results_days: for how many days committed results are kept; None for ever.
        keep_attempts_days: for how many days what attempts have in the archive that did not commit.
        keep_bundles_days: for how many days bundles that no remembered pipeline names.
        url_expires_seconds: how long presigned addresses are good.
        insecure: serve every caller and believe what it says of itself: no process and no person has an identity.
        newcomers: `host:port` where a join token is taken for a certificate; empty for none.
        authority: key and certificate of an authority of one's own for a new cluster; None makes one.
        caller_calls: calls that one identity may begin a second.
        caller_watches: watches, logs, taps, lanes and sessions that one identity may have open.
        caller_pipelines: pipelines of one identity that have not ended.
        caller_spec_bytes: bytes of specifications that one identity may submit within an hour.
        caller_bundle_bytes: bytes of bundles that one identity may upload within an hour.
        health_file: file that is written every few seconds while all is well; None for none.
        metrics: `host:port` of `GET /metrics`; empty for none.
        traces: address of a collector that takes spans; empty for none.
        traces_share: the share of pipelines that get a trace of their own if they are submitted in none.

    Raises:
        ConfigError: a setting cannot be.
    """

    state: Path
    name: str = "controller"
    grpc: str = "127.0.0.1:7470"
    gossip: str = f"127.0.0.1:{GOSSIP_PORT}"
    objects: str = f"127.0.0.1:{OBJECTS_PORT}"
    objects_url: str = ""
    archive: str = ""
    legacy_results: str = ""
    broker: str = ""
    broker_password_file: Path | None = None
    sources: S3Server | None = None
    source_buckets: tuple[str, ...] = ()
    lease_seconds: float = 6.0
    heartbeat_seconds: float = 1.0
    unplaced_seconds: float = 30.0
    still_seconds: float = 60.0
    dead_letters: int = 1_000
    dead_letter_days: float = 90.0
    keep_results_days: float | None = None
    keep_attempts_days: float = 30.0
    keep_bundles_days: float = 30.0
    url_expires_seconds: int = 6 * 3600
    insecure: bool = False
    newcomers: str = ""
    authority: Authority | None = None
    caller_calls: float = 1000.0
    caller_watches: int = 1000
    caller_pipelines: int = 100_000
    caller_spec_bytes: int = 4 << 30
    caller_bundle_bytes: int = 256 << 30
    health_file: Path | None = None
    metrics: str = ""
    traces: str = ""
    traces_share: float = 1.0

    def __post_init__(self) -> None:
        try:
            check_id("controller", self.name)
            parse_archive(self.archive_url)
            if self.legacy_results:
                parse_archive(self.legacy_results)
            broker = self.broker_address
        except InvalidNameError as error:
            raise ConfigError(f"{error}; set it with --name") from None
        except (ArchiveUrlError, BrokerUrlError) as error:
            raise ConfigError(redacted(str(error))) from None
        if self.traces:
            try:
                check_collector_url(self.traces)
            except CollectorUrlError as error:
                raise ConfigError(f"--traces {error}") from None
        if not 0 <= self.traces_share <= 1:
            raise ConfigError(
                f"--traces-share is {self.traces_share:g}: write a number from 0 (none) to 1 (all)"
            )
        if self.broker_password_file and (broker is None or not broker.username):
            raise ConfigError(
                "--mqtt-password-file goes with a broker and a user: write --mqtt mqtt://user@host"
            )
        for option, address in (
            ("--grpc", self.grpc),
            ("--gossip", self.gossip),
            ("--objects", self.objects),
            ("--serf-rpc", self.serf_rpc),
            ("--members-http", self.members_http),
            ("--newcomers", self.newcomers),
            ("--metrics", self.metrics),
        ):
            if address:
                _check_address(option, address)
        for seed in self.seeds:
            _check_address("--join", seed)
        if self.objects_url:
            _check_objects_url(self.objects_url)
        if refusal := self.gossip_refusal():
            raise ConfigError(refusal)
        if not 0 < self.heartbeat_seconds < self.lease_seconds:
            raise ConfigError(
                f"--heartbeat-seconds is {self.heartbeat_seconds:g} and --lease-seconds is "
                f"{self.lease_seconds:g}: the heartbeat has to be more than 0 and well below the "
                "lease, a sixth of it is usual"
            )
        for option, seconds in (
            ("--unplaced-seconds", self.unplaced_seconds),
            ("--still-seconds", self.still_seconds),
        ):
            if not 0 < seconds < math.inf:
                raise ConfigError(
                    f"{option} is {seconds:g}: write a number of seconds above 0; a large one such as "
                    "1e9 means never"
                )
        for option, given in (
            ("--newcomers", self.newcomers),
            ("--authority-file", self.authority),
        ):
            if given and self.insecure:
                raise ConfigError(
                    f"{option} is about identity, which --insecure turns off: leave one of them out"
                )
        for option, most in (
            ("--caller-calls", self.caller_calls),
            ("--caller-watches", self.caller_watches),
            ("--caller-pipelines", self.caller_pipelines),
            ("--caller-spec-bytes", self.caller_spec_bytes),
            ("--caller-bundle-bytes", self.caller_bundle_bytes),
            ("--dead-letters", self.dead_letters),
            ("--dead-letter-days", self.dead_letter_days),
            ("--keep-attempts-days", self.keep_attempts_days),
            ("--keep-bundles-days", self.keep_bundles_days),
            *((("--keep-results", days),) if (days := self.keep_results_days) is not None else ()),
        ):
            if not 1 <= most < math.inf:
                raise ConfigError(
                    f"{option} is {most:g}: write a number from 1 on; a large one such as 1000000000 "
                    "means no limit"
                )
        if not 60 <= self.url_expires_seconds <= 7 * 24 * 3600:
            raise ConfigError(
                f"--url-expires-seconds is {self.url_expires_seconds}: choose from a minute to a "
                "week, which is the most that S3 allows"
            )

    @property
    def peers(self) -> tuple[str, ...]:
        """See `GossipSettings`; a controller listens at more addresses of its own."""
        return (*self.seeds, *pinned((self.grpc, self.gossip, self.objects)))

    @property
    def unreachable(self) -> str:
        """Name what other machines cannot reach although they reach the API; empty for nothing."""
        served = {"--gossip": self.gossip}
        if self.objects_url:
            served["--objects-url"] = urlsplit(self.objects_url).netloc
        elif isinstance(self.archive_address, DirectoryAddress):
            served["--objects"] = self.objects
        if on_loopback(self.grpc):
            return ""
        return ", ".join(f"{key} {at}" for key, at in served.items() if at and on_loopback(at))

    @property
    def exposed(self) -> str:
        """Name what strangers can reach and is believed without proof; empty for nothing."""
        served = {
            "--grpc": self.grpc,
            "--gossip": "" if self.gossip_keys or self.gossip_keyring else self.gossip,
            "--objects": self.objects if isinstance(self.archive_address, DirectoryAddress) else "",
        }
        if not self.insecure:
            return ""
        return ", ".join(f"{key} {at}" for key, at in served.items() if at and not on_loopback(at))

    @property
    def broker_address(self) -> BrokerAddress | None:
        """Where the broker is, and the user that we are to it; None if there is none."""
        if not self.broker:
            return None
        return replace(parse_broker(self.broker), password_file=self.broker_password_file)

    @property
    def archive_url(self) -> str:
        """Address of the archive."""
        return self.archive or f"file://{self.state.absolute()}/archive"

    @property
    def archive_address(self) -> ArchiveAddress:
        """Where the archive is."""
        return parse_archive(self.archive_url)


def neighbour(address: str, port: int) -> str:
    """Return `host:port` with the host of another one, which may be none."""
    try:
        return joined(host_port(address)[0], port)
    except AddressError:
        return address  # which is refused with its own option's name


def newcomers_beside(address: str) -> str:
    """Return where newcomers join by default: two ports above the API, which may be none."""
    try:
        host, port = host_port(address)
    except AddressError:
        return address  # which is refused with its own option's name
    return joined(host, port + NEWCOMERS_ABOVE if port else 0)


def _check_objects_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = _OBJECTS_URL.fullmatch(url) is not None and parts.port != 0
        host = parts.hostname or ""
        # Only an address has a colon; a name of figures and dots is one, too.
        if ":" in host or not set(host) - set("0123456789."):
            fits = fits and not ip_address(host).is_unspecified
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(
            f"--objects-url {redacted(url)!r}: write http://HOST:PORT or https://HOST:PORT, under which boards "
            "and people reach the archive"
        )


def _check_address(option: str, address: str) -> None:
    try:
        host_port(address)
    except AddressError as error:
        raise ConfigError(f"{option}: {error}") from None
