"""One fact that has to leave, as a CloudEvent on MQTT.

Sources: CloudEvents 1.0.2 (attributes, JSON format), its MQTT protocol binding (content type), its
extensions for sequences and for distributed tracing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TOPIC_ROOT = "shoal"
ENDED_SECONDS: Final = 7 * 24 * 3600
"""How long a broker retains the last event of what has ended."""
_ENDS: Final = (
    ".succeeded",
    ".failed",
    ".cancelled",
    ".left",
    ".forgotten",
    ".discarded",
    ".called",
    ".refused",
)
_KEPT_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A row of the outbox; `data_json` is the event's data as JSON, `id` never changes.

    `namespace` is empty for what belongs to none, such as a node. With a `topic` it is no event but a
    message: its data leaves as it is, there alone, and the broker retains it if it is `kept`.
    """

    sequence: int
    id: str
    type: str
    namespace: str
    subject: str
    time: datetime
    data_json: str = "{}"
    topic: str = ""
    kept: bool = False

    @property
    def root(self) -> str:
        """What the topics of its namespace begin with."""
        return f"{TOPIC_ROOT}/{self.namespace}" if self.namespace else TOPIC_ROOT

    @property
    def events_topic(self) -> str:
        """Topic that carries every event of the subject, not retained."""
        return f"{self.root}/{self.subject}/events"

    @property
    def state_topic(self) -> str:
        """Topic that retains the subject's last event."""
        return f"{self.root}/{self.subject}/state"

    @property
    def retained_seconds(self) -> int:
        """How long its state topic retains this event; 0 for until the next one.

        Nothing follows on an end, so a broker would keep it for ever, one for each job that ever ran. A call is
        over once it is made.
        """
        return ENDED_SECONDS if self.type.endswith(_ENDS) else 0


def envelope(entry: OutboxEntry) -> bytes:
    """Return the CloudEvent as JSON in UTF-8; the same entry has the same bytes every time.

    Data that is not JSON travels as text: an event that cannot leave would hold up those behind it.
    """
    return _envelope(entry, _data(entry))


def fitted(entry: OutboxEntry, bytes_max: int) -> bytes | None:
    """Return the CloudEvent in at most `bytes_max`; None where not even what it is about fits.

    One that is larger is cut: of each list of its data as many as fit, its whole length beside it
    (`artifacts_total`), then no list and no mapping, then texts alone, and `"cut": true` in each
    case. What was cut off stands in the manifests, whose keys the data names.
    """
    whole = envelope(entry)
    if len(whole) <= bytes_max:
        return whole
    data = _data(entry)
    if not isinstance(data, dict):
        return _fits(entry, {"cut": True}, bytes_max)
    fields = cast("dict[str, object]", data)
    low, high, best = 0, _longest(fields), None
    while low <= high:
        count = (low + high) // 2
        cut = _fits(entry, {**_shortened(fields, count), "cut": True}, bytes_max)
        if cut is None:
            high = count - 1
        else:
            best, low = cut, count + 1
    if best is not None:
        return best
    flat = {name: _brief(value) for name, value in fields.items() if not isinstance(value, list)}
    texts = {name: value for name, value in flat.items() if not isinstance(value, dict)}
    return _fits(entry, {**texts, "cut": True}, bytes_max)


def _data(entry: OutboxEntry) -> object:
    try:
        return json.loads(entry.data_json)
    except (ValueError, RecursionError):
        return entry.data_json


def _longest(data: Mapping[str, object]) -> int:
    """Length of the longest list, one level of mappings deep."""
    found = [0]
    for value in data.values():
        if isinstance(value, list):
            found.append(len(cast("list[object]", value)))
        elif isinstance(value, dict):
            found.append(_longest({"": 0, **cast("dict[str, object]", value)}))
    return max(found)


def _shortened(data: Mapping[str, object], count: int) -> dict[str, object]:
    """Return the data with at most `count` of each list, and the whole lengths beside them."""
    short: dict[str, object] = {}
    for name, value in data.items():
        if isinstance(value, list) and len(whole := cast("list[object]", value)) > count:
            short[name] = whole[:count]
            short[f"{name}_total"] = len(whole)
        elif isinstance(value, dict):
            short[name] = _shortened(cast("dict[str, object]", value), count)
        else:
            short[name] = value
    return short


def _brief(value: object) -> object:
    return f"{value[:_KEPT_TEXT]}…" if isinstance(value, str) and len(value) > _KEPT_TEXT else value


def _fits(entry: OutboxEntry, data: object, bytes_max: int) -> bytes | None:
    found = _envelope(entry, data)
    return found if len(found) <= bytes_max else None


def _envelope(entry: OutboxEntry, data: object) -> bytes:
    event = {
        "specversion": "1.0",
        "id": entry.id,
        "source": f"/{entry.root}",
        "type": entry.type,
        "subject": entry.subject,
        "time": entry.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "sequence": str(entry.sequence),
        "data": data,
    }
    if isinstance(data, dict) and "traceparent" in data:
        event["traceparent"] = cast("dict[str, object]", data)["traceparent"]
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
