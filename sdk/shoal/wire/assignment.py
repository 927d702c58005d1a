"""An assignment between `shoal.session.assignment` and the contract."""

from collections.abc import Mapping

from shoal.session.assignment import Assignment, Goal
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import ATTEMPT_REF
from shoal.wire.codec import checked, codec, each, enumeration, one
from shoal.wire.lane import LANE
from shoal.wire.spec import JOB_SPEC


def _decode_listings(digests: Mapping[str, str], path: str) -> Mapping[str, str]:
    for name, digest in digests.items():
        fields.sha256(digest, f"{path}[{name}]")
    return fields.strings(digests)


ASSIGNMENT = encode_assignment, decode_assignment = codec(
    Assignment,
    v1.Assignment,
    "assignment",
    ref=one(ATTEMPT_REF),
    job=one(JOB_SPEC),
    replicas=checked(lambda value, _path: value or 1),
    bundle_digest=checked(fields.sha256),
    goal=one(enumeration(Goal, v1.Goal, "goal")),
    lanes=each(LANE),
    listings=checked(_decode_listings, dict),
)
