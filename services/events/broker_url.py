"""Address of a broker: `mqtt://user:password@host:1883`, `mqtts://…?ca=/path`.

Options of `mqtts://`, each at most once: `ca` is a file of authorities in place of the system's, `certificate` and
`key` are files of our own certificate, `alpn` is the protocol that is named in the handshake. An option of both:
`limits`, `aws-iot` or `none`; a broker of Amazon's is known by its host.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_REMEDY = "write mqtt://user:password@host:1883 or mqtts://host:8883?ca=/path/of/ca.pem"
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_FILES = ("ca", "certificate", "key")
AWS_IOT: Final = "aws-iot"
"""Name of the limits of AWS IoT Core."""
_LIMITS = (AWS_IOT, "none")
_AWS_HOST = re.compile(r"[a-z0-9.-]+\.iot\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_AWS_ALPN: Final = ("mqtt", "x-amzn-mqtt-ca")
"""What AWS IoT Core wants to hear on port 443 from a client without and with a certificate."""
_HTTPS_PORT: Final = 443


class BrokerUrlError(ValueError):
    """An address that is not one of a broker; the message never shows its password."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker stands and our account there.

    `ca_file` is empty for the system's authorities, `certificate_file` and `key_file` are empty for no certificate of
    our own, `alpn` for no protocol in the handshake, `limits` for none that are known before the broker tells them.
    """

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    alpn: str = ""
    limits: str = ""
    password_file: Path | None = None
    """Has the password, which is read anew with each connection, in place of `password`."""

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
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Whose words may be a part of the password.
        raise BrokerUrlError(
            "the broker's address is malformed; in a user or password write %40 for @, %3A for : "
            f"and %2F for /: {_REMEDY}"
        ) from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
        raise BrokerUrlError(
            f"the broker's address begins with {parts.scheme!r}, has "
            f"{'a' if parts.hostname else 'no'} host and {'a' if parts.path.strip('/') else 'no'} "
            f"path: {_REMEDY}"
        )
    tls = parts.scheme == "mqtts"
    options = _options(parts.query, tls=tls)
    files = {name: options.get(name, "") for name in _FILES}
    if bool(files["certificate"]) != bool(files["key"]):
        raise BrokerUrlError(
            "a certificate for the broker goes with its key: write both certificate=FILE and key=FILE"
        )
    limits = options.get("limits", AWS_IOT if _AWS_HOST.fullmatch(parts.hostname) else "none")
    if limits not in _LIMITS:
        raise BrokerUrlError(
            f"the limits {limits!r} of a broker are not known: write limits={' or limits='.join(_LIMITS)}"
        )
    port = port or _PORTS[parts.scheme]
    amazons = tls and limits == AWS_IOT and port == _HTTPS_PORT
    return BrokerAddress(
        host=parts.hostname,
        port=port,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        ca_file=files["ca"],
        certificate_file=files["certificate"],
        key_file=files["key"],
        alpn=options.get("alpn", _AWS_ALPN[bool(files["certificate"])] if amazons else ""),
        limits="" if limits == "none" else limits,
    )


def _options(query: str, *, tls: bool) -> dict[str, str]:
    known = {*_FILES, "alpn", "limits"} if tls else {"limits"}
    found = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(found) - known):
        beside = "" if tls or unknown[0] not in {*_FILES, "alpn"} else ", which goes with mqtts://"
        raise BrokerUrlError(
            f"option {unknown[0]!r} of the broker's address is not known{beside}: {_REMEDY}"
        )
    for name, values in found.items():
        if len(values) != 1 or not values[0]:
            raise BrokerUrlError(
                f"option {name!r} of the broker's address wants one value: {_REMEDY}"
            )
    return {name: values[0] for name, values in found.items()}


def check_client_id(value: str) -> str:
    """Return `value` if every broker takes it as a client id, and it fits into a topic.

    Raises:
        ValueError: when it does not.
    """
    if _CLIENT_ID.fullmatch(value) is None:
        raise ValueError(f"client id {value!r}: use up to 128 letters, digits and -_.:")
    return value
