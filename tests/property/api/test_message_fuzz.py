"""Whatever bytes a peer sends: a message is taken, or refused with a reason, and nothing else."""

from datetime import UTC, datetime
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from control.front.api import submissions
from control.front.control_plane import ControlPlane
from control.front.sessions.session_server import SessionServer, SessionSettings
from control.front.source_rule import SourceRule
from control.leader.plane_config import PlaneConfig
from services.runtime.rpc import RpcError
from shoal.v1 import pipeline_pb2, pipelines_service_pb2, session_service_pb2, spec_pb2
from shoal.wire.fields import WireError
from shoal.wire.session import decode_hello

v1 = session_service_pb2

REF = v1.AttemptRef(attempt="pipelines/p/jobs/j/attempts/1", namespace="default", epoch=1)
ARTIFACT = pipeline_pb2.Artifact(path="results/x", size_bytes=3, sha256="ab" * 32, key="default/x")
OBSERVED = v1.AttemptObserved(
    attempt=REF.attempt,
    namespace="default",
    epoch=1,
    state=pipeline_pb2.JOB_STATE_SUCCEEDED,
    artifacts=[ARTIFACT],
    reason=pipeline_pb2.Reason(code="EXIT", number=3),
)
OBSERVED.end_time.GetCurrentTime()
REQUEST = v1.ConnectRequest(
    sequence=2,
    messages=[
        v1.AgentMessage(heartbeat=v1.Heartbeat()),
        v1.AgentMessage(observed=OBSERVED),
        v1.AgentMessage(
            log=pipelines_service_pb2.LogChunk(
                attempt=REF.attempt,
                stream=pipelines_service_pb2.LOG_STREAM_STDOUT,
                offset=7,
                data=b"hello",
                epoch=1,
            )
        ),
        v1.AgentMessage(
            progress=v1.AttemptProgress(
                attempt=REF.attempt,
                namespace="default",
                epoch=1,
                streams=[pipeline_pb2.StreamProgress(port="frames", records=3)],
            )
        ),
        v1.AgentMessage(files_wanted=v1.FilesWanted(ref=REF, input="task", first=3, count=9)),
        v1.AgentMessage(uploads_wanted=v1.UploadsWanted(ref=REF, artifacts=[ARTIFACT])),
    ],
)
HELLO = v1.Hello(node="node-1", labels={"a": "b"}, attempts=[OBSERVED], bundles=["ab" * 32])
HELLO.capacity.cpus = 2
SUBMISSION = pipelines_service_pb2.SubmitPipelineRequest(
    spec=spec_pb2.PipelineSpec(
        name="p",
        jobs=[
            spec_pb2.JobSpec(
                name="a",
                run=["true"],
                outputs=[spec_pb2.OutputSpec(name="frames")],
                inputs=[
                    spec_pb2.InputSpec(
                        name="x", file=spec_pb2.FileSource(source="http://x/y", path="in/x")
                    )
                ],
                timeout_seconds=2.5,
            )
        ],
    )
)

# Never entered: it knows no attempt, and so ignores what is said of one.
PLANE = ControlPlane(
    store=cast("Any", None),
    config=PlaneConfig(),
    clock=lambda: 0.0,
    wall=lambda: datetime.now(UTC),
    ids=lambda characters: "x" * characters,
)
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["set", "cut", "put"]), st.integers(0, 255)),
    max_size=8,
)


def mutated(message: Message, mutations: list[tuple[int, str, int]]) -> bytes:
    data = bytearray(message.SerializeToString())
    for where, what, value in mutations:
        at = where % max(1, len(data))
        match what:
            case "set":
                data[at : at + 1] = bytes([value])
            case "cut":
                del data[at : at + value % 8]
            case _:
                data[at:at] = bytes([value])
    return bytes(data)


@settings(max_examples=2000, deadline=None)
@given(mutations=MUTATIONS)
def test_no_request_of_an_agent_gets_further_than_a_refusal(
    mutations: list[tuple[int, str, int]],
) -> None:
    request = v1.ConnectRequest()
    try:
        request.ParseFromString(mutated(REQUEST, mutations))
    except DecodeError:
        return
    anything = cast("Any", None)
    session = SessionServer(
        anything,
        "s",
        plane=PLANE,
        logs=anything,
        addresses=anything,
        small=anything,
        settings=SessionSettings("c", 6, 1),
        workers=anything,
        clock=lambda: 0.0,
    )
    batch = session._sorted([request])
    assert batch.through == request.sequence


@settings(max_examples=1000, deadline=None)
@given(mutations=MUTATIONS)
def test_no_hello_gets_further_than_a_refusal(mutations: list[tuple[int, str, int]]) -> None:
    hello = v1.Hello()
    left_out: list[WireError] = []
    try:
        hello.ParseFromString(mutated(HELLO, mutations))
        decode_hello(hello, lambda _, error: left_out.append(error))
    except (DecodeError, WireError):
        return


@settings(max_examples=1000, deadline=None)
@given(mutations=MUTATIONS)
def test_no_submission_gets_further_than_a_refusal(mutations: list[tuple[int, str, int]]) -> None:
    request = pipelines_service_pb2.SubmitPipelineRequest()
    try:
        request.ParseFromString(mutated(SUBMISSION, mutations))
    except DecodeError:
        return
    read = submissions._read(request, SourceRule())
    if isinstance(read, RpcError):
        assert read.reason in {"INVALID_SPEC", "INVALID_SOURCE"}
        assert read.message
