"""What a message asks for, in all of its forms, and that no bytes do more than be refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.message import (
    IncomingMessage,
    MessageKind,
    MessageReading,
    NodeQuestion,
    UnreadableMessageError,
)
from services.intake.reader import message_id, read_message, slug

TASK = {
    "userName": "ada",
    "taskName": "task7",
    "nodeId": "Jetson",
    "actionType": "Classification",
    "isCamera": "false",
}


def read(content: object, kind: MessageKind = MessageKind.TASK) -> MessageReading:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_message(IncomingMessage("sqs:q", kind, "m-1", body))


def values(content: object) -> dict[str, str]:
    [request] = read(content).requests
    assert request.request_id == "m-1"
    return dict(request.values)


def test_the_dashboards_message_gives_the_values_of_the_template() -> None:
    """Case E1: the exact JSON of the original."""
    assert values(TASK) == {
        "user": "ada",
        "action": "Classification",
        "task": "task7",
        "name": "ada-task7",
        "node": "jetson",
        "camera": "false",
        "device": "",
        "prefix": "ada/Classification/task7/",
    }


@pytest.mark.parametrize("key", ["nodeId", "nodeid", "nodeID", "node"])
@pytest.mark.parametrize(
    ("said", "node"), [("Jetson2", "jetson2"), ("none", ""), ("", ""), (None, "")]
)
def test_a_node_is_named_in_any_spelling(key: str, said: str | None, node: str) -> None:
    task = {name: value for name, value in TASK.items() if name != "nodeId"}
    assert values({**task, key: said})["node"] == node
    assert values(task)["node"] == ""


@pytest.mark.parametrize(
    ("said", "device"), [("true", "video"), (True, "video"), ("false", ""), (False, ""), (None, "")]
)
def test_a_camera_is_wanted_or_not(said: object, device: str) -> None:
    assert values({**TASK, "isCamera": said})["device"] == device


def test_further_fields_are_values_but_for_those_that_have_a_meaning() -> None:
    found = values({**TASK, "limit": 3, "fast": True, "prefix": "x/", "deep": {"a": 1}, "9": "x"})
    assert (found["limit"], found["fast"]) == ("3", "true")
    assert found["prefix"] == "ada/Classification/task7/"
    assert "deep" not in found
    assert "9" not in found


def test_a_cloud_event_holds_a_task() -> None:
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": "e1",
        "source": "/app",
        "type": "task",
        "data": TASK,
    }
    assert values(event)["user"] == "ada"
    assert values({**event, "data": json.dumps(TASK)})["user"] == "ada"
    with pytest.raises(UnreadableMessageError, match="data"):
        read({**event, "data": [1]})


def test_an_event_keeps_its_id_whatever_else_changes_and_others_have_their_bytes() -> None:
    one: dict[str, object] = {"specversion": "1.0", "id": "1", "source": "/a", "data": {}}
    later = {**one, "time": "2026-11-30T00:00:00Z"}

    def told(content: object, topic: str = "t") -> str:
        return message_id(topic, json.dumps(content).encode())

    assert told(one) == told(later)
    assert told(one) != told({**one, "source": "/b"})
    assert told(one) != told(one, "other")
    assert told({"id": 7, "x": 1}) == told({"id": 7, "x": 2})
    assert told({"x": 1}) != told({"x": 2})
    assert message_id("t", b"{") == message_id("t", b"{")


UNREADABLE: list[tuple[object, str]] = [
    (b"{", "not JSON"),
    (b"\xff", "not UTF-8"),
    (b"[]", "no object"),
    (b"1", "no object"),
    (b'{"a":NaN}', "not JSON"),
    (b"[" * 100_000, "not JSON"),
    ({"userName": "ada"}, "no actionType"),
    ({**TASK, "userName": ""}, "userName is empty"),
    ({**TASK, "userName": ["x"]}, "write a text"),
    ({**TASK, "taskName": "a/b"}, "slash"),
    ({**TASK, "taskName": ".."}, "no name"),
    ({**TASK, "taskName": "a\nb"}, "control character"),
    ({**TASK, "isCamera": "maybe"}, "neither true nor false"),
    ({**TASK, **{f"f{number}": 1 for number in range(200)}}, "more than 100 fields"),
    (b'{"a":"' + b"x" * (1 << 20) + b'"}', "at most"),
]


@pytest.mark.parametrize(("content", "words"), UNREADABLE)
def test_what_cannot_be_read_is_refused_with_a_reason(content: object, words: str) -> None:
    with pytest.raises(UnreadableMessageError, match=words):
        read(content)


def upload(**changes: Any) -> dict[str, Any]:
    thing = {"key": "a/b+c%2Bd.csv", "size": 3, "sequencer": "00A", **changes}
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "scans"}, "object": thing},
    }
    return {"Records": [record]}


def test_an_upload_is_read_as_s3_tells_it_and_as_sns_does() -> None:
    """Case S11: keys are URL-encoded."""
    [request] = read(upload(), MessageKind.UPLOAD).requests
    assert request.values["key"] == "a/b c+d.csv"
    assert request.values["folder"] == "a"
    assert request.values["name"] == "b-c-d-csv"
    assert request.values["source"] == "s3://scans/a/b c+d.csv"
    wrapped = {"Type": "Notification", "Message": json.dumps(upload())}
    assert read(wrapped, MessageKind.UPLOAD).requests == (request,)
    assert (
        read(upload(sequencer="00B"), MessageKind.UPLOAD).requests[0].request_id
        != request.request_id
    )
    assert read(upload(size=4), MessageKind.UPLOAD).requests[0].request_id == request.request_id


def test_what_is_no_upload_is_dropped_with_a_remark() -> None:
    """Case S11: the test of the queue, a removal, an empty folder."""
    removed = upload()
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    cases: list[tuple[object, str]] = [
        ({"Service": "Amazon S3", "Event": "s3:TestEvent"}, "test"),
        (removed, "no new object"),
        (upload(key="ada/Classification/task7/Data/"), "empty folder"),
        ({"Records": []}, "no object"),
    ]
    for content, words in cases:
        reading = read(content, MessageKind.UPLOAD)
        assert reading.requests == ()
        assert words in reading.remark


NO_EVENTS: list[tuple[object, str]] = [
    ({}, "Records"),
    ({"Records": {}}, "Records"),
    ({"Records": [1]}, "no object of JSON"),
    ({"Records": [{"eventName": "ObjectCreated:Put"}]}, "names no object"),
    ({"Records": [{"eventName": "ObjectCreated:Put", "s3": []}]}, "names no object"),
    (upload(key=""), "empty bucket or key"),
    (upload(key="%FF"), "not UTF-8"),
    (upload(key="%00"), "NUL"),
    (upload(sequencer="\ud800"), "sequencer is not UTF-8"),
    (upload(versionId="\ud800"), "versionId is not UTF-8"),
    (upload(sequencer="", eTag="\ud800"), "eTag is not UTF-8"),
    ({"Records": [{}] * 101}, "101 objects"),
    ({"Type": "Notification", "Message": "x"}, "not JSON"),
]


@pytest.mark.parametrize(("content", "words"), NO_EVENTS)
def test_an_event_that_is_none_is_refused(content: object, words: str) -> None:
    with pytest.raises(UnreadableMessageError, match=words):
        read(content, MessageKind.UPLOAD)


def test_questions_about_nodes_are_read() -> None:
    def ask(**content: object) -> NodeQuestion | None:
        return read(content, MessageKind.QUESTION).question

    assert ask(action="Active") == NodeQuestion()
    assert ask(action="Info", node="Jetson2") == NodeQuestion("jetson2")
    for content, words in (
        ({"action": "Info"}, "names no node"),
        ({"action": "x"}, "none that is known"),
    ):
        with pytest.raises(UnreadableMessageError, match=words):
            ask(**content)


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_words_make_a_name_of_a_pipeline(user: str, task: str) -> None:
    from shoal.names import check_id  # noqa: PLC0415

    assert check_id("pipeline", slug(user, task))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*TASK, "node", "id", "data", "specversion", "Records", "Type", "Message", "Event", "action"]
)
BODIES = st.binary(max_size=200) | st.dictionaries(
    NAMES, JSON | st.just("Notification"), max_size=6
).map(lambda content: json.dumps(content).encode())


@given(BODIES, st.sampled_from(MessageKind))
def test_any_bytes_are_read_or_refused(body: bytes, kind: MessageKind) -> None:
    """Values are as a template takes them: bounded texts without a NUL."""
    assert len(message_id("source", body)) == 40
    try:
        reading = read_message(IncomingMessage("sqs:q", kind, "m", body))
    except UnreadableMessageError:
        return
    assert reading.requests or reading.question is not None or reading.remark
    for request in reading.requests:
        assert request.request_id
        assert all("\0" not in value for value in request.values.values())
