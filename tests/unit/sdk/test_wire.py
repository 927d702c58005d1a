"""What the contract does not allow is refused with the path of the field."""

import enum
import re
from typing import Any

import pytest

from shoal import spec, view
from shoal.model import JobState, MemberState, PipelineState, Reason, ScaleState
from shoal.v1 import (
    nodes_service_pb2,
    pipeline_pb2,
    pipelines_service_pb2,
    protocols_pb2,
    session_service_pb2,
    spec_pb2,
)
from shoal.wire.attempt import decode_attempt_ref
from shoal.wire.fields import WireError
from shoal.wire.protocols import decode_protocols
from shoal.wire.spec import decode_job_spec, decode_pipeline_spec, encode_pipeline_spec
from shoal.wire.state import JOB_STATE, decode_reason
from shoal.wire.view import decode_event


def message() -> spec_pb2.PipelineSpec:
    """A good specification to break."""
    return encode_pipeline_spec(
        spec.Pipeline(
            "counter",
            (
                spec.Job("camera", ("camera",), outputs=(spec.Output("frames"),)),
                spec.Job(
                    "detector",
                    ("detector",),
                    environment=spec.Environment(steps=(spec.RequirementsStep("r.txt"),)),
                    streams=(spec.StreamInput("frames", "camera", "frames"),),
                    files=(spec.FileInput("model", "s3://b/k", "model.bin"),),
                ),
            ),
        )
    )


def refusal(broken: spec_pb2.PipelineSpec) -> str:
    with pytest.raises(WireError) as caught:
        decode_pipeline_spec(broken)
    return caught.value.path


def test_everything_unset_becomes_the_default() -> None:
    job = decode_job_spec(spec_pb2.JobSpec(name="job", run=["true"]))
    assert job == spec.Job("job", ("true",))


def test_an_unknown_enumeration_is_refused() -> None:
    broken = message()
    broken.jobs[1].inputs[0].stream.merge = 77  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert refusal(broken) == "jobs[1].inputs[0].stream.merge"


def test_an_input_without_source_is_refused() -> None:
    broken = message()
    broken.jobs[1].inputs[1].ClearField("file")
    assert refusal(broken) == "jobs[1].inputs[1]"


def test_a_step_without_content_is_refused() -> None:
    broken = message()
    broken.jobs[1].environment.steps.add()
    assert refusal(broken) == "jobs[1].environment.steps[1]"


@pytest.mark.parametrize("name", ["", "Upper", "a" * 64, "a_b", "a/b", "-a", "ä", "a\n"])
def test_a_malformed_id_is_refused(name: str) -> None:
    broken = message()
    broken.jobs[0].outputs[0].name = name
    assert refusal(broken) == "jobs[0].outputs[0].name"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    broken = message()
    broken.jobs[1].inputs[1].file.path = path
    assert refusal(broken) == "jobs[1].inputs[1].file.path"


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_number_that_is_no_time_is_refused(seconds: float) -> None:
    broken = message()
    broken.jobs[0].timeout_seconds = seconds
    assert refusal(broken) == "jobs[0].timeout_seconds"


def test_a_job_without_program_is_refused() -> None:
    broken = message()
    del broken.jobs[0].run[:]
    assert refusal(broken) == "jobs[0].run"


def test_a_record_size_belongs_to_bytes_alone() -> None:
    broken = message()
    broken.jobs[0].outputs[0].binding.record_bytes = 4
    assert refusal(broken) == "jobs[0].outputs[0].binding.record_bytes"
    broken = message()
    broken.jobs[0].outputs[0].binding.format = spec_pb2.PORT_FORMAT_BYTES
    assert refusal(broken) == "jobs[0].outputs[0].binding.record_bytes"


def test_a_state_that_was_never_set_is_refused() -> None:
    with pytest.raises(WireError, match="0 is not a job state"):
        JOB_STATE.decode(0, "observed.state")


def test_an_unknown_reason_is_refused_and_an_unset_one_is_none() -> None:
    with pytest.raises(WireError, match=r"reason\.code: 'TIRED' is not a reason"):
        decode_reason(pipeline_pb2.Reason(code="TIRED"))
    assert decode_reason(pipeline_pb2.Reason()) == Reason()


@pytest.mark.parametrize("version", ["0.1.0\n", "\x1b[2J", "0.1.0\u202e", "9" * 300])
def test_a_version_is_a_word_that_a_terminal_can_show(version: str) -> None:
    """An operator reads it in `shoal nodes`, and in a refusal."""
    with pytest.raises(WireError, match=r"^protocols\.version: "):
        decode_protocols(protocols_pb2.Protocols(lowest=1, highest=1, version=version))


def test_an_attempt_has_a_whole_name() -> None:
    with pytest.raises(WireError, match="does not name an attempt"):
        decode_attempt_ref(
            session_service_pb2.AttemptRef(attempt="pipelines/p/jobs/j", namespace="default")
        )


def test_a_time_outside_the_calendar_is_refused() -> None:
    broken = pipeline_pb2.Event(id="x")
    broken.time.seconds = 2**60
    with pytest.raises(WireError, match=r"event\.time"):
        decode_event(broken)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (JobState, pipeline_pb2.JobState),
        (PipelineState, pipeline_pb2.PipelineState),
        (ScaleState, pipeline_pb2.ScaleState),
        (MemberState, nodes_service_pb2.MemberState),
        (view.LogStream, pipelines_service_pb2.LogStream),
    ],
)
def test_our_enumerations_have_the_numbers_of_the_contract(
    ours: type[enum.IntEnum], theirs: Any
) -> None:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", ours.__name__).upper()
    numbers = {f"{prefix}_{member.name}": int(member) for member in ours}
    if ours is MemberState:
        numbers[f"{prefix}_UNSPECIFIED"] = numbers.pop(f"{prefix}_UNKNOWN")
    else:
        numbers[f"{prefix}_UNSPECIFIED"] = 0
    assert numbers == dict(theirs.items())
