"""Where a controller listens."""

from shoal.errors import ShoalError


def check_address(text: str) -> str:
    """Return `host:port` if it is one.

    Raises:
        ShoalError: it is not; the message says what would be.
    """
    host, colon, port = text.rpartition(":")
    if (
        not host
        or "/" in host
        or not colon
        or not (port.isascii() and port.isdigit())
        or int(port) > 65535
    ):
        raise ShoalError(
            "BAD_ADDRESS",
            f"{text!r} is not the address of a controller; write HOST:PORT, as in 127.0.0.1:7470",
            {"address": text},
            "INVALID_ARGUMENT",
        )
    return text
