"""R6: whom an agent follows, and what it does with a controller that it may not follow."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.session.effects import (
    Closed,
    Confirmed,
    Deliver,
    Dial,
    Follow,
    HangUp,
    LeaseRenewed,
    Opened,
    Quarantined,
    SessionEffect,
    Write,
)
from edge_agent.session.events import ControllersKnown, LinkClosed, LinkOpened, Received, Say
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from shoal.backoff import Backoff
from shoal.model import Capacity, Followed, JobState
from shoal.names import AttemptRef
from shoal.session.messages import Desired, FromController, Heartbeat, Hello, Welcome
from shoal.session.observation import Observation

REF = AttemptRef("default", "p", "work", 1, 1)
HELLO = Hello("node-1", "id", Capacity(), "h:1", member_name="node-1")
OURS = Followed("c", 7, "seven", 40)
SNAPSHOT = Desired(1, snapshot=True, commit=41)


def told(following: Followed | None, **more: object) -> Welcome:
    return Welcome("ctl", 6.0, 1.0, following, **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def greeted(
    welcome: Welcome, *more: FromController, addresses: tuple[str, ...] = ("a:1",)
) -> tuple[SessionMachine, list[SessionEffect]]:
    """A session of an agent that followed `OURS`, right after a controller's first batch."""
    machine = SessionMachine(SessionConfig(backoff=Backoff(1.0, 8.0)), lambda: 0.5, followed=OURS)
    machine.handle(ControllersKnown(addresses), 0.0)
    machine.handle(LinkOpened(1, HELLO), 0.0)
    return machine, list(machine.handle(Received(1, 1, 1, (welcome, *more)), 0.0))


@pytest.mark.parametrize(
    ("following", "remembered"),
    [
        (Followed("c", 7, "seven"), OURS),  # commits that are known stay known
        (Followed("c", 8, "eight"), Followed("c", 8, "eight")),
    ],
)
def test_r6_a_controller_that_goes_on_is_followed(
    following: Followed, remembered: Followed
) -> None:
    machine, effects = greeted(told(following), SNAPSHOT)
    assert machine.state is SessionState.OPEN
    follows = [effect for effect in effects if isinstance(effect, Follow)]
    assert follows[0] == Follow(remembered)
    assert follows[-1].followed.commit == 41
    at = effects.index(follows[-1])
    assert isinstance(effects[at + 1], Deliver), "recorded before what it wants"


@pytest.mark.parametrize(
    ("following", "why"),
    [
        (None, "does not say which cluster"),
        (Followed("d", 9, "nine"), "is of cluster d"),
        (Followed("c", 6, "six"), "is at start 6"),
        (Followed("c", 7, "another"), "has another start 7"),
    ],
)
def test_r6_a_false_controller_that_does_not_know_it_is_left_alone(
    following: Followed | None, why: str
) -> None:
    machine, effects = greeted(told(following), SNAPSHOT)
    [quarantined] = effects
    assert isinstance(quarantined, Quarantined)
    assert why in quarantined.reason
    [hang_up] = machine.tick(0.0)
    assert isinstance(hang_up, HangUp)
    assert machine.followed == OURS
    deadline = machine.deadline()
    assert deadline is not None
    assert deadline >= 30.0


def test_r6_in_quarantine_nothing_is_delivered_confirmed_or_renewed() -> None:
    machine, effects = greeted(told(Followed("d", 1, "x"), quarantine="it is empty"), SNAPSHOT)
    assert effects == [Quarantined("it is empty")]
    assert list(machine.handle(Say(Observation(REF, JobState.FAILED)), 0.1)) == []
    assert list(machine.handle(Received(1, 2, 1, (SNAPSHOT,)), 0.2)) == []
    said: list[SessionEffect] = []
    for second in range(1, 200):
        said += machine.tick(float(second))
        machine.handle(Received(1, 2 + second, 1 + second, ()), float(second))
    assert all(isinstance(one, Write) and one.messages == (Heartbeat(),) for one in said)
    assert len(said) > 190, "its node is shown as connected"
    assert list(machine.handle(LinkClosed(1, "it ended"), 200.0)) == []
    assert machine.deadline() == 200.5, "a person may have decided"


