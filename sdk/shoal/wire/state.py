"""States, reasons, stored things and counters between `shoal.model` and the contract.

The enumerations of `shoal.model` have the numbers of the contract.
"""

from __future__ import annotations

from typing import cast

from shoal import limits, view
from shoal.model import (
    Artifact,
    Capacity,
    JobState,
    MemberState,
    PipelineState,
    Reason,
    ReasonCode,
    ScaleState,
    StreamCounters,
)
from shoal.v1 import nodes_service_pb2, pipeline_pb2, pipelines_service_pb2
from shoal.wire import fields
from shoal.wire.fields import WireError


def encode_job_state(state: JobState) -> pipeline_pb2.JobState.ValueType:
    """Write the state of a job or an attempt."""
    return cast("pipeline_pb2.JobState.ValueType", state)


def decode_job_state(number: int, path: str = "state") -> JobState:
    """Read the state of a job or an attempt.

    Raises:
        WireError: it is unset or unknown.
    """
    return fields.enum_member(JobState, number, "job state", path)


def encode_pipeline_state(state: PipelineState) -> pipeline_pb2.PipelineState.ValueType:
    """Write the state of a pipeline."""
    return cast("pipeline_pb2.PipelineState.ValueType", state)


def decode_pipeline_state(number: int, path: str = "state") -> PipelineState:
    """Read the state of a pipeline.

    Raises:
        WireError: it is unset or unknown.
    """
    return fields.enum_member(PipelineState, number, "pipeline state", path)


def encode_scale_state(state: ScaleState) -> pipeline_pb2.ScaleState.ValueType:
    """Write where the change of a job's replicas stands."""
    return cast("pipeline_pb2.ScaleState.ValueType", state)


def decode_scale_state(number: int, path: str = "state") -> ScaleState:
    """Read where the change of a job's replicas stands.

    Raises:
        WireError: it is unset or unknown.
    """
    return fields.enum_member(ScaleState, number, "state of a scale", path)


def encode_member_state(state: MemberState) -> nodes_service_pb2.MemberState.ValueType:
    """Write the state of a member; UNKNOWN is the contract's 0."""
    return cast("nodes_service_pb2.MemberState.ValueType", state)


def decode_member_state(number: int, path: str = "state") -> MemberState:
    """Read the state of a member; unset is UNKNOWN.

    Raises:
        WireError: it is unknown.
    """
    return fields.enum_member(MemberState, number, "member state", path)


def encode_log_stream(stream: view.LogStream) -> pipelines_service_pb2.LogStream.ValueType:
    """Write which output of a program."""
    return cast("pipelines_service_pb2.LogStream.ValueType", stream)


def decode_log_stream(number: int, path: str = "stream") -> view.LogStream:
    """Read which output of a program.

    Raises:
        WireError: it is unset or unknown.
    """
    return fields.enum_member(view.LogStream, number, "log stream", path)


def encode_reason(reason: Reason) -> pipeline_pb2.Reason:
    """Write why something ended."""
    return pipeline_pb2.Reason(
        code=reason.code.value,
        number=reason.number,
        message=limits.cut(reason.message, limits.SENTENCE_CHARACTERS_MAX),
    )


def decode_reason(message: pipeline_pb2.Reason, path: str = "reason") -> Reason:
    """Read why something ended; an unset message is the empty reason.

    Raises:
        WireError: the code is unknown.
    """
    try:
        code = ReasonCode(message.code)
    except ValueError:
        known = ", ".join(item.value for item in ReasonCode if item.value)
        raise WireError(
            fields.at(path, "code"), f"{message.code!r} is not a reason; this version knows {known}"
        ) from None
    return Reason(code, message.number, limits.cut(message.message, limits.SENTENCE_CHARACTERS_MAX))


def encode_artifact(artifact: Artifact) -> pipeline_pb2.Artifact:
    """Write one stored object."""
    return pipeline_pb2.Artifact(
        path=artifact.path,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        key=artifact.key,
    )


def decode_artifact(message: pipeline_pb2.Artifact, path: str = "artifact") -> Artifact:
    """Read one stored object.

    Raises:
        WireError: its path leaves the job's folder, or its hash is not a SHA-256 in hex.
    """
    if not message.sha256:
        raise WireError(fields.at(path, "sha256"), "it is empty; an artifact carries its SHA-256")
    return Artifact(
        path=fields.relative(message.path, fields.at(path, "path")),
        size_bytes=fields.count(
            message.size_bytes, limits.INTEGER_MAX, fields.at(path, "size_bytes")
        ),
        sha256=fields.sha256(message.sha256, fields.at(path, "sha256")),
        key=fields.text(message.key, fields.at(path, "key")),
    )


def encode_capacity(capacity: Capacity) -> nodes_service_pb2.NodeCapacity:
    """Write what a node has, or what is claimed of it."""
    return nodes_service_pb2.NodeCapacity(
        cpus=capacity.cpus,
        memory_bytes=capacity.memory_bytes,
        devices=capacity.devices,
    )


def decode_capacity(message: nodes_service_pb2.NodeCapacity, path: str = "capacity") -> Capacity:
    """Read what a node has, or what is claimed of it.

    Raises:
        WireError: the cores are negative or not finite, or a device has no name.
    """
    return Capacity(
        cpus=fields.number(message.cpus, limits.CPUS_MAX, fields.at(path, "cpus")),
        memory_bytes=fields.count(
            message.memory_bytes, limits.INTEGER_MAX, fields.at(path, "memory_bytes")
        ),
        devices=fields.words(message.devices, fields.at(path, "devices")),
    )


def encode_stream_counters(counters: StreamCounters) -> pipeline_pb2.StreamProgress:
    """Write the counters of one port."""
    return pipeline_pb2.StreamProgress(
        port=counters.port,
        output=counters.output,
        records=counters.records,
        bytes=counters.bytes,
        acknowledged=counters.acknowledged,
        retained_bytes=counters.retained_bytes,
        blocked_seconds=counters.blocked_seconds,
        duplicates=counters.duplicates,
        ended=counters.ended,
        dropped=counters.dropped,
        refused=counters.refused,
        broken=counters.broken,
        mismatches=counters.mismatches,
        repeating=counters.repeating,
    )


def decode_stream_counters(
    message: pipeline_pb2.StreamProgress, path: str = "streams"
) -> StreamCounters:
    """Read the counters of one port.

    Raises:
        WireError: the port's name is malformed, or the time is negative or not finite.
    """
    return StreamCounters(
        port=fields.identifier("port", message.port, fields.at(path, "port")),
        output=message.output,
        records=message.records,
        bytes=message.bytes,
        acknowledged=message.acknowledged,
        retained_bytes=message.retained_bytes,
        blocked_seconds=fields.duration(
            message.blocked_seconds, 0.0, fields.at(path, "blocked_seconds")
        ),
        duplicates=message.duplicates,
        ended=message.ended,
        dropped=message.dropped,
        refused=message.refused,
        broken=message.broken,
        mismatches=message.mismatches,
        repeating=message.repeating,
    )
