"""A hold between `shoal.session.port_hold` and the contract."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import limits
from shoal.session.port_hold import PortHold
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import codec, count, identifier, renamed

PORTS_MAX = 4_096
"""More ports than any job has."""

PORT_HOLD = encode_port_hold, decode_port_hold = codec(
    PortHold,
    v1.PortHeld,
    "hold",
    port=identifier("port"),
    number=renamed("hold"),
    held_at=count(limits.RECORDS_MAX),
)


def decode_port_holds(messages: Sequence[v1.PortHeld], path: str) -> tuple[PortHold, ...]:
    """Read how far the ports of an attempt are.

    Raises:
        WireError: one breaks the contract, or they are more than any job has.
    """
    if len(messages) > PORTS_MAX:
        raise fields.WireError(path, f"{len(messages)} are more ports than any job has")
    return fields.each(messages, path, decode_port_hold)
