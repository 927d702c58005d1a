"""What a collection has read, in the text format of Prometheus, as its client library writes it."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from services.metrics.distribution import Distribution
from services.metrics.figure import FigureKind, Readings


class ProcessText:
    """What the kernel and the collector of garbage say of this process: `process_*`, `python_gc_*`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """Read it, from `/proc`."""
        return generate_latest(self._registry)


def text_of(readings: Readings) -> bytes:
    """Write what was read."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(readings))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _Once(Collector):
    """One collection, for the writer of the library."""

    readings: Readings

    def collect(self) -> Iterable[Metric]:
        for figure, values in self.readings.numbers.items():
            shape = GaugeMetricFamily if figure.kind is FigureKind.GAUGE else CounterMetricFamily
            family = shape(figure.name, figure.help, labels=figure.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        for figure, durations in self.readings.distributions.items():
            histogram = HistogramMetricFamily(figure.name, figure.help)
            histogram.add_metric((), _cumulative(durations), durations.sum)
            yield histogram


def _cumulative(durations: Distribution) -> list[tuple[str, float]]:
    below = 0
    found: list[tuple[str, float]] = []
    bounds = (*map(str, durations.bounds), "+Inf")
    for count, bound in zip(durations.counts, bounds, strict=True):
        below += count
        found.append((bound, below))
    return found
