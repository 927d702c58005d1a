"""Address of a broker: `mqtt://user:password@host:1883`, `mqtts://…?ca=/path`."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class BrokerUrlError(ValueError):
    """An address that is not one of a broker; the message never shows its password."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker stands and our account there; `ca_file` is empty for the system's own."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""

    @property
    def shown(self) -> str:
        """The address for people, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_url(url: str) -> BrokerAddress:
    """Read the address of a broker.

    Raises:
        BrokerUrlError: when it is none.
    """
    remedy = "write mqtt://user:password@host:1883 or mqtts://host:8883?ca=/path/of/ca.pem"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Whose words may be a part of the password.
        raise BrokerUrlError(
            "the broker's address is malformed; in a user or password write %40 for @, %3A for : "
            f"and %2F for /: {remedy}"
        ) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
        raise BrokerUrlError(
            f"the broker's address begins with {parts.scheme!r}, has "
            f"{'a' if parts.hostname else 'no'} host and {'a' if parts.path.strip('/') else 'no'} "
            f"path: {remedy}"
        )
    query = parse_qs(parts.query, keep_blank_values=True)
    tls = parts.scheme == "mqtts"
    if unknown := sorted(set(query) - ({"ca"} if tls else set())):
        raise BrokerUrlError(
            f"option {unknown[0]!r} of the broker's address is not known: {remedy}"
        )
    return BrokerAddress(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        ca_file=query.get("ca", [""])[-1],
    )


def check_client_id(value: str) -> str:
    """Return `value` if every broker takes it as a client id, and it fits into a topic.

    Raises:
        ValueError: when it does not.
    """
    if _CLIENT_ID.fullmatch(value) is None:
        raise ValueError(f"client id {value!r}: use up to 128 letters, digits and -_.:")
    return value
