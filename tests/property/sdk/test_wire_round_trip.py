"""What goes through the contract comes out as it was, and no message gets past `decode` unread."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import names
from shoal.session.messages import FromAgent
from shoal.v1 import pipeline_pb2, session_service_pb2, spec_pb2
from shoal.wire.assignment import decode_assignment, encode_assignment
from shoal.wire.attempt import decode_attempt_ref, encode_attempt_ref
from shoal.wire.fields import WireError
from shoal.wire.lane import decode_lane, encode_lane
from shoal.wire.port_hold import decode_port_hold, encode_port_hold
from shoal.wire.session import (
    decode_agent_message,
    decode_controller_message,
    encode_controller_message,
    encode_request,
)
from shoal.wire.spec import (
    decode_job_spec,
    decode_pipeline_spec,
    encode_job_spec,
    encode_pipeline_spec,
)
from shoal.wire.state import (
    decode_artifact,
    decode_capacity,
    decode_reason,
    decode_stream_counters,
    encode_artifact,
    encode_capacity,
    encode_reason,
    encode_stream_counters,
)
from shoal.wire.view import (
    decode_attempt,
    decode_event,
    decode_job,
    decode_log_chunk,
    decode_manifest,
    decode_member,
    decode_node,
    decode_pipeline,
    decode_verdict,
    encode_attempt,
    encode_event,
    encode_job,
    encode_log_chunk,
    encode_manifest,
    encode_member,
    encode_node,
    encode_pipeline,
    encode_verdict,
)
from tests.property.sdk import session_nouns, specs

Pair = tuple[Callable[[Any], Message], Callable[[Any], Any]]


def _by_agent(message: FromAgent) -> session_service_pb2.AgentMessage:
    [written] = encode_request(1, 0, [message]).messages
    return written


def _of_agent(message: session_service_pb2.AgentMessage) -> object:
    def nothing(name: str, error: WireError) -> None:
        raise AssertionError(f"{name} is left out: {error}")

    return decode_agent_message(message, nothing)


CASES: dict[str, tuple[st.SearchStrategy[Any], Pair]] = {
    "pipeline spec": (specs.PIPELINES, (encode_pipeline_spec, decode_pipeline_spec)),
    "job spec": (specs.JOBS, (encode_job_spec, decode_job_spec)),
    "reason": (specs.REASONS, (encode_reason, decode_reason)),
    "artifact": (specs.ARTIFACTS, (encode_artifact, decode_artifact)),
    "capacity": (specs.CAPACITIES, (encode_capacity, decode_capacity)),
    "counters": (specs.COUNTERS, (encode_stream_counters, decode_stream_counters)),
    "hold": (specs.HOLDS, (encode_port_hold, decode_port_hold)),
    "lane": (session_nouns.LANES, (encode_lane, decode_lane)),
    "assignment": (session_nouns.ASSIGNMENTS, (encode_assignment, decode_assignment)),
    "from agent": (session_nouns.FROM_AGENT, (_by_agent, _of_agent)),
    "from controller": (
        session_nouns.FROM_CONTROLLER,
        (encode_controller_message, decode_controller_message),
    ),
    "manifest": (specs.MANIFESTS, (encode_manifest, decode_manifest)),
    "attempt": (specs.ATTEMPTS, (encode_attempt, decode_attempt)),
    "job": (specs.JOB_VIEWS, (encode_job, decode_job)),
    "pipeline": (specs.PIPELINE_VIEWS, (encode_pipeline, decode_pipeline)),
    "node": (specs.NODES, (encode_node, decode_node)),
    "member": (specs.MEMBERS, (encode_member, decode_member)),
    "event": (specs.EVENTS, (encode_event, decode_event)),
    "verdict": (specs.VERDICTS, (encode_verdict, decode_verdict)),
    "chunk": (specs.CHUNKS, (encode_log_chunk, decode_log_chunk)),
    "attempt ref": (
        st.builds(
            names.AttemptRef, specs.IDS, specs.IDS, specs.IDS, specs.COUNTS, specs.NUMBERS_63
        ),
        (encode_attempt_ref, decode_attempt_ref),
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
    with contextlib.suppress(WireError):
        if isinstance(message, spec_pb2.PipelineSpec):
            decode_pipeline_spec(message)
        elif isinstance(message, pipeline_pb2.Pipeline):
            decode_pipeline(message)


@settings(max_examples=60, deadline=None)
@given(specs.PIPELINES, st.data())
def test_damaged_messages_are_a_value_or_a_wire_error(value: Any, data: st.DataObject) -> None:
    good = bytearray(encode_pipeline_spec(value).SerializeToString())
    if good:
        position = data.draw(st.integers(0, len(good) - 1))
        good[position] = data.draw(st.integers(0, 255))
    message = spec_pb2.PipelineSpec()
    try:
        message.ParseFromString(bytes(good))
    except DecodeError:
        return
    with contextlib.suppress(WireError):
        decode_pipeline_spec(message)
