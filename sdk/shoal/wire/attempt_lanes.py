"""What changed of an attempt's lanes, between `shoal.session.attempt_lanes` and the contract."""

from __future__ import annotations

from shoal.session.attempt_lanes import AttemptLanes
from shoal.v1 import session_service_pb2
from shoal.wire.attempt import ATTEMPT_REF
from shoal.wire.codec import codec, each, one
from shoal.wire.lane import LANE

ATTEMPT_LANES = encode_attempt_lanes, _ = codec(
    AttemptLanes,
    session_service_pb2.AttemptLanes,
    "lanes",
    ref=one(ATTEMPT_REF),
    lanes=each(LANE),
)
