"""An assignment between `shoal.session.assignment` and the contract."""

from collections.abc import Mapping
from types import MappingProxyType

from shoal.secret import JOB_SECRETS_MAX, SECRET_BYTES_MAX
from shoal.session.assignment import Assignment, Goal
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import ATTEMPT_REF
from shoal.wire.codec import checked, codec, each, enumeration, one, written_once
from shoal.wire.fields import WireError
from shoal.wire.lane import LANE
from shoal.wire.spec import JOB_SPEC


def _decode_listings(digests: Mapping[str, str], path: str) -> Mapping[str, str]:
    for name, digest in digests.items():
        fields.sha256(digest, f"{path}[{name}]")
    return fields.strings(digests)


def _decode_secrets(values: Mapping[str, bytes], path: str) -> Mapping[str, bytes]:
    if len(values) > JOB_SECRETS_MAX:
        raise WireError(path, f"there are {len(values)}, {JOB_SECRETS_MAX} at most")
    for name, value in values.items():
        at = f"{path}[{fields.identifier('secret', name, path)}]"
        if len(value) > SECRET_BYTES_MAX:
            raise WireError(at, f"it has {len(value)} bytes, {SECRET_BYTES_MAX} at most")
    return MappingProxyType(dict(sorted(values.items())))


ASSIGNMENT = encode_assignment, decode_assignment = codec(
    Assignment,
    v1.Assignment,
    "assignment",
    ref=one(ATTEMPT_REF),
    job=one(written_once(JOB_SPEC)),
    replicas=checked(lambda value, _path: value or 1),
    bundle_digest=checked(fields.sha256),
    goal=one(enumeration(Goal, v1.Goal, "goal")),
    lanes=each(LANE),
    listings=checked(_decode_listings, dict),
    secrets=checked(_decode_secrets, dict),
    traceparent=checked(fields.traceparent),
)
