"""Histories of the whole mesh: the invariants hold in them, and a seed decides all of one.

Few of them here; `make sim` lives through as many as there is time for, and CI with it.
"""

import pytest

from tests.simulation.mesh.__main__ import live
from tests.simulation.mesh.apart import run_apart

SEEDS = 24
BATCH = 6


@pytest.mark.parametrize("batch", range(SEEDS // BATCH))
def test_the_invariants_hold_whatever_fails(batch: int) -> None:
    def histories() -> list[str]:
        outcomes = [live(batch * BATCH + index) for index in range(BATCH)]
        return [f"make sim SEED={one.seed}: {one.problem}" for one in outcomes if one.problem]

    assert not run_apart(histories)


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = run_apart(lambda: live(7)), run_apart(lambda: live(7))
    assert first.trace == second.trace
    assert first.callbacks == second.callbacks


def test_another_seed_gives_another_history() -> None:
    assert run_apart(lambda: live(7)).trace != run_apart(lambda: live(8)).trace
