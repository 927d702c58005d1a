"""An assignment between `shoal.session.assignment` and the contract."""

from __future__ import annotations

from typing import cast

from shoal.session.assignment import Assignment, Goal
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.lane import decode_lane, encode_lane
from shoal.wire.spec import decode_job_spec, encode_job_spec


def encode_assignment(assignment: Assignment) -> v1.Assignment:
    """Write an attempt that should exist."""
    return v1.Assignment(
        ref=encode_attempt_ref(assignment.ref),
        job=encode_job_spec(assignment.job),
        replica=assignment.replica,
        replicas=assignment.replicas,
        bundle_digest=assignment.bundle_digest,
        bundle_url=assignment.bundle_url,
        file_urls=dict(assignment.file_urls),
        goal=cast("v1.Goal.ValueType", assignment.goal),
        lanes=[encode_lane(lane) for lane in assignment.lanes],
        replacement=assignment.replacement,
    )


def decode_assignment(message: v1.Assignment, path: str = "assignment") -> Assignment:
    """Read an attempt that should exist.

    Raises:
        WireError: it breaks the contract.
    """
    return Assignment(
        ref=decode_attempt_ref(message.ref, fields.at(path, "ref")),
        job=decode_job_spec(message.job, fields.at(path, "job")),
        replica=message.replica,
        replicas=message.replicas or 1,
        bundle_digest=fields.sha256(message.bundle_digest, fields.at(path, "bundle_digest")),
        bundle_url=message.bundle_url,
        file_urls=fields.strings(message.file_urls),
        goal=fields.enum_member(Goal, message.goal, "goal", fields.at(path, "goal")),
        lanes=fields.each(message.lanes, fields.at(path, "lanes"), decode_lane),
        replacement=message.replacement,
    )
