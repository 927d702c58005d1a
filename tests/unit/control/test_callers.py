"""What the control machine records of callers: who made a pipeline, and what a call has changed."""

import json

from control.core import events
from control.core.answers import Refusal
from control.core.call_note import CallNote
from control.core.machine_config import MachineConfig
from control.core.rows import OutboxRow
from shoal.model import JobState
from shoal.names import PipelineRef
from tests.unit.control.desk import Desk
from tests.unit.control.world import single

ANN = CallNote("submitter/ann", "", "PipelinesService.SubmitPipeline", "10.0.0.7")
WEB = CallNote("gateway/web", "bob", "PipelinesService.SubmitPipeline", "10.0.0.8")


def told(desk: Desk) -> list[OutboxRow]:
    """The events of callers since the last look."""
    rows = [row for row in desk.outbox() if row.type.startswith("shoal.caller.")]
    desk.leave()
    return rows


def test_a_caller_has_so_many_pipelines_open_over_restarts_and_until_they_end() -> None:
    desk = Desk(MachineConfig(caller_pipelines_max=4))
    desk.dial_all("n1")
    refs = [desk.submit(single(), note=ANN) for _ in range(4)]
    refused = desk.try_submit(single(), note=ANN)
    assert isinstance(refused, Refusal)
    assert refused.reason == "QUOTA"
    assert "submitter/ann has 4 pipelines" in refused.message
    desk.submit(single(), note=WEB)
    desk.submit(single())  # of a cluster without identity
    desk.start()  # with more in the queue than one page of it has
    assert isinstance(desk.try_submit(single(), note=ANN), Refusal)
    desk.dial_all("n1")
    desk.cancel(refs[0])
    desk.observe(refs[0], "main", JobState.CANCELLED)
    desk.submit(single(), note=ANN)
    assert isinstance(desk.try_submit(single(), note=ANN), Refusal)


def test_users_of_a_gateway_share_its_quota_and_are_named() -> None:
    desk = Desk(MachineConfig(caller_pipelines_max=1))
    ref = desk.submit(single(), note=WEB)
    other = CallNote("gateway/web", "carl", WEB.method, WEB.address)
    assert isinstance(desk.try_submit(single(), note=other), Refusal)
    assert record(desk, ref) == "gateway/web for bob"
    desk.start()
    assert record(desk, ref) == "gateway/web for bob"


def record(desk: Desk, ref: PipelineRef) -> str:
    pipeline = desk.machine.cluster.pipeline(ref)
    assert pipeline is not None
    return pipeline.creator


def test_the_same_request_again_is_no_call_that_changed_a_thing() -> None:
    desk = Desk(MachineConfig(caller_pipelines_max=1))
    ref = desk.submit(single(), "key", note=ANN)
    (row,) = told(desk)
    assert row.subject == "callers/submitter/ann"
    assert row.namespace == ""
    assert json.loads(row.data)["name"] == ref.name
    assert desk.submit(single(), "key", note=ANN) == ref
    desk.post(lambda call: events.Cancel(call, PipelineRef("default", "nothing"), "", note=ANN))
    desk.post(lambda call: events.Drain(call, "nothing", drained=True, note=ANN))
    assert told(desk) == []


def test_each_call_is_told_even_if_the_one_before_has_not_left() -> None:
    desk = Desk()
    desk.dial_all("n1")
    desk.post(lambda call: events.Drain(call, "n1", drained=True, note=ANN))
    desk.post(lambda call: events.Drain(call, "n1", drained=False, note=ANN))
    rows = told(desk)
    assert len({row.id for row in rows}) == 2
    assert all(row.id == f"callers/submitter/ann/called/{row.sequence}" for row in rows)
