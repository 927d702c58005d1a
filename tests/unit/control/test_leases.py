"""Leases: silence, pauses of our own, nodes that come back."""

from __future__ import annotations

import pytest

from control.core.leases import Leases


def leases(now: float = 0.0) -> Leases:
    return Leases(lease_seconds=6.0, pause_seconds=1.0, now=now)


def sweep(held: Leases, start: float, end: float) -> dict[str, float]:
    """Look every quarter of a second; returns when each lease ran out."""
    found: dict[str, float] = {}
    for step in range(int((end - start) * 4) + 1):
        now = start + step / 4
        found |= dict.fromkeys(held.advance(now), now)
    return found


def test_a_lease_runs_out_after_silence() -> None:
    held = leases()
    held.renew("a", 0.0)
    held.renew("b", 0.0)
    assert sweep(held, 0.0, 3.0) == {}
    held.renew("b", 3.0)
    assert sweep(held, 3.0, 20.0) == {"a": 6.0, "b": 9.0}
    assert held.deadline() is None
    assert not held.holds("a")


def test_a_node_that_comes_back_has_a_new_lease() -> None:
    held = leases()
    held.renew("a", 0.0)
    assert sweep(held, 0.0, 7.0) == {"a": 6.0}
    held.renew("a", 7.0)
    assert held.expires_at("a") == 13.0
    assert sweep(held, 7.0, 20.0) == {"a": 13.0}


def test_a_pause_of_our_own_counts_against_nobody() -> None:
    held = leases()
    held.renew("a", 0.0)
    assert sweep(held, 0.0, 2.0) == {}
    assert held.advance(60.0) == ()
    assert held.silence_seconds("a", 60.0) == 2.0
    assert sweep(held, 60.25, 80.0) == {"a": 64.0}


def test_a_pause_right_after_the_start_counts_against_nobody() -> None:
    held = leases()
    held.renew("a", 0.0)
    assert held.advance(10.0) == ()


def test_idle_time_without_leases_does_not_lengthen_the_first_one() -> None:
    held = leases()
    held.renew("a", 3600.0)
    assert sweep(held, 3600.0, 3620.0) == {"a": 3606.0}
    held.renew("b", 9000.0)
    assert sweep(held, 9000.0, 9020.0) == {"b": 9006.0}


def test_a_message_that_ends_a_pause_renews_by_one_lease_only() -> None:
    held = leases()
    held.renew("a", 0.0)
    sweep(held, 0.0, 1.0)
    held.renew("a", 31.0)
    assert sweep(held, 31.0, 60.0) == {"a": 37.0}


def test_an_ended_lease_is_forgotten() -> None:
    held = leases()
    held.renew("a", 0.0)
    held.end("a")
    assert held.expires_at("a") is None
    assert held.silence_seconds("a", 5.0) == 0.0
    assert sweep(held, 0.0, 20.0) == {}


@pytest.mark.parametrize(("lease", "pause"), [(0.0, 1.0), (1.0, -1.0)])
def test_times_must_be_positive(lease: float, pause: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Leases(lease, pause, 0.0)
