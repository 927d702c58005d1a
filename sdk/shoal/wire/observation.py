"""What an agent reports of its attempts between `shoal.session` and the contract."""

from __future__ import annotations

from functools import partial

from shoal import limits
from shoal.redaction import redacted
from shoal.session.log_piece import LogPiece
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.v1 import pipelines_service_pb2
from shoal.v1 import session_service_pb2 as v1
from shoal.wire import fields
from shoal.wire.attempt import decode_attempt_name
from shoal.wire.fields import WireError, encode_time
from shoal.wire.port_hold import PORTS_MAX, decode_port_holds, encode_port_hold
from shoal.wire.state import (
    decode_artifact,
    decode_job_state,
    decode_log_stream,
    decode_reason,
    decode_stream_counters,
    encode_artifact,
    encode_job_state,
    encode_log_stream,
    encode_reason,
    encode_stream_counters,
)


def encode_observation(observation: Observation) -> v1.AttemptObserved:
    """Write where an attempt stands."""
    return v1.AttemptObserved(
        attempt=observation.ref.name,
        namespace=observation.ref.namespace,
        epoch=observation.ref.epoch,
        state=encode_job_state(observation.state),
        reason=encode_reason(observation.reason),
        artifacts=[encode_artifact(artifact) for artifact in observation.artifacts],
        start_time=encode_time(observation.start_time),
        end_time=encode_time(observation.end_time),
        holds=[encode_port_hold(hold) for hold in observation.holds],
        ended_inputs=observation.ended_inputs,
    )


def decode_observation(message: v1.AttemptObserved, path: str = "observed") -> Observation:
    """Read where an attempt stands.

    Raises:
        WireError: a field breaks the contract.
    """
    inputs = fields.at(path, "ended_inputs")
    if len(message.ended_inputs) > PORTS_MAX:
        raise WireError(inputs, f"{len(message.ended_inputs)} are more ports than any job has")
    return Observation(
        ref=decode_attempt_name(message.attempt, message.namespace, message.epoch, path),
        state=decode_job_state(message.state, fields.at(path, "state")),
        reason=decode_reason(message.reason, fields.at(path, "reason")),
        artifacts=fields.each(message.artifacts, fields.at(path, "artifacts"), decode_artifact),
        start_time=fields.moment(message, "start_time", path),
        end_time=fields.moment(message, "end_time", path),
        holds=decode_port_holds(message.holds, fields.at(path, "holds")),
        ended_inputs=fields.each(message.ended_inputs, inputs, partial(fields.identifier, "port")),
    )


def encode_progress(progress: Progress) -> v1.AttemptProgress:
    """Write counters and words of an attempt; the words lose secrets, and their middle if long."""
    return v1.AttemptProgress(
        attempt=progress.ref.name,
        namespace=progress.ref.namespace,
        epoch=progress.ref.epoch,
        streams=[encode_stream_counters(counters) for counters in progress.streams],
        progress=limits.cut(redacted(progress.text), limits.PROGRESS_CHARACTERS_MAX),
    )


def decode_progress(message: v1.AttemptProgress, path: str = "progress") -> Progress:
    """Read counters and words of an attempt.

    Raises:
        WireError: a field breaks the contract.
    """
    at = fields.at(path, "streams")
    if len(message.streams) > PORTS_MAX:
        raise WireError(at, f"{len(message.streams)} are more ports than any job has")
    return Progress(
        ref=decode_attempt_name(message.attempt, message.namespace, message.epoch, path),
        streams=fields.each(message.streams, at, decode_stream_counters),
        text=limits.cut(message.progress, limits.PROGRESS_CHARACTERS_MAX),
    )


def encode_log_piece(piece: LogPiece) -> pipelines_service_pb2.LogChunk:
    """Write a piece of a log; its namespace is not said."""
    return pipelines_service_pb2.LogChunk(
        attempt=piece.ref.name,
        stream=encode_log_stream(piece.stream),
        offset=piece.offset,
        data=piece.data,
        epoch=piece.ref.epoch,
    )


def decode_log_piece(message: pipelines_service_pb2.LogChunk, path: str = "log") -> LogPiece:
    """Read a piece of a log; a receiver that knows the attempt puts in its namespace.

    Raises:
        WireError: the attempt's name is malformed, or the output is unset or unknown.
    """
    return LogPiece(
        ref=decode_attempt_name(message.attempt, "", message.epoch, path),
        stream=decode_log_stream(message.stream, fields.at(path, "stream")),
        offset=message.offset,
        data=message.data,
    )
