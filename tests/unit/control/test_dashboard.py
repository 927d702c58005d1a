"""What a dashboard is told: eight texts in their order, each once, none of an old attempt (invariant 11)."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control.core.outbox_rows import UPDATE_TEXTS
from control.core.rows import OutboxKind, OutboxRow
from shoal.compat import Compat
from shoal.model import JobState, Reason, ReasonCode
from shoal.names import PipelineRef
from shoal.session.observation import Observation
from shoal.session.stage import AttemptStage, StageReached
from shoal.spec import Pipeline, Retry
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, artifact, hello, single

S = JobState


def asking(**changes: object) -> Pipeline:
    compat = Compat(user="ada", action="Classification", task="task7", updates_topic=True)
    return replace(single(**changes), compat=compat)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def told(desk: Desk) -> list[OutboxRow]:
    kinds = {OutboxKind.MESSAGE, OutboxKind.KEPT_MESSAGE}
    return [row for row in desk.events() if row.kind in kinds]


def said(desk: Desk) -> list[dict[str, Any]]:
    return [json.loads(row.data) for row in told(desk)]


def taken(*stages: AttemptStage) -> tuple[StageReached, ...]:
    return tuple(StageReached(stage, BEGAN + timedelta(seconds=int(stage))) for stage in stages)


def observe(desk: Desk, ref: PipelineRef, state: JobState, **more: Any) -> None:
    attempt = desk.current(ref, "main")
    desk.say("n1", Observation(attempt, state, **more))


def test_the_eight_texts_come_in_their_order_with_the_fields_of_the_original() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(asking())
    observe(desk, ref, S.PREPARING, stages=taken(AttemptStage.FETCHING))
    assert [one["status"] for one in said(desk)] == ["Downloading files..."]
    stages = taken(*AttemptStage)
    observe(desk, ref, S.PREPARING, stages=stages)
    observe(desk, ref, S.PREPARING, stages=stages)
    observe(desk, ref, S.RUNNING, stages=stages, start_time=BEGAN + timedelta(seconds=5))
    times = {"start_time": BEGAN + timedelta(seconds=5), "end_time": BEGAN + timedelta(seconds=9)}
    observe(desk, ref, S.ARCHIVING, stages=stages, **times)
    assert len(told(desk)) == 6
    attempt = desk.current(ref, "main")
    observe(desk, ref, S.SUCCEEDED, stages=stages, artifacts=(artifact(attempt),), **times)
    rows = told(desk)
    assert [one["status"] for one in said(desk)] == list(UPDATE_TEXTS)
    kept = [row.kind is OutboxKind.KEPT_MESSAGE for row in rows]
    assert [number for number, one in enumerate(kept, 1) if one] == [3, 8]
    assert {row.key for row in rows} == {"Updates"}
    assert {row.subject for row in rows} == {f"{ref.name}/jobs/main/updates"}
    first = said(desk)[0]
    assert first == {
        "nodeID": "n1",
        "userName": "ada",
        "taskName": "task7",
        "status": "Downloading files...",
        "time": "Thu Jan  1 00:00:01 2026",
        "event_id": f"default/{ref.name}/jobs/main/updates/downloading/1",
        "stage": 1,
        "namespace": "default",
        "attempt": attempt.name,
    }
    assert [one["event_id"] for one in said(desk)] == [row.id for row in rows]
    assert said(desk)[5]["time"] == "Thu Jan  1 00:00:09 2026"


def test_done_comes_after_the_manifest() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(asking())
    desk.succeed(ref, "main")
    order = [row.kind for row in desk.events()]
    manifest = order.index(OutboxKind.MANIFEST)
    sequences = {
        one["status"]: row.sequence for one, row in zip(said(desk), told(desk), strict=True)
    }
    assert len(sequences) == 8
    assert sequences["Results uploaded"] > desk.events()[manifest].sequence
    assert sequences["Done"] > sequences["Results uploaded"]


def test_an_attempt_that_fails_says_so_and_the_next_one_begins_anew() -> None:
    desk = Desk()
    desk.dial_all("n1")
    ref = desk.submit(asking(retry=Retry(attempts=2, backoff_seconds=1.0)))
    reason = Reason(ReasonCode.EXIT, 3, "main ended with exit status 3; it said last:\nx")
    begun = {"stages": taken(*AttemptStage), "start_time": BEGAN}
    observe(desk, ref, S.FAILED, reason=reason, **begun)
    assert [one["status"] for one in said(desk)][-2:] == ["Task started", "Trying again: EXIT 3"]
    desk.pass_time(5.0)
    observe(desk, ref, S.FAILED, reason=reason, **begun)
    texts = [one["status"] for one in said(desk)]
    assert texts[6:] == [*UPDATE_TEXTS[:5], "Task failed: EXIT 3"]
    assert "Done" not in texts
    assert len({row.id for row in told(desk)}) == len(texts)
    last = said(desk)[-1]
    assert last["reason"] == "main ended with exit status 3; it said last:"
    assert told(desk)[-1].kind is OutboxKind.KEPT_MESSAGE


def test_a_job_that_is_cancelled_says_so() -> None:
    desk = Desk()
    ref = desk.submit(asking())
    desk.cancel(ref)
    assert [(one["status"], one["nodeID"]) for one in said(desk)] == [("Task cancelled", "")]


def test_who_does_not_ask_is_told_nothing() -> None:
    desk = Desk()
    desk.dial_all("n1")
    desk.succeed(desk.submit(single()), "main")
    assert told(desk) == []


@pytest.mark.parametrize("features", [frozenset[str](), frozenset({"other"})])
def test_a_job_that_tells_its_steps_is_not_placed_where_the_agent_cannot(
    features: frozenset[str],
) -> None:
    desk = Desk()
    desk.dial(replace(hello("old"), features=features))
    ref = desk.submit(asking())
    assert desk.states(ref) == {"main": "QUEUED"}
    assert "cannot do stages" in desk.job(ref, "main").waiting_for
    plain = desk.submit(single())
    assert desk.states(plain) == {"main": "ASSIGNED"}
    desk.dial_all("n1")
    assert desk.nodes(ref) == {"main": "n1"}
