"""What changed of an attempt's lanes, between `shoal.session.attempt_lanes` and the contract."""

from __future__ import annotations

from shoal.session.attempt_lanes import AttemptLanes
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.lane import decode_lane, encode_lane


def encode_attempt_lanes(changed: AttemptLanes) -> v1.AttemptLanes:
    """Write what changed of the lanes of an attempt."""
    return v1.AttemptLanes(
        ref=encode_attempt_ref(changed.ref), lanes=[encode_lane(lane) for lane in changed.lanes]
    )


def decode_attempt_lanes(message: v1.AttemptLanes, path: str = "lanes") -> AttemptLanes:
    """Read what changed of the lanes of an attempt.

    Raises:
        WireError: it breaks the contract.
    """
    return AttemptLanes(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")),
        lanes=fields.each(message.lanes, fields.at(path, "lanes"), decode_lane),
    )
