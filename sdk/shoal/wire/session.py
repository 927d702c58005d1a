"""The messages of a session between `shoal.session.messages` and the contract.

Neither side trusts the other: what is too long or too many is refused here, and a message that is
refused does not touch the rest of its batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from shoal import limits
from shoal.model import Capacity, Followed, ReasonCode
from shoal.session.log_piece import LogPiece
from shoal.session.messages import (
    Desired,
    Fenced,
    FromAgent,
    FromController,
    Heartbeat,
    Hello,
    NodeCondition,
    Refused,
    Welcome,
)
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.uploads import UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.v1.nodes_service_pb2 import NodeCapacity
from shoal.wire import fields
from shoal.wire.assignment import decode_assignment, encode_assignment
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.attempt_lanes import decode_attempt_lanes, encode_attempt_lanes
from shoal.wire.fields import LeftOut, WireError
from shoal.wire.observation import (
    decode_log_piece,
    decode_observation,
    decode_progress,
    encode_log_piece,
    encode_observation,
    encode_progress,
)
from shoal.wire.state import decode_capacity, encode_capacity
from shoal.wire.uploads import (
    decode_uploads_granted,
    decode_uploads_wanted,
    encode_uploads_granted,
    encode_uploads_wanted,
)

ATTEMPTS_MAX = 10_000
"""Most attempts that an agent may know."""

BUNDLES_MAX = 10_000
"""Most bundles of a node that are remembered; they only say where a job starts quickest."""

REFUSAL_CHARACTERS_MAX = 2_000
"""Most that is kept of an agent's words for why it takes no work."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


# ---- what an agent says -------------------------------------------------------------------------


def encode_request(
    sequence: int, acknowledged: int, messages: Sequence[FromAgent]
) -> v1.ConnectRequest:
    """Write a batch of an agent."""
    return v1.ConnectRequest(
        sequence=sequence,
        acknowledged=acknowledged,
        messages=[encode_agent_message(message) for message in messages],
    )


def encode_agent_message(message: FromAgent) -> v1.AgentMessage:
    """Write one message of an agent."""
    match message:
        case Hello():
            return v1.AgentMessage(hello=encode_hello(message))
        case NodeCondition(refuses):
            return v1.AgentMessage(condition=v1.NodeCondition(refuses=refuses))
        case Heartbeat():
            return v1.AgentMessage(heartbeat=v1.Heartbeat())
        case Observation():
            return v1.AgentMessage(observed=encode_observation(message))
        case LogPiece():
            return v1.AgentMessage(log=encode_log_piece(message))
        case Progress():
            return v1.AgentMessage(progress=encode_progress(message))
        case UploadsWanted():
            return v1.AgentMessage(uploads_wanted=encode_uploads_wanted(message))
        case _:
            assert_never(message)


def decode_agent_message(message: v1.AgentMessage, left_out: LeftOut) -> FromAgent | None:
    """Read one message of an agent; None is one that a newer agent may send.

    Args:
        message: the message.
        left_out: told of each item of a list that is left out: its name, and why.

    Raises:
        WireError: it breaks the contract.
    """
    match message.WhichOneof("message"):
        case "hello":
            return decode_hello(message.hello, left_out)
        case "heartbeat":
            return Heartbeat()
        case "observed":
            return decode_observation(message.observed)
        case "log":
            return decode_log_piece(message.log)
        case "progress":
            return decode_progress(message.progress)
        case "uploads_wanted":
            return decode_uploads_wanted(message.uploads_wanted, left_out)
        case "condition":
            return NodeCondition(message.condition.refuses[:REFUSAL_CHARACTERS_MAX])
        case None:
            return None


