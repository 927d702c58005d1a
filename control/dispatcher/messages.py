"""The messages of a session between our values and the contract; nothing of an agent is trusted."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count

from control.desired import Assignment, Goal, Lane
from control.effects import Admitted
from control.observed import AgentHello, Observation, Progress
from services.archive.object_store import PresignedPut
from shoal import limits
from shoal.model import Capacity
from shoal.names import AttemptRef, check_id
from shoal.v1 import session_service_pb2 as v1
from shoal.v1.nodes_service_pb2 import NodeCapacity
from shoal.wire.fields import WireError, decode_time
from shoal.wire.session import decode_attempt_name, decode_followed, encode_attempt_ref
from shoal.wire.spec import encode_distribute, encode_job_spec, encode_port_format
from shoal.wire.state import (
    decode_artifact,
    decode_capacity,
    decode_job_state,
    decode_reason,
    decode_stream_counters,
)

ATTEMPTS_MAX = 10_000
"""Most attempts that an agent may know."""

BUNDLES_MAX = 10_000
"""Most bundles of a node that are remembered; they only say where a job starts quickest."""

STREAMS_MAX = 4_096
"""Most ports of a job."""

_DIGEST = re.compile(r"[0-9a-f]{64}")

_GOALS: Mapping[Goal, v1.Goal.ValueType] = {
    Goal.RUN: v1.GOAL_RUN,
    Goal.STOP: v1.GOAL_STOP,
    Goal.FINISH: v1.GOAL_FINISH,
}


REFUSAL_CHARACTERS_MAX = 2_000
"""Most that is kept of an agent's words for why it takes no work."""


def decode_hello(message: v1.Hello, refuse: Callable[[WireError], None]) -> AgentHello:
    """Read who an agent is; attempts that cannot be read are left out, and `refuse` is told.

    Raises:
        WireError: a field breaks the contract.
    """
    if len(message.attempts) > ATTEMPTS_MAX:
        raise WireError(
            "hello.attempts",
            f"{len(message.attempts)} are more than any node has; at most {ATTEMPTS_MAX} are taken",
        )
    try:
        node = check_id("node", message.node)
    except ValueError as error:
        raise WireError("hello.node", str(error)) from None
    return AgentHello(
        node=node,
        agent_id=_word(message.agent_id, "hello.agent_id"),
        capacity=_capacity(message.capacity),
        stream_address=_word(message.stream_address, "hello.stream_address"),
        agent_version=_word(message.agent_version, "hello.agent_version"),
        labels=_labels(message.labels),
        architecture=_word(message.architecture, "hello.architecture"),
        attempts=tuple(_readable(message.attempts, refuse)),
        bundles=frozenset(
            digest for digest in message.bundles[:BUNDLES_MAX] if _DIGEST.fullmatch(digest)
        ),
        # An agent that does not say otherwise gossips under the name of its node.
        member_name=_word(message.member_name, "hello.member_name") or node,
        instance_id=_word(message.instance_id, "hello.instance_id"),
        followed=decode_followed(message.followed) if message.HasField("followed") else None,
        refuses=message.condition.refuses[:REFUSAL_CHARACTERS_MAX],
    )


def _word(value: str, path: str) -> str:
    if len(value) > limits.WORD_CHARACTERS_MAX:
        raise WireError(
            path,
            f"{value[:40]!r}… has {len(value)} characters; at most {limits.WORD_CHARACTERS_MAX} "
            "are taken",
        )
    return value


def _capacity(message: NodeCapacity) -> Capacity:
    path = "hello.capacity"
    if len(message.devices) > limits.DEVICES_MAX:
        raise WireError(
            f"{path}.devices",
            f"{len(message.devices)} are too many; at most {limits.DEVICES_MAX} are taken",
        )
    for index, device in enumerate(message.devices):
        _word(device, f"{path}.devices[{index}]")
    return decode_capacity(message, path)


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    if len(labels) > limits.LABELS_MAX:
        raise WireError(
            "hello.labels", f"{len(labels)} are too many; at most {limits.LABELS_MAX} are taken"
        )
    for key, value in labels.items():
        longest = max(len(key), len(value))
        if longest > limits.LABEL_CHARACTERS_MAX:
            raise WireError(
                f"hello.labels[{key[:40]!r}]",
                f"it has {longest} characters; at most {limits.LABEL_CHARACTERS_MAX} are taken",
            )
    return dict(labels)


def _readable(
    attempts: Iterable[v1.AttemptObserved], refuse: Callable[[WireError], None]
) -> Iterator[Observation]:
    for index, observed in enumerate(attempts):
        try:
            yield decode_observation(observed, f"hello.attempts[{index}]")
        except WireError as error:
            refuse(error)


def decode_observation(message: v1.AttemptObserved, path: str = "observed") -> Observation:
    """Read where an attempt stands.

    Raises:
        WireError: a field breaks the contract.
    """
    return Observation(
        ref=decode_attempt_name(message.attempt, message.namespace, message.epoch, path),
        state=decode_job_state(message.state, f"{path}.state"),
        reason=decode_reason(message.reason, f"{path}.reason"),
        artifacts=tuple(
            decode_artifact(artifact, f"{path}.artifacts[{index}]")
            for index, artifact in enumerate(message.artifacts)
        ),
        start_time=_time(message, "start_time", path),
        end_time=_time(message, "end_time", path),
    )


