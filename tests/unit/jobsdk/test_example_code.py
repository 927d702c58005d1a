"""The functions of the examples, called as functions."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shoal.job import testing

EXAMPLES = Path(__file__).parents[3] / "examples"
MODULES = ("boxes", "count", "product", "sums", "tally")


@pytest.fixture(name="people")
def _people() -> Iterator[None]:
    yield from _importable("people_counter")


@pytest.fixture(name="sums")
def _sums() -> Iterator[None]:
    yield from _importable("fission_sums")


def _importable(example: str) -> Iterator[None]:
    folder = str(EXAMPLES / example)
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    for name in MODULES:
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.usefixtures("people")
def test_the_strongest_box_of_a_person_is_kept() -> None:
    strong, same_person, other, weak = (
        (100, 50, 60, 120),
        (105, 55, 50, 110),
        (10, 50, 60, 120),
        (300, 50, 60, 120),
    )
    boxes = [same_person, strong, other, weak]
    assert module("boxes").strongest(boxes, [1.5, 3.0, 2.0, 0.9]) == [other, strong]


@pytest.mark.usefixtures("people")
def test_overlap_is_a_part_of_the_smaller_box() -> None:
    overlap = module("boxes").overlap
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == 0.5
    assert overlap((0, 0, 100, 100), (5, 5, 10, 10)) == 1.0
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0.0


@pytest.mark.usefixtures("people")
def test_people_are_written_the_same_way_each_time() -> None:
    tally = module("tally")
    rows = [tally.Row(0, 0.0, [(1, 2, 3, 4), (5, 6, 7, 8)]), tally.Row(1, 1 / 10, [])]
    assert tally.csv(rows) == ("frame,seconds,people,boxes\n0,0.00,2,1 2 3 4;5 6 7 8\n1,0.10,0,\n")


@pytest.mark.usefixtures("people")
def test_the_table_shows_the_median_of_each_group() -> None:
    tally = module("tally")
    box = (0, 0, 1, 1)
    rows = [tally.Row(index, index / 10, [box] * people) for index, people in enumerate([2, 3, 9])]
    assert tally.table(rows, frames_a_line=2) == (
        "    frames      seconds   people\n"
        "       0-1      0.0-0.1        2  ##\n"
        "       2-2      0.2-0.2        9  #########\n"
        "3 frames, 14 sightings, 4.67 people a frame"
    )


@pytest.mark.usefixtures("people")
def test_a_table_of_nothing_is_no_mistake() -> None:
    assert module("tally").table([]).endswith("0 frames, 0 sightings, 0.00 people a frame")


@pytest.mark.usefixtures("sums")
def test_the_network_of_sums(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = testing.call(module("count").count, outputs=["numbers"]).outputs["numbers"]
    assert numbers == list(range(1, 26))
    products = testing.call(
        module("product").product,
        {"a": numbers, "b": numbers, "c": numbers},
        ["products"],
        recovery="resume",
    ).outputs["products"]
    summed = testing.call(module("sums").Sums, {"products": products}, block_count=5)
    assert (summed.results / "sums.txt").read_text().split() == capsys.readouterr().out.split()
    assert (summed.results / "sums.txt").read_text() == "225\n2800\n11375\n29700\n61525\n"
