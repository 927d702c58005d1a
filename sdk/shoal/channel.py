"""What every gRPC channel of ours has in common, and servers with it: here alone one is made.

Sources: grpc/doc/keepalive.md and grpc/include/grpc/impl/channel_arg_names.h (gRPC core).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio

    from shoal.credentials import Credentials

Options = list[tuple[str, Any]]

MESSAGE_BYTES_MAX = 65 * 1024 * 1024
"""Largest message, but between stream workers, where large records travel in parts."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When an idle connection is asked whether it still stands, and how long it may think."""

    time_milliseconds: int
    timeout_milliseconds: int


STREAM = Keepalive(time_milliseconds=200, timeout_milliseconds=300)
"""Between nodes, where a stream stands still until a dead link is found.

gRPC core sends a client's pings at most once a second and a server's as often as its options say, so a
server finds out within 0.5 s and a client within 1.3 s.
"""

SESSION = Keepalive(time_milliseconds=1_000, timeout_milliseconds=2_000)
"""Agent to controller: well within a lease, and often enough for every NAT on the way."""

USER = Keepalive(time_milliseconds=20_000, timeout_milliseconds=10_000)
"""People and dashboards: they notice by themselves."""


def channel_options(keepalive: Keepalive, *, message_bytes_max: int = MESSAGE_BYTES_MAX) -> Options:
    """Return the options of a client channel.

    After a cut the channel is dialled again within 0.1 to 2 s instead of gRPC's 1 s to 2 min: our
    own backoff decides how often we try.
    """
    return [
        *common_options(keepalive, message_bytes_max),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Boards are reached as they are, whatever proxy the environment names for the web.
        ("grpc.enable_http_proxy", 0),
        # Two channels to one address are two connections, so that one that hangs is one that hangs.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def open_channel(
    address: str,
    options: Options,
    credentials: "Credentials | None" = None,
    *,
    expect: str = "",
) -> "grpc.aio.Channel":
    """Return a channel to `address` (`host:port`, or `unix:PATH`).

    Args:
        address: that of the process to dial.
        options: as `channel_options` returns them.
        credentials: what this end proves, and which authorities it believes; None for a channel in
            the clear, as within one machine.
        expect: the DNS name that the other end has to prove (`shoal.identity.dns_name`); by default
            that of a controller of the same cluster.
    """
    import grpc.aio  # noqa: PLC0415 - job code and --help do without

    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    proof = grpc.ssl_channel_credentials(
        credentials.authorities, credentials.key, credentials.certificate
    )
    name = expect or credentials.controller_name()
    named = [*options, ("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
    return grpc.aio.secure_channel(address, proof, options=named)


def open_foreign_channel(address: str, *, tls: bool) -> "grpc.aio.Channel":
    """Return a channel to a server of others, `host:port`, which has its own ways of keeping a connection.

    With `tls` it proves itself by the authorities that gRPC believes, or those of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
    """
    import grpc.aio  # noqa: PLC0415 - as above

    if not tls:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials())


def common_options(keepalive: Keepalive, message_bytes_max: int) -> Options:
    """Return the options that a channel and a server share."""
    return [
        ("grpc.keepalive_time_ms", keepalive.time_milliseconds),
        ("grpc.keepalive_timeout_ms", keepalive.timeout_milliseconds),
        # Since gRPC core 1.60 (grpc/grpc#34647) the wait for an answer is this one, 60 s unless
        # set; without it a silent link is not found for a minute, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", keepalive.timeout_milliseconds),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_receive_message_length", message_bytes_max),
    ]
