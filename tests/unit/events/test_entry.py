"""CloudEvents as bytes."""

import json
from datetime import UTC, datetime, timedelta, timezone

from services.events.entry import Entry, envelope

ENTRY = Entry(
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


def test_data_that_is_no_json_travels_as_text() -> None:
    entry = Entry(1, "i", "t", "default", "pipelines/p", datetime.now(UTC), "{broken")
    assert json.loads(envelope(entry))["data"] == "{broken"
