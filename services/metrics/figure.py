"""A figure that a process tells of itself, and what a collection has read of it.

Rule: a figure is a value that stands in a catalogue; its name, labels and the most series that it may have are
known before anything is read. So the document can be compared with it, and nothing that users make without
a bound becomes a series without a bound.

Example: 1,200 nodes and a figure of at most 1,000 series. The first 999 by name are told, or the greatest, the other
201 are added up under `_other` if the figure adds up, and `left_out` says 201. No name of ours begins with `_`.

Source: https://prometheus.io, best practices: "Metric and label naming" and "Instrumentation" (do not overuse labels).
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest
from typing import Final

from services.metrics.distribution import Distribution

OTHER: Final = "_other"
"""Value of the first label of what was left out and added up."""


class FigureKind(enum.StrEnum):
    """What may be done with a figure: a gauge is as it is, the others only rise until the process ends."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One entry of a catalogue.

    Attributes:
        name: as Prometheus shows it; a counter ends in `_total`, and the unit comes before that.
        kind: gauge, counter or histogram.
        help: one sentence for people.
        labels: names of its labels; those with several have words of ours but for the first.
        series_max: how many series it may have, `_other` included.
        adds_up: whether the sum of several series says something.
        steady: keep the first by name and not the greatest, so that no series comes and goes with its value.
    """

    name: str
    kind: FigureKind
    help: str
    labels: tuple[str, ...] = ()
    series_max: int = 1
    adds_up: bool = True
    steady: bool = False


LEFT_OUT: Final = Figure(
    "shoal_metrics_left_out",
    FigureKind.GAUGE,
    "Series that a figure would have beyond the most that it may.",
    ("figure",),
    32,
)
COLLECT_SECONDS: Final = Figure(
    "shoal_metrics_collect_seconds",
    FigureKind.GAUGE,
    "How long the collection before this one took.",
)
COLLECTIONS: Final = Figure(
    "shoal_metrics_collections_total",
    FigureKind.COUNTER,
    "Collections, each for one or more scrapes.",
)
REFUSED: Final = Figure(
    "shoal_metrics_refused_total",
    FigureKind.COUNTER,
    "Scrapes that were refused, or given up since they did not read.",
)
OF_THE_PAGE: Final = (LEFT_OUT, COLLECT_SECONDS, COLLECTIONS, REFUSED)
"""What each page tells of itself."""

Labels = tuple[str, ...]


@dataclass(slots=True)
class Readings:
    """What one collection has read; filled on the event loop, and written as text in a thread."""

    numbers: dict[Figure, Mapping[Labels, float]] = field(
        default_factory=dict[Figure, Mapping[Labels, float]]
    )
    distributions: dict[Figure, Distribution] = field(default_factory=dict[Figure, Distribution])
    left_out: dict[str, int] = field(default_factory=dict[str, int])

    def tell(self, figure: Figure, value: float, *labels: str) -> None:
        """Tell a figure of one series."""
        self.tell_all(figure, {labels: value})

    def tell_each(self, figure: Figure, values: Mapping[str, float]) -> None:
        """Tell all series of a figure with one label, by its value; see `tell_all`."""
        self.tell_all(figure, {(value,): number for value, number in values.items()})

    def tell_all(self, figure: Figure, values: Mapping[Labels, float]) -> None:
        """Tell all series of a figure, by the values of its labels; no more of them than it may have."""
        if len(values) > figure.series_max:
            room = figure.series_max - 1
            if figure.steady:
                kept = nsmallest(room, values.items())
            else:
                kept = nlargest(room, values.items(), key=lambda one: (one[1], one[0]))
            others = sum(values.values()) - sum(value for _, value in kept)
            self.left_out[figure.name] = len(values) - len(kept)
            values = dict(kept)
            if figure.adds_up:
                values[(OTHER, *("" for _ in figure.labels[1:]))] = others
        self.numbers[figure] = values

    def distribute(self, figure: Figure, durations: Distribution) -> None:
        """Tell how durations are distributed until now."""
        self.distributions[figure] = durations.copy()
