"""Jobs and streams as Mermaid and SVG."""

import itertools
import subprocess
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal import spec
from shoal.cli.graph import svg
from shoal.cli.main import cli
from shoal.graph import Arrow, Box, Graph, dot, graph_of, mermaid
from shoal.model import JobState
from shoal.specfile.load import load
from shoal.view import JobView
from tests.kit.programs import program

_EXAMPLES = Path(__file__).parents[3] / "examples"


@st.composite
def _graphs(draw: st.DrawFn, *, circles: bool = False) -> Graph:
    count = draw(st.integers(0, 12))
    boxes = tuple(
        Box(f"job-{number}", draw(st.text(max_size=40)), draw(st.text(max_size=30)), state)
        for number in range(count)
        for state in [draw(st.sampled_from([None, *JobState]))]
    )
    pairs = itertools.product(range(count), repeat=2)
    allowed = [(a, b) for a, b in pairs if circles or a < b]
    chosen = draw(st.lists(st.sampled_from(allowed), max_size=30)) if allowed else []
    shuffled = draw(st.permutations(range(count)))
    arrows = tuple(Arrow(shuffled[a], shuffled[b], draw(st.text(max_size=20))) for a, b in chosen)
    return Graph("drawn", boxes, arrows)


class _Place(NamedTuple):
    left: float
    right: float
    bottom: float
    top: float


def _places(graph: Graph) -> list[_Place]:
    """Where Graphviz puts each box: `node NAME X Y WIDTH HEIGHT …` (-Tplain), in inches."""
    plain = subprocess.run(
        [program("dot"), "-Tplain"], input=dot(graph), capture_output=True, text=True, check=True
    )
    found: dict[str, _Place] = {}
    for line in plain.stdout.splitlines():
        match line.split()[:6]:
            case ["node", name, *numbers]:
                x, y, width, height = map(float, numbers)
                found[name] = _Place(x - width / 2, x + width / 2, y - height / 2, y + height / 2)
            case _:
                pass
    return [found[f"j{number}"] for number in range(len(graph.boxes))]


def test_a_pipeline_is_a_flow_chart_of_its_jobs_and_streams() -> None:
    """Case F18."""
    graph = graph_of(load(_EXAMPLES / "people_counter" / "pipeline.yaml").pipeline)
    assert mermaid(graph) == (
        "flowchart LR\n"
        '    j0["camera"]\n'
        '    j1["detector x2"]\n'
        '    j2["counter"]\n'
        '    j0 -->|"frames"| j1\n'
        '    j1 -->|"found"| j2\n'
    )


def test_ports_of_two_names_and_blocks_are_told() -> None:
    graph = graph_of(load(_EXAMPLES / "fission_join" / "pipeline.yaml").pipeline)
    assert {arrow.label for arrow in graph.arrows} == {
        "numbers → a",
        "numbers → b",
        "numbers → c",
        "rows",
        "products x5",
    }


def test_a_stream_that_rounds_do_not_wait_for_is_dashed() -> None:
    program("dot")
    job = spec.Job("b", ("b",), streams=(spec.StreamInput("i", "a", "o", optional=spec.StandIn()),))
    graph = graph_of(spec.Pipeline("p", (spec.Job("a", ("a",)), job)))
    assert '    j0 -.->|"o → i"| j1\n' in mermaid(graph)
    assert svg(graph).count("stroke-dasharray") == 1


def test_a_submitted_pipeline_shows_states_and_nodes() -> None:
    job = spec.Job("detector", ("a",), replicas=2)
    views = [
        JobView("pipelines/p/jobs/detector-0", "detector", JobState.RUNNING, node="node-1"),
        JobView("pipelines/p/jobs/detector-1", "detector", JobState.QUEUED),
    ]
    graph = graph_of(spec.Pipeline("p", (job,)), views)
    [box] = graph.boxes
    assert box.state is JobState.QUEUED
    assert box.note == "1 of 2 queued"
    assert "style j0 fill:" in mermaid(graph)


def test_every_state_of_a_job_has_its_place_in_the_order() -> None:
    job = spec.Job("a", ("a",))
    for state in JobState:
        [box] = graph_of(
            spec.Pipeline("p", (job,)), [JobView("pipelines/p/jobs/a", "a", state)]
        ).boxes
        assert box.state is state


def test_what_a_drawing_cannot_hold_is_written_another_way() -> None:
    program("dot")
    graph = Graph("<&>", (Box("a", 'a"<b>&'), Box("b", "b")), (Arrow(0, 1, '"<x>"'),))
    assert 'j0["a#quot;&lt;b>&amp;"]' in mermaid(graph)
    root = ET.fromstring(svg(graph))  # noqa: S314  # our own text
    assert 'a"<b>&' in [element.text for element in root.iter()]


@settings(max_examples=20, deadline=None)
@given(_graphs())
def test_streams_run_from_left_to_right_and_no_box_stands_on_another(graph: Graph) -> None:
    found = _places(graph)
    for arrow in graph.arrows:
        assert found[arrow.source].right < found[arrow.target].left
    for one, other in itertools.combinations(found, 2):
        beside = one.right <= other.left or other.right <= one.left
        above = one.top <= other.bottom or other.top <= one.bottom
        assert beside or above


@settings(max_examples=20, deadline=None)
@given(_graphs(circles=True))
def test_any_graph_is_drawn_with_all_that_it_has(graph: Graph) -> None:
    program("dot")
    drawn = svg(graph)
    ET.fromstring(drawn)  # noqa: S314  # our own text
    assert drawn == svg(graph)
    assert drawn.count('class="node"') == len(graph.boxes)
    assert drawn.count('class="edge"') == len(graph.arrows)
    assert mermaid(graph).count("-->") >= len(graph.arrows)


def test_without_graphviz_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    path = str(_EXAMPLES / "words" / "pipeline.yaml")
    refused = CliRunner().invoke(cli, ["graph", "--svg", "-", path])
    assert refused.exit_code == 1
    assert "apt-get install graphviz" in refused.output


def test_the_command_draws_a_file_without_a_controller(tmp_path: Path) -> None:
    """Case F18: Mermaid, and an SVG."""
    program("dot")
    path = str(_EXAMPLES / "fission_sums" / "pipeline.yaml")
    runner = CliRunner()
    assert runner.invoke(cli, ["graph", path]).output.startswith("flowchart LR\n")
    drawing = tmp_path / "graph.svg"
    assert runner.invoke(cli, ["graph", "--svg", str(drawing), path]).exit_code == 0
    root = ET.fromstring(drawing.read_text("utf-8"))  # noqa: S314  # our own text
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert runner.invoke(cli, ["graph", "--svg", "-", path]).output == drawing.read_text("utf-8")


def test_the_command_names_the_mistakes_of_a_file(tmp_path: Path) -> None:
    missing = CliRunner().invoke(cli, ["graph", str(tmp_path / "missing.yaml")])
    assert missing.exit_code == 2
    assert "missing.yaml" in missing.output
    program("dot")
    nowhere = str(tmp_path / "none" / "graph.svg")
    path = str(_EXAMPLES / "words" / "pipeline.yaml")
    refused = CliRunner().invoke(cli, ["graph", "--svg", nowhere, path])
    assert refused.exit_code == 1
    assert "No such file" in refused.output
