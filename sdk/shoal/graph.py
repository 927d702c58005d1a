"""A pipeline as a drawing: jobs, streams and, once it was submitted, states; Mermaid or SVG.

The layers of the SVG follow Sugiyama, Tagawa and Toda, "Methods for visual understanding of
hierarchical system structures" (1981): longest path, barycentres, points for edges that pass layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from shoal import spec
from shoal.model import JobState
from shoal.view import JobView

_SWEEPS: Final = 4
_MARGIN: Final = 16
_BOX_HEIGHT: Final = 44
_ROW_GAP: Final = 22
_GAP_LEAST: Final = 56
_CHARACTER: Final = 7.6
_SMALL_CHARACTER: Final = 6.6

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
_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
    'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="13" '
    'text-anchor="middle">'
)
_ARROW_HEAD: Final = (
    '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
    '<path d="M0,0 L9,4 L0,8 z" fill="#57606a"/></marker></defs>'
)
_DASHES: Final = 'stroke-dasharray="5 3" '
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


def svg(graph: Graph) -> str:
    """Draw the graph as an SVG document, from left to right."""
    return _Drawing(graph).document()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a box stands: its left upper corner and its size, in pixels."""

    x: float
    y: float
    width: float
    height: float


def places(graph: Graph) -> tuple[Place, ...]:
    """Return where `svg` puts each box."""
    return _Drawing(graph).places


def layers(graph: Graph) -> tuple[int, ...]:
    """Return each box's layer: 0 without inputs, else one more than the last of those it reads.

    Jobs in a circle, which no valid specification has, come after all others.
    """
    waiting = [0] * len(graph.boxes)
    for arrow in graph.arrows:
        waiting[arrow.target] += 1
    found = [0] * len(graph.boxes)
    ready = [number for number, count in enumerate(waiting) if not count]
    done: set[int] = set()
    while ready:
        number = ready.pop()
        done.add(number)
        for arrow in graph.arrows:
            if arrow.source == number:
                found[arrow.target] = max(found[arrow.target], found[number] + 1)
                waiting[arrow.target] -= 1
                if not waiting[arrow.target]:
                    ready.append(arrow.target)
    last = max((found[number] for number in done), default=-1)
    return tuple(
        found[number] if number in done else last + 1 for number in range(len(graph.boxes))
    )


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


@dataclass(slots=True)
class _Spot:
    """A place in a layer: a box, or a point that an arrow passes."""

    layer: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


