"""Histories find each mistake that is planted in the control machine."""

import pytest

from tests.simulation.mesh.__main__ import live
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.control_mutants import CONTROL_MUTANTS
from tests.simulation.mesh.mutants import Mutant
from tests.simulation.mesh.story import PAUSES

HISTORIES = 160
PAUSED_HISTORIES = 8
RARE = ("forgets-retries", "finishes-no-source", "moves-the-ends-of-sources")
"""What takes many histories, or long ones: `make sim-mutants ONLY=name` plants one of these."""
FREQUENT = [one for one in CONTROL_MUTANTS if one.name not in RARE]


@pytest.mark.parametrize("mutant", FREQUENT, ids=lambda mutant: mutant.name)
def test_a_mistake_of_the_control_machine_is_found(mutant: Mutant) -> None:
    def found() -> bool:
        mutant.plant()
        return any(live(seed, faults=mutant.faults).problem for seed in range(HISTORIES))

    assert run_apart(found)


def test_a_controller_that_stands_still_loses_no_attempt() -> None:
    """The faults that find the mistake of counting one's own pauses find nothing without it."""

    def problems() -> list[str]:
        return [live(seed, faults=PAUSES).problem for seed in range(PAUSED_HISTORIES)]

    assert run_apart(problems) == [""] * PAUSED_HISTORIES
