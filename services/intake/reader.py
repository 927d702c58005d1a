"""From the bytes of a message to what it asks for: pure, and bounded whatever the bytes are.

Accepted forms:
- a task of the edge-analytics dashboard, in both of its spellings and a third:
  `{"userName":"ada","taskName":"task7","nodeId":"Jetson","actionType":"Classification","isCamera":"false"}`
  with `nodeId`, `nodeid` or `node`; `"none"`, empty or absent means any node. More fields with single
  values go to the template under their own names;
- the same as the `data` of a CloudEvent (JSON, structured mode);
- an event of S3 (`{"Records":[…]}`), also as the `Message` of a notification of SNS;
- a question: `{"action":"Active"}`, `{"action":"Info","node":"X"}`.

Sources: "Event message structure" in the Amazon S3 User Guide (keys are URL-encoded, a blank is `+`;
`s3:TestEvent`); CloudEvents 1.0, JSON format; Backend/routes/Task/runTask.js of edge-analytics-dashboard.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import unquote_plus

from services.intake.message import (
    IncomingMessage,
    MessageKind,
    MessageReading,
    NodeQuestion,
    PipelineRequest,
    UnreadableMessageError,
)
from shoal.compat import compat_name_problem
from shoal.parameter import name_problem, value_problem, value_text

BODY_BYTES_MAX: Final = 1 << 20
"""Longest message; SQS takes 1 MiB at most."""
RECORDS_MAX: Final = 100
"""Most objects that one event of S3 may tell of; S3 itself tells of one."""
FIELDS_MAX: Final = 100
"""Most fields of a message that go to the template."""

ANY_NODE: Final = frozenset({"", "none", "any"})
"""What the dashboard says for any node."""

_SHOWN: Final = 60
_NODE_KEYS: Final = ("nodeId", "nodeid", "nodeID", "node")
_USER_KEYS: Final = ("userName", "username", "user")
_TASK_KEYS: Final = ("taskName", "taskname", "task")
_ACTION_KEYS: Final = ("actionType", "actiontype", "action")
_CAMERA_KEYS: Final = ("isCamera", "iscamera", "camera")
_NO: Final = frozenset({"", "false", "no", "off", "0", "none"})
_YES: Final = frozenset({"true", "yes", "on", "1"})
_UNFIT: Final = re.compile(r"[^a-z0-9]+")
_NAME_MAX: Final = 40


def read_message(message: IncomingMessage) -> MessageReading:
    """Read what a message asks for.

    Raises:
        UnreadableMessageError: it is none of the accepted forms.
    """
    content = _json(message.body)
    match message.kind:
        case MessageKind.TASK:
            return MessageReading((PipelineRequest(message.id, _task(_data(content))),))
        case MessageKind.UPLOAD:
            return _uploads(content, message.id)
        case MessageKind.QUESTION:
            return MessageReading(question=_question(content))


def message_id(source: str, body: bytes) -> str:
    """Make an id for a message that its server gave none: by its CloudEvent's id, its `id`, or its bytes.

    Two messages of a source with the same `id` (and `source`, of CloudEvents) are one message.
    """
    named: object = ""
    try:
        content = _json(body)
    except UnreadableMessageError:
        pass
    else:
        event = isinstance(content.get("specversion"), str)
        given = content.get("id")
        if isinstance(given, str | int) and not isinstance(given, bool) and given != "":
            origin = content.get("source") if event else ""
            named = [event, origin if isinstance(origin, str) else "", given]
    said = json.dumps(named).encode() if named else body
    return hashlib.sha256(b"\0".join((source.encode(), said))).hexdigest()[:40]


def node_name(said: object) -> str:
    """Return the name of the node that a message means: in lower case, as nodes are called; empty for any."""
    name = _word("node", said).strip().lower()
    return "" if name in ANY_NODE else name


# ---- a task


def _task(fields: Mapping[str, Any]) -> Mapping[str, str]:
    found = {
        "user": _named("userName", _first(fields, _USER_KEYS)),
        "action": _named("actionType", _first(fields, _ACTION_KEYS)),
        "task": _named("taskName", _first(fields, _TASK_KEYS)),
    }
    camera = _truth("isCamera", _first(fields, _CAMERA_KEYS))
    found |= {
        "name": slug(found["user"], found["task"]),
        "node": node_name(_first(fields, _NODE_KEYS)),
        "camera": "true" if camera else "false",
        "device": "video" if camera else "",
        "prefix": f"{found['user']}/{found['action']}/{found['task']}/",
    }
    return MappingProxyType({**_others(fields, found), **found})


def slug(*words: str) -> str:
    """Make a name for a pipeline out of any words: `ada`, `Task 7!` become `ada-task-7`."""
    text = _UNFIT.sub("-", "-".join(words).lower()).strip("-")[:_NAME_MAX].strip("-")
    return text if text[:1].isalpha() else f"task-{text}".strip("-")


def _named(what: str, said: object) -> str:
    if said is None:
        raise UnreadableMessageError(f"the message has no {what}; add it")
    word = _word(what, said)
    if not word:
        raise UnreadableMessageError(f"{what} is empty; name one")
    if problem := compat_name_problem(word):
        raise UnreadableMessageError(f"{what} {_shown(word)} {problem}")
    return word


def _truth(what: str, said: object) -> bool:
    word = _word(what, said).strip().lower()
    if word not in _NO | _YES:
        raise UnreadableMessageError(
            f"{what} {_shown(word)} is neither true nor false; write one of them"
        )
    return word in _YES


def _others(fields: Mapping[str, Any], taken: Iterable[str]) -> Mapping[str, str]:
    """The single values that a template may name itself."""
    known = {*_NODE_KEYS, *_USER_KEYS, *_TASK_KEYS, *_ACTION_KEYS, *_CAMERA_KEYS, *taken}
    found: dict[str, str] = {}
    for name, value in fields.items():
        if name in known or name_problem(name) or not isinstance(value, str | int | float):
            continue
        if value_problem(value):
            continue
        found[name] = value_text(value)
        if len(found) > FIELDS_MAX:
            raise UnreadableMessageError(
                f"the message has more than {FIELDS_MAX} fields; put them into a file that the job fetches"
            )
    return found


# ---- an upload


def _uploads(content: Mapping[str, Any], identity: str) -> MessageReading:
    if content.get("Type") == "Notification" and "Message" in content:  # wrapped by SNS
        content = _json(_word("Message", content["Message"]).encode(errors="replace"))
    if content.get("Event") == "s3:TestEvent":
        return MessageReading(remark="it is S3's own test of the queue")
    records = content.get("Records")
    if not isinstance(records, list):
        raise UnreadableMessageError(
            "the message is no event of S3: it has no list `Records`; let S3, or a topic of SNS that S3 tells, "
            "send to this queue"
        )
    if len(cast("list[object]", records)) > RECORDS_MAX:
        raise UnreadableMessageError(
            f"the event tells of {len(cast('list[object]', records))} objects, {RECORDS_MAX} at most"
        )
    requests: list[PipelineRequest] = []
    remark = ""
    for number, record in enumerate(cast("list[object]", records)):
        if not isinstance(record, dict):
            raise UnreadableMessageError(f"record {number} of the event is no object of JSON")
        found = _upload(cast("dict[str, Any]", record), identity, number)
        if isinstance(found, str):
            remark = found
        else:
            requests.append(found)
    return MessageReading(
        tuple(requests), remark=remark or ("" if requests else "it tells of no object")
    )


def _upload(record: Mapping[str, Any], identity: str, number: int) -> PipelineRequest | str:
    """Read one record; a text says why nothing is to be done for it."""
    event = _word("eventName", record.get("eventName"))
    if not event.removeprefix("s3:").startswith("ObjectCreated:"):
        return f"its event {_shown(event)} is about no new object"
    try:
        bucket, thing = record["s3"]["bucket"]["name"], record["s3"]["object"]
        said, size, version = thing["key"], thing.get("size", ""), thing.get("versionId", "")
        sequencer, etag = thing.get("sequencer", ""), thing.get("eTag", "")
    except (AttributeError, KeyError, TypeError, IndexError):
        raise UnreadableMessageError(
            f"record {number} of the event names no object: s3.bucket.name and s3.object.key are needed"
        ) from None
    bucket = _word("s3.bucket.name", bucket)
    key = _key(_word("s3.object.key", said))
    if not bucket or not key:
        raise UnreadableMessageError(f"record {number} of the event has an empty bucket or key")
    if problem := value_problem(key):
        raise UnreadableMessageError(f"the key of record {number} {problem}")
    if key.endswith("/"):
        return f"the object {_shown(key)} is an empty folder"
    folder, _, file = key.rpartition("/")
    parts = key.split("/")
    user, action, task = (*parts[:3], "", "", "")[:3] if len(parts) > 3 else ("", "", "")
    once = _words("sequencer", sequencer) or (
        _words("eTag", etag) + _words("eventTime", record.get("eventTime"))
    )
    version = _words("versionId", version)
    words = (bucket, key, version, once) if once else (identity, str(number))
    return PipelineRequest(
        "s3-" + hashlib.sha256("\0".join(words).encode()).hexdigest()[:40],
        MappingProxyType(
            {
                "name": slug(file),
                "bucket": bucket,
                "key": key,
                "folder": folder,
                "file": file,
                "source": f"s3://{bucket}/{_quoted(key)}",
                "size": _words("size", size),
                "version": version,
                "user": user,
                "action": action,
                "task": task,
                "prefix": f"{folder}/" if folder else "",
            }
        ),
    )


def _key(said: str) -> str:
    try:
        return unquote_plus(said, errors="strict")
    except UnicodeDecodeError:
        raise UnreadableMessageError(
            f"the key {_shown(said)} is not UTF-8 once it is decoded"
        ) from None


def _quoted(key: str) -> str:
    """Write a key as sources of files have it, where `%`, `?` and `#` mean something."""
    return key.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def _words(what: str, said: object) -> str:
    """Read what an event may have: nothing where it is no single value."""
    return _word(what, said) if isinstance(said, str | int) and not isinstance(said, bool) else ""


# ---- a question


def _question(content: Mapping[str, Any]) -> NodeQuestion:
    action = _word("action", content.get("action"))
    match action.lower():
        case "active":
            return NodeQuestion()
        case "info":
            name = node_name(_first(content, _NODE_KEYS))
            if not name:
                raise UnreadableMessageError(
                    "the question Info names no node; add its name as `node`"
                )
            return NodeQuestion(name)
        case _:
            raise UnreadableMessageError(
                f"the action {_shown(action)} is none that is known; write Active, or Info with a node"
            )


# ---- JSON


def _json(body: bytes) -> Mapping[str, Any]:
    if len(body) > BODY_BYTES_MAX:
        raise UnreadableMessageError(
            f"the message has {len(body)} bytes, {BODY_BYTES_MAX} at most; put data into S3 and name it"
        )
    try:
        content = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise UnreadableMessageError(
            f"the message is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UnreadableMessageError(f"the message is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UnreadableMessageError("the message is no object of JSON; write {…}")
    return cast("dict[str, Any]", content)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _data(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a task out of the CloudEvent around it, if there is one."""
    if not isinstance(content.get("specversion"), str):
        return content
    data = content.get("data")
    if isinstance(data, str):
        return _json(data.encode(errors="replace"))
    if not isinstance(data, dict):
        raise UnreadableMessageError(
            "the CloudEvent has no object of JSON as its `data`; put the task there"
        )
    return cast("dict[str, Any]", data)


def _first(fields: Mapping[str, Any], keys: Iterable[str]) -> object:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def _word(what: str, said: object) -> str:
    if said is None:
        return ""
    if not isinstance(said, str | int | float):
        raise UnreadableMessageError(f"{what} is a list or an object; write a text")
    word = value_text(said)
    if problem := value_problem(word):
        raise UnreadableMessageError(f"{what} {problem}")
    return word


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
