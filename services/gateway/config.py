"""What an operator may set for a gateway, read once at the root."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from services.runtime.address import AddressError, host_port
from shoal.identity import Role

ANONYMOUS: Final = "anonymous"
"""The user of each caller that has not signed in, where --anonymous lets it in."""


class GatewayConfigError(ValueError):
    """A setting that cannot be; the text names the option and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Configuration of one gateway.

    Attributes:
        state: folder that holds its users and their sessions.
        listen: `host:port` where it listens; port 0 takes any.
        controller: `host:port` of the controller.
        identity: folder of the credentials of a gateway; None proves nothing.
        certificate: file (PEM) of the certificate that it shows browsers; None for HTTP in the clear.
        key: file (PEM) of its key.
        proxy: address of a proxy before it, which ends TLS and says from where a caller comes; empty for none.
        origins: origins of pages of others that may call it, such as `https://app.example`.
        anonymous: role of callers that have not signed in; None lets none in.
        request_bytes: most that a request may have, packed and unpacked.
        call_seconds: most that a call may take which is answered once.
        calls_per_second: how many calls a user may begin a second; twice as many at once.
        watches: how many calls that last a user may have open.
        connections: how many connections there may be.
        unread_seconds: how long a connection may take nothing of what is sent.
        session_hours: how long a session lasts.
        metrics: `host:port` of `GET /metrics`; empty for none.
        health_file: file that is written every few seconds while all is well; None for none.

    Raises:
        GatewayConfigError: a setting cannot be.
    """

    state: Path
    listen: str = "127.0.0.1:7480"
    controller: str = "127.0.0.1:7470"
    identity: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxy: str = ""
    origins: Sequence[str] = ()
    anonymous: Role | None = None
    request_bytes: int = 4 << 20
    call_seconds: float = 30.0
    calls_per_second: float = 50.0
    watches: int = 32
    connections: int = 1000
    unread_seconds: float = 60.0
    session_hours: float = 12.0
    metrics: str = ""
    health_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            host, _ = host_port(self.listen)
            host_port(self.controller, hostless=True)
            if self.metrics:
                host_port(self.metrics)
        except AddressError as error:
            raise GatewayConfigError(str(error)) from None
        if (self.certificate is None) != (self.key is None):
            raise GatewayConfigError("--tls-certificate and --tls-key belong together: give both")
        if self.certificate is None and not self.proxy and not _is_loopback(host):
            raise GatewayConfigError(
                f"--listen {self.listen} can be reached from other machines, and tokens would travel in the "
                "clear: give --tls-certificate and --tls-key, or --proxy ADDRESS where a proxy ends TLS"
            )
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path:
                raise GatewayConfigError(
                    f"--origin {origin!r} is no origin: write https://HOST[:PORT], without a path"
                )
        for option, value, least in (
            ("--request-bytes", self.request_bytes, 1024),
            ("--call-seconds", self.call_seconds, 0.1),
            ("--calls-per-second", self.calls_per_second, 0.1),
            ("--watches", self.watches, 1),
            ("--connections", self.connections, 1),
            ("--unread-seconds", self.unread_seconds, 1),
            ("--session-hours", self.session_hours, 0.01),
        ):
            if value < least:
                raise GatewayConfigError(f"{option} is {value:g}; it has to be at least {least:g}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
