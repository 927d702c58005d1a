"""Figures that were read: bounded, and written as Prometheus reads them."""

import math
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from services.metrics.distribution import YEAR_SECONDS, Distribution
from services.metrics.figure import OTHER, Figure, FigureKind, Readings
from services.metrics.text import text_of

OF_NODES = Figure("shoal_x_bytes", FigureKind.GAUGE, "Something.", ("node",), 100)
STEADY = Figure("shoal_x_up", FigureKind.GAUGE, "Up.", ("node",), 100, steady=True)
HOTTEST = Figure("shoal_x_celsius", FigureKind.GAUGE, "Heat.", ("node",), 100, adds_up=False)
ENDED = Figure("shoal_x_ended_total", FigureKind.COUNTER, "Ends.", ("outcome", "reason"), 3)
TOOK = Figure("shoal_x_seconds", FigureKind.HISTOGRAM, "How long.")


def _samples(readings: Readings) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text_of(readings).decode()):
        yield from family.samples


def test_of_a_label_with_a_million_values_the_greatest_stay_and_the_rest_is_added_up() -> None:
    readings = Readings()
    readings.tell_each(OF_NODES, {f"node-{number}": number for number in range(1_000_000)})
    shown = {one.labels["node"]: one.value for one in _samples(readings)}
    assert len(shown) == 100
    assert shown.pop(OTHER) == sum(range(1_000_000 - 99))
    assert shown == {f"node-{number}": number for number in range(1_000_000 - 99, 1_000_000)}
    assert readings.left_out == {OF_NODES.name: 1_000_000 - 99}


def test_what_does_not_add_up_is_left_out_and_counted() -> None:
    readings = Readings()
    readings.tell_each(HOTTEST, {f"node-{number}": number % 90 for number in range(150)})
    shown = [one.labels["node"] for one in _samples(readings)]
    assert len(shown) == 99
    assert OTHER not in shown
    assert readings.left_out == {HOTTEST.name: 51}


def test_of_a_steady_figure_the_first_by_name_stay_whatever_their_values_are() -> None:
    names = [f"node-{number:03}" for number in range(150)]
    for up in (0, 1):
        readings = Readings()
        readings.tell_each(STEADY, {name: (int(name[-1]) + up) % 2 for name in reversed(names)})
        assert {one.labels["node"] for one in _samples(readings)} == {*names[:99], OTHER}


def test_a_figure_with_as_many_series_as_it_may_have_keeps_all() -> None:
    readings = Readings()
    readings.tell_all(ENDED, {("failed", "EXIT"): 1, ("failed", "OOM"): 2, ("lost", "LOST"): 3})
    assert {tuple(one.labels.values()): one.value for one in _samples(readings)} == {
        ("failed", "EXIT"): 1,
        ("failed", "OOM"): 2,
        ("lost", "LOST"): 3,
    }
    assert readings.left_out == {}


def test_a_value_of_a_label_is_escaped() -> None:
    name = 'a "b"\\c\nd'
    readings = Readings()
    readings.tell(OF_NODES, 1, name)
    assert [one.labels for one in _samples(readings)] == [{"node": name}]


def test_a_distribution_is_a_histogram() -> None:
    durations = Distribution((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.5, 7.0):
        durations.add(seconds)
    readings = Readings()
    readings.distribute(TOOK, durations)
    durations.add(0.0)  # after the reading
    values = {(one.name, one.labels.get("le", "")): one.value for one in _samples(readings)}
    assert values == {
        (f"{TOOK.name}_bucket", "0.1"): 2,
        (f"{TOOK.name}_bucket", "1.0"): 3,
        (f"{TOOK.name}_bucket", "+Inf"): 4,
        (f"{TOOK.name}_count", ""): 4,
        (f"{TOOK.name}_sum", ""): 7.6,
    }


def test_durations_over_a_clock_that_was_set_are_counted_apart() -> None:
    durations = Distribution((1.0,))
    for seconds in (-0.001, -1e9, YEAR_SECONDS + 1, 1.7e9, math.nan, math.inf):
        durations.add(seconds)
    assert (durations.odd, durations.sum, durations.counts) == (6, 0.0, [0, 0])
