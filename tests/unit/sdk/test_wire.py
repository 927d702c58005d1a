"""What the contract does not allow is refused with the path of the field."""

import pytest

from shoal import spec, wire
from shoal.model import Reason
from shoal.v1 import pipeline_pb2, session_service_pb2, spec_pb2


def message() -> spec_pb2.PipelineSpec:
    """A good specification to break."""
    return wire.encode_pipeline_spec(
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
    with pytest.raises(wire.WireError) as caught:
        wire.decode_pipeline_spec(broken)
    return caught.value.path


def test_everything_unset_becomes_the_default() -> None:
    job = wire.decode_job_spec(spec_pb2.JobSpec(name="job", run=["true"]))
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
    with pytest.raises(wire.WireError, match="0 is not a job state"):
        wire.decode_job_state(0, "observed.state")


def test_an_unknown_reason_is_refused_and_an_unset_one_is_none() -> None:
    with pytest.raises(wire.WireError, match=r"reason\.code: 'TIRED' is not a reason"):
        wire.decode_reason(pipeline_pb2.Reason(code="TIRED"))
    assert wire.decode_reason(pipeline_pb2.Reason()) == Reason()


def test_an_attempt_has_a_whole_name() -> None:
    with pytest.raises(wire.WireError, match="does not name an attempt"):
        wire.decode_attempt_ref(
            session_service_pb2.AttemptRef(attempt="pipelines/p/jobs/j", namespace="default")
        )


def test_a_time_outside_the_calendar_is_refused() -> None:
    broken = pipeline_pb2.Event(id="x")
    broken.time.seconds = 2**60
    with pytest.raises(wire.WireError, match=r"event\.time"):
        wire.decode_event(broken)
