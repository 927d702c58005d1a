"""Which attempt a message is about."""

from __future__ import annotations

from typing import Any

from shoal import names
from shoal.v1 import session_service_pb2
from shoal.wire import fields
from shoal.wire.codec import NounCodec, spread


def encode_attempt_ref(ref: names.AttemptRef) -> session_service_pb2.AttemptRef:
    """Write which attempt."""
    return session_service_pb2.AttemptRef(
        attempt=ref.name, namespace=ref.namespace, epoch=ref.epoch
    )


def decode_attempt_ref(
    message: session_service_pb2.AttemptRef, path: str = "ref"
) -> names.AttemptRef:
    """Read which attempt.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    return decode_attempt_name(message.attempt, message.namespace, message.epoch, path)


def decode_attempt_name(
    attempt: str, namespace: str, epoch: int, path: str = ""
) -> names.AttemptRef:
    """Read the three fields that name an attempt in messages that carry them side by side.

    Raises:
        WireError: the name or the namespace is malformed.
    """
    return fields.attempt_ref(attempt, namespace, epoch, fields.at(path, "attempt"))


ATTEMPT_REF = NounCodec(encode_attempt_ref, decode_attempt_ref)


def _side_by_side(message: Any, path: str) -> names.AttemptRef:
    return decode_attempt_name(message.attempt, message.namespace, message.epoch, path)


SIDE_BY_SIDE = spread(
    lambda ref: {"attempt": ref.name, "namespace": ref.namespace, "epoch": ref.epoch},
    _side_by_side,
    *("attempt", "namespace", "epoch"),
)
"""An attempt whose three fields stand side by side in the message."""
