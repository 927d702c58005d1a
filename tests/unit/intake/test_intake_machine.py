"""What becomes of a message: deleted last of all, put aside after five refusals, and patient in outages."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.intake import effects, events
from services.intake.machine import IntakeMachine, IntakePatience
from services.intake.message import IncomingMessage, MessageKind

GOOD = json.dumps({"userName": "a", "taskName": "t", "actionType": "c"}).encode()
BAD = b"{"


def message(identity: str = "m", body: bytes = GOOD, receipt: str = "r1") -> IncomingMessage:
    return IncomingMessage("sqs:q", MessageKind.TASK, identity, body, receipt)


def kinds(found: Sequence[effects.IntakeEffect]) -> list[str]:
    return [type(one).__name__ for one in found if not isinstance(one, effects.TellOutcome)]


def test_a_message_is_deleted_after_the_commit_and_no_sooner() -> None:
    machine = IntakeMachine(IntakePatience())
    one = message()
    assert kinds(machine.handle(events.MessageArrived(one), 0)) == ["SubmitRequests"]
    assert kinds(machine.handle(events.RequestCommitted(one.key), 1)) == ["DeleteMessage"]
    assert kinds(machine.handle(events.MessageDeleted(one.key, "r1"), 2)) == ["LetGo"]
    assert machine.held == 0
    assert machine.deadline() is None


def test_a_message_that_cannot_be_read_is_put_aside_after_five_tries_that_were_recorded() -> None:
    """Case S11: the fifth refusal is the last."""
    machine = IntakeMachine(IntakePatience())
    one = message(body=BAD)
    now, found = 0.0, list(machine.handle(events.MessageArrived(one), 0))
    said = [kinds(found)]
    while not isinstance(found[-1], effects.BuryMessage):
        due = machine.deadline()
        assert due is not None
        now = max(now, due)
        found = list(machine.tick(now))
        said += [kinds(found)] if kinds(found) != ["KeepHidden"] else []
    assert said == [["RecordTry"]] * 4 + [["RecordTry", "BuryMessage"]]
    assert found[-1] == effects.BuryMessage(one, 5, found[-1].reason)
    assert "not JSON" in found[-1].reason
    assert kinds(machine.handle(events.MessageBuried(one.key), now)) == ["DeleteMessage"]
    assert kinds(machine.handle(events.MessageDeleted(one.key, "r1"), now)) == [
        "ForgetTries",
        "LetGo",
    ]


def test_tries_go_on_after_a_restart_and_a_message_that_had_all_is_put_aside() -> None:
    machine = IntakeMachine(IntakePatience())
    found = machine.handle(events.MessageArrived(message(body=BAD), 4, "before"), 0)
    assert kinds(found) == ["RecordTry", "BuryMessage"]
    other = IntakeMachine(IntakePatience())
    [bury] = other.handle(events.MessageArrived(message(), 5, "before"), 0)
    assert bury == effects.BuryMessage(message(), 5, "before")


def test_no_outage_counts_however_often_and_wherever_it_is() -> None:
    """Case S11: of the controller, of the dead-letter queue, of the source."""
    machine = IntakeMachine(IntakePatience(tries_max=1))
    one = message()
    [submit] = machine.handle(events.MessageArrived(one), 0)
    now = 0.0
    for _ in range(50):
        machine.handle(events.ServerAway(one.key, "away", 0.9), now)
        again: list[effects.IntakeEffect] = []
        while submit not in again:
            due = machine.deadline()
            assert due is not None
            assert due < now + 31
            now = max(due, now)
            again = list(machine.tick(now))
    found = machine.handle(events.RequestRefused(one.key, "no good", 0.5), now)
    assert kinds(found) == ["RecordTry", "BuryMessage"]
    machine.handle(events.ServerAway(one.key, "no queue", 0.5), now)
    assert "BuryMessage" in kinds(machine.tick(now + 60))
    assert kinds(machine.handle(events.MessageBuried(one.key), now)) == ["DeleteMessage"]
    machine.handle(events.ServerAway(one.key, "no source", 0.5), now)
    assert "DeleteMessage" in kinds(machine.tick(now + 120))


def test_what_is_under_way_is_kept_hidden_and_the_newest_delivery_is_deleted() -> None:
    machine = IntakeMachine(IntakePatience(hidden_seconds=60))
    first, second = message(receipt="r1"), message(receipt="r2")
    machine.handle(events.MessageArrived(first), 0)
    assert machine.deadline() == 30
    assert machine.tick(30) == [effects.KeepHidden(first)]
    assert machine.handle(events.MessageArrived(second), 40) == (effects.LetGo(first),)
    assert machine.handle(events.MessageLost(first.key, "r1"), 41) == ()
    committed = machine.handle(events.RequestCommitted(first.key), 42)
    assert committed[-1] == effects.DeleteMessage(second)
    # The deletion of the first delivery says nothing about the second one.
    again = machine.handle(events.MessageDeleted(first.key, "r1", lost=True), 43)
    assert list(again) == [effects.DeleteMessage(second)]
    assert kinds(machine.handle(events.MessageLost(first.key, "r2"), 43)) == ["LetGo"]
    assert machine.handle(events.MessageDeleted(first.key, "r2"), 44) == ()


def test_a_delivery_that_is_over_comes_again_and_is_deleted_then() -> None:
    machine = IntakeMachine(IntakePatience())
    one, later = message(receipt="r1"), message(receipt="r2")
    machine.handle(events.MessageArrived(one), 0)
    machine.handle(events.RequestCommitted(one.key), 0)
    lost = events.MessageDeleted(one.key, "r1", lost=True)
    assert kinds(machine.handle(lost, 1)) == ["LetGo"]
    assert kinds(machine.handle(events.MessageArrived(later), 2)) == ["SubmitRequests"]


def test_two_messages_of_a_topic_with_one_id_are_each_acknowledged() -> None:
    machine = IntakeMachine(IntakePatience())
    both = [replace(message(receipt=receipt), id_given=False) for receipt in ("1 1 1", "1 2 1")]
    for one in both:
        assert kinds(machine.handle(events.MessageArrived(one), 0)) == ["SubmitRequests"]
    for one in both:
        [*_, deletion] = machine.handle(events.RequestCommitted(one.key), 1)
        assert deletion == effects.DeleteMessage(one)
        machine.handle(events.MessageDeleted(one.key, one.receipt), 2)
    assert machine.held == 0


class IntakeWalk(RuleBasedStateMachine):
    """Any order of events: nothing is lost, deleted early, put aside early, or counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = IntakeMachine(IntakePatience())
        self.number = 0
        self.doing: dict[events.MessageKey, effects.IntakeEffect] = {}
        self.recorded: dict[events.MessageKey, int] = {}
        self.settled: set[events.MessageKey] = set()
        self.open: set[str] = set()

    def take(self, found: Sequence[effects.IntakeEffect]) -> None:
        for effect in found:
            match effect:
                case effects.SubmitRequests(one):
                    assert one.key not in self.settled
                    assert one.key not in self.doing
                    self.doing[one.key] = effect
                case effects.BuryMessage(one, tries):
                    assert tries == 5 == self.recorded[one.key]
                    assert one.key not in self.doing
                    self.doing[one.key] = effect
                case effects.DeleteMessage(one):
                    assert one.key in self.settled
                    self.doing[one.key] = effect
                case effects.RecordTry(one, tries):
                    self.recorded[one.key] = tries
                case effects.LetGo(one):
                    self.open.discard(one.receipt)
                case _:
                    pass

    @rule(body=st.sampled_from([GOOD, BAD]), identity=st.sampled_from("abc"))
    def arrive(self, body: bytes, identity: str) -> None:
        self.number += 1
        # The same id has the same body, as of one message.
        one = message(f"{identity}{body == GOOD}", body, f"r{self.number}")
        self.open.add(one.receipt)
        tries = self.recorded.get(one.key, 0)
        self.take(self.machine.handle(events.MessageArrived(one, tries, "before"), self.now))

    @precondition(lambda self: self.doing)
    @rule(data=st.data(), outcome=st.sampled_from(["well", "refused", "away", "lost"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.doing)))
        effect = self.doing.pop(key)
        chance = 0.5
        if outcome == "away":
            self.take(self.machine.handle(events.ServerAway(key, "away", chance), self.now))
        elif isinstance(effect, effects.SubmitRequests) and outcome == "refused":
            self.take(self.machine.handle(events.RequestRefused(key, "no", chance), self.now))
        elif isinstance(effect, effects.SubmitRequests):
            self.settled.add(key)
            self.take(self.machine.handle(events.RequestCommitted(key), self.now))
        elif isinstance(effect, effects.BuryMessage):
            self.settled.add(key)
            self.take(self.machine.handle(events.MessageBuried(key), self.now))
        elif isinstance(effect, effects.DeleteMessage):
            receipt, lost = effect.message.receipt, outcome == "lost"
            found = self.machine.handle(events.MessageDeleted(key, receipt, lost=lost), self.now)
            if not any(isinstance(one, effects.DeleteMessage) for one in found):
                self.settled.discard(key)
                if not lost:
                    self.recorded.pop(key, None)
            self.take(found)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.machine.tick(self.now))

    @invariant()
    def something_is_due_for_each_message(self) -> None:
        deadline = self.machine.deadline()
        assert (deadline is None) == (self.machine.held == 0)
        assert deadline is None or not math.isinf(deadline)
        assert self.machine.held <= len(self.open)


IntakeWalk.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIntakeWalk = IntakeWalk.TestCase
