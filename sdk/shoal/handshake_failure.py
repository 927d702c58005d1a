"""Why two ends of a connection did not believe each other, in words of ours.

Rule: gRPC tells the end that refuses, and not the end that is refused. Where the controller's certificate is
not believed, its text (gRPC core, ssl_transport_security.cc) has OpenSSL's reason. Where the controller does not
believe ours, which in TLS 1.3 it says after the handshake (RFC 8446, section 4.4.2.4), all that comes is a closed
socket; then what we have says the likely reason: no certificate at all, or one that is over.

Example: `… CERTIFICATE_VERIFY_FAILED: certificate has expired: OK` on our side, and `… Socket closed` on the other.
"""

import datetime as dt
import re
from typing import TYPE_CHECKING

from shoal.identity import Role

if TYPE_CHECKING:
    from shoal.credentials import Credentials

_CLOSED = re.compile(
    r"failed to connect.*(Socket closed|Connection reset by peer|Broken pipe)", re.DOTALL
)
_AGENT = "`shoal agent --token-file FILE`"
_LOGIN = "`shoal login --controller HOST:PORT --token-file FILE`"


def explain_handshake(
    details: str, address: str, credentials: "Credentials | None", now: dt.datetime
) -> str:
    """Say why a handshake failed, and what to do; empty where something else failed.

    Args:
        details: what gRPC says of the call that found no connection.
        address: that was dialled.
        credentials: what was to be proved there; None where the channel was in the clear.
        now: what the clock of this machine says.
    """
    if _CLOSED.search(details):
        return _refused(address, credentials, now)
    if credentials is None:
        return ""
    if "WRONG_VERSION_NUMBER" in details or "HTTP_REQUEST" in details:
        return (
            f"the controller at {address} does not prove who it is: it was started with --insecure, or something "
            f"else listens there. Start it without --insecure, or, if you mean it, {_unproved(address, credentials)}"
        )
    if "Hostname Verification Check failed" in details:
        return (
            f"what answers at {address} belongs to the cluster, but is not its controller "
            f"({credentials.controller_name()}): correct the address"
        )
    if "CERTIFICATE_VERIFY_FAILED" not in details:
        return ""
    if "expired" in details or "not yet valid" in details:
        return (
            f"the certificate of the controller at {address} is not good at {now:%Y-%m-%d %H:%M} UTC, which is what "
            "this machine's clock says: set the clock if it is wrong, else restart the controller, which renews it"
        )
    return (
        f"the controller at {address} belongs to another cluster than your identity "
        f"({credentials.identity.described} of cluster {credentials.identity.cluster}): its authority is not one "
        "that you believe, or it has a new one since. Get a token there, and use it with "
        f"{_joining(credentials)}; if nothing changed there, something is in between"
    )


def _refused(address: str, credentials: "Credentials | None", now: dt.datetime) -> str:
    """Say why the controller closed a connection at its beginning."""
    if credentials is None:
        return (
            f"the controller at {address} closes a connection in the clear, as one does that wants proof of who "
            f"calls: get a token from its operator (`shoal token create`), and use it with {_LOGIN}; for a board start "
            f"its agent without --insecure, with {_AGENT}"
        )
    if credentials.end <= now:
        return (
            f"your certificate ({credentials.identity.described}) is over since {credentials.end:%Y-%m-%d}, and this "
            f"machine's clock says {now:%Y-%m-%d}: set the clock if it is wrong, else get a new token, and use it "
            f"with {_joining(credentials)}"
        )
    return (
        f"the controller at {address} does not believe your certificate ({credentials.identity.described} of cluster "
        f"{credentials.identity.cluster}, good until {credentials.end:%Y-%m-%d}): its authority was removed there, "
        "or the controller's clock is wrong. Get a new token from its operator, and use it with "
        f"{_joining(credentials)}"
    )


def _joining(credentials: "Credentials") -> str:
    """Say how such an identity joins again."""
    return _AGENT if credentials.identity.role is Role.NODE else _LOGIN


def _unproved(address: str, credentials: "Credentials") -> str:
    """Say how to talk to a controller that proves nothing."""
    if credentials.identity.role is Role.NODE:
        return "start the agent with --insecure, too"
    return f"forget your identity there (`shoal logout --controller {address}`, or leave --identity out)"
