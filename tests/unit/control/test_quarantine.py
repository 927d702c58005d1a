"""R6 and K10: which agents the controller may tell anything, and who has a node's name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.core.effects import Admitted
from control.core.errors import NameTakenError, NotQuarantinedError
from control.core.machine_config import MachineConfig
from control.core.quarantine import Starts
from control.core.rows import StartRow
from shoal.model import Followed, JobState
from shoal.session.messages import Hello
from shoal.session.observation import Observation
from tests.unit.control.desk import Desk
from tests.unit.control.world import FOUR_CPUS, hello, single

S = JobState
STARTS = Starts("c", (StartRow(1, "one", 10), StartRow(2, "two", 70), StartRow(3, "now")))


@pytest.mark.parametrize(
    ("followed", "why"),
    [
        (None, ""),
        (Followed("c", 1, "one", 10), ""),
        (Followed("c", 2, "two", 70), ""),
        (Followed("c", 3, "now", 5), ""),
        (Followed("c", 2, "two", 71), "was told of commit 71"),
        (Followed("c", 2, "other", 1), "does not list"),
        (Followed("c", 4, "later", 0), "does not list"),
        (Followed("d", 2, "two", 1), "follows cluster d, and this is cluster c"),
    ],
)
def test_r6_a_store_knows_what_it_lists_up_to_its_commits(
    followed: Followed | None, why: str
) -> None:
    said = STARTS.against("n1", followed)
    assert (why in said) if why else not said
    assert not said or "shoal nodes adopt n1" in said


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["commit", "restart", "told", "copy"]), max_size=30), st.data())
def test_r6_a_copy_of_a_store_is_older_exactly_when_more_was_told_since(
    steps: list[str], data: st.DataObject
) -> None:
    """Histories of a store: an agent is quarantined by a copy that has not all that it was told."""
    starts = [StartRow(1, "s1")]
    copies = [(tuple(starts), 0)]
    told, followed = 0, Followed("c", 1, "s1", 0)  # `told`: how many commits there were at all
    made = 0
    for step in steps:
        last = starts[-1]
        match step:
            case "commit":
                made += 1
                starts[-1] = StartRow(last.term, last.id, last.commits + 1)
            case "restart":
                starts.append(StartRow(last.term + 1, f"s{last.term + 1}"))
            case "told":
                told, followed = made, Followed("c", last.term, last.id, last.commits)
            case _:
                copies.append((tuple(starts), made))
    copied, known = data.draw(st.sampled_from(copies))
    restored = Starts("c", (*copied, StartRow(len(copied) + 1, "drawn anew")))
    listed = any(start.id == followed.start_id for start in copied)
    assert bool(restored.against("n1", followed)) == (not listed or told > known)


def _quarantined() -> tuple[Desk, Hello]:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    foreign = Hello(
        "n1", "n1-agent", FOUR_CPUS, followed=Followed("elsewhere", 1, "x", 1), instance_id="i"
    )
    return desk, foreign


def test_r6_nothing_is_wanted_of_a_quarantined_node_and_nothing_believed() -> None:
    desk, foreign = _quarantined()
    answer = desk.claim(foreign)
    assert isinstance(answer, Admitted)
    assert "elsewhere" in answer.quarantine
    node = desk.machine.cluster.nodes["n1"]
    [attempt] = node.attempts.values()
    assert desk.machine.desired("n1") == {}
    assert desk.say("n1", Observation(attempt.ref, S.FAILED)) == ()
    desk.pass_time(60.0)
    assert attempt.state is S.RUNNING, "it waits for a person as long as the agent is heard"
    job = desk.job(attempt.ref.job_ref.pipeline_ref, "main")
    assert "elsewhere" in job.waiting_for
    other = desk.submit(single())
    assert "quarantined" in desk.job(other, "main").waiting_for
    [verdict] = desk.machine.explain(desk.job(other, "main").ref)
    assert "shoal nodes adopt n1" in verdict.sentence


def test_r6_who_is_adopted_follows_from_its_next_session_on() -> None:
    desk, foreign = _quarantined()
    assert isinstance(desk.adopt("n1"), NotQuarantinedError)
    desk.claim(foreign)
    assert desk.adopt("n1") is None
    assert "was adopted" in desk.ended[-1]
    for _ in range(2):  # the first stream may break before it journals whom it follows
        answer = desk.claim(foreign)
        assert isinstance(answer, Admitted)
        assert answer.adopted
        assert not answer.quarantine
    answer = desk.claim(hello("n1"))
    assert isinstance(answer, Admitted)
    assert not answer.adopted
    answer = desk.claim(foreign)
    assert isinstance(answer, Admitted)
    assert answer.quarantine, "what was adopted once is not adopted for ever"


def test_u10_a_quarantine_is_told_of_and_its_end_too() -> None:
    desk, foreign = _quarantined()
    desk.leave()
    desk.claim(foreign)
    assert desk.waiting("nodes/n1") == ["shoal.node.quarantined"]
    desk.leave()
    desk.adopt("n1")
    desk.claim(foreign)
    assert desk.waiting("nodes/n1") == ["shoal.node.unquarantined"]
    desk.leave()
    desk.claim(hello("n1"))
    assert desk.waiting("nodes/n1") == []


def _agent(process: str, instance: str = "i", *attempts: Observation) -> Hello:
    return Hello("n1", process, FOUR_CPUS, instance_id=instance, attempts=attempts)


def test_k10_a_second_board_of_a_name_is_refused_and_the_job_goes_on() -> None:
    desk = Desk()
    desk.dial(_agent("a"))
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    refused: object = None
    for _ in range(5):
        refused = desk.claim(_agent("b", "other"))
        assert isinstance(refused, NameTakenError)
        assert refused.retry_seconds == 30.0
        assert "--name" in str(refused)
        desk.pass_time(30.0)
    assert desk.ended == []
    assert len(desk.job(ref, "main").attempts) == 1
    assert "10.0.0.7" in desk.machine.cluster.nodes["n1"].conflict
    assert desk.told == [str(refused)], "the agent that has the name is told once"
    desk.pass_time(120.0)
    assert not desk.machine.cluster.nodes["n1"].conflict, "the other has another name now"


def test_k10_a_copied_state_folder_is_told_from_a_restart_by_who_is_heard() -> None:
    desk = Desk()
    desk.dial(_agent("a"))
    ref = desk.submit(single())
    desk.observe(ref, "main", S.RUNNING)
    assert desk.claim(_agent("b")) is None
    desk.pass_time(1.0)
    [refused] = desk.late
    assert isinstance(refused, NameTakenError)
    assert "a --state of its own" in str(refused)
    assert refused.retry_seconds < 10.0, "what was heard may have been under way"
    assert desk.claim(_agent("b")) is None
    desk.pass_time(1.0)
    assert isinstance(desk.late[-1], NameTakenError)
    assert desk.late[-1].retry_seconds == 30.0
    assert desk.ended == []
    assert len(desk.job(ref, "main").attempts) == 1


def test_k10_a_restarted_agent_has_its_name_at_once() -> None:
    desk = Desk()
    desk.dial(_agent("a"))
    desk.hang_up("n1")
    desk.dial(_agent("b"))  # its stream broke with the process before it
    desk.silent.add("n1")
    assert desk.claim(_agent("c")) is None, "the stream before seems open still"
    desk.pass_time(3.0)
    assert isinstance(desk.late[-1], Admitted)
    assert len(desk.ended) == 1


def test_k10_a_new_board_has_the_name_of_a_dead_one_after_the_lease() -> None:
    desk = Desk(MachineConfig(lease_seconds=6.0))
    desk.dial(_agent("a"))
    desk.hang_up("n1")
    desk.pass_time(1.0)
    refused = desk.claim(_agent("b", "other"))
    assert isinstance(refused, NameTakenError)
    assert refused.retry_seconds == 6.0
    desk.dial(_agent("a"))  # it was a broken link
    desk.hang_up("n1")
    desk.pass_time(7.0)
    desk.dial(_agent("b", "other"))
    assert not desk.machine.cluster.nodes["n1"].conflict
