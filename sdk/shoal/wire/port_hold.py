"""A hold between `shoal.session.port_hold` and the contract."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from shoal import limits
from shoal.session.port_hold import PortHold
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import Decode, codec, count, identifier, renamed

MessageT = TypeVar("MessageT")
ValueT = TypeVar("ValueT")

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


def each_port(
    decode: Decode[MessageT, ValueT],
) -> Callable[[Sequence[MessageT], str], tuple[ValueT, ...]]:
    """Return what reads something of each port of an attempt; no job has more than `PORTS_MAX`."""

    def read(messages: Sequence[MessageT], path: str) -> tuple[ValueT, ...]:
        if len(messages) > PORTS_MAX:
            raise fields.WireError(path, f"{len(messages)} are more ports than any job has")
        return fields.each(messages, path, decode)

    return read


decode_port_holds = each_port(decode_port_hold)
