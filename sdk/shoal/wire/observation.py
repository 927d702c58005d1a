"""What an agent reports of its attempts between `shoal.session` and the contract."""

from collections.abc import Sequence
from typing import Any

from shoal import limits
from shoal.names import AttemptRef
from shoal.redaction import redacted
from shoal.session.log_piece import LogPiece
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.session.stage import AttemptStage, StageReached
from shoal.v1 import pipelines_service_pb2
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import SIDE_BY_SIDE
from shoal.wire.codec import FieldCodec, NounCodec, checked, codec, each, enumeration, one, spread
from shoal.wire.port_hold import PORT_HOLD, each_port
from shoal.wire.state import ARTIFACT, JOB_STATE, LOG_STREAM, REASON, STREAM_COUNTERS


def _of_ports(noun: NounCodec[Any, Any]) -> FieldCodec:
    """Return a tuple with something of each port."""
    return checked(each_port(noun.decode), lambda values: [noun.encode(value) for value in values])


def _decode_port(message: str, path: str = "") -> str:
    return fields.identifier("port", message, path)


_STAGE_REACHED = codec(
    StageReached, v1.StageReached, "stage", stage=one(enumeration(AttemptStage, v1.Stage, "stage"))
)


_STAGES = frozenset(map(int, AttemptStage))


def _decode_stages(messages: Sequence[v1.StageReached], path: str) -> tuple[StageReached, ...]:
    """Read stages in their order, each once; without a time, or of a newer agent, one is left out."""
    read = [one for one in messages[: 2 * len(AttemptStage)] if one.HasField("time")]
    known = [one for one in read if int(one.stage) in _STAGES]
    taken = {one.stage: one for one in fields.each(known, path, _STAGE_REACHED.decode)}
    return tuple(taken[stage] for stage in sorted(taken))


encode_observation, decode_observation = codec(
    Observation,
    v1.AttemptObserved,
    "observed",
    ref=SIDE_BY_SIDE,
    state=one(JOB_STATE),
    reason=one(REASON),
    artifacts=each(ARTIFACT),
    holds=_of_ports(PORT_HOLD),
    ended_inputs=_of_ports(NounCodec(str, _decode_port)),
    stages=checked(_decode_stages, lambda stages: [_STAGE_REACHED.encode(one) for one in stages]),
)


def _cut(text: str) -> str:
    return limits.cut(text, limits.PROGRESS_CHARACTERS_MAX)


# The words lose secrets as they are written, and their middle if they are long.
encode_progress, decode_progress = codec(
    Progress,
    v1.AttemptProgress,
    "progress",
    ref=SIDE_BY_SIDE,
    streams=_of_ports(STREAM_COUNTERS),
    text=spread(
        lambda text: (_cut(redacted(text)),),
        lambda message, _path: _cut(message.progress),
        "progress",
    ),
)


def _decode_log_ref(message: pipelines_service_pb2.LogChunk, path: str) -> AttemptRef:
    return fields.attempt_ref(message.attempt, "", message.epoch, fields.at(path, "attempt"))


# The namespace is not written: a reader that knows the attempt puts it in.
encode_log_piece, decode_log_piece = codec(
    LogPiece,
    pipelines_service_pb2.LogChunk,
    "log",
    ref=spread(lambda ref: (ref.name, ref.epoch), _decode_log_ref, "attempt", "epoch"),
    stream=one(LOG_STREAM),
)
