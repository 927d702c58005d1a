"""Which attempt a message is about."""

from typing import Any

from shoal import names
from shoal.v1 import session_service_pb2
from shoal.wire import fields
from shoal.wire.codec import Encode, NounCodec, spread


def _fields(ref: names.AttemptRef) -> dict[str, Any]:
    return {"attempt": ref.name, "namespace": ref.namespace, "epoch": ref.epoch}


def encode_attempt_ref(ref: names.AttemptRef) -> session_service_pb2.AttemptRef:
    """Write which attempt."""
    return session_service_pb2.AttemptRef(**_fields(ref))


def decode_attempt_ref(message: Any, path: str = "ref") -> names.AttemptRef:
    """Read which attempt: of an `AttemptRef`, or of a message that carries its fields side by side.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    at = fields.at(path, "attempt")
    return fields.attempt_ref(message.attempt, message.namespace, message.epoch, at)


ATTEMPT_REF = NounCodec(Encode(session_service_pb2.AttemptRef, _fields), decode_attempt_ref)
SIDE_BY_SIDE = spread(_fields, decode_attempt_ref, "attempt", "namespace", "epoch")
"""An attempt whose three fields stand side by side in the message."""
