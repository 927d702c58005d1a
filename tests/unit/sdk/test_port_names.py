"""What names the ports of a job may have."""

from shoal import spec
from shoal.check import check_pipeline


def test_an_input_and_an_output_of_one_name_are_refused_with_a_remedy() -> None:
    source = spec.Job("source", ("a",), outputs=(spec.Output("numbers"),))
    middle = spec.Job(
        "middle",
        ("b",),
        streams=(spec.StreamInput("numbers", "source", "numbers"),),
        outputs=(spec.Output("numbers"),),
    )
    sink = spec.Job("sink", ("c",), streams=(spec.StreamInput("numbers", "middle", "numbers"),))
    [problem] = check_pipeline(spec.Pipeline("line", (source, middle, sink)))
    assert problem.path == ("jobs", "middle", "outputs", "numbers")
    assert "another name" in problem.message
