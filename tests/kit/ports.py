"""Free ports on loopback, for programs that cannot be asked to take port 0."""

import socket


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


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether something accepts TCP connections on `port`."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
