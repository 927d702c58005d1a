"""A pipeline as a drawing: jobs, streams and, once it was submitted, states; for Mermaid or Graphviz."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from shoal import spec
from shoal.model import JobState
from shoal.view import JobView

# The state of a job with replicas is that of the one that needs a look first.
_FIRST_LOOK: Final = (
    JobState.FAILED,
    JobState.LOST,
    JobState.CANCELLED,
    JobState.RETRY_WAIT,
    JobState.QUEUED,
    JobState.ASSIGNED,
    JobState.PREPARING,
    JobState.RUNNING,
    JobState.DRAINING,
    JobState.ARCHIVING,
    JobState.SUCCEEDED,
)
_PLAIN: Final = ("#f6f8fa", "#57606a")
_COLOURS: Final[Mapping[JobState, tuple[str, str]]] = MappingProxyType({
    JobState.FAILED: ("#ffebe9", "#cf222e"),
    JobState.LOST: ("#ffebe9", "#cf222e"),
    JobState.CANCELLED: ("#fff8c5", "#9a6700"),
    JobState.RETRY_WAIT: ("#fff8c5", "#9a6700"),
    JobState.RUNNING: ("#ddf4ff", "#0969da"),
    JobState.DRAINING: ("#ddf4ff", "#0969da"),
    JobState.ARCHIVING: ("#ddf4ff", "#0969da"),
    JobState.SUCCEEDED: ("#dafbe1", "#1a7f37"),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Box:
    """A job: its name with the number of replicas, and how it stands if it was submitted."""

    name: str
    title: str
    note: str = ""
    state: JobState | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """A stream from an output of `source` to an input of `target`, which are numbers of boxes.

    Dashed when rounds of the target do not wait for it.
    """

    source: int
    target: int
    label: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """All jobs and streams of a pipeline."""

    name: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def graph_of(pipeline: spec.Pipeline, jobs: Sequence[JobView] = ()) -> Graph:
    """Return the graph of a specification; with `jobs`, of a submitted pipeline with its states."""
    views: dict[str, list[JobView]] = defaultdict(list)
    for view in jobs:
        views[view.spec_name].append(view)
    numbers = {job.name: number for number, job in enumerate(pipeline.jobs)}
    return Graph(
        pipeline.name,
        tuple(_box(job, views[job.name]) for job in pipeline.jobs),
        tuple(
            Arrow(
                numbers[stream.job], numbers[job.name], _label(stream), stream.optional is not None
            )
            for job in pipeline.jobs
            for stream in job.streams
            if stream.job in numbers
        ),
    )


def mermaid(graph: Graph) -> str:
    """Write a flow chart in Mermaid's language, which documents and code hosts show as a drawing."""
    lines = ["flowchart LR"]
    for number, box in enumerate(graph.boxes):
        text = _mermaid_text(box.title) + (f"<br/>{_mermaid_text(box.note)}" if box.note else "")
        # Numbers as ids, because a job may be called `end`, which is a word of Mermaid's.
        lines.append(f'    j{number}["{text}"]')
    lines.extend(
        f"    j{arrow.source} {'-.->' if arrow.optional else '-->'}"
        f'|"{_mermaid_text(arrow.label)}"| j{arrow.target}'
        for arrow in graph.arrows
    )
    for number, box in enumerate(graph.boxes):
        if box.state is not None:
            fill, line = _colours(box)
            lines.append(f"    style j{number} fill:{fill},stroke:{line},color:#1f2328")
    return "\n".join(lines) + "\n"


def dot(graph: Graph) -> str:
    """Write the graph in Graphviz's language, which is drawn from left to right."""
    lines = [
        f"digraph {_dot_text(graph.name)} {{",
        'rankdir=LR; bgcolor=transparent; node [shape=box, style="rounded,filled",',
        'fontname="sans-serif", fontsize=13, fontcolor="#1f2328", margin="0.2,0.1"];',
        'edge [fontname="sans-serif", fontsize=11, color="#57606a", fontcolor="#57606a"];',
    ]
    for number, box in enumerate(graph.boxes):
        text = _dot_text(f"{box.title}\n{box.note}" if box.note else box.title)
        fill, line = _colours(box)
        lines.append(f'j{number} [label={text}, fillcolor="{fill}", color="{line}"];')
    for arrow in graph.arrows:
        style = "dashed" if arrow.optional else "solid"
        label = _dot_text(arrow.label)
        lines.append(f"j{arrow.source} -> j{arrow.target} [label={label}, style={style}];")
    return "\n".join((*lines, "}")) + "\n"


def _box(job: spec.Job, views: Sequence[JobView]) -> Box:
    title = job.name if job.replicas == 1 else f"{job.name} x{job.replicas}"
    if not views:
        return Box(job.name, title)
    state = min((view.state for view in views), key=_FIRST_LOOK.index)
    words = [state.name.lower().replace("_", " ")]
    alike = [view for view in views if view.state is state]
    if len(alike) < len(views):
        words.insert(0, f"{len(alike)} of {len(views)}")
    nodes = sorted({view.node for view in alike if view.node})
    if nodes and not state.terminal:
        words.append("on " + ", ".join(nodes))
    return Box(job.name, title, " ".join(words), state)


def _label(stream: spec.StreamInput) -> str:
    words = [stream.port if stream.port == stream.name else f"{stream.port} → {stream.name}"]
    if stream.block_count > 1:
        words.append(f"x{stream.block_count}")
    return " ".join(words)


def _mermaid_text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "#quot;").replace("<", "&lt;")


def _colours(box: Box) -> tuple[str, str]:
    return _PLAIN if box.state is None else _COLOURS.get(box.state, _PLAIN)


def _dot_text(text: str) -> str:
    """Quote a text; it stands for itself, and what cannot be printed is replaced."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "&": "&amp;"}
    written = (
        escapes.get(one, one if one.isprintable() else "\N{REPLACEMENT CHARACTER}") for one in text
    )
    return f'"{"".join(written)}"'