def test_r6_an_adopted_node_follows_whatever_it_followed_before() -> None:
    machine, effects = greeted(told(Followed("d", 1, "x"), adopted=True), SNAPSHOT)
    assert machine.followed == Followed("d", 1, "x", 41)
    assert any(isinstance(one, Opened) for one in effects)


def test_r6_another_controller_is_tried() -> None:
    machine, _ = greeted(told(None, quarantine="no"), addresses=("a:1", "b:1"))
    [hang_up] = machine.tick(5.0)
    assert isinstance(hang_up, HangUp)
    deadline = machine.deadline()
    assert deadline is not None
    assert list(machine.tick(deadline)) == [Dial(2, "b:1")]


def test_k10_who_is_told_to_wait_waits() -> None:
    machine, _ = greeted(told(None, quarantine="two of one name", retry_seconds=30.0))
    machine.handle(LinkClosed(1, "NAME_TAKEN"), 1.0)
    deadline = machine.deadline()
    assert deadline is not None
    assert 31.0 <= deadline <= 38.0
    machine, _ = greeted(told(None, quarantine="two of one name", retry_seconds=1e300))
    machine.handle(LinkClosed(1, "NAME_TAKEN"), 1.0)
    deadline = machine.deadline()
    assert deadline is not None
    assert deadline < 400.0


_FOLLOWED = st.builds(
    Followed, st.sampled_from("cd"), st.integers(6, 8), st.sampled_from(["x", "y"])
)
_WELCOME = st.builds(
    Welcome, st.just("ctl"), st.just(6.0), st.just(1.0), _FOLLOWED | st.none(),
    st.sampled_from(["", "", "no"]), st.sampled_from([False, False, False, True]),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(_WELCOME, max_size=12))
def test_r6_what_is_delivered_comes_from_a_controller_that_may_be_followed(
    welcomes: list[Welcome],
) -> None:
    """Whoever answers in turn: what ends jobs never comes from another cluster or an older term."""
    machine = SessionMachine(SessionConfig(), lambda: 0.5)
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    now, link = 0.0, 1
    for welcome in welcomes:
        before = machine.followed
        machine.handle(LinkOpened(link, HELLO), now)
        effects = list(machine.handle(Received(link, 1, 1, (welcome, SNAPSHOT)), now))
        counts = [one for one in effects if isinstance(one, Deliver | Confirmed | LeaseRenewed)]
        goes_on = before is None or welcome.adopted
        if before is not None and welcome.following is not None:
            goes_on |= (welcome.following.cluster_id, welcome.following.term) > (
                before.cluster_id,
                before.term,
            ) and welcome.following.cluster_id == before.cluster_id
            goes_on |= replace_commit(before) == welcome.following
        assert bool(counts) == (goes_on and not welcome.quarantine)
        closed = machine.handle(LinkClosed(link, "it ended"), now)
        assert any(isinstance(one, Closed) for one in closed) == bool(counts)
        deadline = machine.deadline()
        assert deadline is not None
        now = deadline
        [dial] = machine.tick(now)
        assert isinstance(dial, Dial)
        link = dial.link


def replace_commit(followed: Followed) -> Followed:
    return Followed(followed.cluster_id, followed.term, followed.start_id)


def test_t4_a_controller_that_quarantines_and_then_hears_nothing_is_left() -> None:
    """Each heartbeat waited for an acknowledgement, in memory and before the link, without a bound."""
    machine, _ = greeted(told(OURS, quarantine="for a test"))
    now, said = 0.0, 0
    effects: Sequence[SessionEffect] = ()
    while machine.state is SessionState.QUARANTINED:
        now = machine.deadline() or 0.0
        effects = machine.tick(now)
        said += sum(isinstance(effect, Write) for effect in effects)
        assert said <= 200
    assert effects == [HangUp("the controller acknowledges nothing any more")]


@pytest.mark.parametrize("quarantine", ["", "for a test"])
@pytest.mark.parametrize("seconds", [1e-320, 1e-9, 0.0])
def test_t4_a_heartbeat_that_is_no_pause_does_not_let_an_agent_turn_in_a_circle(
    seconds: float, quarantine: str
) -> None:
    machine, _ = greeted(Welcome("ctl", 6.0, seconds, OURS, quarantine=quarantine))
    machine.tick(1.0)
    deadline = machine.deadline()
    assert deadline is not None
    assert deadline >= 1.01
