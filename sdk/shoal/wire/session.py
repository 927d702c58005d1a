"""The messages of a session between `shoal.session.messages` and the contract.

Neither side trusts the other: what is too long or too many is refused here, and a message that is
refused does not touch the rest of its batch.
"""

import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, assert_never, cast

from shoal import limits
from shoal.model import Capacity, Followed, ReasonCode
from shoal.node_facts import NodeFacts
from shoal.session import messages
from shoal.session.bundles import (
    BUNDLES_WANTED_MAX,
    BundlesHeld,
    BundlesWanted,
    WantedBundle,
)
from shoal.session.folder_files import FilesGranted, FilesWanted
from shoal.session.log_piece import LogPiece
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.trust import CertificateIssued, CertificateWanted, Trust
from shoal.session.uploads import UploadsGranted, UploadsWanted
from shoal.v1 import session_service_pb2 as v1
from shoal.v1.nodes_service_pb2 import NodeCapacity
from shoal.wire import fields, observation, uploads
from shoal.wire.assignment import ASSIGNMENT
from shoal.wire.attempt import ATTEMPT_REF, decode_attempt_ref, encode_attempt_ref
from shoal.wire.codec import (
    checked,
    codec,
    duration,
    each,
    elsewhere,
    given_of,
    identifier,
    maybe,
    one,
    spread,
)
from shoal.wire.fields import LeftOut, WireError
from shoal.wire.folder_files import FILES_GRANTED, FILES_WANTED
from shoal.wire.kept_folder import KEPT_FOLDER
from shoal.wire.lane import ATTEMPT_LANES
from shoal.wire.node_facts import HEAT, NODE_FACTS
from shoal.wire.protocols import PROTOCOLS
from shoal.wire.sandbox import NODE_SANDBOX
from shoal.wire.state import decode_capacity, encode_capacity
from shoal.wire.trust import CERTIFICATE_ISSUED, CERTIFICATE_WANTED, TRUST

ATTEMPTS_MAX = 10_000
"""Most attempts that an agent may know."""

BUNDLES_MAX = 10_000
"""Most bundles of a node that are remembered; they only say where a job starts quickest."""

FEATURES_MAX = 256
"""Most features that an agent names."""

REFUSAL_CHARACTERS_MAX = 2_000
"""Most that is kept of an agent's words for why it takes no work."""

_given_observation = given_of(observation.encode_observation)
_given_log_piece = given_of(observation.encode_log_piece)
_given_progress = given_of(observation.encode_progress)
_DIGEST = re.compile(r"[0-9a-f]{64}")


# ---- what an agent says -------------------------------------------------------------------------


def encode_request(
    sequence: int, acknowledged: int, batch: Sequence[messages.FromAgent]
) -> v1.ConnectRequest:
    """Write a batch of an agent."""
    request: Any = v1.ConnectRequest
    given = [_given_agent_message(message) for message in batch]
    return cast(
        "v1.ConnectRequest", request(sequence=sequence, acknowledged=acknowledged, messages=given)
    )


def _given_agent_message(message: messages.FromAgent) -> dict[str, Any]:
    match message:
        case Observation():
            return {"observed": _given_observation(message)}
        case messages.Heartbeat():
            return {"heartbeat": {}}
        case LogPiece():
            return {"log": _given_log_piece(message)}
        case Progress():
            return {"progress": _given_progress(message)}
        case UploadsWanted():
            return {"uploads_wanted": uploads.encode_uploads_wanted(message)}
        case messages.Hello():
            return {"hello": encode_hello(message)}
        case messages.NodeCondition():
            return {"condition": _CONDITION.encode(message)}
        case CertificateWanted():
            return {"certificate_wanted": CERTIFICATE_WANTED.encode(message)}
        case NodeFacts():
            return {"facts": NODE_FACTS.encode(message)}
        case BundlesHeld():
            return {"bundles_held": _BUNDLES_HELD.encode(message)}
        case FilesWanted():
            return {"files_wanted": FILES_WANTED.encode(message)}
        case _:
            assert_never(message)


