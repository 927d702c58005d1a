"""A small round of what `python -m bench.streams.boards_chaos` does at length."""

from __future__ import annotations

from bench.streams.boards_chaos import chaos


async def test_programs_workers_and_links_die_and_nothing_is_lost() -> None:
    outcome = await chaos(200_000, faults=6, seed=3)
    assert (outcome.records, outcome.wrong) == (200_000, 0)
