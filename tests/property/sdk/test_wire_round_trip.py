"""What goes through the contract comes out as it was, and no message gets past `decode` unread."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import names, wire
from shoal.v1 import pipeline_pb2, spec_pb2
from tests.property.sdk import specs

Pair = tuple[Callable[[Any], Message], Callable[[Any], Any]]

CASES: dict[str, tuple[st.SearchStrategy[Any], Pair]] = {
    "pipeline spec": (specs.PIPELINES, (wire.encode_pipeline_spec, wire.decode_pipeline_spec)),
    "job spec": (specs.JOBS, (wire.encode_job_spec, wire.decode_job_spec)),
    "reason": (specs.REASONS, (wire.encode_reason, wire.decode_reason)),
    "artifact": (specs.ARTIFACTS, (wire.encode_artifact, wire.decode_artifact)),
    "capacity": (specs.CAPACITIES, (wire.encode_capacity, wire.decode_capacity)),
    "counters": (specs.COUNTERS, (wire.encode_stream_counters, wire.decode_stream_counters)),
    "manifest": (specs.MANIFESTS, (wire.encode_manifest, wire.decode_manifest)),
    "attempt": (specs.ATTEMPTS, (wire.encode_attempt, wire.decode_attempt)),
    "job": (specs.JOB_VIEWS, (wire.encode_job, wire.decode_job)),
    "pipeline": (specs.PIPELINE_VIEWS, (wire.encode_pipeline, wire.decode_pipeline)),
    "node": (specs.NODES, (wire.encode_node, wire.decode_node)),
    "member": (specs.MEMBERS, (wire.encode_member, wire.decode_member)),
    "event": (specs.EVENTS, (wire.encode_event, wire.decode_event)),
    "verdict": (specs.VERDICTS, (wire.encode_verdict, wire.decode_verdict)),
    "chunk": (specs.CHUNKS, (wire.encode_log_chunk, wire.decode_log_chunk)),
    "attempt ref": (
        st.builds(
            names.AttemptRef, specs.IDS, specs.IDS, specs.IDS, specs.COUNTS, specs.NUMBERS_63
        ),
        (wire.encode_attempt_ref, wire.decode_attempt_ref),
    ),
}


@pytest.mark.parametrize("what", CASES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same(what: str, data: st.DataObject) -> None:
    values, (encode, decode) = CASES[what]
    value = data.draw(values)
    message = encode(value)
    parsed = type(message).FromString(message.SerializeToString())
    assert decode(parsed) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([spec_pb2.PipelineSpec, pipeline_pb2.Pipeline]))
def test_random_bytes_are_a_value_or_a_wire_error(data: bytes, kind: type[Message]) -> None:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return
    with contextlib.suppress(wire.WireError):
        if isinstance(message, spec_pb2.PipelineSpec):
            wire.decode_pipeline_spec(message)
        elif isinstance(message, pipeline_pb2.Pipeline):
            wire.decode_pipeline(message)


@settings(max_examples=60, deadline=None)
@given(specs.PIPELINES, st.data())
def test_damaged_messages_are_a_value_or_a_wire_error(value: Any, data: st.DataObject) -> None:
    good = bytearray(wire.encode_pipeline_spec(value).SerializeToString())
    if good:
        position = data.draw(st.integers(0, len(good) - 1))
        good[position] = data.draw(st.integers(0, 255))
    message = spec_pb2.PipelineSpec()
    try:
        message.ParseFromString(bytes(good))
    except DecodeError:
        return
    with contextlib.suppress(wire.WireError):
        wire.decode_pipeline_spec(message)
