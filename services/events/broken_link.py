"""Why there is no connection to a broker, as a sentence with the remedy.

Sources: MQTT 5.0 (OASIS), section 2.4 (reason codes); RFC 8446, section 6.2 (alerts of TLS), as OpenSSL names them;
verification errors in openssl-verification-options(1).
"""

import socket
import ssl
from typing import Final

from services.events.broker_url import BrokerAddress
from services.events.terms import NOT_AUTHORIZED, PACKET_TOO_LARGE, QUOTA_EXCEEDED

_UNSPECIFIED: Final = 0x80
_UNSUPPORTED_VERSION: Final = 0x84
_BAD_ID: Final = 0x85
_BAD_PASSWORD: Final = 0x86
_BANNED: Final = 0x8A
_TAKEN_OVER: Final = 0x8E
_NOT_YET: Final = 9
_OVER: Final = 10
_OTHER_NAME: Final = frozenset({62, 63, 64})
_BUSY: Final = frozenset({0x88, 0x89, 0x8B, 0x96, QUOTA_EXCEEDED, 0x9F})
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "it wants a certificate of ours: name certificate=FILE and key=FILE in --mqtt",
    "UNKNOWN_CA": "it does not know the authority of our certificate {certificate}: take one that the broker trusts",
    "CERTIFICATE_EXPIRED": "our certificate {certificate} is over: put a new one, and its key, in its place",
    "CERTIFICATE_REVOKED": "our certificate {certificate} is revoked: put a new one, and its key, in its place",
    "BAD_CERTIFICATE": "it does not take our certificate {certificate}: take one that the broker trusts",
    "CERTIFICATE_UNKNOWN": "it does not take our certificate {certificate}: take one that the broker trusts",
    "UNSUPPORTED_CERTIFICATE": "it does not take this kind of certificate: {certificate}",
    "ACCESS_DENIED": "it does not let our certificate {certificate} in: let the broker allow it",
    "HANDSHAKE_FAILURE": "TLS there has nothing in common with ours, or it wants a certificate of ours: "
    "certificate=FILE and key=FILE in --mqtt",
    "NO_APPLICATION_PROTOCOL": "it does not know the protocol {alpn!r} in the handshake: name another alpn=… in --mqtt",
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: write mqtt://, or the port of its TLS listener",
}
"""What follows on an alert of the broker, or on bytes that are no TLS."""
_PERHAPS_TLS: Final = (
    "if it wants TLS, write mqtts://",
    "if no TLS is spoken on this port, write mqtt://",
)


def why_refused(code: int, said: str, address: BrokerAddress) -> str:
    """Say why a broker did not take a connection, or ended it, with this reason code of MQTT 5."""
    match code:
        case _ if code in {_BAD_PASSWORD, NOT_AUTHORIZED}:
            why = _not_let_in(address)
        case _ if code == _UNSUPPORTED_VERSION:
            why = "it does not speak MQTT 5, and would refuse events in silence: update it (mosquitto from 1.6)"
        case _ if code == _BAD_ID:
            why = "it does not take our client id: choose another --name"
        case _ if code == _BANNED:
            why = "it has banned us: let the broker allow our client id and address"
        case _ if code == _TAKEN_OVER:
            why = (
                "another client took over our client id: two controllers with one --name at one broker end each "
                "other's connection; give one of them another --name"
            )
        case _ if code == PACKET_TOO_LARGE:
            why = "it takes no packets of this size"
        case _ if code == _UNSPECIFIED:
            why = (
                "it ended the connection without a reason; where that comes again and again, a second controller may "
                "have the same --name at it"
            )
        case _ if code in _BUSY:
            why = "it is busy, or we are beyond what it allows; it is tried again"
        case _:
            return said
    return f"{why} ({said})"


def _not_let_in(address: BrokerAddress) -> str:
    if address.username:
        given = "--mqtt-password-file" if address.password_file else "--mqtt"
        return (
            f"it does not let user {address.username!r} in, or not onto the topics below shoal/: the "
            f"password of {given} or the access list of the broker is not right"
        )
    if address.certificate_file:
        return (
            f"it does not let the holder of our certificate {address.certificate_file} in, or not onto the topics "
            "below shoal/: let the broker allow it"
        )
    return (
        "it lets nobody in without a name: write --mqtt mqtt://user@host and --mqtt-password-file, or let the broker "
        "allow anonymous clients"
    )


def why_unreachable(error: OSError, address: BrokerAddress) -> str:
    """Say why a broker cannot be reached, or cannot be trusted."""
    said = str(error) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            return f"{_not_trusted(error, address)} ({error.verify_message})"
        case ssl.SSLError():
            reason = error.reason or ""
            for alert, why in _ALERTS.items():
                if alert in reason:
                    return f"{why.format(certificate=address.certificate_file, alpn=address.alpn)} ({said})"
            return f"TLS with it broke: {said}"
        case socket.gaierror():
            return f"its name {address.host} has no address here: {error.strerror}"
        case ConnectionRefusedError():
            return f"nothing listens on port {address.port} of {address.host}"
        case TimeoutError():
            return f"{address.host} does not answer in time"
        case ConnectionResetError():
            return f"it broke the connection: {_PERHAPS_TLS[address.tls]} ({said})"
        case _:
            return said


def _not_trusted(error: ssl.SSLCertVerificationError, address: BrokerAddress) -> str:
    if error.verify_code == _OVER:
        return "its certificate is over: renew it at the broker, or set the clock of this machine"
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet: set the clock of this machine, or that of its authority"
    if error.verify_code in _OTHER_NAME:
        return (
            f"its certificate is for another name than {address.host}: write the name that stands in the certificate "
            "in --mqtt, or let the broker have one for this name"
        )
    issued = f"in {address.ca_file}" if address.ca_file else "that this system trusts"
    return (
        f"its certificate was issued by no authority {issued}: name the file of the broker's authority with ca=FILE in "
        "--mqtt"
    )
