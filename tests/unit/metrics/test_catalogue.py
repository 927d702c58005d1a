"""What the catalogues of figures promise, and that docs/metrics.md says the same."""

import re

import pytest

from services.metrics.figure import Figure, FigureKind
from tests.kit.figure_table import CATALOGUES, DOCUMENT, written

EVERY = {figure.name: figure for figures in CATALOGUES.values() for figure in figures}.values()
UNITS = ("seconds", "bytes", "ratio", "celsius", "watts", "cores")
TAKEN = {"job", "instance", "le", "quantile", "__name__"}
"""Labels that Prometheus itself gives."""


def test_the_document_has_the_figures_that_the_code_has() -> None:
    said = DOCUMENT.read_text()
    assert said == written(said), "run: python -m tests.kit.figure_table"


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_figure_stands_once_in_a_catalogue(name: str) -> None:
    names = [figure.name for figure in CATALOGUES[name]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("figure", EVERY, ids=lambda figure: figure.name)
def test_a_figure_is_named_as_prometheus_wants_it(figure: Figure) -> None:
    assert re.fullmatch(r"shoal_[a-z][a-z0-9_]*[a-z]", figure.name)
    assert figure.name.endswith("_total") == (figure.kind is FigureKind.COUNTER)
    if figure.kind is FigureKind.HISTOGRAM:
        assert figure.name.endswith(UNITS)
        assert figure.labels == ()
    assert not set(figure.labels) & TAKEN
    assert figure.help.endswith(".")


@pytest.mark.parametrize("figure", EVERY, ids=lambda figure: figure.name)
def test_the_series_of_a_figure_are_bounded(figure: Figure) -> None:
    assert 1 <= figure.series_max <= 1_000
    if not figure.labels:
        assert figure.series_max == 1
