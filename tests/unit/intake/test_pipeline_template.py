"""A template is tried before it is needed, and takes of a message what it declares."""

from pathlib import Path

import pytest

from services.intake.intake import SAMPLE
from services.intake.pipeline_template import SHIPPED, read_template
from services.runtime.process import StartRefusedError
from shoal.specfile.mark import SpecFileError


def test_the_shipped_template_asks_for_what_a_message_says() -> None:
    """Case E1: any node and no camera; or a node, and a camera."""
    template = read_template(SHIPPED, SAMPLE)
    pipeline = template.fill(SAMPLE, "m").pipeline
    [job] = pipeline.jobs
    assert dict(job.place.require) == {}
    assert job.resources.devices == ()
    assert pipeline.compat is not None
    assert (pipeline.compat.user, pipeline.compat.task) == ("ada", "task7")
    [job] = template.fill({**SAMPLE, "node": "jetson2", "device": "video"}, "m").pipeline.jobs
    assert dict(job.place.require) == {"node": "jetson2"}
    assert job.resources.devices == ("video",)


def test_values_are_words_and_never_read_by_a_shell(tmp_path: Path) -> None:
    """Case E6: a task named like a command."""
    path = tmp_path / "t.yaml"
    path.write_text(
        'name: t\nparameters: {task: {}}\njobs:\n  a:\n    run: [echo, "${{ parameters.task }}"]\n'
    )
    template = read_template(path, SAMPLE)
    [job] = template.fill({"task": "x; touch pwned", "user": "undeclared"}, "m").pipeline.jobs
    assert job.run == ("echo", "x; touch pwned")
    with pytest.raises(SpecFileError, match="no value"):
        template.fill({}, "m")


def test_a_template_with_its_own_fields_is_tried_with_values_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "name: t\nparameters: {farm: {}, row: {type: integer}, kind: {choices: [a, b]}}\njobs:\n  a:\n"
        '    run: [echo, "${{ parameters.farm }}", "${{ parameters.row }}", "${{ parameters.kind }}"]\n'
    )
    template = read_template(path, SAMPLE)
    [job] = template.fill({"farm": "f", "row": "7", "kind": "b"}, "m").pipeline.jobs
    assert job.run == ("echo", "f", "7", "b")
    with pytest.raises(SpecFileError, match="whole number"):
        template.fill({"farm": "f", "row": "x", "kind": "b"}, "m")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be"),
        ("{", "cannot be used"),
        ("name: t\njobs: {}\n", "cannot be used"),
        (
            (
                "name: t\njobs:\n  a: {local: true, run: cat, outputs: {o: {format: lines, as: stdout}}}\n"
                "  b: {run: cat, inputs: {o: a.o}}\n"
            ),
            "shoal run",
        ),
        ("name: t\nparameters: {x: {}}\njobs: {a: {run: cat}}\n", "cannot be used"),
    ],
)
def test_what_is_no_template_refuses_the_start(
    tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "t.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartRefusedError, match=words):
        read_template(path, SAMPLE)