class _Drawing:
    """Lays the graph out; everything is decided by the order of jobs and streams."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        depth = layers(graph)
        self._spots = [
            _Spot(depth[number], _width(box), _BOX_HEIGHT) for number, box in enumerate(graph.boxes)
        ]
        self._paths = [self._path(arrow) for arrow in graph.arrows]
        self._rows: list[list[int]] = [[] for _ in range(1 + max(depth, default=-1))]
        for number, spot in enumerate(self._spots):
            self._rows[spot.layer].append(number)
        self._order()
        self._measure()

    @property
    def places(self) -> tuple[Place, ...]:
        """Where each box stands."""
        spots = self._spots[: len(self._graph.boxes)]
        return tuple(Place(spot.x, spot.y, spot.width, spot.height) for spot in spots)

    def document(self) -> str:
        """The whole SVG."""
        width = max((spot.x + spot.width for spot in self._spots), default=0) + _MARGIN
        height = max((spot.y + spot.height for spot in self._spots), default=0) + _MARGIN
        lines = [
            _HEAD.format(width=width, height=height),
            f"<title>{escape(self._graph.name)}</title>",
            _ARROW_HEAD,
            *self._arrows(),
            *self._boxes(),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _path(self, arrow: Arrow) -> tuple[int, ...]:
        """Numbers of the spots that an arrow goes through, with new ones in the layers between."""
        begin, end = self._spots[arrow.source].layer, self._spots[arrow.target].layer
        between: list[int] = []
        for layer in range(begin + 1, end):
            between.append(len(self._spots))
            self._spots.append(_Spot(layer, 0, _BOX_HEIGHT / 4))
        return (arrow.source, *between, arrow.target)

    def _order(self) -> None:
        """Order each layer by the middle of its neighbours, from the left and from the right."""
        before: dict[int, list[int]] = defaultdict(list)
        after: dict[int, list[int]] = defaultdict(list)
        for path in self._paths:
            for left, right in pairwise(path):
                after[left].append(right)
                before[right].append(left)
        for sweep in range(_SWEEPS):
            forward = sweep % 2 == 0
            neighbours = before if forward else after
            for row in self._rows if forward else reversed(self._rows):
                rank = self._ranks()
                wanted = {number: _middle(number, neighbours, rank) for number in row}
                row.sort(key=wanted.__getitem__)

    def _ranks(self) -> Mapping[int, float]:
        """Place of each spot in its layer, from 0 to 1."""
        return {
            number: place / (len(row) - 1) if len(row) > 1 else 0.5
            for row in self._rows
            for place, number in enumerate(row)
        }

    def _measure(self) -> None:
        """Turn layers and orders into pixels: layers side by side, each one centred."""
        heights = [
            sum(self._spots[number].height for number in row) + _ROW_GAP * (len(row) - 1)
            for row in self._rows
        ]
        tallest = max(heights, default=0)
        x: float = _MARGIN
        for layer, row in enumerate(self._rows):
            width = max(self._spots[number].width for number in row)
            y = _MARGIN + (tallest - heights[layer]) / 2
            for number in row:
                spot = self._spots[number]
                spot.x, spot.y = x + (width - spot.width) / 2, y
                y += spot.height + _ROW_GAP
            x += width + self._gap(layer)

    def _gap(self, layer: int) -> float:
        """Room for the longest label between this layer and the next."""
        labels = [
            len(arrow.label)
            for arrow in self._graph.arrows
            if self._spots[arrow.source].layer == layer
        ]
        return max(_GAP_LEAST, max(labels, default=0) * _SMALL_CHARACTER + 28)

    def _arrows(self) -> Iterator[str]:
        leaving: dict[int, list[int]] = defaultdict(list)
        arriving: dict[int, list[int]] = defaultdict(list)
        for number, path in enumerate(self._paths):
            leaving[path[0]].append(number)
            arriving[path[-1]].append(number)
        for ends, side in ((leaving, 1), (arriving, -2)):
            for numbers in ends.values():
                heights = {number: self._spots[self._paths[number][side]].y for number in numbers}
                numbers.sort(key=heights.__getitem__)
        for number, (arrow, path) in enumerate(zip(self._graph.arrows, self._paths, strict=True)):
            begin, end = self._spots[path[0]], self._spots[path[-1]]
            points = [
                (begin.x + begin.width, _port(begin, leaving[path[0]], number)),
                *((self._spots[spot].x, self._spots[spot].middle) for spot in path[1:-1]),
                (end.x, _port(end, arriving[path[-1]], number)),
            ]
            yield (
                f'<path d="{_curve(points)}" fill="none" stroke="#57606a" stroke-width="1.3" '
                f'{_DASHES if arrow.optional else ""}marker-end="url(#head)"/>'
            )
            (x1, y1), (x2, y2) = points[0], points[1]
            yield (
                f'<text x="{(x1 + x2) / 2:.1f}" y="{(y1 + y2) / 2 - 5:.1f}" font-size="11" '
                'fill="#57606a" stroke="#ffffff" stroke-width="3" paint-order="stroke">'
                f"{escape(arrow.label)}</text>"
            )

    def _boxes(self) -> Iterator[str]:
        for box, place in zip(self._graph.boxes, self.places, strict=True):
            fill, line = _colours(box)
            middle = place.x + place.width / 2
            first = place.y + (18 if box.note else 27)
            yield (
                f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" '
                f'height="{place.height:.1f}" rx="7" fill="{fill}" stroke="{line}"/>'
            )
            yield (
                f'<text x="{middle:.1f}" y="{first:.1f}" fill="#1f2328">{escape(box.title)}</text>'
            )
            if box.note:
                yield (
                    f'<text x="{middle:.1f}" y="{place.y + 35:.1f}" font-size="11" fill="{line}">'
                    f"{escape(box.note)}</text>"
                )


def _middle(
    number: int, neighbours: Mapping[int, Sequence[int]], rank: Mapping[int, float]
) -> float:
    found = neighbours.get(number, ())
    return sum(rank[other] for other in found) / len(found) if found else rank[number]


def _port(spot: _Spot, arrows: Sequence[int], number: int) -> float:
    """Spread the ends of several arrows over the side of a box."""
    return spot.y + spot.height * (arrows.index(number) + 1) / (len(arrows) + 1)


def _curve(points: Sequence[tuple[float, float]]) -> str:
    words = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        bend = (x2 - x1) / 2
        words.append(f"C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}")
    return " ".join(words)


def _width(box: Box) -> float:
    longest = max(len(box.title) * _CHARACTER, len(box.note) * _SMALL_CHARACTER)
    return max(72.0, longest + 24)
