"""Free ports on loopback, for programs that cannot be asked to take port 0."""

import contextlib
import secrets
import socket
from pathlib import Path


def free_port() -> int:
    """Return a port that was free for TCP and for UDP on 127.0.0.1 a moment ago.

    Another process may take it before its user does: prefer port 0 where the program allows it.

    Raises:
        RuntimeError: when no port is free for both protocols after many tries.
    """
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.bind(("127.0.0.1", 0))
            port = int(stream.getsockname()[1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
                try:
                    datagram.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port
    raise RuntimeError("no port on 127.0.0.1 is free for both TCP and UDP; are all of them taken?")


def quiet_port() -> int:
    """Return a port for a program that takes it only seconds later: the kernel gives it to no connection meanwhile.

    Raises:
        RuntimeError: when no port below those that connections get is free.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = secrets.choice(range(10_000, low))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError(f"no port from 10000 to {low} was free on 127.0.0.1 in 100 tries")


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether something accepts TCP connections on `port`."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
