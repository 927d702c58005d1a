"""Dead letters: what failed is kept, is revived once, or is discarded."""

import json

from control.core import events
from control.core.answers import Refusal
from control.core.effects import Taken
from control.core.machine_config import MachineConfig
from shoal.model import DeadLetter, JobState, PipelineState
from shoal.names import PipelineRef
from shoal.spec import Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import single

DAY = 86_400.0


def dead(desk: Desk, name: str = "single") -> PipelineRef:
    """A pipeline that fails for good."""
    ref = desk.submit(single(name), f"key-of-{name}")
    desk.fail(ref, "main")
    assert desk.pipeline(ref).dead_letter is DeadLetter.KEPT
    return ref


def revive(desk: Desk, ref: PipelineRef) -> object:
    return desk.post(lambda call: events.Revive(call, ref))


def discard(desk: Desk, ref: PipelineRef) -> object:
    return desk.post(lambda call: events.Discard(call, ref))


def test_what_failed_is_kept_when_other_ended_pipelines_are_forgotten() -> None:
    desk = Desk(MachineConfig(pipelines_ended_max=1, ended_in_memory=0))
    desk.dial_all("n1")
    letter = dead(desk)
    others = [desk.submit(single(f"p{number}")) for number in range(3)]
    for ref in others:
        desk.succeed(ref, "main")
    desk.pass_time(0.25)
    assert desk.remembered() == [letter, others[-1]]
    desk.start()
    desk.dial_all("n1")
    desk.pass_time(0.25)
    assert desk.remembered() == [letter, others[-1]]
    job = desk.job(letter, "main")
    assert job.attempts[-1].reason.message == "it said so"


def test_a_letter_is_revived_once_by_a_pipeline_of_the_same_specification() -> None:
    desk = Desk(MachineConfig(ended_in_memory=0))
    desk.dial_all("n1")
    letter = dead(desk)
    taken = revive(desk, letter)
    assert isinstance(taken, Taken)
    assert not taken.repeated
    assert taken.ref != letter
    for _ in range(2):
        assert revive(desk, letter) == Taken(taken.ref, repeated=True)
        old, new = desk.pipeline(letter), desk.pipeline(taken.ref)
        assert (old.dead_letter, old.revived_by) == (DeadLetter.REVIVED, taken.ref.pipeline)
        assert (new.spec, new.revived_from) == (old.spec, letter.pipeline)
        assert old.state is PipelineState.FAILED, "what was told of it stays true"
        desk.start()
        desk.dial_all("n1")
    desk.succeed(taken.ref, "main")
    told = [row for row in desk.events() if row.type == "shoal.pipeline.succeeded"]
    assert [json.loads(row.data)["revived_from"] for row in told] == [letter.pipeline]
    assert desk.job(letter, "main").state is JobState.FAILED


def test_one_that_is_revived_and_fails_again_is_a_letter_of_its_own() -> None:
    desk = Desk()
    desk.dial_all("n1")
    first = dead(desk)
    taken = revive(desk, first)
    assert isinstance(taken, Taken)
    desk.fail(taken.ref, "main")
    assert desk.pipeline(taken.ref).dead_letter is DeadLetter.KEPT
    again = revive(desk, taken.ref)
    assert isinstance(again, Taken)
    assert not again.repeated
    assert again.ref not in {first, taken.ref}


def test_only_a_letter_is_revived_or_discarded() -> None:
    desk = Desk()
    desk.dial_all("n1")
    well = desk.submit(single("well"))
    desk.succeed(well, "main")
    for ask in (revive, discard):
        refused = ask(desk, well)
        assert isinstance(refused, Refusal)
        assert refused.reason == "NO_DEAD_LETTER"
        assert "succeeded" in refused.message
        assert "no pipeline" in str(ask(desk, PipelineRef("default", "absent")))
    letter = dead(desk)
    assert discard(desk, letter) is None
    assert discard(desk, letter) is None
    refused = revive(desk, letter)
    assert isinstance(refused, Refusal)
    assert "was discarded" in refused.message


def test_one_that_was_revived_is_not_discarded_and_the_answer_names_what_it_became() -> None:
    desk = Desk()
    desk.dial_all("n1")
    letter = dead(desk)
    taken = revive(desk, letter)
    assert isinstance(taken, Taken)
    refused = discard(desk, letter)
    assert isinstance(refused, Refusal)
    assert f"was revived as {taken.ref.pipeline}" in refused.message
    assert desk.pipeline(letter).dead_letter is DeadLetter.REVIVED


def test_a_letter_that_is_discarded_is_forgotten_as_others_are() -> None:
    desk = Desk(MachineConfig(pipelines_ended_max=1))
    desk.dial_all("n1")
    letters = [dead(desk, f"p{number}") for number in range(3)]
    desk.pass_time(0.25)
    assert desk.remembered() == letters
    for letter in letters[:2]:
        discard(desk, letter)
    desk.pass_time(0.25)
    assert desk.remembered() == letters[1:]
    told = [row.subject for row in desk.events() if row.type == "shoal.pipeline.discarded"]
    assert told == [f"{letter.name}/dead-letter" for letter in letters[:2]]


def test_too_many_or_too_old_letters_go_the_first_to_die_first_and_that_is_told() -> None:
    desk = Desk(MachineConfig(dead_letters_max=2, dead_letter_seconds=30 * DAY))
    desk.dial_all("n1")
    letters = [dead(desk, f"p{number}") for number in range(3)]
    desk.pass_time(0.25)
    assert desk.remembered() == letters[1:]
    desk.start()
    desk.now += 30 * DAY
    desk.pass_time(0.25)
    assert desk.remembered() == []
    told = [row for row in desk.events() if row.type == "shoal.pipeline.discarded"]
    assert [json.loads(row.data)["message"] for row in told] == [
        "more than 2 dead letters are kept",
        "it is kept for 30 days",
        "it is kept for 30 days",
    ]


def test_the_wait_before_a_retry_grows_is_bounded_and_is_another_one_for_each_job() -> None:
    """Case S7: nine failures with jittered exponential back-off, and the tenth makes a letter."""
    desk = Desk()
    desk.dial_all("n1")
    retry = Retry(attempts=10, backoff_seconds=1.0, backoff_limit_seconds=64.0)
    refs = [desk.submit(single(name, retry=retry)) for name in ("a", "b")]
    waits: dict[PipelineRef, list[float]] = {ref: [] for ref in refs}
    for number in range(1, 10):
        for ref in refs:
            desk.fail(ref, "main")
            job = desk.job(ref, "main")
            assert job.retry_time is not None
            left = job.retry_time - desk.machine._situation.wall_time
            waits[ref].append(left.total_seconds())
            ceiling = min(64.0, 2.0 ** (number - 1))
            assert 0.8 * ceiling <= waits[ref][-1] <= ceiling
        desk.pass_time(max(waits[ref][-1] for ref in refs) + 0.25)
    assert waits[refs[0]] != waits[refs[1]]
    for ref in refs:
        desk.fail(ref, "main")
        assert desk.pipeline(ref).dead_letter is DeadLetter.KEPT
        numbers = [one.ref.number for one in desk.job(ref, "main").attempts]
        assert numbers == list(range(1, 11))