def decode_agent_message(message: v1.AgentMessage, left_out: LeftOut) -> messages.FromAgent | None:
    """Read one message of an agent; None is one that a newer agent may send.

    Args:
        message: the message.
        left_out: gets the name of each item of a list that is left out, and why.

    Raises:
        WireError: it breaks the contract.
    """
    match message.WhichOneof("message"):
        case "hello":
            return decode_hello(message.hello, left_out)
        case "heartbeat":
            return messages.Heartbeat()
        case "observed":
            return observation.decode_observation(message.observed)
        case "log":
            return observation.decode_log_piece(message.log)
        case "progress":
            return observation.decode_progress(message.progress)
        case "uploads_wanted":
            return uploads.decode_uploads_wanted(message.uploads_wanted, left_out)
        case "condition":
            return _CONDITION.decode(message.condition)
        case "certificate_wanted":
            return CERTIFICATE_WANTED.decode(message.certificate_wanted)
        case "facts":
            return NODE_FACTS.decode(message.facts)
        case "bundles_held":
            return _BUNDLES_HELD.decode(message.bundles_held)
        case "files_wanted":
            return FILES_WANTED.decode(message.files_wanted)
        case None:
            return None


def _capacity(message: NodeCapacity, path: str) -> Capacity:
    _at_most(message.devices, limits.DEVICES_MAX, f"{path}.devices")
    fields.each(message.devices, f"{path}.devices", fields.word)
    return decode_capacity(message, path)


def _labels(labels: Mapping[str, str], path: str) -> Mapping[str, str]:
    _at_most(labels, limits.LABELS_MAX, path)
    for key, value in labels.items():
        longest = max(len(key), len(value))
        if longest > limits.LABEL_CHARACTERS_MAX:
            raise WireError(
                f"{path}[{key[:40]!r}]",
                f"it has {longest} characters; at most {limits.LABEL_CHARACTERS_MAX} are taken",
            )
    return fields.strings(labels)


def _at_most(items: Sized, most: int, path: str) -> None:
    if len(items) > most:
        raise WireError(path, f"{len(items)} are too many; at most {most} are taken")


def _bundles(digests: Sequence[str], _path: str) -> frozenset[str]:
    return frozenset(digest for digest in digests[:BUNDLES_MAX] if _DIGEST.fullmatch(digest))


_WORD = checked(fields.word)
# It is only compared, so nothing of it is checked.
_FOLLOWED = codec(Followed, v1.Followed)


def _cut(words: str, _path: str) -> str:
    return words[:REFUSAL_CHARACTERS_MAX]


_CONDITION = codec(
    messages.NodeCondition,
    v1.NodeCondition,
    "condition",
    refuses=checked(_cut),
    keeper_version=_WORD,
    stream_worker_version=_WORD,
    outdated=checked(_cut),
    heat=HEAT,
    kept=checked(
        lambda kept, path: fields.each(kept[: limits.KEPT_FOLDERS_MAX], path, KEPT_FOLDER.decode),
        lambda kept: [KEPT_FOLDER.encode(one) for one in kept],
    ),
)


def _features(words: Sequence[str], path: str) -> frozenset[str]:
    _at_most(words, FEATURES_MAX, path)
    return frozenset(fields.each(words, path, fields.word))


_HELLO = codec(
    messages.Hello,
    v1.Hello,
    "hello",
    node=identifier("node"),
    agent_id=_WORD,
    capacity=checked(_capacity, encode_capacity),
    stream_address=_WORD,
    agent_version=_WORD,
    labels=checked(_labels, dict),
    architecture=_WORD,
    attempts=elsewhere((), "attempts"),
    bundles=checked(_bundles, sorted),
    member_name=_WORD,
    instance_id=_WORD,
    followed=maybe(_FOLLOWED),
    condition=one(_CONDITION),
    protocols=maybe(PROTOCOLS),
    facts=maybe(NODE_FACTS),
    features=checked(_features, sorted),
    sandbox=maybe(NODE_SANDBOX),
)


_BUNDLES_HELD = codec(BundlesHeld, v1.BundlesHeld, digests=checked(_bundles, sorted))
_WANTED_BUNDLE = codec(WantedBundle, v1.WantedBundle, digest=checked(fields.sha256))
_BUNDLES_WANTED = codec(BundlesWanted, v1.BundlesWanted, bundles=each(_WANTED_BUNDLE))


def encode_hello(hello: messages.Hello) -> v1.Hello:
    """Write which agent this is."""
    message = _HELLO.encode(hello)
    message.attempts.extend(observation.encode_observation(one) for one in hello.attempts)
    return message


