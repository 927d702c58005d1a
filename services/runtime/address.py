"""Addresses as an operator writes them: `host:port`."""

PORT_MAX = 65_535


class AddressError(ValueError):
    """It is no address; the message says what would be."""


def host_port(address: str, *, hostless: bool = False) -> tuple[str, int]:
    """Read `host:port` or `[v6]:port`.

    Args:
        address: what was written.
        hostless: whether `:port` is one, too; its host is empty.

    Raises:
        AddressError: it is something else.
    """
    host, colon, port = address.rpartition(":")
    known = bool(colon) and port.isascii() and port.isdecimal() and int(port) <= PORT_MAX
    if not known or not (host or hostless):
        raise AddressError(
            f"{address!r} is not an address: write HOST:PORT, as in 10.0.0.1:7470; port 0 takes any"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def joined(host: str, port: int) -> str:
    """Write `host:port`, or `[v6]:port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
