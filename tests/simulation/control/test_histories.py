"""Seeded histories of a cluster with faults: the invariants hold in every one of them.

`SHOAL_SEED=N` lives through one history again; `SHOAL_HISTORIES=N` through more of them.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.control.world import NO_DEATH, Faults, history

HISTORIES = int(os.environ.get("SHOAL_HISTORIES", "240"))
BATCH = 40


def _seeds(batch: int) -> list[int]:
    if "SHOAL_SEED" in os.environ:
        return [int(os.environ["SHOAL_SEED"])] if batch == 0 else []
    return [batch * BATCH + index for index in range(BATCH)]


def _live(seed: int, faults: Faults, seconds: float) -> int:
    try:
        return history(seed, faults, seconds).losses
    except BaseException as error:
        error.add_note(f"seed {seed}: repeat with SHOAL_SEED={seed}")
        raise


@pytest.mark.parametrize("batch", range(HISTORIES // BATCH))
def test_invariants_hold_whatever_fails(batch: int) -> None:
    for seed in _seeds(batch):
        _live(seed, Faults(), 15.0)


@pytest.mark.parametrize("batch", range(max(HISTORIES // BATCH // 3, 1)))
def test_a_cut_shorter_than_the_tolerance_restarts_nothing(batch: int) -> None:
    for seed in _seeds(batch):
        assert _live(seed, NO_DEATH, 40.0) == 0, f"seed {seed}"
