"""docs/mqtt.md says of events what they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import cast

from control.core import events
from control.core.call_note import CallNote
from control.core.machine_config import MachineConfig
from control.core.rows import OutboxKind, OutboxRow
from services.events.entry import OutboxEntry, envelope
from shoal.model import (
    Capacity,
    Followed,
    JobState,
    MemberState,
    Reason,
    ReasonCode,
    StreamCounters,
)
from shoal.names import PipelineRef
from shoal.session.progress import Progress
from shoal.spec import Resources, Retry
from tests.kit.tree import ROOT
from tests.unit.control.desk import Desk
from tests.unit.control.joining import certificate, join, revoke, token
from tests.unit.control.world import counter, hello, single

TEXT = (ROOT / "docs" / "mqtt.md").read_text()
TYPES = re.findall(r"^\| (`shoal\.[^|]+) \| [^|]+ \| ([^|]+) \|$", TEXT, re.MULTILINE)
PATIENT = MachineConfig(assigned_seconds=1e6)
"""Agents that leave what they are assigned alone."""
NOTE = CallNote("operator/ann", "", "NodesService.DrainNode", "10.0.0.7")
WORD = re.compile(r"`([\w.]+)`")


def documented() -> dict[str, set[str]]:
    """The fields of `data` by type, as the table has them."""
    found: dict[str, set[str]] = {}
    fields: set[str] = set()
    for types, told in TYPES:
        words = set(WORD.findall(told))
        others = words & found.keys()
        named = (words - others).union(*(found[one] for one in others))
        fields = fields | named if "the same" in told else named
        first, *rest = WORD.findall(types)
        for name in (first, *(f"{first.rpartition('.')[0]}{one}" for one in rest)):
            found[name] = fields
    return found


def message(row: OutboxRow) -> dict[str, object]:
    entry = OutboxEntry(
        row.sequence, row.id, row.type, row.namespace, row.subject, row.time, row.data
    )
    read: dict[str, object] = json.loads(envelope(entry))
    return read


def shape(value: object) -> object:
    """What kinds of values stand where."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [shape(one) for one in cast("list[object]", value)[:1]]
    return type(value).__name__


def test_the_example_and_the_fields_are_those_of_a_message() -> None:
    desk = Desk(PATIENT)
    desk.dial_all("n1")
    ref = desk.submit(single("count"))
    desk.succeed(ref, "main")
    camera = desk.submit(counter(replicas=1))
    desk.observe(camera, "camera", JobState.RUNNING)
    send(desk, camera, 1042)
    desk.pass_time(61)
    desk.post(lambda call: events.Drain(call, "n1", drained=True, note=NOTE))
    desk.hang_up("n1")
    desk.pass_time(7)
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
    found = [block for block in blocks if "type" in block]  # else it is a policy for a broker
    examples = {example["type"]: example for example in found}
    assert len(examples) == len(found)
    last = message(desk.events()[-1])
    for row in desk.outbox():
        if row.type in examples:
            assert shape(message(row)) == shape(examples.pop(row.type))
    assert not examples, "no such event came"
    fields = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert set(fields) == set(last)


def canonical(text: str) -> str:
    """The same JSON as an encoder writes it."""
    return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_foreign_words_in_an_event_stay_one_text() -> None:
    said = 'it said "}, \\ and\n\u2028 grüß Gott\x01'
    desk = Desk(PATIENT)
    desk.dial_all("n1")
    caller = replace(NOTE, caller=said, user=said, address=said)
    ref = desk.submit(single(), note=caller)
    desk.observe(ref, "main", JobState.RUNNING)
    reason = Reason(ReasonCode.EXIT, 3, said)
    desk.observe(ref, "main", JobState.FAILED, reason=reason)
    rows = {row.type: row for row in desk.outbox() if row.type}
    for row in rows.values():
        assert row.data == canonical(row.data), row.type
    called = json.loads(rows["shoal.caller.called"].data)
    assert (called["caller"], called["user"], called["address"]) == (said, said, said)
    failed = json.loads(rows["shoal.job.failed"].data)
    assert failed["reason"] == {"code": "EXIT", "message": reason.message, "number": 3}
    assert said in json.loads(rows["shoal.pipeline.failed"].data)["reason"]["message"]


def send(desk: Desk, ref: PipelineRef, records: int) -> None:
    """Let the camera of a counter have sent so many records."""
    attempt = desk.job(ref, "camera").attempt
    assert attempt is not None
    session = desk.sessions[attempt.node]
    said = Progress(attempt.ref, (StreamCounters("frames", output=True, records=records),))
    desk.post(lambda _: events.Progressed(attempt.node, session, said))


def test_each_type_has_the_fields_that_are_told() -> None:
    desk = Desk(PATIENT)
    desk.dial_all("n1")
    well, badly, ended = (desk.submit(single(name)) for name in ("well", "badly", "ended"))
    desk.succeed(well, "main")
    desk.observe(badly, "main", JobState.RUNNING)
    desk.fail(badly, "main")
    desk.cancel(ended)
    desk.observe(ended, "main", JobState.CANCELLED)
    desk.post(lambda call: events.Discard(call, badly))
    rows = desk.outbox()
    desk.leave()
    again = desk.submit(single("again", retry=Retry(attempts=2)))
    desk.fail(again, "main")
    for name in ("n2", "n3"):
        desk.dial_all(name)
    for drained in (True, False):
        rows += desk.outbox()
        desk.drain("n1", drained=drained)
    large = desk.submit(single("large", resources=Resources(cpus=8)))
    desk.pass_time(31)
    rows += desk.outbox()
    desk.dial(hello("n4", capacity=Capacity(cpus=8)))
    rows += desk.outbox()
    desk.cancel(large)
    camera = desk.submit(counter(replicas=1))
    for name in ("camera", "detector", "counter"):
        desk.observe(camera, name, JobState.RUNNING)
    send(desk, camera, 1042)
    desk.pass_time(61)
    rows += desk.outbox()
    send(desk, camera, 1043)
    rows += desk.outbox()
    desk.verdict("n2", MemberState.LEFT)
    desk.hang_up("n2")
    desk.hang_up("n3")
    rows += desk.outbox()
    desk.pass_time(7)
    rows += desk.outbox()
    desk.dial_all("n2")
    rows += desk.outbox()
    for follows in (Followed("elsewhere", 1, "x", 1), None):
        desk.claim(replace(hello("n2"), followed=follows))
        rows += desk.outbox()
    desk.verdict("n3", MemberState.LEFT)
    desk.post(lambda call: events.ForgetNode(call, "n3"))
    desk.post(lambda call: events.CallMade(call, "42", note=NOTE))
    desk.post(lambda call: events.CallsRefused(call, "viewer/ann", {"NOT_ALLOWED": 2}, "M", "h"))
    rows += desk.outbox()
    join(desk, certificate(desk, "01", token(desk)))
    revoke(desk)
    rows += desk.outbox()
    for row in rows:
        if row.kind is not OutboxKind.MANIFEST:
            assert row.data == canonical(row.data), row.type
    told = documented()
    seen = {row.type: set(json.loads(row.data)) for row in rows if row.type}
    assert seen.keys() | {"shoal.pipeline.scaled"} == told.keys()
    for name, fields in seen.items():
        assert fields == told[name] - ({"manifest"} if "manifest" not in fields else set()), name