def encode_hello(hello: Hello) -> v1.Hello:
    """Write who an agent is."""
    return v1.Hello(
        node=hello.node,
        agent_id=hello.agent_id,
        agent_version=hello.agent_version,
        capacity=encode_capacity(hello.capacity),
        labels=dict(hello.labels),
        architecture=hello.architecture,
        stream_address=hello.stream_address,
        attempts=[encode_observation(observation) for observation in hello.attempts],
        bundles=sorted(hello.bundles),
        member_name=hello.member_name,
        instance_id=hello.instance_id,
        followed=None if hello.followed is None else encode_followed(hello.followed),
        condition=v1.NodeCondition(refuses=hello.refuses),
        says_holds=hello.says_holds,
        takes_lanes=hello.takes_lanes,
    )


def decode_hello(message: v1.Hello, left_out: LeftOut) -> Hello:
    """Read who an agent is, without the attempts that break the contract.

    Args:
        message: what it says.
        left_out: told the name of each attempt that is left out, and why.

    Raises:
        WireError: a field breaks the contract.
    """
    if len(message.attempts) > ATTEMPTS_MAX:
        raise WireError(
            "hello.attempts",
            f"{len(message.attempts)} are more than any node has; at most {ATTEMPTS_MAX} are taken",
        )

    def readable() -> Iterator[Observation]:
        for index, observed in enumerate(message.attempts):
            try:
                yield decode_observation(observed, f"hello.attempts[{index}]")
            except WireError as error:
                left_out(observed.attempt, error)

    node = fields.identifier("node", message.node, "hello.node")
    return Hello(
        node=node,
        agent_id=fields.word(message.agent_id, "hello.agent_id"),
        capacity=_capacity(message.capacity, "hello.capacity"),
        stream_address=fields.word(message.stream_address, "hello.stream_address"),
        agent_version=fields.word(message.agent_version, "hello.agent_version"),
        labels=_labels(message.labels, "hello.labels"),
        architecture=fields.word(message.architecture, "hello.architecture"),
        attempts=tuple(readable()),
        bundles=frozenset(
            digest for digest in message.bundles[:BUNDLES_MAX] if _DIGEST.fullmatch(digest)
        ),
        # An agent that does not say otherwise gossips under the name of its node.
        member_name=fields.word(message.member_name, "hello.member_name") or node,
        instance_id=fields.word(message.instance_id, "hello.instance_id"),
        followed=decode_followed(message.followed) if message.HasField("followed") else None,
        refuses=message.condition.refuses[:REFUSAL_CHARACTERS_MAX],
        says_holds=message.says_holds,
        takes_lanes=message.takes_lanes,
    )


def _capacity(message: NodeCapacity, path: str) -> Capacity:
    if len(message.devices) > limits.DEVICES_MAX:
        raise WireError(
            f"{path}.devices",
            f"{len(message.devices)} are too many; at most {limits.DEVICES_MAX} are taken",
        )
    for index, device in enumerate(message.devices):
        fields.word(device, f"{path}.devices[{index}]")
    return decode_capacity(message, path)


def _labels(labels: Mapping[str, str], path: str) -> Mapping[str, str]:
    if len(labels) > limits.LABELS_MAX:
        raise WireError(path, f"{len(labels)} are too many; at most {limits.LABELS_MAX} are taken")
    for key, value in labels.items():
        longest = max(len(key), len(value))
        if longest > limits.LABEL_CHARACTERS_MAX:
            raise WireError(
                f"{path}[{key[:40]!r}]",
                f"it has {longest} characters; at most {limits.LABEL_CHARACTERS_MAX} are taken",
            )
    return fields.strings(labels)


def encode_followed(followed: Followed) -> v1.Followed:
    """Write how much an agent knows of a controller."""
    return v1.Followed(
        cluster_id=followed.cluster_id,
        term=followed.term,
        start_id=followed.start_id,
        commit=followed.commit,
    )


def decode_followed(message: v1.Followed) -> Followed:
    """Read how much an agent knows of a controller; it is only compared."""
    return Followed(message.cluster_id, message.term, message.start_id, message.commit)


# ---- what a controller says ---------------------------------------------------------------------


