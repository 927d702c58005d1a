"""What an end of a link says that it speaks, between `shoal.protocol_version` and the contract."""

from typing import Any

from shoal.protocol_version import Protocols
from shoal.v1 import protocols_pb2 as v1
from shoal.wire import fields
from shoal.wire.codec import NounCodec, checked, codec
from shoal.wire.fields import WireError

_encode, _decode = codec(Protocols, v1.Protocols, "protocols", version=checked(fields.word))


def encode_protocols(said: Protocols) -> v1.Protocols:
    """Write which protocols this end speaks."""
    return _encode(said)


def decode_protocols(message: v1.Protocols, path: str = "protocols") -> Protocols:
    """Read which protocols the other end speaks.

    Raises:
        WireError: they are no numbers from a lowest to a highest one.
    """
    said = _decode(message, path)
    if not 1 <= said.lowest <= said.highest:
        raise WireError(path, f"{said.lowest} to {said.highest} are no protocols")
    return said


def said_in(message: Any) -> Protocols | None:
    """Read what the field `protocols` of a message says; None where it says nothing.

    Raises:
        WireError: as `decode_protocols`.
    """
    return decode_protocols(message.protocols) if message.HasField("protocols") else None


PROTOCOLS = NounCodec(encode_protocols, decode_protocols)
