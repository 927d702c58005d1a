"""When an agent dials, speaks and gives up."""

from dataclasses import replace

import pytest

from edge_agent.session.effects import (
    Closed,
    Confirmed,
    Deliver,
    Dial,
    HangUp,
    LeaseRenewed,
    Opened,
    SessionEffect,
    Write,
)
from edge_agent.session.events import (
    ControllersKnown,
    LinkClosed,
    LinkOpened,
    Moved,
    Received,
    Recorded,
    Say,
)
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from shoal.backoff import Backoff
from shoal.model import Artifact, Capacity, JobState
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.log_piece import LogPiece
from shoal.session.messages import Desired, FromController, Heartbeat, Hello, Welcome
from shoal.session.observation import Observation
from shoal.session.progress import Progress
from shoal.spec import Job
from shoal.view import LogStream

REF = AttemptRef("default", "p", "work", 1, 1)
HELLO = Hello("node-1", "id", Capacity(), "h:1", member_name="node-1")
WELCOME = Welcome("c", 6.0, 1.0)
OBSERVED = Observation(REF, JobState.RUNNING)
CONFIG = SessionConfig(backoff=Backoff(1.0, 8.0))


def observed(number: int, state: JobState = JobState.RUNNING) -> Observation:
    return Observation(AttemptRef("default", "p", f"work-{number}", 1, 1), state)


def session() -> SessionMachine:
    return SessionMachine(CONFIG, lambda: 0.5)


def opened(now: float = 0.0, welcome: Welcome = WELCOME) -> SessionMachine:
    """A session that stands."""
    machine = session()
    machine.handle(ControllersKnown(("a:1", "b:1")), now)
    machine.handle(LinkOpened(1, HELLO), now)
    machine.handle(Received(1, 1, 1, (welcome,)), now)
    assert machine.state is SessionState.OPEN
    return machine


def writes(effects: list[SessionEffect] | tuple[SessionEffect, ...]) -> list[Write]:
    return [effect for effect in effects if isinstance(effect, Write)]


def say(
    machine: SessionMachine, message: Observation | LogPiece | Progress, now: float
) -> list[Write]:
    return writes(list(machine.handle(Say(message), now)))


def test_it_dials_as_soon_as_it_knows_whom() -> None:
    machine = session()
    assert machine.deadline() is None
    assert list(machine.handle(ControllersKnown(()), 0.0)) == []
    assert list(machine.handle(ControllersKnown(("a:1",)), 0.0)) == [Dial(1, "a:1")]
    assert list(machine.handle(ControllersKnown(("a:1", "b:1")), 0.0)) == []


def test_hello_is_the_first_message_and_welcome_opens() -> None:
    machine = session()
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    assert list(machine.handle(LinkOpened(1, HELLO), 0.0)) == [Write(1, 0, (HELLO,))]
    effects = list(machine.handle(Received(1, 1, 1, (WELCOME,)), 0.0))
    assert effects == [Opened(WELCOME), Confirmed((HELLO,))]


def test_what_is_said_while_it_opens_follows_the_hello() -> None:
    machine = session()
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    machine.handle(LinkOpened(1, HELLO), 0.0)
    assert say(machine, OBSERVED, 0.0) == []
    effects = list(machine.handle(Received(1, 1, 1, (WELCOME,)), 0.1))
    assert writes(effects) == [Write(2, 1, (OBSERVED,))]


def test_what_is_said_without_a_session_is_left_to_the_next_hello() -> None:
    machine = session()
    assert list(machine.handle(Say(OBSERVED), 0.0)) == []
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    assert list(machine.handle(LinkOpened(1, HELLO), 0.0)) == [Write(1, 0, (HELLO,))]


def test_a_message_goes_at_once_and_while_it_is_under_way_others_wait_a_millisecond_for_company() -> (
    None
):
    machine = opened()
    assert say(machine, observed(1), 0.5) == [Write(2, 1, (observed(1),))]
    assert say(machine, OBSERVED, 0.5) == []
    assert machine.deadline() == pytest.approx(0.501)
    assert writes(list(machine.tick(0.5))) == []
    assert writes(list(machine.tick(0.501))) == [Write(3, 1, (OBSERVED,))]
    machine.handle(Received(1, 2, 3, ()), 0.502)
    assert say(machine, observed(2), 0.502) == [Write(4, 2, (observed(2),))]


def test_a_sign_of_life_that_is_under_way_keeps_no_message_waiting() -> None:
    machine = opened()
    assert writes(list(machine.tick(1.0))) == [Write(2, 1, (Heartbeat(),))]
    assert say(machine, OBSERVED, 1.1) == [Write(3, 1, (OBSERVED,))]


