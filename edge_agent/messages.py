"""The messages of a session, and nothing else, between our values and the contract.

Everything that a controller sends is checked here; a message that breaks the contract raises
`shoal.wire.WireError`, and the rest of its batch is not touched by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_never

from google.protobuf.timestamp_pb2 import Timestamp

from edge_agent.assignment import (
    Assignment,
    Desired,
    FromAgent,
    FromController,
    Goal,
    Heartbeat,
    Hello,
    Lane,
    LanePeer,
    LogPiece,
    NodeCondition,
    Observation,
    Progress,
    Refused,
    UploadGrant,
    UploadsGranted,
    UploadsWanted,
    Welcome,
)
from services.streams.rotation import Stretch
from shoal import limits
from shoal.model import Followed
from shoal.redaction import redacted
from shoal.v1 import pipelines_service_pb2, session_service_pb2
from shoal.wire.fields import WireError, encode_time
from shoal.wire.session import decode_attempt_ref, encode_attempt_ref, encode_followed
from shoal.wire.spec import (
    decode_distribute,
    decode_job_spec,
    decode_port_format,
    encode_distribute,
    encode_job_spec,
    encode_port_format,
)
from shoal.wire.state import (
    encode_artifact,
    encode_capacity,
    encode_job_state,
    encode_log_stream,
    encode_reason,
    encode_stream_counters,
)


def encode_request(
    sequence: int, acknowledged: int, messages: Sequence[FromAgent]
) -> session_service_pb2.ConnectRequest:
    """Write a batch of the agent."""
    return session_service_pb2.ConnectRequest(
        sequence=sequence,
        acknowledged=acknowledged,
        messages=[_encode_message(message) for message in messages],
    )


def _encode_message(message: FromAgent) -> session_service_pb2.AgentMessage:
    match message:
        case Hello():
            return session_service_pb2.AgentMessage(hello=_encode_hello(message))
        case NodeCondition(refuses):
            return session_service_pb2.AgentMessage(
                condition=session_service_pb2.NodeCondition(refuses=refuses)
            )
        case Heartbeat():
            return session_service_pb2.AgentMessage(heartbeat=session_service_pb2.Heartbeat())
        case Observation():
            return session_service_pb2.AgentMessage(observed=encode_observation(message))
        case LogPiece(ref, stream, offset, data):
            return session_service_pb2.AgentMessage(
                log=pipelines_service_pb2.LogChunk(
                    attempt=ref.name,
                    stream=encode_log_stream(stream),
                    offset=offset,
                    data=data,
                    epoch=ref.epoch,
                )
            )
        case Progress(ref, streams, text):
            return session_service_pb2.AgentMessage(
                progress=session_service_pb2.AttemptProgress(
                    attempt=ref.name,
                    namespace=ref.namespace,
                    epoch=ref.epoch,
                    streams=[encode_stream_counters(counters) for counters in streams],
                    progress=limits.cut(redacted(text), limits.PROGRESS_CHARACTERS_MAX),
                )
            )
        case UploadsWanted(ref, artifacts):
            return session_service_pb2.AgentMessage(
                uploads_wanted=session_service_pb2.UploadsWanted(
                    ref=encode_attempt_ref(ref),
                    artifacts=[encode_artifact(artifact) for artifact in artifacts],
                )
            )
        case _:
            assert_never(message)


def _encode_hello(hello: Hello) -> session_service_pb2.Hello:
    return session_service_pb2.Hello(
        node=hello.node,
        agent_id=hello.agent_id,
        agent_version=hello.agent_version,
        capacity=encode_capacity(hello.capacity),
        labels=dict(hello.labels),
        architecture=hello.architecture,
        stream_address=hello.stream_address,
        attempts=[encode_observation(observation) for observation in hello.attempts],
        bundles=hello.bundles,
        member_name=hello.member_name,
        instance_id=hello.instance_id,
        followed=None if hello.followed is None else encode_followed(hello.followed),
        condition=session_service_pb2.NodeCondition(refuses=hello.refuses),
    )


def encode_observation(observation: Observation) -> session_service_pb2.AttemptObserved:
    """Write where an attempt stands."""
    return session_service_pb2.AttemptObserved(
        attempt=observation.ref.name,
        namespace=observation.ref.namespace,
        epoch=observation.ref.epoch,
        state=encode_job_state(observation.state),
        reason=encode_reason(observation.reason),
        artifacts=[encode_artifact(artifact) for artifact in observation.artifacts],
        start_time=_encode_seconds(observation.start_time),
        end_time=_encode_seconds(observation.end_time),
    )


def _encode_seconds(seconds: float) -> Timestamp | None:
    return encode_time(datetime.fromtimestamp(seconds, UTC)) if seconds else None


def decode_message(message: session_service_pb2.ControllerMessage) -> FromController | None:
    """Read one message of a controller; None is one that a newer controller may send.

    Raises:
        WireError: it breaks the contract.
    """
    match message.WhichOneof("message"):
        case "welcome":
            return _decode_welcome(message.welcome)
        case "desired":
            return _decode_desired(message.desired)
        case "uploads_granted":
            granted = message.uploads_granted
            return UploadsGranted(
                decode_attempt_ref(granted.ref, "uploads_granted.ref"),
                tuple(
                    UploadGrant(
                        grant.path, grant.key, grant.url, dict(grant.headers), grant.problem
                    )
                    for grant in granted.grants
                ),
            )
        case "refused":
            refused = message.refused
            ref = decode_attempt_ref(refused.ref, "refused.ref") if refused.ref.attempt else None
            return Refused(ref, refused.reason, refused.message)
        case None:
            return None


def _decode_welcome(message: session_service_pb2.Welcome) -> Welcome:
    following = Followed(message.cluster_id, message.term, message.start_id)
    return Welcome(
        message.controller_id,
        _seconds(message.lease_seconds, "welcome.lease_seconds"),
        _seconds(message.heartbeat_seconds, "welcome.heartbeat_seconds"),
        following=following if message.cluster_id else None,
        quarantine=message.quarantine,
        adopted=message.adopted,
        retry_seconds=_seconds(message.retry_seconds, "welcome.retry_seconds"),
    )


def _seconds(value: float, path: str) -> float:
    if problem := limits.duration_problem(value):
        raise WireError(path, f"{value} {problem}")
    return value


def _decode_desired(message: session_service_pb2.Desired) -> Desired:
    return Desired(
        message.revision,
        message.snapshot,
        tuple(
            decode_assignment(assignment, f"desired.assignments[{index}]")
            for index, assignment in enumerate(message.assignments)
        ),
        tuple(
            decode_attempt_ref(ref, f"desired.removed[{index}]")
            for index, ref in enumerate(message.removed)
        ),
        message.commit,
        message.part,
        message.more,
    )


def encode_assignment(assignment: Assignment) -> session_service_pb2.Assignment:
    """Write an attempt that should exist."""
    return session_service_pb2.Assignment(
        ref=encode_attempt_ref(assignment.ref),
        job=encode_job_spec(assignment.job),
        replica=assignment.replica,
        bundle_digest=assignment.bundle_digest,
        bundle_url=assignment.bundle_url,
        file_urls=dict(assignment.file_urls),
        goal=_GOALS[assignment.goal],
        lanes=[encode_lane(lane) for lane in assignment.lanes],
        replacement=assignment.replacement,
        replicas=assignment.replicas,
    )


_GOALS = {
    Goal.RUN: session_service_pb2.GOAL_RUN,
    Goal.STOP: session_service_pb2.GOAL_STOP,
    Goal.FINISH: session_service_pb2.GOAL_FINISH,
}


def decode_assignment(
    message: session_service_pb2.Assignment, path: str = "assignment"
) -> Assignment:
    """Read an attempt that should exist.

    Raises:
        WireError: it breaks the contract.
    """
    digest = message.bundle_digest
    if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        raise WireError(f"{path}.bundle_digest", f"{digest!r} is not a SHA-256 in hex")
    try:
        goal = Goal(message.goal)
    except ValueError:
        raise WireError(f"{path}.goal", f"{message.goal} is not a goal") from None
    return Assignment(
        ref=decode_attempt_ref(message.ref, f"{path}.ref"),
        job=decode_job_spec(message.job, f"{path}.job"),
        replica=message.replica,
        replicas=message.replicas or 1,
        bundle_digest=digest,
        bundle_url=message.bundle_url,
        file_urls=dict(message.file_urls),
        goal=goal,
        lanes=tuple(
            _decode_lane(lane, f"{path}.lanes[{index}]") for index, lane in enumerate(message.lanes)
        ),
        replacement=message.replacement,
    )


def encode_lane(lane: Lane) -> session_service_pb2.Lane:
    """Write one lane."""
    return session_service_pb2.Lane(
        id=lane.id,
        output=lane.output,
        port=lane.port,
        peer_replica=lane.peer_replica,
        peer_replicas=lane.peer_replicas,
        peer=session_service_pb2.LanePeer(
            address=lane.peer.address,
            attempt=lane.peer.attempt,
            epoch=lane.peer.epoch,
            done=lane.peer.done,
        ),
        distribute=encode_distribute(lane.distribute),
        peer_port=lane.peer_port,
        peer_job=lane.peer_job,
        peer_format=encode_port_format(lane.peer_format),
        keep=lane.keep,
        generation=lane.stretch.generation,
        producer_begin=lane.stretch.producer_begin,
        consumer_begin=lane.stretch.consumer_begin,
        consumer_end=lane.stretch.consumer_end,
        hold=lane.hold,
        end=lane.end,
    )


def _decode_lane(message: session_service_pb2.Lane, path: str) -> Lane:
    if not message.id or not message.port:
        raise WireError(path, "a lane has an id and a port")
    if problem := limits.count_problem(message.peer_replicas, limits.LANES_MAX):
        raise WireError(f"{path}.peer_replicas", f"{message.peer_replicas} {problem}")
    return Lane(
        id=message.id,
        output=message.output,
        port=message.port,
        peer_replica=message.peer_replica,
        peer_replicas=message.peer_replicas or 1,
        peer=LanePeer(
            message.peer.address, message.peer.attempt, message.peer.epoch, message.peer.done
        ),
        distribute=decode_distribute(message.distribute, f"{path}.distribute"),
        peer_port=message.peer_port,
        peer_job=message.peer_job,
        peer_format=decode_port_format(message.peer_format, f"{path}.peer_format"),
        keep=message.keep,
        stretch=Stretch(
            message.generation,
            message.producer_begin,
            message.consumer_begin,
            message.consumer_end if message.HasField("consumer_end") else None,
        ),
        hold=message.hold,
        end=message.end if message.HasField("end") else None,
    )
