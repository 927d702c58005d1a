"""An event as it came over MQTT."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event, or another message on a topic that was asked for.

    `id` is the same each time it comes, and empty for what has none: that is never taken for a
    repetition. `data` are the fields of its CloudEvent, of a message all of its fields, and of what is
    no JSON object none. `payload` is all that came.
    """

    topic: str
    payload: bytes = field(repr=False)
    id: str = ""
    type: str = ""
    subject: str = ""
    time: str = ""
    sequence: int = 0
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_event(topic: str, payload: bytes) -> ReceivedEvent:
    """Read what came on a topic; nothing that comes raises."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return ReceivedEvent(topic, payload)
    if not isinstance(found, dict):
        return ReceivedEvent(topic, payload)
    fields = cast("dict[str, Any]", found)
    if "specversion" not in fields:
        return ReceivedEvent(
            topic, payload, _text(fields, "event_id"), time=_text(fields, "time"), data=fields
        )
    data = fields.get("data")
    sequence = _text(fields, "sequence")
    return ReceivedEvent(
        topic,
        payload,
        _text(fields, "id"),
        _text(fields, "type"),
        _text(fields, "subject"),
        _text(fields, "time"),
        int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 20 else 0,
        cast("dict[str, Any]", data) if isinstance(data, dict) else {},
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