def test_64_messages_go_at_once() -> None:
    machine = opened()
    say(machine, observed(64), 0.4)
    written: list[Write] = []
    for number in range(64):
        written += say(machine, observed(number), 0.5)
    assert [len(write.messages) for write in written] == [64]
    assert machine.deadline() == pytest.approx(1.5)


def test_only_the_latest_counters_travel() -> None:
    machine = opened()
    say(machine, Progress(REF, (), "one"), 0.5)
    say(machine, Progress(REF, (), "two"), 0.5)
    [write] = writes(list(machine.tick(0.501)))
    assert write.messages == (Progress(REF, (), "two"),)


def test_it_shows_a_sign_of_life_when_it_has_been_silent() -> None:
    machine = opened()
    assert machine.deadline() == 1.0
    assert writes(list(machine.tick(1.0))) == [Write(2, 1, (Heartbeat(),))]
    assert machine.deadline() == 2.0
    say(machine, OBSERVED, 1.5)
    assert machine.deadline() == pytest.approx(2.5)


def test_what_is_acknowledged_is_confirmed_in_order() -> None:
    machine = opened()
    piece = LogPiece(REF, LogStream.STDOUT, 0, b"x")
    say(machine, OBSERVED, 0.1)
    machine.tick(0.2)
    say(machine, piece, 0.3)
    machine.tick(0.4)
    assert list(machine.handle(Received(1, 2, 1, ()), 0.5)) == []
    assert list(machine.handle(Received(1, 3, 3, ()), 0.5)) == [Confirmed((OBSERVED, piece))]


def test_desired_state_is_acknowledged_once_it_is_recorded() -> None:
    machine = opened()
    desired = Desired(1, snapshot=True)
    [delivered] = machine.handle(Received(1, 2, 1, (desired,)), 0.1)
    assert delivered == Deliver(desired, 1)
    assert machine.deadline() == pytest.approx(0.35)
    [before] = writes(list(machine.tick(0.35)))
    assert before.acknowledged == 1
    # Of a snapshot at once: a lease may count on it.
    assert writes(list(machine.handle(Recorded(1), 0.4))) == [Write(3, 2, ())]
    machine.handle(Received(1, 3, 1, (Desired(2, snapshot=False),)), 0.5)
    machine.handle(Recorded(2), 0.6)
    assert writes(list(machine.tick(0.7))) == []
    assert writes(list(machine.tick(0.75))) == [Write(4, 3, ())]
    assert machine.deadline() == pytest.approx(1.75)  # nothing is owed any more


def test_an_acknowledgement_travels_with_what_is_said() -> None:
    machine = opened()
    machine.handle(Received(1, 2, 1, (Desired(1, snapshot=True),)), 0.1)
    machine.handle(Recorded(1), 0.1)
    machine.handle(Received(1, 3, 1, (Desired(2, snapshot=False),)), 0.1)
    machine.handle(Recorded(2), 0.1)
    assert say(machine, OBSERVED, 0.11) == [Write(3, 3, (OBSERVED,))]
    assert machine.deadline() == pytest.approx(1.11)


def test_of_an_attempt_the_newest_observation_travels_behind_what_it_printed() -> None:
    machine = opened()
    piece = LogPiece(REF, LogStream.STDOUT, 0, b"x")
    first, other, ended = observed(2), observed(1), replace(OBSERVED, state=JobState.SUCCEEDED)
    say(machine, first, 0.4)
    for message in (OBSERVED, other, piece, ended):
        say(machine, message, 0.5)
    assert writes(list(machine.tick(0.501))) == [Write(3, 1, (other, piece, ended))]
    # What was sent stays sent.
    say(machine, OBSERVED, 0.6)
    assert writes(list(machine.tick(0.601))) == [Write(4, 1, (OBSERVED,))]
    confirmed = machine.handle(Received(1, 2, 4, ()), 0.7)
    assert list(confirmed) == [Confirmed((first, other, piece, ended, OBSERVED))]


def test_a_pure_acknowledgement_is_not_answered() -> None:
    machine = opened()
    assert list(machine.handle(Received(1, 2, 1, ()), 0.1)) == []
    assert machine.deadline() == 1.0


@pytest.mark.parametrize(
    "batch",
    [
        Received(1, 3, 1, ()),
        Received(1, 1, 1, ()),
        Received(1, 2, 9, ()),
        Received(1, 2, 0, ()),
    ],
)
def test_a_controller_that_breaks_the_numbering_is_hung_up_on(batch: Received) -> None:
    machine = opened()
    effects = list(machine.handle(batch, 0.1))
    assert [type(effect) for effect in effects] == [HangUp, Closed]
    assert machine.state is SessionState.IDLE


