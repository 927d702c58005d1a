"""P14: what the sink wrote down is judged as a reader would."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from bench.streams.chaos import KINDS, LINKS, deck
from bench.streams.history import Ledger, Run, Verdict, judge, read_ledgers
from bench.streams.outage import read


def _ledger(epoch: int, *runs: tuple[int, int], ended: bool = True) -> Ledger:
    return Ledger(epoch, tuple(Run(*run) for run in runs), ended)


def test_p14_every_record_once_and_in_order_is_intact() -> None:
    ledgers = [_ledger(1, (0, 40), ended=False), _ledger(2, (0, 60), (60, 100))]
    assert judge(ledgers, 100) == Verdict(100, 0, 0, 0, 0)
    assert judge(ledgers, 100).intact


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([(0, 40), (50, 100)], Verdict(90, 10, 0, 0, 0), id="a gap"),
        pytest.param([(0, 90)], Verdict(90, 10, 0, 0, 0), id="the end is missing"),
        pytest.param([(0, 60), (50, 100)], Verdict(110, 0, 10, 0, 0), id="repeated"),
        pytest.param([(0, 40), (60, 100), (40, 60)], Verdict(100, 0, 0, 20, 0), id="out of order"),
        pytest.param([(0, 100), (100, 103)], Verdict(103, 0, 0, 0, 3), id="beyond the last"),
        pytest.param([(0, 100), (-1, -1)], Verdict(100, 0, 0, 0, 1), id="wrong content"),
        pytest.param([], Verdict(0, 100, 0, 0, 0), id="nothing"),
    ],
)
def test_p14_what_goes_wrong_is_counted(runs: list[tuple[int, int]], expected: Verdict) -> None:
    assert judge([_ledger(1, *runs)], 100) == expected
    assert not expected.intact


def test_p14_a_gap_in_an_attempt_that_was_killed_counts_too() -> None:
    ledgers = [_ledger(1, (0, 10), (20, 30), ended=False), _ledger(2, (0, 100))]
    assert judge(ledgers, 100).lost == 10


def test_p14_an_attempt_without_an_end_is_no_end() -> None:
    with pytest.raises(ValueError, match="did not come to the end"):
        judge([_ledger(1, (0, 100)), _ledger(2, (0, 50), ended=False)], 100)


def test_p14_ledgers_are_read_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    (tmp_path / "ledger.10").write_text("0 5 1\n5 7 2\nend\n")
    (tmp_path / "ledger.9").write_text("0 5 1\n5 6")  # cut off by a kill
    assert read_ledgers(tmp_path.glob("ledger.*")) == [
        _ledger(9, (0, 5), ended=False),
        _ledger(10, (0, 5), (5, 7)),
    ]


def test_p14_a_deck_has_every_kind_and_is_the_same_for_a_seed() -> None:
    kinds = deck(100, random.Random(7), links=True)
    assert kinds == deck(100, random.Random(7), links=True)
    assert set(kinds) == set(KINDS)
    assert len(kinds) == 100
    assert not LINKS & set(Counter(deck(100, random.Random(7), links=False)))


def test_p13_an_outage_is_the_longest_silence_after_a_kill(tmp_path: Path) -> None:
    diary = tmp_path / "diary.1"
    times = [1.0, 1.1, 1.2, 1.7, 1.8, 2.0, 2.3, 2.4]
    diary.write_text(
        "".join(f"{int(at * 1e9)} {number}\n" for number, at in enumerate(times))
        + f"{int(2.5e9)} 3\n{int(2.6e9)} -1\n"
    )
    found = read(diary, 9, [1.25, 1.95])
    assert [round(one, 3) for one in found.seconds] == [0.5, 0.3]
    assert (found.lost, found.repeated, found.made_up, found.out_of_order) == (1, 1, 1, 1)
    assert not found.intact
