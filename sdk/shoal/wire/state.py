"""States, reasons, stored things and counters between `shoal.model` and the contract.

The enumerations of `shoal.model` have the numbers of the contract.
"""

from types import MappingProxyType
from typing import Final

from shoal import limits, model, view
from shoal.v1 import nodes_service_pb2, pipeline_pb2, pipelines_service_pb2
from shoal.wire import fields
from shoal.wire.codec import (
    checked,
    codec,
    count,
    duration,
    enumeration,
    identifier,
    number,
    spread,
)
from shoal.wire.fields import WireError

JOB_STATE = enumeration(model.JobState, pipeline_pb2.JobState, "state")
PIPELINE_STATE = enumeration(model.PipelineState, pipeline_pb2.PipelineState, "state")
DEAD_LETTER = enumeration(model.DeadLetter, pipeline_pb2.DeadLetter, "dead_letter")
SCALE_STATE = enumeration(model.ScaleState, pipeline_pb2.ScaleState, "state", "state of a scale")
MEMBER_STATE = enumeration(model.MemberState, nodes_service_pb2.MemberState, "state")
LOG_STREAM = enumeration(view.LogStream, pipelines_service_pb2.LogStream, "stream")


_NEAR: Final = MappingProxyType(
    {
        model.ReasonCode.OOM: model.ReasonCode.SIGNAL,
        model.ReasonCode.PROCESSES: model.ReasonCode.EXIT,
    }
)
"""What a reason that 0.1.0 does not know, and would refuse, is called there."""


_CODES: Final = frozenset(code.value for code in model.ReasonCode)


def _decode_code(message: pipeline_pb2.Reason, path: str) -> model.ReasonCode:
    exact = message.exact_code if message.exact_code in _CODES else ""
    try:
        return model.ReasonCode(exact or message.code)
    except ValueError:
        known = ", ".join(sorted(_CODES - {""}))
        said = f"{message.code!r} is not a reason; this version knows {known}"
        raise WireError(fields.at(path, "code"), said) from None


_GIVEN: Final = {
    code: (_NEAR[code].value, code.value) if code in _NEAR else (code.value, "")
    for code in model.ReasonCode
}


def _sentence(text: str, _path: str = "") -> str:
    return limits.cut(text, limits.SENTENCE_CHARACTERS_MAX)


REASON = encode_reason, decode_reason = codec(
    model.Reason,
    pipeline_pb2.Reason,
    "reason",
    code=spread(_GIVEN.__getitem__, _decode_code, "code", "exact_code"),
    message=checked(_sentence, _sentence),
)


def _decode_artifact_sha256(value: str, path: str) -> str:
    if not value:
        raise WireError(path, "it is empty; an artifact carries its SHA-256")
    return fields.sha256(value, path)


ARTIFACT = encode_artifact, decode_artifact = codec(
    model.Artifact,
    pipeline_pb2.Artifact,
    "artifact",
    path=checked(fields.relative),
    size_bytes=count(limits.INTEGER_MAX),
    sha256=checked(_decode_artifact_sha256),
    key=checked(fields.text),
)
CAPACITY = encode_capacity, decode_capacity = codec(
    model.Capacity,
    nodes_service_pb2.NodeCapacity,
    "capacity",
    cpus=number(limits.CPUS_MAX),
    memory_bytes=count(limits.INTEGER_MAX),
    devices=checked(fields.words),
)
STREAM_COUNTERS = encode_stream_counters, decode_stream_counters = codec(
    model.StreamCounters,
    pipeline_pb2.StreamProgress,
    "streams",
    unread=("hold", "held_at"),
    port=identifier("port"),
    blocked_seconds=duration(),
)
