"""Where a stream worker listens for other nodes, as it is told to them: `host:port`, or `clear://host:port`.

The second form says that the worker takes calls in the clear, although its cluster has an identity
(`--streams-security ticket`): so one that dials knows how, before it does. In a cluster without
identity all streams are in the clear, and the first form is the only one.
"""

from typing import Final

from services.runtime.address import joined

IN_CLEAR: Final = "clear://"


def told(host: str, port: int, *, clear: bool) -> str:
    """Write the address of a worker."""
    return (IN_CLEAR if clear else "") + joined(host, port)


def reached(address: str) -> tuple[str, bool]:
    """Return the `host:port` to dial, and whether in the clear although there is an identity."""
    return address.removeprefix(IN_CLEAR), address.startswith(IN_CLEAR)


def with_host(address: str, host: str) -> str:
    """Return an address with another host."""
    dialled, clear = reached(address)
    return told(host, int(dialled.rpartition(":")[2]), clear=clear)
