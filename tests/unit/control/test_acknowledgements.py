"""R1: signs of life are acknowledged rarely, but always well within the lease."""

from hypothesis import given
from hypothesis import strategies as st

from control.front.sessions.acknowledgements import (
    ANSWERS_A_LEASE,
    SILENT_REQUESTS,
    Acknowledgements,
)

LEASE = 6.0


def test_what_is_waited_for_is_acknowledged_at_once() -> None:
    acknowledgements = Acknowledgements(LEASE, 0.0)
    assert acknowledgements.committed(1, waited_for=True, now=0.0) is acknowledgements.due
    assert acknowledgements.say(0.0) == 1
    assert not acknowledgements.committed(2, waited_for=False, now=0.1)
    assert acknowledgements.committed(3, waited_for=True, now=0.2)
    assert not acknowledgements.committed(4, waited_for=True, now=0.3), "one message tells both"
    assert acknowledgements.say(0.3) == 4


def test_r1_every_second_heartbeat_of_a_quiet_agent_is_acknowledged() -> None:
    acknowledgements = Acknowledgements(LEASE, 0.0)
    answered = [
        acknowledgements.say(float(second))
        for second in range(1, 3601)
        if acknowledgements.committed(second, waited_for=False, now=float(second))
    ]
    assert answered == list(range(2, 3601, 2))


def test_very_many_signs_of_life_are_acknowledged_before_a_quarter_of_the_lease() -> None:
    acknowledgements = Acknowledgements(LEASE, 0.0)
    due = [acknowledgements.committed(one, waited_for=False, now=0.01) for one in range(1, 18)]
    assert due.index(True) == SILENT_REQUESTS - 1


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), max_size=200))
def test_r1_no_answer_is_later_than_a_quarter_of_the_lease_and_a_heartbeat(
    requests: list[tuple[float, bool]],
) -> None:
    """100 histories of at most 200 requests each, of which none comes later than a heartbeat."""
    acknowledgements = Acknowledgements(LEASE, 0.0)
    now = answered_at = 0.0
    for sequence, (pause, waited_for) in enumerate(requests, start=1):
        now += pause
        if acknowledgements.committed(sequence, waited_for=waited_for, now=now):
            assert acknowledgements.say(now) == sequence
            answered_at = now
        assert now - answered_at <= LEASE / ANSWERS_A_LEASE
