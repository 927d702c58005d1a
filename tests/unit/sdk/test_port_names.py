"""What names the ports of a job may have."""

from shoal import spec
from shoal.check import check_pipeline
from shoal.checks.problem import Problem

_LINES = spec.PortBinding(spec.PortFormat.LINES)
_FIFO = spec.PortBinding(spec.PortFormat.LINES, spec.PortAttachment.FIFO)


def _problems(
    read: spec.PortBinding = _LINES, written: spec.PortBinding = _LINES
) -> tuple[Problem, ...]:
    source = spec.Job("source", ("a",), outputs=(spec.Output("numbers"),))
    middle = spec.Job(
        "middle",
        ("b",),
        streams=(spec.StreamInput("numbers", "source", "numbers", read),),
        outputs=(spec.Output("numbers", written),),
    )
    sink = spec.Job("sink", ("c",), streams=(spec.StreamInput("numbers", "middle", "numbers"),))
    return check_pipeline(spec.Pipeline("line", (source, middle, sink)))


def test_an_input_and_an_output_may_have_one_name() -> None:
    assert _problems() == ()
    assert _problems(_FIFO) == ()
    assert _problems(_LINES, _FIFO) == ()


def test_two_fifos_of_one_name_are_refused_with_a_remedy() -> None:
    [problem] = _problems(_FIFO, _FIFO)
    assert problem.path == ("jobs", "middle", "outputs", "numbers")
    assert "such as 'numbers-out'" in problem.message
