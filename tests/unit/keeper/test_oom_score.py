"""Whom the kernel takes first when memory runs out."""

from pathlib import Path

import pytest

from edge_agent.keeper.oom_score import KEPT_SCORE, be_taken_last


@pytest.mark.parametrize(("before", "after"), [(0, KEPT_SCORE), (800, KEPT_SCORE), (-1000, -1000)])
def test_a_score_is_lowered_and_never_raised(tmp_path: Path, before: int, after: int) -> None:
    score = tmp_path / "oom_score_adj"
    score.write_text(f"{before}\n")
    assert be_taken_last(score)
    assert int(score.read_text()) == after


def test_a_kernel_that_refuses_is_no_reason_not_to_start(tmp_path: Path) -> None:
    assert not be_taken_last(tmp_path / "none")
    assert not be_taken_last(tmp_path)
