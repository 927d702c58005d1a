"""Which attempt a message is about."""

from functools import lru_cache
from typing import Any, Final

from shoal import names
from shoal.v1 import session_service_pb2
from shoal.wire import fields
from shoal.wire.codec import Encode, NounCodec, spread

_KNOWN_MAX: Final = 1024
"""So many attempts are known by their name: each is heard of several times in its short life."""


def _given(ref: names.AttemptRef) -> dict[str, Any]:
    return {"attempt": ref.name, "namespace": ref.namespace, "epoch": ref.epoch}


def _fields(ref: names.AttemptRef) -> tuple[str, str, int]:
    return ref.name, ref.namespace, ref.epoch


def encode_attempt_ref(ref: names.AttemptRef) -> session_service_pb2.AttemptRef:
    """Write which attempt."""
    return session_service_pb2.AttemptRef(**_given(ref))


def decode_attempt_ref(message: Any, path: str = "ref") -> names.AttemptRef:
    """Read which attempt: of an `AttemptRef`, or of a message that carries its fields side by side.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    try:
        return _read(message.attempt, message.namespace, message.epoch)
    except fields.WireError as error:
        raise error.within(path) from None


@lru_cache(_KNOWN_MAX)
def _read(attempt: str, namespace: str, epoch: int) -> names.AttemptRef:
    return fields.attempt_ref(attempt, namespace, epoch, "attempt")


ATTEMPT_REF = NounCodec(Encode(session_service_pb2.AttemptRef, _given), decode_attempt_ref)
SIDE_BY_SIDE = spread(_fields, decode_attempt_ref, "attempt", "namespace", "epoch")
"""An attempt whose three fields stand side by side in the message."""
