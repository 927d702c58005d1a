"""A hold between `shoal.session.port_hold` and the contract."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import limits
from shoal.session.port_hold import PortHold
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.fields import WireError

PORTS_MAX = 4_096
"""More ports than any job has."""


def encode_port_hold(hold: PortHold) -> v1.PortHeld:
    """Write how far a port is that stands still."""
    return v1.PortHeld(port=hold.port, hold=hold.number, held_at=hold.held_at, ended=hold.ended)


def decode_port_hold(message: v1.PortHeld, path: str = "hold") -> PortHold:
    """Read how far a port is that stands still.

    Raises:
        WireError: the port's name is malformed, or no stream has so many records.
    """
    return PortHold(
        port=fields.identifier("port", message.port, fields.at(path, "port")),
        number=message.hold,
        held_at=fields.count(message.held_at, limits.RECORDS_MAX, fields.at(path, "held_at")),
        ended=message.ended,
    )


def decode_port_holds(messages: Sequence[v1.PortHeld], path: str) -> tuple[PortHold, ...]:
    """Read how far the ports of an attempt are.

    Raises:
        WireError: one breaks the contract, or they are more than any job has.
    """
    if len(messages) > PORTS_MAX:
        raise WireError(path, f"{len(messages)} are more ports than any job has")
    return fields.each(messages, path, decode_port_hold)