def decode_progress(message: v1.AttemptProgress, path: str = "progress") -> Progress:
    """Read the counters of an attempt.

    Raises:
        WireError: a field breaks the contract.
    """
    if len(message.streams) > STREAMS_MAX:
        raise WireError(
            f"{path}.streams", f"{len(message.streams)} are more ports than any job has"
        )
    return Progress(
        ref=decode_attempt_name(message.attempt, message.namespace, message.epoch, path),
        streams=tuple(
            decode_stream_counters(counters, f"{path}.streams[{index}]")
            for index, counters in enumerate(message.streams)
        ),
        text=limits.cut(message.progress, limits.PROGRESS_CHARACTERS_MAX),
    )


def encode_assignment(
    assignment: Assignment, bundle_url: str, file_urls: Mapping[str, str]
) -> v1.Assignment:
    """Write an attempt that should exist, with the addresses of what it needs."""
    return v1.Assignment(
        ref=encode_attempt_ref(assignment.ref),
        job=encode_job_spec(assignment.job),
        replica=assignment.replica,
        replicas=assignment.replicas,
        bundle_digest=assignment.bundle_digest,
        bundle_url=bundle_url,
        file_urls=dict(file_urls),
        goal=_GOALS[assignment.goal],
        lanes=[_encode_lane(lane) for lane in assignment.lanes],
        replacement=assignment.replacement,
    )


def encode_desired(
    revision: int,
    assignments: Sequence[v1.Assignment],
    removed: Sequence[AttemptRef],
    *,
    snapshot: bool,
    commit: int,
) -> Iterator[v1.ControllerMessage]:
    """Write what should run on a node, in parts that fit into a message."""
    rest = deque(assignments)
    for part in count():
        taken: list[v1.Assignment] = []
        left = limits.BATCH_BYTES_MAX
        while rest and (not taken or rest[0].ByteSize() <= left):
            left -= rest[0].ByteSize()
            taken.append(rest.popleft())
        yield v1.ControllerMessage(
            desired=v1.Desired(
                revision=revision,
                snapshot=snapshot,
                assignments=taken,
                removed=() if part else [encode_attempt_ref(ref) for ref in removed],
                commit=commit,
                part=part,
                more=bool(rest),
            )
        )
        if not rest:
            return


def encode_welcome(
    controller_id: str, lease_seconds: float, heartbeat_seconds: float, admitted: Admitted
) -> v1.ControllerMessage:
    """Write that a session is open."""
    return v1.ControllerMessage(
        welcome=v1.Welcome(
            controller_id=controller_id,
            lease_seconds=lease_seconds,
            heartbeat_seconds=heartbeat_seconds,
            cluster_id=admitted.following.cluster_id,
            term=admitted.following.term,
            start_id=admitted.following.start_id,
            quarantine=admitted.quarantine,
            adopted=admitted.adopted,
        )
    )


def encode_name_taken(why: str, retry_seconds: float) -> v1.ControllerMessage:
    """Write that an agent is quarantined because another one has its name."""
    return v1.ControllerMessage(welcome=v1.Welcome(quarantine=why, retry_seconds=retry_seconds))


def encode_grant(path: str, key: str, put: PresignedPut) -> v1.UploadGrant:
    """Write where one artifact may be stored."""
    return v1.UploadGrant(path=path, key=key, url=put.url, headers=dict(put.headers))


def encode_grants(ref: AttemptRef, grants: Sequence[v1.UploadGrant]) -> v1.ControllerMessage:
    """Write where artifacts may be stored, or why not."""
    return v1.ControllerMessage(
        uploads_granted=v1.UploadsGranted(ref=encode_attempt_ref(ref), grants=grants)
    )


def encode_refused(ref: v1.AttemptRef | None, reason: str, message: str) -> v1.ControllerMessage:
    """Write that a message of the agent was refused."""
    return v1.ControllerMessage(refused=v1.MessageRefused(ref=ref, reason=reason, message=message))


def _encode_lane(lane: Lane) -> v1.Lane:
    return v1.Lane(
        id=lane.id,
        output=lane.output,
        port=lane.port,
        peer_job=lane.peer_job,
        peer_port=lane.peer_port,
        peer_replica=lane.peer_replica,
        peer_replicas=lane.peer_replicas,
        peer_format=encode_port_format(lane.peer_format),
        distribute=encode_distribute(lane.distribute),
        keep=lane.keep,
        peer=v1.LanePeer(
            address=lane.peer.address,
            attempt=lane.peer.attempt.name if lane.peer.attempt else "",
            epoch=lane.peer.epoch,
            done=lane.peer.done,
        ),
        generation=lane.stretch.generation,
        producer_begin=lane.stretch.producer_begin,
        consumer_begin=lane.stretch.consumer_begin,
        consumer_end=lane.stretch.consumer_end,
        hold=lane.hold,
        end=lane.end,
    )


def _time(message: v1.AttemptObserved, field: str, path: str) -> datetime | None:
    stamp = message.start_time if field == "start_time" else message.end_time
    has = message.HasField("start_time" if field == "start_time" else "end_time")
    return decode_time(stamp, f"{path}.{field}") if has else None