def decode_hello(message: v1.Hello, left_out: LeftOut) -> messages.Hello:
    """Read which agent it is, without the attempts that break the contract.

    Args:
        message: what it says.
        left_out: gets the name of each attempt that is left out, and why.

    Raises:
        WireError: a field breaks the contract.
    """
    at = "hello.attempts"
    if len(message.attempts) > ATTEMPTS_MAX:
        raise WireError(
            at,
            f"{len(message.attempts)} are more than any node has; at most {ATTEMPTS_MAX} are taken",
        )
    hello = _HELLO.decode(message)
    return replace(
        hello,
        attempts=fields.readable(
            message.attempts,
            at,
            observation.decode_observation,
            lambda observed, error: left_out(observed.attempt, error),
        ),
        # An agent that does not say otherwise gossips under the name of its node.
        member_name=hello.member_name or hello.node,
    )


# ---- what a controller says ---------------------------------------------------------------------


def encode_controller_message(message: messages.FromController) -> v1.ControllerMessage:
    """Write one message of a controller."""
    match message:
        case messages.Welcome():
            return v1.ControllerMessage(welcome=encode_welcome(message))
        case messages.Desired():
            return v1.ControllerMessage(desired=_given_desired(message))
        case UploadsGranted():
            return v1.ControllerMessage(uploads_granted=uploads.encode_uploads_granted(message))
        case FilesGranted():
            return v1.ControllerMessage(files_granted=FILES_GRANTED.encode(message))
        case messages.Refused(ref, reason, text):
            return v1.ControllerMessage(
                refused=v1.MessageRefused(
                    ref=None if ref is None else encode_attempt_ref(ref),
                    reason=reason,
                    message=text,
                )
            )
        case Trust():
            return v1.ControllerMessage(trust=TRUST.encode(message))
        case CertificateIssued():
            return v1.ControllerMessage(certificate_issued=CERTIFICATE_ISSUED.encode(message))
        case messages.FactsWanted():
            return v1.ControllerMessage(facts_wanted=v1.FactsWanted())
        case BundlesWanted():
            return v1.ControllerMessage(bundles_wanted=_BUNDLES_WANTED.encode(message))
        case messages.Fenced(ref, text):
            return encode_controller_message(messages.Refused(ref, ReasonCode.FENCED.value, text))
        case _:
            assert_never(message)


def decode_controller_message(message: v1.ControllerMessage) -> messages.FromController | None:
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
            return uploads.decode_uploads_granted(message.uploads_granted)
        case "files_granted":
            return FILES_GRANTED.decode(message.files_granted)
        case "refused":
            refused = message.refused
            if not refused.ref.attempt:
                return messages.Refused(None, refused.reason, refused.message)
            ref = decode_attempt_ref(refused.ref, "refused.ref")
            if refused.reason == ReasonCode.FENCED:
                return messages.Fenced(ref, refused.message)
            return messages.Refused(ref, refused.reason, refused.message)
        case "trust":
            return TRUST.decode(message.trust)
        case "certificate_issued":
            return CERTIFICATE_ISSUED.decode(message.certificate_issued)
        case "facts_wanted":
            return messages.FactsWanted()
        case "bundles_wanted":
            wanted = message.bundles_wanted
            _at_most(wanted.bundles, BUNDLES_WANTED_MAX, "bundles_wanted.bundles")
            return _BUNDLES_WANTED.decode(wanted)
        case None:
            return None


_FOLLOWING = ("cluster_id", "term", "start_id")


def _encode_following(following: Followed | None) -> tuple[str, int, str]:
    told = following or Followed("", 0, "")
    return told.cluster_id, told.term, told.start_id


def _decode_following(message: v1.Welcome, _path: str) -> Followed | None:
    if not message.cluster_id:
        return None
    return Followed(message.cluster_id, message.term, message.start_id)


encode_welcome, decode_welcome = codec(
    messages.Welcome,
    v1.Welcome,
    "welcome",
    lease_seconds=duration(),
    heartbeat_seconds=duration(),
    following=spread(_encode_following, _decode_following, *_FOLLOWING),
    retry_seconds=duration(),
    protocols=maybe(PROTOCOLS),
)
encode_desired, decode_desired = codec(
    messages.Desired,
    v1.Desired,
    "desired",
    assignments=each(ASSIGNMENT),
    removed=each(ATTEMPT_REF),
    lanes=each(ATTEMPT_LANES),
)
_given_desired = given_of(encode_desired)
