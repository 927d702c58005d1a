"""Whether the stream workers, or the client, at the two ends of a lane can work together."""

from typing import Any

from shoal.protocol_version import LANES, LinkEnd, NoCommonProtocolError, Protocols, agreed
from shoal.version import VERSION
from shoal.wire.fields import WireError
from shoal.wire.protocols import encode_protocols, said_in

REFUSED = "PROTOCOL"
"""Reason of a refusal."""

_IF_OLDER = "upgrade its build; a stream worker is replaced once nothing streams there"


def spoken() -> Protocols:
    """Which protocols of lanes this build speaks."""
    return LANES.said_by(VERSION)


ENCODED = encode_protocols(spoken())
"""The same for messages."""


def no_common(message: Any, name: str) -> str:
    """Say why this end and the one that sent a message can carry no lane; empty if they can.

    Args:
        message: the first that the other end says of itself, with `protocols`.
        name: the other end's name for people.
    """
    try:
        other = LinkEnd(name, said_in(message), _IF_OLDER)
        agreed(LANES, LinkEnd("this stream worker", spoken(), _IF_OLDER), other)
    except (NoCommonProtocolError, WireError) as error:
        return str(error)
    return ""