def encode_controller_message(message: FromController) -> v1.ControllerMessage:
    """Write one message of a controller."""
    match message:
        case Welcome():
            return v1.ControllerMessage(welcome=encode_welcome(message))
        case Desired():
            return v1.ControllerMessage(desired=encode_desired(message))
        case UploadsGranted():
            return v1.ControllerMessage(uploads_granted=encode_uploads_granted(message))
        case Refused(ref, reason, text):
            return v1.ControllerMessage(
                refused=v1.MessageRefused(
                    ref=None if ref is None else encode_attempt_ref(ref),
                    reason=reason,
                    message=text,
                )
            )
        case Fenced(ref, text):
            return encode_controller_message(Refused(ref, ReasonCode.FENCED.value, text))
        case _:
            assert_never(message)


def decode_controller_message(message: v1.ControllerMessage) -> FromController | None:
    """Read one message of a controller; None is one that a newer controller may send.

    Raises:
        WireError: it breaks the contract.
    """
    match message.WhichOneof("message"):
        case "welcome":
            return decode_welcome(message.welcome)
        case "desired":
            return decode_desired(message.desired)
        case "uploads_granted":
            return decode_uploads_granted(message.uploads_granted)
        case "refused":
            refused = message.refused
            if not refused.ref.attempt:
                return Refused(None, refused.reason, refused.message)
            ref = decode_attempt_ref(refused.ref, "refused.ref")
            if refused.reason == ReasonCode.FENCED:
                return Fenced(ref, refused.message)
            return Refused(ref, refused.reason, refused.message)
        case None:
            return None


def encode_welcome(welcome: Welcome) -> v1.Welcome:
    """Write that a session is open."""
    following = welcome.following or Followed("", 0, "")
    return v1.Welcome(
        controller_id=welcome.controller_id,
        lease_seconds=welcome.lease_seconds,
        heartbeat_seconds=welcome.heartbeat_seconds,
        cluster_id=following.cluster_id,
        term=following.term,
        start_id=following.start_id,
        quarantine=welcome.quarantine,
        adopted=welcome.adopted,
        retry_seconds=welcome.retry_seconds,
    )


def decode_welcome(message: v1.Welcome) -> Welcome:
    """Read that a session is open.

    Raises:
        WireError: a duration is negative, not finite or longer than ten years.
    """
    following = Followed(message.cluster_id, message.term, message.start_id)
    return Welcome(
        message.controller_id,
        fields.duration(message.lease_seconds, 0.0, "welcome.lease_seconds"),
        fields.duration(message.heartbeat_seconds, 0.0, "welcome.heartbeat_seconds"),
        following=following if message.cluster_id else None,
        quarantine=message.quarantine,
        adopted=message.adopted,
        retry_seconds=fields.duration(message.retry_seconds, 0.0, "welcome.retry_seconds"),
    )


def encode_desired(desired: Desired) -> v1.Desired:
    """Write what should run on a node."""
    return v1.Desired(
        revision=desired.revision,
        snapshot=desired.snapshot,
        assignments=[encode_assignment(assignment) for assignment in desired.assignments],
        removed=[encode_attempt_ref(ref) for ref in desired.removed],
        commit=desired.commit,
        part=desired.part,
        more=desired.more,
        lanes=[encode_attempt_lanes(lanes) for lanes in desired.lanes],
    )


def decode_desired(message: v1.Desired, path: str = "desired") -> Desired:
    """Read what should run on a node.

    Raises:
        WireError: it breaks the contract.
    """
    return Desired(
        revision=message.revision,
        snapshot=message.snapshot,
        assignments=fields.each(
            message.assignments, fields.at(path, "assignments"), decode_assignment
        ),
        removed=fields.each(message.removed, fields.at(path, "removed"), decode_attempt_ref),
        commit=message.commit,
        part=message.part,
        more=message.more,
        lanes=fields.each(message.lanes, fields.at(path, "lanes"), decode_attempt_lanes),
    )
