"""One port for datagrams and streams, and addresses in text."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from typing import Final

from services.membership.config import DEFAULT_PORT
from services.membership.message import Address

_RECEIVE_BUFFER_BYTES: Final = 2 * 1024 * 1024
_BACKLOG: Final = 128
_TRIES: Final = 32


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Read `host`, `host:port`, `[v6]:port` or `name/host:port`.

    Raises:
        ValueError: The port is no port, or the host is missing.
    """
    place = text.rsplit("/", 1)[-1].strip()
    host, port = place, ""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    elif place.count(":") == 1:
        host, port = place.split(":")
    if not host:
        raise ValueError(f"address {text!r} has no host; write host or host:port")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= 0xFFFF):
        raise ValueError(f"address {text!r} has port {port!r}; use 1..65535")
    return Address(host, int(port) if port else default_port)


async def resolve(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Turn an address in text into one with an IP address.

    Raises:
        ValueError: The text is no address.
        OSError: The name cannot be resolved.
    """
    host, port = parse_address(text, default_port)
    with contextlib.suppress(ValueError):
        return Address(str(ipaddress.ip_address(host)), port)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise OSError(errno.EHOSTUNREACH, f"no address for {host!r}")
    return Address(str(found[0][4][0]), port)


def bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket, int]:
    """Bind datagrams and streams to one port: `(datagrams, listener, port)`.

    With port 0 it looks for a port that is free for both.

    Raises:
        OSError: The port is taken, or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(_TRIES):
        listener = socket.socket(family, socket.SOCK_STREAM)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            real = int(listener.getsockname()[1])
            datagrams.bind((host, real))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            datagrams.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _TRIES - 1:
                raise OSError(
                    error.errno, f"cannot bind {host}:{port} for UDP and TCP: {error.strerror}"
                ) from error
            continue
        listener.setblocking(False)
        datagrams.setblocking(False)
        _widen(datagrams)
        return datagrams, listener, real
    raise OSError(errno.EADDRINUSE, f"no port of {host} is free for both UDP and TCP")


def _widen(datagrams: socket.socket) -> None:
    """Ask for a large receive buffer, and take what the system gives."""
    size = _RECEIVE_BUFFER_BYTES
    while size >= 64 * 1024:
        with contextlib.suppress(OSError):
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            return
        size //= 2
