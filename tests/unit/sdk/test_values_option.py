"""`--set` and `--values` where the command reads a specification, and refused where it reads none."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shoal import spec, view
from shoal.cli import main
from shoal.cli.document import to_document
from shoal.cli.tables import console, pipeline_group
from shoal.model import PipelineState
from shoal.parameter import ParameterValue

STREET = """\
name: street
parameters:
  limit: {type: integer, default: 20, description: how many frames}
  scene: {choices: [street, square]}
jobs:
  a: {run: "x -n ${{ parameters.limit }} '${{ parameters.scene }}'"}
"""


def shoal(*words: str) -> Result:
    return CliRunner().invoke(main.cli, words)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "street.yaml"
    found.write_text(STREET)
    return found


def test_validate_takes_values_and_lists_them(path: Path) -> None:
    values = path.parent / "v.toml"
    values.write_text('scene = "square"\nlimit = 7\n')
    result = shoal("validate", "--values", str(values), "--set", "limit=3", str(path))
    assert result.output == (
        f"{path}: street is valid: 1 job, 0 streams, no bundle\n"
        "  limit = 3  (integer, 20 by default)  how many frames\n"
        "  scene = 'square'  (string, one of 'street', 'square')\n"
    )
    document = json.loads(shoal("validate", "--json", "--set", "scene=street", str(path)).output)
    assert document["pipeline"]["parameters"] == {"limit": 20, "scene": "street"}
    assert document["pipeline"]["jobs"][0]["run"] == ["x", "-n", "20", "street"]


def test_graph_takes_values(path: Path) -> None:
    assert shoal("graph", "--set", "scene=street", str(path)).exit_code == 0
    result = shoal("graph", str(path))
    assert result.exit_code == 2
    assert "parameters.scene: it has no value; give one with --set scene=VALUE" in result.output


@pytest.mark.parametrize("command", ["run", "submit", "validate", "graph", "simulate"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "scene"), "'scene' is not NAME=VALUE; write for example --set limit=20"),
        (("--set", "=x"), "'=x' is not NAME=VALUE"),
        (
            ("--set", "scene=street", "--set", "scene=square"),
            "--set gives 'scene' twice, 'street' and 'square'; leave one of them",
        ),
        (
            ("--set", "scene=squar"),
            "'squar' of --set is none of its choices; did you mean 'square'",
        ),
        (
            ("--set", "scene=street", "--set", "lmit=3"),
            "no parameter 'lmit', which --set gives; did",
        ),
        (
            ("--set", "scene=street", "--set", "limit=x"),
            "'x' of --set is not a whole number; write",
        ),
        (("--values", "gone.yaml"), "gone.yaml:1:1: there is no such file; "),
        (("--values", "gone.json"), "a file of values is called *.yaml, *.yml, *.toml; rename it"),
    ],
)
def test_values_that_are_wrong(path: Path, command: str, words: tuple[str, ...], said: str) -> None:
    result = shoal(command, *words, str(path))
    assert said in result.output
    assert result.exit_code == 2
    assert not isinstance(result.exception, ValueError)


def test_where_a_value_of_a_file_stands_is_said(path: Path) -> None:
    values = path.parent / "v.yaml"
    values.write_text("scene: street\nlimit: many\n")
    result = shoal("validate", "--values", str(values), str(path))
    assert f"3:3: parameters.limit: 'many' of {values}:2:8 is not a whole number" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--set", "a=1", "--", "ls"), "name one instead of a command"),
        (("graph", "--set", "a=1", "street-4f2a"), "a pipeline got its own when it was submitted"),
    ],
)
def test_values_without_a_specification(words: tuple[str, ...], said: str) -> None:
    result = shoal(*words)
    assert f"--set and --values belong to a specification; {said}" in result.output
    assert result.exit_code == 2


def test_status_shows_what_was_put_in() -> None:
    address = "https://user:s3cret@host/x"
    values: dict[str, ParameterValue] = {
        "limit": 3,
        "scene": "two\nlines",
        "fast": True,
        "source": address,
        "long": "x" * 99,
    }
    pipeline = view.PipelineView(
        "p", "default", PipelineState.RUNNING, spec.Pipeline("p", (), parameters=values)
    )
    screen = console()
    with screen.capture() as captured:
        screen.print(pipeline_group(pipeline, (), datetime.now(UTC)))
    assert [line.rstrip() for line in captured.get().splitlines()[1:6]] == [
        "with limit=3",
        "with scene='two\\nlines'",
        "with fast=true",
        "with source='https://user:***@host/x'",
        f"with long='{'x' * 60}…'",
    ]
    shown = to_document(pipeline)["spec"]["parameters"]
    assert shown == {**values, "source": "https://user:***@host/x"}
