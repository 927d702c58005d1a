"""CloudEvents as bytes."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from services.events.entry import ENDED_SECONDS, OutboxEntry, envelope, fitted

ENTRY = OutboxEntry(
    sequence=17,
    id="default/pipelines/p-1/succeeded/3",
    type="shoal.pipeline.succeeded",
    namespace="default",
    subject="pipelines/p-1",
    time=datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=timezone(timedelta(hours=1))),
    data_json='{"state": "succeeded", "name": "ü"}',
)


def test_the_envelope_has_what_cloudevents_asks_for() -> None:
    assert json.loads(envelope(ENTRY)) == {
        "specversion": "1.0",
        "id": "default/pipelines/p-1/succeeded/3",
        "source": "/shoal/default",
        "type": "shoal.pipeline.succeeded",
        "subject": "pipelines/p-1",
        "time": "2026-01-02T02:04:05.000600Z",
        "datacontenttype": "application/json",
        "sequence": "17",
        "data": {"state": "succeeded", "name": "ü"},
    }


def test_the_topics_are_the_hierarchical_name() -> None:
    assert ENTRY.events_topic == "shoal/default/pipelines/p-1/events"
    assert ENTRY.state_topic == "shoal/default/pipelines/p-1/state"


def test_u10_what_belongs_to_no_namespace_has_topics_and_a_source_without_one() -> None:
    entry = replace(ENTRY, namespace="", subject="nodes/n1", type="shoal.node.left")
    assert entry.events_topic == "shoal/nodes/n1/events"
    assert entry.state_topic == "shoal/nodes/n1/state"
    assert json.loads(envelope(entry))["source"] == "/shoal"
    assert entry.retained_seconds == ENDED_SECONDS
    assert replace(entry, type="shoal.node.down").retained_seconds == 0


def test_data_that_is_no_json_travels_as_text() -> None:
    entry = OutboxEntry(1, "i", "t", "default", "pipelines/p", datetime.now(UTC), "{broken")
    assert json.loads(envelope(entry))["data"] == "{broken"


@given(
    st.integers(0, 5000),
    st.integers(0, 400),
    st.integers(0, 30),
    st.text(max_size=400),
)
def test_k9_what_is_cut_fits_and_says_so(room: int, count: int, jobs: int, text: str) -> None:
    data = {
        "state": "succeeded",
        "artifacts": [{"path": f"results/{number}"} for number in range(count)],
        "manifest": {"key": "k", "artifacts": list(range(count))},
        "jobs": {f"job-{number}": "succeeded" for number in range(jobs)},
        "reason": {"message": text},
    }
    entry = replace(ENTRY, data_json=json.dumps(data))
    whole = envelope(entry)
    cut = fitted(entry, room)
    if len(whole) <= room:
        assert cut == whole
        return
    if cut is None:
        assert room < len(envelope(replace(ENTRY, data_json="{}"))) + 100
        return
    assert len(cut) <= room
    said = json.loads(cut)
    assert said["id"] == ENTRY.id
    assert said["data"]["cut"] is True
    assert said["data"]["state"] == "succeeded"
    if "artifacts" in said["data"] and len(said["data"]["artifacts"]) < count:
        assert said["data"]["artifacts_total"] == count
        assert said["data"]["manifest"]["artifacts_total"] == count