def test_a_controller_that_speaks_before_its_welcome_is_hung_up_on() -> None:
    machine = session()
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    machine.handle(LinkOpened(1, HELLO), 0.0)
    effects = list(machine.handle(Received(1, 1, 0, (Desired(1, snapshot=True),)), 0.0))
    assert any(isinstance(effect, HangUp) for effect in effects)


def test_the_first_retry_is_quick_and_goes_to_the_same_controller() -> None:
    machine = opened()
    assert list(machine.handle(LinkClosed(1, "cut"), 10.0)) == [Closed("cut")]
    assert machine.deadline() == pytest.approx(10.5)
    assert list(machine.tick(10.5)) == [Dial(2, "a:1")]


def test_retries_slow_down_and_go_around() -> None:
    machine = opened(welcome=replace(WELCOME, heartbeat_seconds=8.0))
    machine.handle(LinkClosed(1, "cut"), 0.0)
    dialled: list[str] = []
    waits: list[float] = []
    now = 0.0
    for link in range(2, 8):
        deadline = machine.deadline()
        assert deadline is not None
        waits.append(deadline - now)
        now = deadline
        [dial] = machine.tick(now)
        assert isinstance(dial, Dial)
        dialled.append(dial.address)
        assert list(machine.handle(LinkClosed(link, "refused"), now)) == []
    assert dialled == ["a:1", "b:1"] * 3
    assert waits == pytest.approx([0.5, 1.0, 2.0, 4.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("heartbeat_seconds", "longest"), [(0.01, 0.2), (1.0, 1.0), (3.0, 3.0), (60.0, 4.0)]
)
def test_no_pause_between_dials_is_longer_than_a_heartbeat(
    heartbeat_seconds: float, longest: float
) -> None:
    """An outage that is shorter than the lease, less what is lost by asking too late, ends no program."""
    config = replace(CONFIG, backoff=Backoff(0.1, 4.0, jitter=0.0))
    machine = SessionMachine(config, lambda: 0.0)
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    machine.handle(LinkOpened(1, HELLO), 0.0)
    welcome = replace(WELCOME, heartbeat_seconds=heartbeat_seconds)
    machine.handle(Received(1, 1, 1, (welcome,)), 0.0)
    now = wait = 0.0
    for link in range(1, 12):
        machine.handle(LinkClosed(link, "refused"), now)
        deadline = machine.deadline()
        assert deadline is not None
        wait, now = deadline - now, deadline
        machine.tick(now)
    assert wait == pytest.approx(longest)


def test_b1_an_agent_that_moved_introduces_itself_anew() -> None:
    machine = session()
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    assert list(machine.handle(Moved(), 0.0)) == [], "its Hello is still to come"
    machine = opened()
    [hang_up, closed] = machine.handle(Moved(), 5.0)
    assert isinstance(hang_up, HangUp)
    assert isinstance(closed, Closed)
    assert list(machine.tick(6.0)) == [Dial(2, "a:1")]


def test_news_of_controllers_cuts_the_wait_short() -> None:
    machine = opened()
    machine.handle(LinkClosed(1, "cut"), 0.0)
    assert list(machine.handle(ControllersKnown(("c:1",)), 0.1)) == [Dial(2, "c:1")]


@pytest.mark.parametrize("open_link", [False, True])
def test_dialling_and_opening_have_a_deadline(open_link: bool) -> None:  # noqa: FBT001
    machine = session()
    machine.handle(ControllersKnown(("a:1",)), 0.0)
    if open_link:
        machine.handle(LinkOpened(1, HELLO), 0.0)
    assert machine.deadline() == 5.0
    [effect] = machine.tick(5.0)
    assert isinstance(effect, HangUp)
    assert machine.state is SessionState.IDLE


def test_events_of_a_stream_that_was_hung_up_change_nothing() -> None:
    machine = opened()
    machine.handle(LinkClosed(1, "cut"), 0.0)
    machine.tick(0.5)
    assert list(machine.handle(LinkClosed(1, "late"), 0.6)) == []
    assert list(machine.handle(LinkOpened(1, HELLO), 0.6)) == []
    assert list(machine.handle(Received(1, 2, 1, ()), 0.6)) == []
    assert machine.state is SessionState.DIALLING


def test_a_new_session_forgets_what_was_not_recorded_in_the_old_one() -> None:
    machine = opened()
    machine.handle(Received(1, 2, 1, (Desired(1, snapshot=True),)), 0.0)
    machine.handle(LinkClosed(1, "cut"), 0.0)
    machine.tick(0.5)
    machine.handle(LinkOpened(2, HELLO), 0.5)
    machine.handle(Received(2, 1, 1, (WELCOME,)), 0.5)
    assert list(machine.handle(Recorded(1), 0.6)) == []


def test_unacknowledged_batches_are_bounded() -> None:
    machine = opened()
    now = 0.1
    for number in range(CONFIG.in_flight_batches + 5):
        say(machine, observed(number), now)
        machine.tick(now + 0.001)
        now += 0.002
    effects = list(machine.handle(Received(1, 2, CONFIG.in_flight_batches + 1, ()), now))
    [write] = writes(effects)
    assert len(write.messages) == 5


def test_a_controller_that_acknowledges_nothing_is_given_up() -> None:
    machine = opened()
    now = 0.0
    effects: list[SessionEffect] = []
    while machine.state is SessionState.OPEN:
        now += 1.0
        effects = list(machine.tick(now))
    assert isinstance(effects[0], HangUp)
    assert now < 1000


def test_several_messages_of_a_batch_are_delivered_in_order() -> None:
    machine = opened()
    messages: tuple[FromController, ...] = (
        Desired(1, snapshot=True),
        Desired(2, snapshot=False),
    )
    effects = list(machine.handle(Received(1, 2, 1, messages), 0.1))
    assert effects == [Deliver(messages[0], 1), Deliver(messages[1], 2)]  # type: ignore[arg-type]


def test_the_lease_counts_from_what_was_sent_and_only_once_all_is_known() -> None:
    machine = opened()
    say(machine, OBSERVED, 1.0)
    assert list(machine.handle(Received(1, 2, 2, (Desired(1, snapshot=True),)), 1.5)) == [
        Deliver(Desired(1, snapshot=True), 1),
        Confirmed((OBSERVED,)),
    ]
    # A controller that was killed may be back just before the lease ends: no heartbeat is awaited.
    assert machine.handle(Recorded(1), 1.6)[0] == LeaseRenewed(1.0 + 6.0, 6.0)
    assert list(machine.handle(Received(1, 3, 3, ()), 2.5)) == [LeaseRenewed(7.6, 6.0)]
    machine.handle(LinkClosed(1, "cut"), 3.0)
    machine.tick(3.5)
    machine.handle(LinkOpened(2, HELLO), 3.5)
    effects = machine.handle(Received(2, 1, 1, (WELCOME,)), 3.6)
    assert not any(isinstance(effect, LeaseRenewed) for effect in effects)


ASSIGNED = [
    Assignment(AttemptRef("default", "p", f"work-{n}", 1, 1), Job("work", ("true",)))
    for n in range(3)
]


def part(number: int, *, more: bool) -> Desired:
    return Desired(7, snapshot=True, assignments=(ASSIGNED[number],), part=number, more=more)


def test_r7_a_long_list_counts_once_all_its_parts_are_there() -> None:
    machine = opened()
    for number in (0, 1):
        effects = machine.handle(Received(1, 2 + number, 1, (part(number, more=True),)), 0.1)
        assert not [effect for effect in effects if isinstance(effect, Deliver)]
    effects = machine.handle(Received(1, 4, 1, (part(2, more=False),)), 0.1)
    (delivered,) = [effect for effect in effects if isinstance(effect, Deliver)]
    assert delivered.message == Desired(7, snapshot=True, assignments=tuple(ASSIGNED))


def test_r7_a_long_list_without_one_of_its_parts_does_not_count() -> None:
    """Half of a snapshot would end every attempt that the other half names."""
    machine = opened()
    machine.handle(Received(1, 2, 1, (part(0, more=True),)), 0.1)
    effects = machine.handle(Received(1, 3, 1, (part(2, more=False),)), 0.1)
    assert not [effect for effect in effects if isinstance(effect, Deliver)]


def test_r7_observations_with_many_artifacts_travel_apart() -> None:
    machine = opened()
    many = tuple(Artifact(f"results/{n}", 0, "ab" * 32, "k") for n in range(6_000))
    observations = [Observation(one.ref, JobState.SUCCEEDED, artifacts=many) for one in ASSIGNED]
    written = [batch.messages for one in observations for batch in say(machine, one, 0.4)]
    written += [
        batch.messages for at in (0.5, 0.6, 0.7, 0.8) for batch in writes(list(machine.tick(at)))
    ]
    assert [len(batch) for batch in written] == [1, 1, 1]
