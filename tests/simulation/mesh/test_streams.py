"""Order, no loss, no repeat, bounded memory, and everything drains: whatever dies on the way.

Each case runs a few histories of the whole mesh, in a child of its own; SHOAL_SEED says with which seed
to begin, and SHOAL_SEEDS how many times as many there are (20 of it take a quarter of an hour).
"""

import os
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.simulation.mesh import story as stories
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.shapes import SCALED, SHAPES
from tests.simulation.mesh.stream_shape import Shape
from tests.simulation.mesh.world import history

FIRST = int(os.environ.get("SHOAL_SEED", "0"))
TIMES = int(os.environ.get("SHOAL_SEEDS", "1"))


def seeds(count: int) -> range:
    """Return the seeds of a case."""
    return range(FIRST, FIRST + count * TIMES)


def histories(shape: Shape, faults: stories.Faults, every: Iterable[int]) -> Counter[str]:
    """Run a history for each seed, check it, and return what has happened in all of them."""

    def all_of_them() -> Counter[str]:
        counts: Counter[str] = Counter()
        for seed in every:
            outcome = history(seed, faults, given=shape)
            assert not outcome.problem, f"seed {seed}: {outcome.problem}"
            counts.update(outcome.counts)
        return counts

    return run_apart(all_of_them)


def died(counts: Counter[str]) -> int:
    """Return how many attempts were lost, or failed."""
    return counts["attempt LOST"] + counts["attempt FAILED"]


@pytest.mark.parametrize("name", SHAPES)
def test_without_faults_everything_arrives_once(name: str) -> None:
    counts = histories(SHAPES[name], stories.CALM, seeds(1))
    assert not died(counts), "an attempt had to begin anew without a fault"
    if name.startswith("latest"):
        assert counts["dropped"], "no consumer was too slow"


@pytest.mark.parametrize("name", SHAPES)
def test_only_the_controller_says_that_a_consumer_is_done(name: str) -> None:
    """A `done` from elsewhere lets no producer go: nothing is lost although consumers die later."""
    counts = histories(SHAPES[name], stories.LIES, seeds(2))
    assert counts["lies"], "no peer lied"


@pytest.mark.parametrize("name", SHAPES)
def test_whatever_dies_everything_arrives(name: str) -> None:
    counts = histories(SHAPES[name], stories.HARD_ON_STREAMS, seeds(4))
    assert died(counts), "nothing died"


def test_what_is_moved_from_a_drained_node_goes_on_elsewhere() -> None:
    """Records arrive once and in order, as without it."""
    counts: Counter[str] = Counter()
    for name in ("chain", "stateful", "broadcast", "by key"):
        counts += histories(SHAPES[name], stories.MOVES, seeds(2))
    assert counts["attempt CANCELLED"], "nothing was moved"
    assert not died(counts), "a move is neither a loss nor a failure"


@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_stream_is_the_undisturbed_one(name: str) -> None:
    counts = histories(SCALED[name], stories.SCALES, seeds(2))
    assert counts["scale SETTLED"] >= 2, counts
    assert not died(counts), "an attempt had to begin anew without a fault"


@pytest.mark.parametrize("name", SCALED)
def test_a_scaled_stream_survives_whatever_dies(name: str) -> None:
    counts = histories(SCALED[name], stories.HARD_ON_SCALES, seeds(4))
    assert died(counts), "nothing died"
