"""How long to wait before trying again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.backoff import Backoff


def test_grows_by_its_factor_up_to_its_maximum() -> None:
    backoff = Backoff(initial_seconds=0.5, maximum_seconds=3, jitter=0)
    assert [backoff.delay_seconds(failures, 0.7) for failures in range(5)] == [0, 0.5, 1, 2, 3]


def test_leaves_the_share_of_jitter_to_chance() -> None:
    backoff = Backoff(initial_seconds=8, maximum_seconds=8, jitter=0.25)
    assert backoff.delay_seconds(1, 0.0) == 6
    assert backoff.delay_seconds(1, 0.5) == 7


@given(failures=st.integers(1, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_never_leaves_its_bounds(failures: int, chance: float) -> None:
    delay = Backoff(initial_seconds=0.1, maximum_seconds=30).delay_seconds(failures, chance)
    assert 0 <= delay <= 30


@pytest.mark.parametrize(
    ("initial", "maximum", "factor", "jitter", "named"),
    [
        (0, 1, 2, 1, "initial_seconds"),
        (2, 1, 2, 1, "maximum_seconds"),
        (1, 1, 0.5, 1, "factor"),
        (1, 1, 2, 1.5, "jitter"),
    ],
)
def test_refuses_a_policy_that_would_not_back_off(
    initial: float, maximum: float, factor: float, jitter: float, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Backoff(initial_seconds=initial, maximum_seconds=maximum, factor=factor, jitter=jitter)
