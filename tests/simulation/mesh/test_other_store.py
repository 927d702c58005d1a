"""R6: in histories with faults, a controller with an older or an empty store ends no attempt."""

from functools import partial

import pytest

from control.core.quarantine import Starts
from tests.simulation.mesh.apart import run_apart
from tests.simulation.mesh.other_store import FAULTS, OtherStoreWorld
from tests.simulation.mesh.world import Outcome, history

HISTORIES = 8


def _live(seed: int, *, empty: bool) -> Outcome:
    return history(seed, FAULTS, make=partial(OtherStoreWorld, empty=empty))


def _never(*_: object) -> str:
    """Why an agent may not be told anything: for no reason."""
    return ""


@pytest.mark.parametrize("empty", [False, True])
def test_r6_an_agent_is_told_nothing_by_a_store_that_knows_less(*, empty: bool) -> None:
    def histories() -> tuple[list[str], int]:
        outcomes = [_live(seed, empty=empty) for seed in range(HISTORIES)]
        problems = [f"seed {one.seed}: {one.problem}" for one in outcomes if one.problem]
        return problems, sum(one.counts.get("told more", 0) for one in outcomes)

    problems, told_more = run_apart(histories)
    assert not problems
    assert told_more >= HISTORIES // 2, "the store of before knew all, so there was nothing to see"


def test_a_controller_that_takes_any_agent_for_its_own_is_found() -> None:
    def histories() -> bool:
        setattr(Starts, "against", _never)  # noqa: B010 - planted, in this child alone
        return any("R6:" in _live(seed, empty=False).problem for seed in range(HISTORIES))

    assert run_apart(histories)
