"""Leases against the plain definition of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from control.core.leases import Leases

LEASE = 6.0
STEPS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", ""]), st.integers(1, 4)), max_size=120)


@given(STEPS)
@settings(max_examples=300)
def test_a_lease_runs_out_exactly_when_its_node_was_silent_for_that_long(
    steps: list[tuple[str, int]],
) -> None:
    leases = Leases(LEASE, pause_seconds=2.0, now=0.0)
    heard: dict[str, float] = {}
    now = 0.0
    for node, quarters in steps:
        now += quarters / 4
        expired = leases.advance(now)
        due = sorted(name for name, last in heard.items() if last + LEASE <= now)
        assert list(expired) == due
        for name in due:
            del heard[name]
        if node:
            leases.renew(node, now)
            heard[node] = now
        assert {name for name in "abc" if leases.holds(name)} == set(heard)
        for name, last in heard.items():
            assert leases.expires_at(name) == last + LEASE
            assert leases.silence_seconds(name, now) == now - last
        deadline = leases.deadline()
        if heard:
            assert deadline is not None
            assert deadline <= min(heard.values()) + LEASE, "never too late"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=60))
def test_pauses_only_ever_lengthen_a_lease(steps: list[tuple[bool, int]]) -> None:
    leases = Leases(LEASE, pause_seconds=1.0, now=0.0)
    leases.renew("a", 0.0)
    last, now = 0.0, 0.0
    for speaks, quarters in steps:
        now += quarters / 4
        expired = leases.advance(now)
        assert not expired or now - last >= LEASE
        if speaks or expired:
            leases.renew("a", now)
            last = now
